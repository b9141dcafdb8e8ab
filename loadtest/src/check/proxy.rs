//! Stands in front of a server and does to its connections what networks do.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::Result;

const CHUNK: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each chunk waits.
    Delay(Duration),
    /// Nothing arrives any more, and nobody is told: not even afterwards, since
    /// what was lost can't be made up for.
    HalfOpen,
}

#[derive(Debug, Clone, Copy)]
struct State {
    server: SocketAddr,
    mode: Mode,
    /// All connections of before are cut when it changes.
    cuts: u64,
}

pub struct Proxy {
    pub address: SocketAddr,
    state: watch::Sender<State>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mode = Mode::Pass;
        let (state, states) = watch::channel(State {
            server,
            mode,
            cuts: 0,
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, states));
        Ok(Self {
            address,
            state,
            _accepting: accepting,
        })
    }

    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Leads to another server from now on.
    pub fn lead_to(&self, server: SocketAddr) {
        self.state.send_modify(|state| {
            state.server = server;
            state.cuts += 1;
        });
    }

    /// Resets all connections, at both ends.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

async fn accept(listener: TcpListener, states: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        // An error is of that connection, or of files that will be free again.
        if let Ok((client, _)) = listener.accept().await {
            let states = states.clone();
            let server = states.borrow().server;
            connections.spawn(async move {
                // An error is an end like any other.
                _ = serve(client, server, states).await;
            });
        } else {
            sleep(Duration::from_millis(10)).await;
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    mut states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (there, back) = (states.clone(), states.clone());
    let cuts = states.borrow_and_update().cuts;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let both = async {
        tokio::try_join!(
            pump(from_client, to_server, there),
            pump(from_server, to_client, back)
        )
    };
    tokio::select! {
        ended = both => {
            ended?;
        }
        _ = states.wait_for(|state| state.cuts != cuts) => {
            // Dropped, they are reset, as by a router that has forgotten them.
            client.set_zero_linger()?;
            server.set_zero_linger()?;
        }
    }
    Ok(())
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    states: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut lost = false;
    loop {
        let count = from.read(&mut buffer).await?;
        let mode = states.borrow().mode;
        lost |= mode == Mode::HalfOpen;
        match mode {
            _ if lost && count == 0 => return Ok(()),
            _ if lost => continue,
            Mode::Delay(time) => sleep(time).await,
            _ => {}
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}
