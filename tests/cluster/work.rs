//! Users at work on all nodes of a cluster, and what they can say afterwards.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::nodes::Nodes;
use crate::server::{Client, PATIENCE};

/// Between two posts of a sender.
const PACE: Duration = Duration::from_millis(2);

/// One sender and one reader a chat and node.
pub struct Work {
    tasks: JoinSet<()>,
    chats: Vec<i64>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// What was acknowledged: chat, seq, text, and when.
    acks: Mutex<Vec<(i64, i64, String, Instant)>>,
    /// The newest seq that each reader has seen, and how often its stream ended.
    readers: Mutex<HashMap<(i64, usize), (i64, usize)>>,
    wrong: Mutex<Vec<String>>,
    /// Where each node is by now.
    addresses: Mutex<Vec<SocketAddr>>,
}

/// What came of it.
pub struct Done {
    pub chats: Vec<i64>,
    pub acks: Vec<(i64, i64, String, Instant)>,
    /// How often the streams of each node ended.
    pub ends: Vec<usize>,
}

impl Work {
    /// Makes so many chats, and works on them through every node.
    pub async fn start(nodes: &Nodes, chats: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let addresses = nodes.all.iter().map(|server| server.address());
        *shared.addresses.lock().unwrap() = addresses.collect();
        let mut work = Self {
            tasks: JoinSet::new(),
            chats: Vec::new(),
            shared,
        };
        for n in 0..chats {
            let at = n % nodes.all.len();
            let owner = nodes.all[at].client("owner").await;
            let users: Vec<String> = (0..nodes.all.len())
                .flat_map(|node| [format!("sender{node}"), format!("reader{node}")])
                .collect();
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            let chat = owner.create(&users).await;
            work.chats.push(chat);
            for node in 0..nodes.all.len() {
                work.tasks.spawn(send(work.shared.clone(), chat, node));
                work.tasks.spawn(read(work.shared.clone(), chat, node));
            }
        }
        work
    }

    /// A node was started again, and is elsewhere now.
    pub fn moved(&self, node: usize, address: SocketAddr) {
        self.shared.addresses.lock().unwrap()[node] = address;
    }

    /// How many messages were acknowledged so far.
    pub fn acked(&self) -> usize {
        self.shared.acks.lock().unwrap().len()
    }

    /// The newest seq that each reader has seen, by chat and node.
    pub fn seen(&self) -> HashMap<(i64, usize), i64> {
        let readers = self.shared.readers.lock().unwrap();
        readers.iter().map(|(at, (seq, _))| (*at, *seq)).collect()
    }

    /// How often streams of the node's readers have ended so far.
    pub fn ends(&self, node: usize) -> usize {
        let readers = self.shared.readers.lock().unwrap();
        let theirs = readers.iter().filter(|((_, at), _)| *at == node);
        theirs.map(|(_, (_, ends))| ends).sum()
    }

    /// Ends the work, and holds what was seen against what is stored: on every node.
    pub async fn finish(mut self, nodes: &Nodes) -> Done {
        self.shared.stop.store(true, Ordering::SeqCst);
        let start = Instant::now();
        while self.tasks.join_next().await.is_some() {
            assert!(start.elapsed() < PATIENCE, "somebody works on");
        }
        let wrong = self.shared.wrong.lock().unwrap().clone();
        assert!(wrong.is_empty(), "{wrong:?}");
        let acks = self.shared.acks.lock().unwrap().clone();
        for chat in &self.chats {
            let mut all = Vec::new();
            for server in &nodes.all {
                let client = server.client("owner").await;
                all.push(client.history(*chat).await);
            }
            for other in &all[1..] {
                assert_eq!(all[0].len(), other.len(), "P2: one order on all nodes");
            }
            let mut texts = HashMap::new();
            for (message, seq) in all[0].iter().zip(1..) {
                assert_eq!(message.seq, seq, "P2: a hole");
                let before = texts.insert(message.text.clone(), seq);
                assert_eq!(before, None, "P5: stored twice: {}", message.text);
            }
            for (_, seq, text, _) in acks.iter().filter(|(of, ..)| of == chat) {
                assert_eq!(texts.get(text), Some(seq), "P1: not what was acknowledged");
            }
        }
        let count = nodes.all.len();
        let ends = (0..count).map(|node| self.ends(node)).collect();
        Done {
            chats: self.chats.clone(),
            acks,
            ends,
        }
    }
}

