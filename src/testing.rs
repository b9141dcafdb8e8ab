//! What the unit tests of several rooms need: seeds that can be played again, a
//! clock to be set, a store that does as it is told.

mod fuzz;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use fastrand::Rng;

use crate::{
    domain::{
        ChatId, ClientChatId, ClientMessageId, Clock, Current, MessageId, Row, Seq, Target,
        Timestamp, UserName,
    },
    store::{
        Activity, ChatRecord, NewChat, Page, Store, StoreError, StoreResult, Walk,
        memory::MemoryStore,
    },
};

pub use fuzz::fuzz;

/// Runs a test with `runs` random seeds, or with the one in `CHAT_TEST_SEED`. A
/// failure prints its seed.
pub fn for_seeds(runs: usize, mut test: impl FnMut(&mut Rng)) {
    let replay = std::env::var("CHAT_TEST_SEED").ok();
    let replay = replay.map(|seed| seed.parse().expect("CHAT_TEST_SEED is a number"));
    let first = replay.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    let runs = if replay.is_some() { 1 } else { runs };
    println!("{runs} seeds from {first}");
    for seed in first..first + runs as u64 {
        let _guard = SeedOnPanic(seed);
        // Also for what draws from the thread's own generator.
        fastrand::seed(seed);
        test(&mut Rng::with_seed(seed));
    }
}

struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: CHAT_TEST_SEED={}", self.0);
        }
    }
}

pub fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

pub fn key(key: &str) -> Option<ClientMessageId> {
    ClientMessageId::from_wire(key).unwrap()
}

pub fn chat_id(id: i64) -> ChatId {
    ChatId::new(id).unwrap()
}

/// A message without a `client_message_id`.
pub fn row(chat: ChatId, seq: Seq, from: &str, text: &str) -> Row {
    Row {
        chat,
        seq,
        id: MessageId(fastrand::i64(..)),
        from: user(from),
        text: text.into(),
        client_message_id: None,
        created_at: Timestamp(seq),
        number: seq,
        change: None,
    }
}

/// tokio's time, which a test may hold, and a wall clock that it may set.
#[derive(Debug, Default)]
pub struct TestClock {
    pub wall: AtomicI64,
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::Relaxed))
    }
}

/// What a [`ScriptStore`] is asked to do.
pub enum Op<'a> {
    Load,
    Append(&'a [Row]),
    Page(ChatId),
    Targets,
    Delete,
    Members,
}

/// What it is to do then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    Unavailable,
    /// Not done, and its answer lost.
    Lost,
    /// Done, and its answer lost.
    DoneAndLost,
    Refused,
    Conflict,
    /// A lock is in the way of this chat, or of one that is not named.
    Locked(Option<ChatId>),
    /// Another server of the database answers, for the first time.
    Replaced,
    /// The node was declared gone.
    Stale,
    /// A page of at most so many rows.
    Short(usize),
}

pub type Verdict = Pin<Box<dyn Future<Output = Fault> + Send>>;
type Script = Box<dyn Fn(Op<'_>) -> Verdict + Send + Sync>;

/// The memory store, with a script between it and its callers.
pub struct ScriptStore {
    pub memory: Arc<MemoryStore>,
    script: Script,
}

impl ScriptStore {
    pub fn new(
        memory: Arc<MemoryStore>,
        script: impl Fn(Op<'_>) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let script = Box::new(script);
        Self { memory, script }
    }
}

impl fmt::Debug for ScriptStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptStore").finish_non_exhaustive()
    }
}

async fn act<T>(fault: Fault, work: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
    match fault {
        Fault::None | Fault::Short(_) => work.await,
        Fault::Unavailable => Err(StoreError::Unavailable("told so".into())),
        Fault::Lost => Err(StoreError::OutcomeUnknown("told so".into())),
        Fault::DoneAndLost => {
            work.await?;
            Err(StoreError::OutcomeUnknown("told so".into()))
        }
        Fault::Refused => Err(StoreError::Refused("told so".into())),
        Fault::Conflict => Err(StoreError::Conflict),
        Fault::Locked(chat) => Err(StoreError::Locked(chat.into_iter().collect())),
        Fault::Replaced => Err(StoreError::Replaced),
        Fault::Stale => Err(StoreError::Stale),
    }
}

#[async_trait]
impl Store for ScriptStore {
    async fn create_chat(&self, chat: NewChat) -> StoreResult<ChatId> {
        self.memory.create_chat(chat).await
    }

    async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>> {
        let fault = (self.script)(Op::Load).await;
        act(fault, self.memory.load_chat(chat, newest, deadline)).await
    }

    async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool> {
        self.memory.has_member(chat, users, deadline).await
    }

    async fn share_a_chat(
        &self,
        user: &UserName,
        other: &UserName,
        deadline: Instant,
    ) -> StoreResult<bool> {
        self.memory.share_a_chat(user, other, deadline).await
    }

    async fn made_by(&self, user: &UserName, most: usize, deadline: Instant) -> StoreResult<usize> {
        self.memory.made_by(user, most, deadline).await
    }

    async fn made_as(
        &self,
        user: &UserName,
        id: &ClientChatId,
        deadline: Instant,
    ) -> StoreResult<Option<ChatId>> {
        self.memory.made_as(user, id, deadline).await
    }

    async fn delete_chat(&self, chat: ChatId, as_of: Option<u64>) -> StoreResult<bool> {
        let fault = (self.script)(Op::Delete).await;
        act(fault, self.memory.delete_chat(chat, as_of)).await
    }

    async fn add_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        let fault = (self.script)(Op::Members).await;
        act(fault, self.memory.add_members(chat, users, as_of)).await
    }

    async fn remove_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        let fault = (self.script)(Op::Members).await;
        act(fault, self.memory.remove_members(chat, users, as_of)).await
    }

    async fn chats_of(
        &self,
        user: &UserName,
        walk: Walk,
        limit: usize,
        names: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<(Activity, ChatRecord)>> {
        self.memory
            .chats_of(user, walk, limit, names, deadline)
            .await
    }

    async fn append(&self, lane: usize, rows: Arc<Vec<Row>>) -> StoreResult<()> {
        let fault = (self.script)(Op::Append(&rows)).await;
        act(fault, self.memory.append(lane, rows)).await
    }

    async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        let fault = (self.script)(Op::Page(chat)).await;
        let limit = match fault {
            Fault::Short(rows) => rows.min(limit),
            _ => limit,
        };
        act(fault, self.memory.page(chat, page, limit, deadline)).await
    }

    async fn current(
        &self,
        chat: ChatId,
        viewer: &UserName,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Current>> {
        let fault = (self.script)(Op::Page(chat)).await;
        let current = self.memory.current(chat, viewer, page, limit, deadline);
        act(fault, current).await
    }

    async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>> {
        let fault = (self.script)(Op::Targets).await;
        act(fault, self.memory.targets(chat, seqs, deadline)).await
    }

    async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>> {
        self.memory.last_seqs(chats, deadline).await
    }

    async fn ping(&self, deadline: Instant) -> StoreResult<()> {
        self.memory.ping(deadline).await
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}
