//! What is said between a node that follows a chat ([`super::edge`]) and the one that owns
//! it ([`super::watchers`]).
//!
//! An edge that has readers of a chat *watches* it. The owner sends what is committed
//! from then on, once for all readers of that node, and says who may not read. Nothing is
//! acknowledged: where something may be missing, the edge says again what it has, and the
//! owner goes on from there.

use std::collections::BTreeSet;

use crate::domain::{ChatId, Seq, UserName};

/// What an edge asks of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Send what follows `newest`, and say which of the users, who all read it there, may
    /// not. The answer has the same number.
    Watch {
        chat: ChatId,
        newest: Option<Seq>,
        users: BTreeSet<UserName>,
        number: u64,
    },
    /// Nobody reads it there any more.
    Leave(ChatId),
}

/// What an owner says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// It is watched. What is behind `newest` comes by itself; what is before it is in the
    /// store. The number is that of what this answers; 0 answers nothing.
    Watching {
        chat: ChatId,
        newest: Seq,
        refused: BTreeSet<UserName>,
        number: u64,
    },
    /// So many messages, from this one on.
    Entries {
        chat: ChatId,
        first: Seq,
        count: Seq,
    },
    /// They read it no more.
    Removed {
        chat: ChatId,
        users: BTreeSet<UserName>,
    },
    /// Another node owns it, or will.
    NotMine(ChatId),
}

impl Say {
    pub fn chat(&self) -> ChatId {
        match self {
            Self::Watching { chat, .. }
            | Self::Entries { chat, .. }
            | Self::Removed { chat, .. }
            | Self::NotMine(chat) => *chat,
        }
    }
}
