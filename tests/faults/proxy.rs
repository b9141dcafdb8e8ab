//! Stands between a server and PostgreSQL and loses what is said at the one
//! moment that matters. It knows how the client's messages begin and end, and
//! which of them is a lane's COMMIT or the deletion of a chat.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

/// Where a lane's connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server has the rows and never hears of COMMIT.
    BeforeCommit,
    /// The server has been sent COMMIT; it may be gone before it has read it.
    AfterCommit,
    /// The server has committed, and its answer is lost.
    BeforeAnswer,
    /// As [`Cut::BeforeAnswer`], and neither side is told that the other is gone.
    HalfOpen,
    /// Not a lane's: a chat has been deleted, and the answer is lost.
    Deleted,
}

pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    armed: Mutex<Option<Cut>>,
    fired: Notify,
}

impl Proxy {
    /// In front of the server on `port`.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                connections.spawn(async move {
                    // An end on one side is an end on the other.
                    _ = serve(client, port, &state).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    pub fn dsn(&self, database: &str) -> String {
        let address = self.address;
        format!("postgres://postgres@{address}/{database}?sslmode=disable")
    }

    /// Cuts at the next chance; returns once that is done.
    pub async fn cut(&self, cut: Cut) {
        *self.state.armed.lock().unwrap() = Some(cut);
        timeout(Duration::from_secs(20), self.state.fired.notified())
            .await
            .expect("nothing to cut");
    }
}

impl State {
    fn take(&self, deletion: bool) -> Option<Cut> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        armed.take_if(|cut| (*cut == Cut::Deleted) == deletion)
    }
}

/// What goes back to the client, or is held back.
#[derive(Default)]
struct Back {
    held: Mutex<Option<Vec<u8>>>,
    came: Notify,
}

impl Back {
    /// From now on nothing reaches the client.
    fn hold(&self) {
        self.held.lock().unwrap().get_or_insert_default();
    }

    /// Waits until the server has said so.
    async fn hears(&self, tag: &[u8]) {
        loop {
            let held = self.held.lock().unwrap().clone().unwrap_or_default();
            if contains(&held, tag) {
                return;
            }
            self.came.notified().await;
        }
    }

    async fn run(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let held = match &mut *self.held.lock().unwrap() {
                Some(held) => {
                    held.extend(&buffer[..count]);
                    true
                }
                None => false,
            };
            if held {
                self.came.notify_one();
            } else {
                to.write_all(&buffer[..count]).await?;
            }
        }
    }
}

async fn serve(client: TcpStream, port: u16, state: &State) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let back = Back::default();
    tokio::select! {
        end = forward(from_client, to_server, state, &back) => end,
        end = back.run(from_server, to_client) => end,
    }
}

async fn forward(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    back: &Back,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let startup = body(&mut from, Vec::new()).await?;
    to.write_all(&startup).await?;
    let lane = contains(&startup, b"chatd lane");
    let mut deletion: Option<Vec<u8>> = None;
    loop {
        let kind = from.read_u8().await?;
        let message = body(&mut from, vec![kind]).await?;
        // A statement's name comes first in Parse, second in Bind.
        if kind == b'P' && contains(&message, b"DELETE FROM chats") {
            deletion = message[5..].split(|byte| *byte == 0).next().map(Vec::from);
        }
        let bound = message[5..].split(|byte| *byte == 0).nth(1);
        let deletes = kind == b'B' && deletion.is_some() && bound == deletion.as_deref();
        // Mostly with what opens the next batch's transaction.
        let says_commit =
            &message[5..] == b"COMMIT\0" || message[5..].starts_with(b"COMMIT; BEGIN;");
        let commits = lane && kind == b'Q' && says_commit;
        let cut = (deletes || commits).then(|| state.take(deletes)).flatten();
        let Some(cut) = cut else {
            to.write_all(&message).await?;
            continue;
        };
        if cut != Cut::BeforeCommit {
            // The answer can't overtake this: the question is not yet sent.
            back.hold();
            to.write_all(&message).await?;
        }
        match cut {
            Cut::BeforeCommit | Cut::AfterCommit => {}
            Cut::BeforeAnswer | Cut::HalfOpen => back.hears(b"COMMIT\0").await,
            Cut::Deleted => {
                // Execute, Sync and COMMIT.
                for _ in 0..3 {
                    let kind = from.read_u8().await?;
                    let message = body(&mut from, vec![kind]).await?;
                    to.write_all(&message).await?;
                }
                back.hears(b"INSERT 0 1\0").await;
                back.hears(b"COMMIT\0").await;
            }
        }
        state.fired.notify_one();
        if cut == Cut::HalfOpen {
            // Until the client gives up.
            while from.read(&mut [0; 1024]).await? > 0 {}
        }
        return Ok(());
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Adds a length and as many bytes as it says, less its own four.
async fn body(from: &mut BufReader<OwnedReadHalf>, mut message: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    message.extend(length.to_be_bytes());
    let begin = message.len();
    message.resize(begin + length as usize - 4, 0);
    from.read_exact(&mut message[begin..]).await?;
    Ok(message)
}
