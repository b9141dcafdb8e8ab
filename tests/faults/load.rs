//! Clients at work on a few chats: callers, posters on streams, readers.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use chat_service::proto::{self, ConnectChatRequest};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::{Code, Status, Streaming};

use super::{
    check::check,
    record::{Book, Line, Record, Seen},
    rest::{REST, histories, settle},
    sender,
    server::Peer,
};

/// By now everything has to be answered, whatever happens to the database.
pub const HANG: Duration = Duration::from_secs(10);

/// Who does what. The clients of a chat share themselves out among the servers.
#[derive(Debug, Clone)]
pub struct Plan {
    pub servers: Vec<SocketAddr>,
    pub chats: usize,
    /// Of each kind, in each chat.
    pub callers: usize,
    pub posters: usize,
    pub readers: usize,
    /// The server itself goes away, so connections may break.
    pub server_dies: bool,
    /// Callers hang up after a few milliseconds now and then, and try again at
    /// the next server.
    pub impatient: bool,
    /// The readers of a chat share a connection.
    pub readers_share: bool,
    /// Longest pause of a client between two messages, in milliseconds.
    pub pause: u64,
    pub seed: u64,
}

impl Plan {
    pub fn new(servers: &[SocketAddr], seed: u64) -> Self {
        Self {
            servers: servers.to_vec(),
            chats: 3,
            callers: 4,
            posters: 2,
            readers: 2,
            server_dies: false,
            impatient: false,
            readers_share: false,
            pause: 4,
            seed,
        }
    }

    /// Whether the fault excuses the answer.
    pub fn excuses(&self, code: Code) -> bool {
        match code {
            Code::Unavailable | Code::ResourceExhausted => true,
            // What tonic makes of a connection that breaks.
            Code::Unknown | Code::Cancelled | Code::Internal => self.server_dies,
            _ => false,
        }
    }

    pub fn peer(&self, nth: usize, user: &str) -> Peer {
        Peer::new(self.servers[nth % self.servers.len()], user)
    }
}

/// What the readers wait for: the last seq that each chat comes to.
type Targets = Option<Arc<HashMap<i64, i64>>>;

pub struct Load {
    pub book: Book,
    plan: Plan,
    chats: Vec<i64>,
    senders: JoinSet<()>,
    readers: JoinSet<()>,
    stop: watch::Sender<bool>,
    targets: watch::Sender<Targets>,
}

impl Load {
    pub async fn start(plan: Plan) -> Self {
        let users = |kind: char, count: usize| (0..count).map(move |n| format!("{kind}{n}"));
        let others: Vec<String> = users('c', plan.callers)
            .chain(users('p', plan.posters))
            .chain(users('r', plan.readers))
            .collect();
        let (stop, stopped) = watch::channel(false);
        let (targets, target) = watch::channel(None);
        let mut load = Self {
            book: Book::default(),
            chats: Vec::new(),
            senders: JoinSet::new(),
            readers: JoinSet::new(),
            stop,
            targets,
            plan,
        };
        let mut random = fastrand::Rng::with_seed(load.plan.seed);
        for _ in 0..load.plan.chats {
            let shared = load.plan.peer(0, "");
            let chat = load.plan.peer(0, "owner").create(&others).await;
            load.chats.push(chat);
            for (nth, user) in others.iter().enumerate() {
                let task = Client {
                    plan: load.plan.clone(),
                    book: load.book.clone(),
                    chat,
                    user: user.clone(),
                    nth,
                    random: fastrand::Rng::with_seed(random.u64(..)),
                };
                let (stopped, target) = (stopped.clone(), target.clone());
                match user.as_bytes()[0] {
                    b'c' => drop(load.senders.spawn(sender::call(task, stopped))),
                    b'p' => drop(load.senders.spawn(sender::post(task, stopped))),
                    _ => {
                        let mut peer = load.plan.peer(nth, user);
                        if load.plan.readers_share {
                            peer.client = shared.client.clone();
                        }
                        load.readers.spawn(read(task, peer, target));
                    }
                }
            }
        }
        load
    }

    /// Ends the load, has the rest of the messages stored, waits for the
    /// readers, and checks it all.
    pub async fn finish(mut self) -> Done {
        self.stop.send_replace(true);
        while let Some(ended) = self.senders.join_next().await {
            ended.unwrap();
        }
        let before = histories(&self.plan, &self.chats).await;
        settle(&self.plan, &self.book, &before).await;
        // A server learns of another's messages when it writes behind them.
        for nth in 0..2 * self.plan.servers.len() {
            for &chat in &self.chats {
                let mut owner = self.plan.peer(nth, "owner");
                let text = format!("the end {nth} of {chat}");
                let attempt = self.book.attempt(chat, "owner", &text, &text);
                let reply = owner.send(chat, &text, &text).await.unwrap();
                self.book.ack(attempt, reply.seq, reply.duplicate);
            }
        }
        let histories = histories(&self.plan, &self.chats).await;
        let behind = self.plan.servers.len() as i64 - 1;
        let last = histories
            .iter()
            .map(|(&chat, h)| (chat, h.len() as i64 - behind));
        self.targets.send_replace(Some(Arc::new(last.collect())));
        while let Some(ended) = self.readers.join_next().await {
            ended.unwrap();
        }
        let record = self.book.open().clone();
        let verdicts = check(&record, &histories, behind);
        let few = &verdicts[..verdicts.len().min(20)];
        assert!(
            verdicts.is_empty(),
            "{} verdicts, first {few:#?}",
            verdicts.len()
        );
        Done {
            plan: self.plan,
            record,
            chats: self.chats,
            behind,
        }
    }
}

