//! Where chats and messages live: a narrow trait, its errors and its backends.
//!
//! Invariants:
//! 1. [`Store::append`] is all or nothing, and `Ok` means committed and synced
//!    (P1).
//! 2. A chat's rows are dense in `seq`; none takes the place of another (P2).
//! 3. An edit, and a deletion, changes the message that it is about in the transaction
//!    in which it is stored itself. No text of a deleted message is left (P12).
//! 4. Every queue in front of a backend is bounded (P6).

mod entries;
pub mod memory;
pub mod postgres;
mod retry;
pub mod sqlite;

use std::{fmt, sync::Arc, time::Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::domain::{ChatId, ClientChatId, Current, Row, Seq, Target, Timestamp, UserName};

pub use retry::retry_delays;

pub type StoreResult<T> = Result<T, StoreError>;

pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong in a store. The source is for the log; it never reaches a
/// client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store could not be asked in time. Nothing has changed.
    #[error("the store is unavailable")]
    Unavailable(#[source] Source),
    /// A write was under way when its answer was lost: it may have been
    /// committed.
    #[error("the outcome of a write is unknown")]
    OutcomeUnknown(#[source] Source),
    /// Some row's `(chat, seq)` exists already: another writer was here. Nothing
    /// has changed.
    #[error("another writer has used a seq")]
    Conflict,
    /// Another server answers than before, or the same one after a restart, and it
    /// may have less than has been written: see [`Store::lineage`]. Nothing has
    /// changed.
    #[error("another server of the database has taken over")]
    Replaced,
    /// Somebody holds a lock that the rows of these chats need, which are some of those
    /// to be written; none are named if it is not known which. Nothing has changed.
    #[error("a lock is in the way of some chats")]
    Locked(Vec<ChatId>),
    /// This server was a node of a cluster and was declared gone: others may write its
    /// chats by now. Nothing has changed.
    #[error("this node is not one of the cluster any more")]
    Stale,
    /// The store refuses the data and would refuse it again. Nothing has
    /// changed.
    #[error("the store refuses the data")]
    Refused(#[source] Source),
}

/// A chat to be made.
#[derive(Debug, Clone)]
pub struct NewChat {
    pub created_by: UserName,
    pub created_at: Timestamp,
    /// In the order of joining, each once, `created_by` among them.
    pub members: Vec<UserName>,
    /// Its creator has one chat of this id.
    pub client_chat_id: Option<ClientChatId>,
}

/// A chat as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatRecord {
    pub id: ChatId,
    pub created_by: UserName,
    pub created_at: Timestamp,
    /// In the order of joining. In a list there may be fewer than there are.
    pub members: Vec<UserName>,
    pub member_count: usize,
    /// 0 while there is no message.
    pub last_seq: Seq,
}

/// A place in a user's list of chats, which runs from the newest activity (the
/// newest message, or else the making of the chat) to the oldest, and from the
/// larger id to the smaller where that is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Activity {
    pub at: Timestamp,
    pub chat: ChatId,
}

/// Which of a user's chats a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// From the newest activity down, those that come behind this place, or all.
    Down(Option<Activity>),
    /// Up to the newest activity, those that come in front of this place.
    Up(Activity),
}

/// Which entries of a chat a page holds. Pages are in ascending order of seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The first `limit` messages with a greater seq.
    After(Seq),
    /// The last `limit` messages with a smaller seq.
    Before(Seq),
}

/// Which server of a database answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Grows when another takes over, which may have less than was acknowledged.
    pub number: u64,
    /// A connection was lost, and nobody knows yet who answers now.
    pub in_doubt: bool,
}

