use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use super::{
    callers::{Answer, Callers, Places},
    elsewhere::{Elsewhere, Watched},
    post::Post,
};
use crate::{
    domain::{
        Caller, ChatError, ChatId, ClientMessageId, Draft, NodeId, Partition, PostResult, Refusal,
        Seq, UserName,
    },
    feed::{Call, Feed, Reader, Slot},
    store::ChatRecord,
    telemetry::SpanRef,
};

/// The way to one shard: its mailboxes. Posts have their own, so that a shard that
/// has all the posts it may hold still answers everything else. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    /// Has room for every post that has a place.
    pub(super) posts: mpsc::Sender<(ChatId, Post<Reply>)>,
    /// Places for posts that wait for the shard, until it accepts them.
    pub(super) places: Arc<Semaphore>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) callers: Arc<Callers>,
}

/// Where the answer to a post goes.
#[derive(Debug)]
pub enum Reply {
    Call(Asking),
    Stream(Arc<Slot>, Option<ClientMessageId>),
}

/// Who has asked for a post by itself: a call here, or another node.
#[derive(Debug)]
pub enum Asking {
    Call(oneshot::Sender<PostResult>),
    Node(Box<AskingNode>),
}

/// The node that has asked, and the number under which it has.
#[derive(Debug)]
pub struct AskingNode {
    pub way: Arc<dyn Elsewhere>,
    pub node: NodeId,
    pub ask: u64,
}

impl Reply {
    pub fn send(self, result: PostResult) {
        match self {
            // A caller that has gone away does not want it any more.
            Self::Call(Asking::Call(caller)) => _ = caller.send(result),
            Self::Call(Asking::Node(node)) => node.way.outcome(node.node, node.ask, result),
            Self::Stream(slot, id) => slot.answer(id, result),
        }
    }
}

/// A post is moved from place to place on its way. Up to here that takes a few
/// instructions and no call, which made a post on a stream 4 % dearer.
const _: () = assert!(size_of::<(ChatId, Post<Reply>)>() <= 128);

/// Everything but posts.
#[derive(Debug)]
pub(super) enum Command {
    Chat(ChatId, ChatCommand),
    /// Answer for these partitions, and go on with these feeds; answer.
    Serve(Vec<Partition>, Vec<Arc<Feed>>, oneshot::Sender<()>),
    /// Answer for them no more; answer with the feeds that are read once nothing is
    /// under way.
    Leave(Vec<Partition>, oneshot::Sender<Vec<Arc<Feed>>>),
    /// Refuse new work, commit what was accepted, end the streams, answer.
    Drain(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) enum ChatCommand {
    Join {
        user: UserName,
        after_seq: Option<Seq>,
        core: usize,
        answer: Answer<Reader>,
    },
    /// Describes the chat to a node where these users read it, or one wants to.
    Watch {
        /// Who has to be a member; none if the chat is known to be read there.
        asker: Option<UserName>,
        users: Vec<UserName>,
        /// Of the tap.
        call: Call,
        answer: Answer<Watched>,
    },
    Get {
        caller: Caller,
        answer: Answer<(ChatRecord, usize)>,
    },
    AddMembers {
        caller: Caller,
        users: Vec<UserName>,
        answer: Answer<(ChatRecord, usize)>,
    },
    RemoveMembers {
        caller: Caller,
        users: Vec<UserName>,
        answer: Answer<(ChatRecord, usize)>,
    },
    Delete {
        caller: Caller,
        answer: Answer<()>,
    },
}

impl ShardHandle {
    /// Posts a message at once; the future is the answer. A full mailbox refuses (P6).
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
        self.pass(chat, post);
        async move { answer.await.unwrap_or(Err(Refusal::OutcomeUnknown)) }
    }

    /// Posts at once. The answer goes where the post says; a full mailbox refuses.
    pub fn pass(&self, chat: ChatId, post: Post<Reply>) {
        match self.places.try_acquire() {
            Ok(place) => self.send(place, chat, post),
            Err(_) => post.reply.send(Err(Refusal::Busy { queue: "mailbox" })),
        }
    }

