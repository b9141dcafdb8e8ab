use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::RandomState;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use super::{
    callers::{Answer, Caller, Callers, Places, ShardError},
    cursor::Reader,
    post::{Post, PostResult, Refusal},
    slot::Slot,
};
use crate::{
    domain::{ChatId, ClientMessageId, Draft, Seq, UserName},
    store::ChatRecord,
    telemetry::SpanRef,
};

/// What one user may change at a time, in names of members: a chat of a thousand, or
/// some sixty changes of a few. A transaction of the store with more would be felt by
/// those whose messages are in the next one.
const CHANGES: u32 = 1_024;

/// What a change costs besides the names in it, as so many of them.
const CHANGE: u32 = 16;

/// How everyone else reaches a chat, wherever it lives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    shards: Arc<[ShardHandle]>,
    hash: RandomState,
    /// Those who change chats, wherever these live.
    changing: Arc<Callers>,
}

/// One shard's mailboxes. Posts have their own, so that a shard that has all
/// the posts it may hold still answers everything else.
#[derive(Debug, Clone)]
pub(super) struct ShardHandle {
    /// Has room for every post that has a place.
    pub posts: mpsc::Sender<(ChatId, Post<Reply>)>,
    /// Places for posts that wait for the shard, until it accepts them.
    pub places: Arc<Semaphore>,
    pub commands: mpsc::Sender<Command>,
    pub callers: Arc<Callers>,
}

/// Where the answer to a post goes.
#[derive(Debug)]
pub(super) enum Reply {
    Call(oneshot::Sender<PostResult>),
    Stream(Arc<Slot>, Option<ClientMessageId>),
}

impl ShardHandle {
    /// The shard gives the place back.
    fn send(&self, place: SemaphorePermit<'_>, chat: ChatId, post: Post<Reply>) {
        place.forget();
        if let Err(unsent) = self.posts.try_send((chat, post)) {
            // The shard is gone: as many places as posts, there is room.
            let (_, post) = unsent.into_inner();
            post.reply.send(Err(Refusal::Draining));
        }
    }
}

impl Reply {
    pub fn send(self, result: PostResult) {
        match self {
            // A caller that has gone away does not want it any more.
            Self::Call(caller) => _ = caller.send(result),
            Self::Stream(slot, id) => slot.answer(id, result),
        }
    }
}

/// Everything but posts.
#[derive(Debug)]
pub(super) enum Command {
    Chat(ChatId, ChatCommand),
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

impl Shards {
    pub(super) fn new(shards: Vec<ShardHandle>) -> Self {
        let [a, b, c, d] = std::array::from_fn(|_| fastrand::u64(..));
        Self {
            shards: shards.into(),
            // Placement is this process's own affair, so any seeds do. These can be
            // drawn again.
            hash: RandomState::with_seeds(a, b, c, d),
            changing: Arc::new(Callers::new(CHANGES)),
        }
    }

    /// Waits until the user may make a chat, or change one, by so many names: until then
    /// others of its changes are under way. To be kept until the store has the change.
    pub async fn turn_to_change(&self, user: &UserName, names: usize) -> Option<Places> {
        let names = u32::try_from(names).unwrap_or(CHANGES);
        let weight = names.saturating_add(CHANGE);
        self.changing.enter(user, weight).await
    }

    fn of(&self, chat: ChatId) -> &ShardHandle {
        let hash = self.hash.hash_one(chat);
        &self.shards[(hash % self.shards.len() as u64) as usize]
    }

    /// Posts a message at once; the future is the answer, and `Ok` means that it is
    /// committed (P1). A full mailbox refuses (P6). The answer comes by `deadline`,
    /// give or take the milliseconds between two looks at deadlines (P8).
    ///
    /// # Errors
    /// If the message was not stored, or not known to be within the deadline.
    pub fn post(
        &self,
        chat: ChatId,
        from: UserName,
        draft: Draft,
        deadline: Instant,
        span: Option<SpanRef>,
    ) -> impl Future<Output = PostResult> + use<> {
        let (caller, answer) = oneshot::channel();
        let shard = self.of(chat);
        let post = Post {
            from,
            draft,
            span: span.map(Box::new),
            deadline,
            reply: Reply::Call(caller),
        };
        match shard.places.try_acquire() {
            Ok(place) => shard.send(place, chat, post),
            Err(_) => post.reply.send(Err(Refusal::Busy { queue: "mailbox" })),
        }
        async move { answer.await.unwrap_or(Err(Refusal::OutcomeUnknown)) }
    }

