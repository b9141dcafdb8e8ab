//! The way to a chat, wherever it lives: on this node or, through `cluster`, on another.
//!
//! Called by `grpc` with all that clients ask of a chat, and by `app` for the drain.
//! Calls `shard`, where the chats of this machine live. What a caller gets back for a
//! chat, a [`Reader`] and what it yields, is named here too, so that this room is all
//! that a caller has to know; why something was refused is in `domain`.
//!
//! Invariants:
//! 1. Nobody outside knows where a chat lives, neither the core nor the machine.
//! 2. Whatever is asked of one chat goes one way, in the order in which it is asked
//!    (P2): where the chat lives does not change while the process runs.
//! 3. Nothing waits here: what there is no room for waits, or is refused, at the
//!    mailbox it goes to (P6).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::Either;

use crate::{
    cluster::{Answered, Asked, Cluster},
    domain::{Caller, ChatError, ChatId, Draft, PostResult, Seq, UserName},
    shard::{ShardHandle, Shards},
    store::ChatRecord,
    telemetry::SpanRef,
};
pub use crate::{
    feed::{Delivery, End, Packed, PostAnswer, Reader, Share, Slot, counted},
    shard::{Callers, Places},
};

/// What one user may change at a time, in names of members: a chat of a thousand, or
/// some sixty changes of a few. A transaction of the store with more would be felt by
/// those whose messages are in the next one.
const CHANGES: u32 = 1_024;

/// What may wait for that of one user: with its request, each is held in memory.
const CHANGES_WAITING: u32 = 64 * CHANGES;

/// What a change costs besides the names in it, as so many of them.
const CHANGE: u32 = 16;

/// How everyone else reaches a chat. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chats {
    shards: Shards,
    /// Where there are several nodes.
    cluster: Option<Cluster>,
    /// Those who change chats.
    changing: Arc<Callers>,
}

impl Chats {
    /// The chats of these shards; or, where there are several nodes, all chats.
    pub fn new(shards: Shards, cluster: Option<Cluster>) -> Self {
        Self {
            shards,
            cluster,
            changing: Arc::new(Callers::new(CHANGES, CHANGES_WAITING)),
        }
    }

    /// Waits until the user may make a chat, or change one, by so many names: until then
    /// others of its changes are under way. To be kept until the store has the change.
    ///
    /// # Errors
    /// If too many of its changes wait already.
    pub async fn turn_to_change(&self, user: &UserName, names: usize) -> Result<Places, ChatError> {
        let names = u32::try_from(names).unwrap_or(CHANGES);
        let weight = names.saturating_add(CHANGE);
        self.changing.enter(user, weight).await
    }

    /// The way to other nodes, if the chat lives on one.
    fn elsewhere(&self, chat: ChatId) -> Option<&Cluster> {
        self.cluster.as_ref().filter(|one| !one.serves(chat))
    }

    /// Asks the chat's shard or its node, and again for as long as the chat is on its way
    /// from one place to another.
    /// `turn`: a change that has its turn already.
    async fn ask(
        &self,
        chat: ChatId,
        asked: Asked,
        mut turn: Option<Places>,
    ) -> Result<Answered, ChatError> {
        let Some(cluster) = &self.cluster else {
            return self.ask_shard(chat, asked, turn).await;
        };
        loop {
            let turn = turn.take();
            let answer = match cluster.serves(chat) {
                true => self.ask_shard(chat, asked.clone(), turn).await,
                false => {
                    let _turn = self.turn(&asked, turn).await?;
                    cluster.ask(chat, asked.clone()).await
                }
            };
            match answer {
                Err(ChatError::Moved) => cluster.moment().await,
                answer => return answer,
            }
        }
    }

    async fn ask_shard(
        &self,
        chat: ChatId,
        asked: Asked,
        turn: Option<Places>,
    ) -> Result<Answered, ChatError> {
        let shard = self.shards.of(chat);
        let turn = self.turn(&asked, turn).await?;
        let (record, count) = match asked {
            Asked::Get(caller) => shard.get(chat, caller).await?,
            Asked::Add(caller, users) => shard.add_members(chat, caller, users, turn).await?,
            Asked::Remove(caller, users) => shard.remove_members(chat, caller, users, turn).await?,
            Asked::Delete(caller) => {
                shard.delete(chat, caller, turn).await?;
                return Ok(Answered::Done);
            }
        };
        Ok(Answered::Described(record, count))
    }

