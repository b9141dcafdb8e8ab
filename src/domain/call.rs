//! Who asks something of a chat, and how that ends: the same whichever machine the
//! chat lives on.

use std::time::Duration;

use super::{Invalid, Seq, Timestamp, UserName};

/// On whose behalf a call is made.
#[derive(Debug, Clone)]
pub struct Caller {
    pub user: UserName,
    /// May see and change every chat.
    pub admin: bool,
}

/// Where a message landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub seq: Seq,
    pub created_at: Timestamp,
    /// It had been stored by an earlier post.
    pub duplicate: bool,
}

/// Why a post was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Found by whoever read it off the wire.
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: Invalid },
    #[error("not a member of the chat, or no such chat")]
    NotMember,
    /// A bounded queue is full; `queue` names it.
    #[error("the queue is full: {queue}")]
    Busy { queue: &'static str },
    /// Found by whoever counts what a user sends.
    #[error("the user sends more than it may")]
    TooFast { retry: Duration },
    /// It was not stored before its deadline and never will be.
    #[error("not stored within the deadline")]
    Expired,
    /// It was with the store at its deadline: it may be stored yet.
    #[error("the outcome was not known within the deadline")]
    OutcomeUnknown,
    #[error("the store refuses the message")]
    Refused,
    #[error("the server is shutting down")]
    Draining,
    #[error("the store is unavailable")]
    Unavailable,
    /// The store has lost the messages before it, and it was not stored.
    #[error("the store has lost the chat's newest messages")]
    Lost,
    /// The message that it was to change is not one that it may change.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// Why a message cannot be changed as somebody wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the chat has no message with this seq")]
    Missing,
    #[error("the entry with this seq is no message")]
    NoMessage,
    #[error("the chat has no message with this seq that could be answered")]
    NothingToAnswer,
    #[error("the message was deleted")]
    Deleted,
    #[error("only its sender may edit a message")]
    NotTheSender,
    #[error("only its sender, the chat's creator or an admin may delete a message")]
    NotYours,
    #[error("the time in which the message could be edited is over")]
    TooLate,
    #[error("the message was edited {max} times, which is as often as it may be")]
    TooManyEdits { max: usize },
    #[error("the message has {max} reactions, as many as it may have, those taken back included")]
    TooManyReactions { max: usize },
    #[error("the message has {max} different reactions, as many as it may have")]
    TooManyEmojis { max: usize },
    #[error("you have reacted to the message {max} times, which is as often as one user may")]
    TooManyOfYours { max: usize },
    #[error("you have not reacted to the message so")]
    NoReaction,
}

impl Unfit {
    /// The field of the request that it is about.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NothingToAnswer => "reply_to",
            _ => "seq",
        }
    }
}

pub type PostResult = Result<Receipt, Refusal>;

/// Why a call on a chat was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The same for a chat that does not exist, so that ids can't be probed
    /// (P7).
    #[error("not a member of the chat, or no such chat")]
    NotMember,
    /// Only an admin is told so.
    #[error("no such chat")]
    NotFound,
    #[error("only the chat's creator or an admin may do this")]
    NotCreator,
    #[error("the chat would have more than {max} members")]
    TooManyMembers { max: usize },
    #[error("after_seq is ahead of the chat's newest message, {last_seq}")]
    AheadOfChat { last_seq: Seq },
    #[error("the queue is full: {queue}")]
    Busy { queue: &'static str },
    #[error("the store is unavailable")]
    Unavailable,
    #[error("the server is shutting down")]
    Draining,
    /// It has left the shard that was asked: whoever asked asks again elsewhere. No
    /// client is told so.
    #[error("the chat lives elsewhere now")]
    Moved,
}
