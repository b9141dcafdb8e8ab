//! How the rest of this node reaches chats that live on others.

use std::{
    future::poll_fn,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::status::{NodeStatus, Status};
use crate::{
    domain::{
        Caller, ChatError, ChatId, Draft, PARTITIONS, Partition, PostResult, Refusal, Seq, UserName,
    },
    feed::{Reader, Slot},
    shard::{Asking, Post, Reply},
    store::ChatRecord,
    telemetry::SpanRef,
};

/// What may wait for the node's task.
pub(super) const MAILBOX: usize = 8_192;

/// Before something that found a chat on its way is asked again.
const AGAIN: Duration = Duration::from_millis(5);

/// The way to chats of other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(super) state: Arc<State>,
    pub(super) mailbox: mpsc::Sender<Local>,
}

/// What the node's task shows to everybody.
#[derive(Debug)]
pub(super) struct State {
    serving: [AtomicBool; PARTITIONS as usize],
    pub status: RwLock<Status>,
}

/// What this node's clients want of chats that live elsewhere.
#[derive(Debug)]
pub(super) enum Local {
    Post(ChatId, Post<Reply>),
    Call(ChatId, Asked, oneshot::Sender<Result<Answered, ChatError>>),
    Join(ChatId, Joining),
    /// Hand everything over; answer once nothing is owned.
    Leave(oneshot::Sender<()>),
    Move(Move, oneshot::Sender<Result<String, String>>),
    /// End the streams of followed chats.
    End(oneshot::Sender<()>),
}

/// What an operator wants to have moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// All partitions of the node with this id or name.
    Drain(String),
    /// What was drained, back.
    Rebalance,
}

/// A stream that wants to read a chat.
#[derive(Debug)]
pub(super) struct Joining {
    pub user: UserName,
    pub after_seq: Option<Seq>,
    pub core: usize,
    pub answer: oneshot::Sender<Result<Reader, ChatError>>,
}

/// What is asked of a chat, besides posts and joins.
#[derive(Debug, Clone)]
pub enum Asked {
    Get(Caller),
    Add(Caller, Vec<UserName>),
    Remove(Caller, Vec<UserName>),
    Delete(Caller),
}

/// … and what comes back.
#[derive(Debug)]
pub enum Answered {
    Described(ChatRecord, usize),
    Done,
}

impl State {
    pub fn new() -> Self {
        Self {
            serving: [const { AtomicBool::new(false) }; PARTITIONS as usize],
            status: RwLock::default(),
        }
    }

    pub fn serves(&self, partition: Partition) -> bool {
        self.serving[usize::from(partition)].load(Ordering::SeqCst)
    }

    pub fn serve(&self, partition: Partition, serves: bool) {
        self.serving[usize::from(partition)].store(serves, Ordering::SeqCst);
    }
}

impl Cluster {
    /// Whether this node answers for the chat, as far as is known: a shard that does not
    /// says so.
    pub fn serves(&self, chat: ChatId) -> bool {
        self.state.serves(Partition::of(chat))
    }

    /// The chat is on its way from one place to another: waits a moment.
    pub async fn moment(&self) {
        tokio::time::sleep(AGAIN).await;
    }

    /// Posts at once; the answer comes as from a shard.
    pub fn post(
        &self,
        chat: ChatId,
        from: UserName,
        draft: Draft,
        deadline: Instant,
        span: Option<SpanRef>,
    ) -> impl Future<Output = PostResult> + use<> {
        let (caller, answer) = oneshot::channel();
        let post = Post {
            from,
            draft,
            id: None,
            span: span.map(Box::new),
            deadline,
            reply: Reply::Call(Asking::Call(caller)),
        };
        if let Err(full) = self.mailbox.try_send(Local::Post(chat, post))
            && let Local::Post(_, post) = full.into_inner()
        {
            let queue = "posts to other nodes";
            post.reply.send(Err(Refusal::Busy { queue }));
        }
        async move { answer.await.unwrap_or(Err(Refusal::OutcomeUnknown)) }
    }

    /// Posts on a stream, once it may have another post under way and there is room. The
    /// stream's reading half gets the answer.
    pub async fn post_on_stream(
        &self,
        chat: ChatId,
        slot: &Arc<Slot>,
        draft: Draft,
        timeout: Duration,
        span: Option<SpanRef>,
        now: impl Fn() -> Instant,
    ) {
        poll_fn(|cx| slot.poll_post(cx)).await;
        let id = draft.client_message_id.clone();
        let Ok(place) = self.mailbox.reserve().await else {
            return slot.answer(id, Err(Refusal::Draining));
        };
        place.send(Local::Post(
            chat,
            Post {
                from: slot.user().clone(),
                draft,
                id: None,
                span: span.map(Box::new),
                deadline: now() + timeout,
                reply: Reply::Stream(slot.clone(), id),
            },
        ));
    }

    /// Joins a chat as a reader, as with a shard.
    ///
    /// # Errors
    /// As with a shard; and [`ChatError::Moved`] if the chat has come to this node.
    pub async fn join(
        &self,
        chat: ChatId,
        user: UserName,
        after_seq: Option<Seq>,
        core: usize,
    ) -> Result<Reader, ChatError> {
        let (answer, joined) = oneshot::channel();
        let joining = Joining {
            user,
            after_seq,
            core,
            answer,
        };
        let sent = self.mailbox.send(Local::Join(chat, joining)).await;
        sent.map_err(|_| ChatError::Draining)?;
        joined.await.unwrap_or(Err(ChatError::Unavailable))
    }

    /// Asks a chat.
    ///
    /// # Errors
    /// As with a shard; and [`ChatError::Moved`] if the chat has come to this node.
    pub async fn ask(&self, chat: ChatId, asked: Asked) -> Result<Answered, ChatError> {
        let (answer, answered) = oneshot::channel();
        let call = Local::Call(chat, asked, answer);
        self.mailbox.try_send(call).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ChatError::Busy {
                queue: "calls of other nodes",
            },
            mpsc::error::TrySendError::Closed(_) => ChatError::Draining,
        })?;
        answered.await.unwrap_or(Err(ChatError::Unavailable))
    }

    /// Hands all partitions over. Ends once this node owns nothing, and then it is none
    /// of the cluster any more.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.mailbox.send(Local::Leave(done)).await.is_ok() {
            _ = left.await;
        }
    }

    /// Tells the streams of chats that live elsewhere to end.
    pub async fn end_streams(&self) {
        let (done, ended) = oneshot::channel();
        if self.mailbox.send(Local::End(done)).await.is_ok() {
            _ = ended.await;
        }
    }

    /// Has nodes hand over what they have, or take it back; in words, what was begun.
    ///
    /// # Errors
    /// Why nothing was, in words.
    pub async fn move_chats(&self, what: Move) -> Result<String, String> {
        let (done, said) = oneshot::channel();
        let gone = || "the server is shutting down".to_owned();
        let sent = self.mailbox.send(Local::Move(what, done)).await;
        sent.map_err(|_| gone())?;
        said.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Whether other nodes have the bus and this one does not: it gives up what it owns,
    /// and should be sent no clients.
    pub fn is_cut_off(&self) -> bool {
        let status = self.state.status.read();
        let status = status.unwrap_or_else(PoisonError::into_inner);
        let have_it = |node: &NodeStatus| node.state == "up" && node.on_bus;
        !status.on_bus && status.nodes.iter().any(have_it)
    }

    /// What this node knows of the cluster.
    pub fn status(&self) -> Status {
        let status = self.state.status.read();
        status.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