    /// The turn that a change needs, if it does not have it.
    async fn turn(&self, asked: &Asked, turn: Option<Places>) -> Result<Option<Places>, ChatError> {
        if turn.is_some() {
            return Ok(turn);
        }
        let (caller, names) = match asked {
            Asked::Get(_) => return Ok(None),
            Asked::Add(caller, users) | Asked::Remove(caller, users) => (caller, users.len()),
            Asked::Delete(caller) => (caller, 0),
        };
        self.turn_to_change(&caller.user, names).await.map(Some)
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
        match self.elsewhere(chat) {
            // Boxed, so that who has no cluster has no future of its size.
            Some(cluster) => {
                Either::Left(Box::pin(cluster.post(chat, from, draft, deadline, span)))
            }
            None => Either::Right(self.shards.of(chat).post(chat, from, draft, deadline, span)),
        }
    }

    /// Posts a message on a stream. Waits while the stream has as many posts
    /// under way as it may, or the mailbox is full: the client's flow control
    /// then holds it back. The stream's reading half gets the answer.
    pub fn post_on_stream(
        &self,
        chat: ChatId,
        slot: &Arc<Slot>,
        draft: Draft,
        timeout: Duration,
        span: Option<SpanRef>,
        now: impl Fn() -> Instant,
    ) -> impl Future<Output = ()> {
        match self.elsewhere(chat) {
            Some(cluster) => {
                let post = cluster.post_on_stream(chat, slot, draft, timeout, span, now);
                Either::Left(Box::pin(post))
            }
            None => {
                let shard = self.shards.of(chat);
                Either::Right(shard.post_on_stream(chat, slot, draft, timeout, span, now))
            }
        }
    }

    /// Joins a chat as a reader: behind `after_seq`, or live only. `core` is the
    /// one that will poll the reader. Waits while the mailbox is full.
    ///
    /// # Errors
    /// If the user is not a member, or `after_seq` is ahead of the chat.
    pub async fn join(
        &self,
        chat: ChatId,
        user: UserName,
        after_seq: Option<Seq>,
        core: usize,
    ) -> Result<Reader, ChatError> {
        let Some(cluster) = &self.cluster else {
            return self.shards.of(chat).join(chat, user, after_seq, core).await;
        };
        loop {
            let user = user.clone();
            let joined = match cluster.serves(chat) {
                true => self.shards.of(chat).join(chat, user, after_seq, core).await,
                false => cluster.join(chat, user, after_seq, core).await,
            };
            match joined {
                Err(ChatError::Moved) => cluster.moment().await,
                joined => return joined,
            }
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
    ) -> Result<(ChatRecord, usize), ChatError> {
        described(self.ask(chat, Asked::Get(caller), None).await?)
    }

    /// Adds members to the end of the list, in a turn that [`Self::turn_to_change`] has
    /// given; answers with the chat as it then is, and how many are new.
    ///
    /// # Errors
    /// If the caller may not, or there would be too many.
    pub async fn add_members(
        &self,
        chat: ChatId,
        caller: Caller,
        users: Vec<UserName>,
        turn: Places,
    ) -> Result<(ChatRecord, usize), ChatError> {
        described(
            self.ask(chat, Asked::Add(caller, users), Some(turn))
                .await?,
        )
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
        turn: Places,
    ) -> Result<(ChatRecord, usize), ChatError> {
        described(
            self.ask(chat, Asked::Remove(caller, users), Some(turn))
                .await?,
        )
    }

    /// Deletes a chat and ends its streams.
    ///
    /// # Errors
    /// If the caller may not.
    pub async fn delete(&self, chat: ChatId, caller: Caller) -> Result<(), ChatError> {
        let delete = Asked::Delete(caller);
        self.ask(chat, delete, None).await.map(|_| ())
    }

    /// Sends that wait in mailboxes, all shards together.
    pub fn waiting(&self) -> usize {
        self.shards.all().iter().map(ShardHandle::waiting).sum()
    }

    /// Drains the chats of this process: returns once all that was accepted is
    /// answered and all streams have been told to end (P9).
    pub async fn drain(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
        let mut drained = Vec::with_capacity(self.shards.all().len());
        for shard in self.shards.all() {
            drained.push(shard.drain().await);
        }
        for done in drained {
            done.await;
        }
        if let Some(cluster) = &self.cluster {
            cluster.end_streams().await;
        }
    }
}

fn described(answered: Answered) -> Result<(ChatRecord, usize), ChatError> {
    match answered {
        Answered::Described(record, count) => Ok((record, count)),
        // Of a later release.
        Answered::Done => Err(ChatError::Unavailable),
    }
}
