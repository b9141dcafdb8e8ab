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
    /// The server is away: connections are reset, and so is every new one.
    Away,
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

    /// Resets all connections, at both ends, until another mode is set.
    pub fn away(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Away;
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
            let State { server, mode, .. } = *states.borrow();
            if mode == Mode::Away {
                // An error: the client is gone already.
                _ = client.set_zero_linger();
                continue;
            }
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
    let is_cut = move |state: &State| state.cuts != cuts || state.mode == Mode::Away;
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
        _ = states.wait_for(is_cut) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an echo comes back by way of the proxy.
    async fn answers(connection: &mut TcpStream) -> bool {
        let mut byte = [0];
        let asked = connection.write_all(b"x").await.is_ok();
        let reading = connection.read_exact(&mut byte);
        let answer = tokio::time::timeout(Duration::from_millis(200), reading);
        asked && matches!(answer.await, Ok(Ok(_)))
    }

    #[tokio::test]
    async fn who_is_away_keeps_no_connection_and_takes_none_until_it_is_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut echoes = JoinSet::new();
        echoes.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut server, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut from, mut to) = server.split();
                    _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let mut before = TcpStream::connect(proxy.address).await.unwrap();
        assert!(answers(&mut before).await);
        proxy.away();
        assert!(!answers(&mut before).await);
        // It may be accepted before it is reset.
        if let Ok(mut meanwhile) = TcpStream::connect(proxy.address).await {
            assert!(!answers(&mut meanwhile).await);
        }
        proxy.set(Mode::Pass);
        assert!(!answers(&mut before).await);
        let mut after = TcpStream::connect(proxy.address).await.unwrap();
        assert!(answers(&mut after).await);
        proxy.set(Mode::HalfOpen);
        assert!(!answers(&mut after).await);
        proxy.set(Mode::Pass);
        assert!(
            !answers(&mut after).await,
            "what was lost is not made up for"
        );
    }
}
