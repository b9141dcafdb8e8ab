//! The lanes that commit messages to the store. A shard gives its lane a batch
//! and learns what landed; while one commit runs, the shards' next batches grow,
//! so batches are as large as the load makes them and no timer is needed.
//!
//! Called by `shard`, calls `store`.
//!
//! Invariants:
//! 1. What a lane reports as stored is committed (P1).
//! 2. A lane reports on every message it was given, in order of seq within a
//!    chat, and never gives up on one whose outcome it does not know (P8).
//! 3. No row is written over another: a taken seq moves ours behind it.

mod attempt;
mod lane;

pub use lane::{Front, Lane, LaneDone, LaneSettings, SHARD_BATCHES, Submission};

use crate::domain::{ChatId, MessageId, Row, Seq, Timestamp};

/// What became of a message.
#[derive(Debug)]
pub enum Landed {
    /// Committed, with the seq that the row says.
    Stored(Row),
    /// Another writer's message, found in the place of one of ours: committed,
    /// and before ours.
    Foreign(Row),
    /// Another writer had stored the same post as `seq`; ours was not written.
    Duplicate {
        chat: ChatId,
        id: MessageId,
        seq: Seq,
        created_at: Timestamp,
    },
    /// A lock is in the way, or this node may not write it any more: the message was not
    /// written, and may be given to the lane again later, so that other chats need not
    /// wait for the lock.
    Held(Row),
    /// The store refuses this message.
    Refused { chat: ChatId, id: MessageId },
    /// Another server has deleted the chat; the message was not written.
    NoChat { chat: ChatId, id: MessageId },
    /// The store has lost messages before this one, which was not written.
    Lost { chat: ChatId, id: MessageId },
}

impl Landed {
    pub fn chat(&self) -> ChatId {
        match self {
            Self::Stored(row) | Self::Foreign(row) | Self::Held(row) => row.chat,
            Self::Duplicate { chat, .. }
            | Self::Refused { chat, .. }
            | Self::NoChat { chat, .. }
            | Self::Lost { chat, .. } => *chat,
        }
    }
}
