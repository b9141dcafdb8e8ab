use std::time::{Duration, Instant};

use crate::{
    domain::{Draft, Invalid, Row, Seq, Timestamp, UserName},
    telemetry::SpanRef,
};

/// A post on its way into a chat. `R` is whatever its answer goes to.
#[derive(Debug)]
pub struct Post<R> {
    pub from: UserName,
    pub draft: Draft,
    /// The call's span, if it is sampled.
    pub span: Option<Box<SpanRef>>,
    pub deadline: Instant,
    pub reply: R,
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
}

pub type PostResult = Result<Receipt, Refusal>;

/// What a command to a chat leads to.
#[derive(Debug)]
pub enum Effect<R> {
    Answer(R, PostResult),
    /// The message is committed: readers may see it.
    Publish(Row),
}

/// The room that is left in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub rows: usize,
    pub bytes: usize,
}

impl Room {
    pub fn is_left(&self) -> bool {
        self.rows > 0 && self.bytes > 0
    }

    pub fn use_up(&mut self, row: &Row) {
        self.rows -= 1;
        self.bytes = self.bytes.saturating_sub(row.weight());
    }
}

/// What a chat holds between acceptance and commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub posts: usize,
    pub bytes: usize,
}
