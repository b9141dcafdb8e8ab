use super::ring::Entry;
use crate::domain::{Change, Row, Seq};

/// An entry with what it is: what a ring keeps beside its entries, since most are plain
/// messages.
#[derive(Debug, Clone)]
pub struct Item {
    pub entry: Entry,
    pub about: About,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    Message,
    /// An edit of this message, whose deletion erases its text too.
    Edit(Seq),
    /// The deletion of this message.
    Deletion(Seq),
    /// Anything else that is no message.
    Other,
}

impl About {
    pub fn of(row: &Row) -> Self {
        match row.change.as_deref() {
            None | Some(Change::Attached(_) | Change::Edited { .. } | Change::Deleted) => {
                Self::Message
            }
            Some(Change::Edit { target }) => Self::Edit(*target),
            Some(Change::Deletion { target }) => Self::Deletion(*target),
            Some(Change::Reaction { .. }) => Self::Other,
        }
    }

    /// The message with whose deletion the text of this entry, `seq`, is gone, if it
    /// has one.
    pub(super) fn erased_with(self, seq: Seq) -> Option<Seq> {
        match self {
            Self::Message => Some(seq),
            Self::Edit(target) => Some(target),
            Self::Deletion(_) | Self::Other => None,
        }
    }
}

impl Item {
    pub fn new(row: &Row) -> Self {
        Self {
            entry: Entry::new(row),
            about: About::of(row),
        }
    }
}

/// A message.
impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        Self {
            entry,
            about: About::Message,
        }
    }
}