/// A store of chats and messages. `deadline` bounds a read: past it the call
/// answers [`StoreError::Unavailable`]. Writes are bounded by the backend's own
/// configuration, since a write that is under way cannot be taken back.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    async fn create_chat(&self, chat: NewChat) -> StoreResult<ChatId>;

    /// The chat and its newest messages, at most `newest` of them, in ascending
    /// order; `None` if there is no such chat.
    async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>>;

    /// Whether any of the users is a member of the chat; false if there is no such
    /// chat. The work is the same for a chat that does not exist (P7).
    async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool>;

    /// Whether there is a chat of which both users are members. The work grows with
    /// the chats of `other`.
    async fn share_a_chat(
        &self,
        user: &UserName,
        other: &UserName,
        deadline: Instant,
    ) -> StoreResult<bool>;

    /// How many chats the user has made that are there, counted up to `most`.
    async fn made_by(&self, user: &UserName, most: usize, deadline: Instant) -> StoreResult<usize>;

    /// The chat that the user has made with this id.
    async fn made_as(
        &self,
        user: &UserName,
        id: &ClientChatId,
        deadline: Instant,
    ) -> StoreResult<Option<ChatId>>;

    /// Deletes the chat with its members and messages. False if there was none.
    /// The messages may be removed later, but from now on nothing finds them.
    ///
    /// This and the two below change what the caller knows as of a lineage of the
    /// store (its number; `None`: whatever it is). If it is another by now, the
    /// chat of this id may be somebody else's: [`StoreError::Replaced`].
    async fn delete_chat(&self, chat: ChatId, as_of: Option<u64>) -> StoreResult<bool>;

    /// Adds to the end of the members whoever is not one yet. Nothing
    /// happens to a chat that does not exist.
    async fn add_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()>;

    /// Removes whoever is a member. Nothing happens to a chat that does not
    /// exist.
    async fn remove_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()>;

    /// The user's chats in the order of the walk, at most `limit`, with at most so
    /// many `names` of members each.
    async fn chats_of(
        &self,
        user: &UserName,
        walk: Walk,
        limit: usize,
        names: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<(Activity, ChatRecord)>>;

    /// Commits the rows, all or none. Rows of a chat stand together, dense
    /// and ascending. At most one call a lane is under way.
    ///
    /// The first call of a lane that meets another lineage than the last answers
    /// [`StoreError::Replaced`]: whoever goes on has to see that what is in front of
    /// the rows is there.
    ///
    /// As a node of a cluster that was declared gone, this and the three changes of a
    /// chat answer [`StoreError::Stale`].
    async fn append(&self, lane: usize, rows: Arc<Vec<Row>>) -> StoreResult<()>;

    /// Whether the row is stored for good. A row that a read finds may belong to a
    /// commit that failed to reach the disk or a standby; this answers true only
    /// after a later commit of the same database has reached both. A
    /// backend whose reads find nothing but synced commits has nothing to wait for.
    async fn confirm(&self, _lane: usize, _row: &Row) -> StoreResult<bool> {
        Ok(true)
    }

    /// At most `limit` entries of a chat, as they happened but for texts that were
    /// deleted since; none if there is no such chat.
    async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>>;

    /// At most `limit` messages of a chat as they are now, with the reactions to them as
    /// `viewer` sees them; none if there is no such chat.
    async fn current(
        &self,
        chat: ChatId,
        viewer: &UserName,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Current>>;

    /// What is to be known of entries before they may be changed: those of the chat that
    /// have these seqs, as far as there are any.
    async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>>;

    /// The newest seq of each chat, 0 where there is none, in the given order.
    async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>>;

    /// Those of the readers who are no members of the chat that they read.
    async fn strangers(
        &self,
        readers: &[(ChatId, UserName)],
        deadline: Instant,
    ) -> StoreResult<Vec<(ChatId, UserName)>> {
        let mut strangers = Vec::new();
        for (chat, user) in readers {
            if !self
                .has_member(*chat, std::slice::from_ref(user), deadline)
                .await?
            {
                strangers.push((*chat, user.clone()));
            }
        }
        Ok(strangers)
    }

    /// Which server of the database answers; `None` if there is one for good. Reads
    /// that begin after the number has grown are answered by the new one.
    fn lineage(&self) -> Option<watch::Receiver<Lineage>> {
        None
    }

    /// The number of that now; 0 if there is one server for good.
    fn lineage_number(&self) -> u64 {
        self.lineage().map_or(0, |lineage| lineage.borrow().number)
    }

    /// Opens the connections that are needed at first, so that nobody waits for that
    /// later. What can't be opened now is opened when it is needed.
    async fn warm(&self, _deadline: Instant) {}

    /// Whether the store answers.
    async fn ping(&self, deadline: Instant) -> StoreResult<()>;

    /// Finishes what is under way and gives up files and connections. Calls
    /// made later answer [`StoreError::Unavailable`].
    async fn close(&self);
}