impl Done {
    /// The longest time without an acknowledgement in any of the chats, between the two
    /// times.
    pub fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let pauses = self.chats.iter().map(|chat| {
            let theirs = self.acks.iter().filter(|(of, ..)| of == chat);
            let mut times: Vec<Instant> = theirs.map(|(.., at)| *at).collect();
            times.extend([from, to]);
            times.retain(|at| (from..=to).contains(at));
            times.sort();
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
            gaps.max().unwrap_or_default()
        });
        pauses.max().unwrap_or_default()
    }
}

async fn connect(address: SocketAddr) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let endpoint = endpoint
        .connect_timeout(Duration::from_secs(1))
        .timeout(Duration::from_secs(20));
    endpoint.connect().await.ok()
}

/// A client of one node, or of another while that one is away.
async fn client(shared: &Shared, node: usize, user: &str) -> Client {
    for turn in node.. {
        let addresses = shared.addresses.lock().unwrap().clone();
        let address = addresses[turn % addresses.len()];
        if let Some(channel) = connect(address).await {
            return Client::new(channel, user);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("it goes on for ever")
}

async fn send(shared: Arc<Shared>, chat: i64, node: usize) {
    let user = format!("sender{node}");
    let mut client_now = client(&shared, node, &user).await;
    for n in 0.. {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let text = format!("{user}/{n}");
        loop {
            let sending = client_now.send(chat, &text, &text);
            let sent = tokio::time::timeout(Duration::from_secs(4), sending).await;
            // One that does not answer stands still: the next is asked.
            let at = node + usize::from(sent.is_err());
            match sent {
                Ok(Ok(sent)) => {
                    let ack = (chat, sent.seq, text, Instant::now());
                    shared.acks.lock().unwrap().push(ack);
                    break;
                }
                Ok(Err(status)) if is_passing(status.code()) => {}
                Ok(Err(status)) => {
                    shared
                        .wrong
                        .lock()
                        .unwrap()
                        .push(format!("{text}: {status:?}"));
                    return;
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            client_now = client(&shared, at, &user).await;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// The server is away, or the outcome is not known: to be tried again.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
            | Code::ResourceExhausted
    )
}

async fn read(shared: Arc<Shared>, chat: i64, node: usize) {
    let user = format!("reader{node}");
    let (mut seq, mut ends) = (0, 0);
    loop {
        let mut grpc = client(&shared, node, &user).await.grpc;
        let first = crate::server::join(chat, Some(seq));
        let Ok(opened) = grpc.connect_chat(futures_util::stream::iter([first])).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut frames = opened.into_inner();
        loop {
            let frame = tokio::time::timeout(Duration::from_millis(200), frames.message()).await;
            match frame {
                Ok(Ok(Some(message))) => {
                    if message.seq != seq + 1 {
                        let wrong = format!("P4: {} behind {seq} in {chat}", message.seq);
                        shared.wrong.lock().unwrap().push(wrong);
                        return;
                    }
                    seq = message.seq;
                    shared
                        .readers
                        .lock()
                        .unwrap()
                        .insert((chat, node), (seq, ends));
                }
                Ok(Err(status)) if !is_passing(status.code()) => {
                    let wrong = format!("{user} of {chat}: {status:?}");
                    shared.wrong.lock().unwrap().push(wrong);
                    return;
                }
                Ok(_) => break,
                // Nothing more comes once all have stopped.
                Err(_) if shared.stop.load(Ordering::SeqCst) => {
                    let acks = shared.acks.lock().unwrap();
                    let newest = acks.iter().filter(|(of, ..)| *of == chat);
                    let newest = newest.map(|(_, seq, ..)| *seq).max().unwrap_or(0);
                    if seq >= newest {
                        return;
                    }
                }
                Err(_) => {}
            }
        }
        ends += 1;
        shared
            .readers
            .lock()
            .unwrap()
            .insert((chat, node), (seq, ends));
    }
}
