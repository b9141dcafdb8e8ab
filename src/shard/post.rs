use std::time::{Duration, Instant};

use crate::{
    domain::{Draft, GivenId, PostResult, Row, UserName},
    telemetry::SpanRef,
};

/// A post on its way into a chat. `R` is whatever its answer goes to.
#[derive(Debug)]
pub struct Post<R> {
    pub from: UserName,
    pub draft: Draft,
    /// Given by another node, where a client posted it: under this id it is stored
    /// once, however often it comes.
    pub id: Option<GivenId>,
    /// The call's span, if it is sampled.
    pub span: Option<Box<SpanRef>>,
    pub deadline: Instant,
    pub reply: R,
}

impl<R> Post<R> {
    /// The user who has to be a member of the chat; none for an admin.
    pub fn asker(&self) -> Option<&UserName> {
        (!self.draft.admin).then_some(&self.from)
    }
}

/// What holds for those who change messages.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long a message may be edited; zero: not at all.
    pub edit_window: Duration,
    /// Reactions to a message, those that were taken back included.
    pub max_reactions: usize,
}

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