    /// Posts a message on a stream. Waits while the stream has as many posts
    /// under way as it may, or the mailbox is full: the client's flow control
    /// then holds it back. The stream's reading half gets the answer.
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
        let shard = self.of(chat);
        let Ok(place) = shard.places.acquire().await else {
            return reply.send(Err(Refusal::Draining));
        };
        let post = Post {
            from: slot.user().clone(),
            draft,
            span: span.map(Box::new),
            deadline: now() + timeout,
            reply,
        };
        shard.send(place, chat, post);
    }

    /// Sends that wait in mailboxes, all shards together.
    pub fn waiting(&self) -> usize {
        let waiting = |shard: &ShardHandle| {
            let places = shard.places.available_permits();
            shard.posts.max_capacity().saturating_sub(places)
        };
        self.shards.iter().map(waiting).sum()
    }

    /// Joins a chat as a reader: behind `after_seq`, or live only. `core` is the
    /// one that will poll the reader. Waits while the shard's mailbox is full.
    ///
    /// # Errors
    /// If the user is not a member, or `after_seq` is ahead of the chat.
    pub async fn join(
        &self,
        chat: ChatId,
        user: UserName,
        after_seq: Option<Seq>,
        core: usize,
    ) -> Result<Reader, ShardError> {
        let shard = self.of(chat);
        let (answer, joined) = Answer::new([shard.callers.enter(&user, 1).await, None]);
        let join = ChatCommand::Join {
            user,
            after_seq,
            core,
            answer,
        };
        // After a restart or a broken network all readers come back at once. A
        // stream that waits for its place holds nothing that it would not hold
        // anyway, and how many there are is bounded by connections and streams.
        match shard.commands.send(Command::Chat(chat, join)).await {
            Ok(()) => joined.await.unwrap_or(Err(ShardError::Unavailable)),
            Err(_) => Err(ShardError::Draining),
        }
    }

    /// Describes a chat to a member of it, or an admin, and says how many of its
    /// messages are with the writer.
    ///
    /// # Errors
    /// If the caller may not see it, or there is no such chat.
    pub async fn get(
        &self,
        chat: ChatId,
        caller: Caller,
    ) -> Result<(ChatRecord, usize), ShardError> {
        let user = caller.user.clone();
        let get = |answer| ChatCommand::Get { caller, answer };
        self.command(chat, user, None, get).await
    }

    /// Adds members to the end of the list; answers with the chat as it then is,
    /// and how many are new.
    ///
    /// # Errors
    /// If the caller may not, or there would be too many.
    pub async fn add_members(
        &self,
        chat: ChatId,
        caller: Caller,
        users: Vec<UserName>,
    ) -> Result<(ChatRecord, usize), ShardError> {
        let user = caller.user.clone();
        let turn = self.turn_to_change(&user, users.len()).await;
        self.command(chat, user, turn, |answer| ChatCommand::AddMembers {
            caller,
            users,
            answer,
        })
        .await
    }

    /// Removes members and ends their streams; answers as [`Self::add_members`] does.
    ///
    /// # Errors
    /// If the caller may not.
    pub async fn remove_members(
        &self,
        chat: ChatId,
        caller: Caller,
        users: Vec<UserName>,
    ) -> Result<(ChatRecord, usize), ShardError> {
        let user = caller.user.clone();
        let turn = self.turn_to_change(&user, users.len()).await;
        self.command(chat, user, turn, |answer| ChatCommand::RemoveMembers {
            caller,
            users,
            answer,
        })
        .await
    }

    /// Deletes a chat and ends its streams.
    ///
    /// # Errors
    /// If the caller may not.
    pub async fn delete(&self, chat: ChatId, caller: Caller) -> Result<(), ShardError> {
        let user = caller.user.clone();
        let turn = self.turn_to_change(&user, 0).await;
        let delete = |answer| ChatCommand::Delete { caller, answer };
        self.command(chat, user, turn, delete).await
    }

    /// Drains every shard: returns once all that was accepted is answered and
    /// all streams have been told to end (P9).
    pub async fn drain(&self) {
        let mut drained = Vec::with_capacity(self.shards.len());
        for shard in self.shards.iter() {
            let (answer, done) = oneshot::channel();
            if shard.commands.send(Command::Drain(answer)).await.is_ok() {
                drained.push(done);
            }
        }
        for done in drained {
            _ = done.await;
        }
    }

    async fn command<T>(
        &self,
        chat: ChatId,
        user: UserName,
        turn: Option<Places>,
        command: impl FnOnce(Answer<T>) -> ChatCommand,
    ) -> Result<T, ShardError> {
        let shard = self.of(chat);
        let (answer, result) = Answer::new([shard.callers.enter(&user, 1).await, turn]);
        let command = Command::Chat(chat, command(answer));
        match shard.commands.try_send(command) {
            Ok(()) => result.await.unwrap_or(Err(ShardError::Unavailable)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(ShardError::Busy {
                queue: "shard commands",
            }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ShardError::Draining),
        }
    }
}