    /// Posts a message on a stream, once the stream may have another one under way and
    /// the mailbox has room. The stream's reading half gets the answer.
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
        let reply = Reply::Stream(slot.clone(), id);
        let Ok(place) = self.places.acquire().await else {
            return reply.send(Err(Refusal::Draining));
        };
        let post = Post {
            from: slot.user().clone(),
            draft,
            id: None,
            span: span.map(Box::new),
            deadline: now() + timeout,
            reply,
        };
        self.send(place, chat, post);
    }

    /// Sends that wait in the mailbox.
    pub fn waiting(&self) -> usize {
        let places = self.places.available_permits();
        self.posts.max_capacity().saturating_sub(places)
    }

    /// Joins a chat as a reader, which `core` will poll. Waits while the mailbox is full.
    pub async fn join(
        &self,
        chat: ChatId,
        user: UserName,
        after_seq: Option<Seq>,
        core: usize,
    ) -> Result<Reader, ChatError> {
        let (answer, joined) = Answer::new([Some(self.callers.enter(&user, 1).await?), None]);
        let join = ChatCommand::Join {
            user,
            after_seq,
            core,
            answer,
        };
        // After a restart or a broken network all readers come back at once. A
        // stream that waits for its place holds nothing that it would not hold
        // anyway, and how many there are is bounded by connections and streams.
        match self.commands.send(Command::Chat(chat, join)).await {
            Ok(()) => joined.await.unwrap_or(Err(ChatError::Unavailable)),
            Err(_) => Err(ChatError::Draining),
        }
    }

    /// What a node needs to follow the chat, or to let a user read it there; `call` is the
    /// tap's.
    pub async fn watch(
        &self,
        chat: ChatId,
        asker: Option<UserName>,
        users: Vec<UserName>,
        call: Call,
    ) -> Result<Watched, ChatError> {
        let (answer, watched) = Answer::new([None, None]);
        let watch = ChatCommand::Watch {
            asker,
            users,
            call,
            answer,
        };
        match self.commands.send(Command::Chat(chat, watch)).await {
            Ok(()) => watched.await.unwrap_or(Err(ChatError::Unavailable)),
            Err(_) => Err(ChatError::Draining),
        }
    }

    /// Has the shard answer for the partitions, and go on with these feeds of theirs,
    /// which have been followed from here.
    pub async fn serve(&self, partitions: Vec<Partition>, feeds: Vec<Arc<Feed>>) {
        let (done, served) = oneshot::channel();
        let serve = Command::Serve(partitions, feeds, done);
        if self.commands.send(serve).await.is_ok() {
            _ = served.await;
        }
    }

    /// Has the shard answer for the partitions no more. Once nothing of them is under
    /// way, the feeds that are read.
    pub async fn leave(&self, partitions: Vec<Partition>) -> Vec<Arc<Feed>> {
        let (done, left) = oneshot::channel();
        match self.commands.send(Command::Leave(partitions, done)).await {
            Ok(()) => left.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// The chat, and how many of its messages are with the writer.
    pub async fn get(
        &self,
        chat: ChatId,
        caller: Caller,
    ) -> Result<(ChatRecord, usize), ChatError> {
        let user = caller.user.clone();
        let get = |answer| ChatCommand::Get { caller, answer };
        self.command(chat, user, None, get).await
    }

    /// Adds members; answers with the chat as it then is, and how many are new.
    pub async fn add_members(
        &self,
        chat: ChatId,
        caller: Caller,
        users: Vec<UserName>,
        turn: Option<Places>,
    ) -> Result<(ChatRecord, usize), ChatError> {
        let user = caller.user.clone();
        self.command(chat, user, turn, |answer| ChatCommand::AddMembers {
            caller,
            users,
            answer,
        })
        .await
    }

    /// Removes members and ends their streams; answers as [`Self::add_members`] does.
    pub async fn remove_members(
        &self,
        chat: ChatId,
        caller: Caller,
        users: Vec<UserName>,
        turn: Option<Places>,
    ) -> Result<(ChatRecord, usize), ChatError> {
        let user = caller.user.clone();
        self.command(chat, user, turn, |answer| ChatCommand::RemoveMembers {
            caller,
            users,
            answer,
        })
        .await
    }

    /// Deletes a chat and ends its streams.
    pub async fn delete(
        &self,
        chat: ChatId,
        caller: Caller,
        turn: Option<Places>,
    ) -> Result<(), ChatError> {
        let user = caller.user.clone();
        let delete = |answer| ChatCommand::Delete { caller, answer };
        self.command(chat, user, turn, delete).await
    }

    /// Asks the shard to drain. The future that it gives is done once all that was
    /// accepted is answered and all streams have been told to end (P9).
    pub async fn drain(&self) -> impl Future<Output = ()> + use<> {
        let (answer, drained) = oneshot::channel();
        // A shard that is gone drops it, and has nothing to drain.
        _ = self.commands.send(Command::Drain(answer)).await;
        async move { _ = drained.await }
    }

    /// The shard gives the place back.
    fn send(&self, place: SemaphorePermit<'_>, chat: ChatId, post: Post<Reply>) {
        place.forget();
        if let Err(unsent) = self.posts.try_send((chat, post)) {
            // The shard is gone: as many places as posts, there is room.
            let (_, post) = unsent.into_inner();
            post.reply.send(Err(Refusal::Draining));
        }
    }

    async fn command<T>(
        &self,
        chat: ChatId,
        user: UserName,
        turn: Option<Places>,
        command: impl FnOnce(Answer<T>) -> ChatCommand,
    ) -> Result<T, ChatError> {
        let (answer, result) = Answer::new([Some(self.callers.enter(&user, 1).await?), turn]);
        let command = Command::Chat(chat, command(answer));
        match self.commands.try_send(command) {
            Ok(()) => result.await.unwrap_or(Err(ChatError::Unavailable)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(ChatError::Busy {
                queue: "shard commands",
            }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ChatError::Draining),
        }
    }
}
