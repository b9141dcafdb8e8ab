use std::sync::Arc;

use ahash::RandomState;

use super::ShardHandle;
use crate::domain::ChatId;

/// The shards of this process, and in which of them a chat lives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    all: Arc<[ShardHandle]>,
    hash: RandomState,
}

impl Shards {
    /// Of these, of which there is at least one.
    pub fn new(all: Vec<ShardHandle>) -> Self {
        let [a, b, c, d] = std::array::from_fn(|_| fastrand::u64(..));
        Self {
            all: all.into(),
            // Placement is this process's own affair, so any seeds do. These can be
            // drawn again.
            hash: RandomState::with_seeds(a, b, c, d),
        }
    }

    pub fn of(&self, chat: ChatId) -> &ShardHandle {
        &self.all[self.place(chat)]
    }

    /// Where it is in [`Self::all`].
    pub fn place(&self, chat: ChatId) -> usize {
        (self.hash.hash_one(chat) % self.all.len() as u64) as usize
    }

    pub fn all(&self) -> &[ShardHandle] {
        &self.all
    }
}