/// A load that has ended well.
pub struct Done {
    plan: Plan,
    pub record: Record,
    chats: Vec<i64>,
    behind: i64,
}

impl Done {
    pub fn messages(&self) -> usize {
        self.record.attempts.len()
    }

    /// Sends that had to be tried again, or that readers and posters lost their
    /// streams over.
    pub fn failures(&self) -> usize {
        let failures = self.record.attempts.iter().map(|a| a.failures.len());
        failures.sum()
    }

    pub fn stream_ends(&self) -> usize {
        self.record.seen.iter().map(|seen| seen.ends.len()).sum()
    }

    /// Whether all is still as it was: nothing later has taken anything away.
    pub async fn check_again(&self) {
        let histories = histories(&self.plan, &self.chats).await;
        assert_eq!(check(&self.record, &histories, self.behind), []);
    }
}

/// One client of a chat.
pub struct Client {
    pub plan: Plan,
    pub book: Book,
    pub chat: i64,
    pub user: String,
    pub nth: usize,
    pub random: fastrand::Rng,
}

/// The response side of a stream, and the place for posts.
pub type Stream = (Streaming<proto::Message>, mpsc::Sender<ConnectChatRequest>);

impl Client {
    /// Opens a stream behind what it has seen.
    pub async fn join(&self, peer: &mut Peer, seen: usize) -> Result<Stream, Status> {
        let after = self.book.open().seen[seen].last();
        let (posts, mut queue) = mpsc::channel(4);
        let join = ConnectChatRequest {
            chat_id: self.chat.to_string(),
            after_seq: after,
            ..Default::default()
        };
        let frames = async_stream(join, move |cx| queue.poll_recv(cx));
        let request = peer.request(frames);
        let answer = timeout(HANG, peer.client.connect_chat(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("join hangs")))?;
        self.book.open().seen[seen].opened = Some(std::time::Instant::now());
        Ok((answer.into_inner(), posts))
    }

    /// Notes how a stream ended, or that it could not be had.
    pub fn ended(&self, seen: usize, status: &Status) {
        let code = status.code();
        if !self.plan.excuses(code) {
            self.book
                .fault(format!("{}: stream: {status:?}", self.user));
        }
        self.book.open().seen[seen].ends.push(code);
    }

    pub fn saw(&self, seen: usize, message: proto::Message) {
        let line = Line {
            seq: message.seq,
            from: message.from,
            text: message.text,
        };
        self.book.open().seen[seen].lines.push(line);
    }
}

fn async_stream(
    first: ConnectChatRequest,
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<ConnectChatRequest>>
    + Send
    + 'static,
) -> impl futures_util::Stream<Item = ConnectChatRequest> + Send + 'static {
    let mut first = Some(first);
    futures_util::stream::poll_fn(move |cx| match first.take() {
        Some(first) => std::task::Poll::Ready(Some(first)),
        None => poll(cx),
    })
}

/// Reads until it has seen the target; the odd ones begin with what comes from
/// now on.
async fn read(mut client: Client, mut peer: Peer, mut target: watch::Receiver<Targets>) {
    let after = client.nth.is_multiple_of(2).then_some(0);
    let seen = client.book.reader(Seen {
        chat: client.chat,
        user: client.user.clone(),
        after,
        stays: true,
        ..Default::default()
    });
    let mut give_up = None;
    loop {
        let status = match client.join(&mut peer, seen).await {
            // The sender of posts stays open, as a client's does that may post.
            Ok((mut messages, _posts)) => loop {
                let aim = target.borrow_and_update().clone();
                if let Some(aim) = aim {
                    let last = client.book.open().seen[seen].last();
                    // None: it has joined behind the last message.
                    if last.is_none_or(|last| last >= aim[&client.chat]) {
                        return;
                    }
                    give_up.get_or_insert_with(|| Instant::now() + REST);
                }
                let until = give_up.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
                tokio::select! {
                    message = timeout_at(until, messages.message()) => match message {
                        Ok(Ok(Some(message))) => client.saw(seen, message),
                        Ok(Ok(None)) => break Status::unknown("no status"),
                        Ok(Err(status)) => break status,
                        // The checker says what is missing.
                        Err(_) => return,
                    },
                    _ = target.changed() => {}
                }
            },
            Err(status) => status,
        };
        if give_up.is_some_and(|at| Instant::now() >= at) {
            return;
        }
        client.ended(seen, &status);
        // Not all at once.
        sleep(Duration::from_millis(client.random.u64(10..60))).await;
    }
}
