//! As which node of a cluster the store writes, if there is a cluster.
//!
//! Every transaction that writes a chat as a node begins with `chatd_fence` (migration 4),
//! which takes the node's lock and then looks whether the node is still one of the
//! cluster. Who takes chats over from a node that was declared gone takes that lock
//! exclusively first (`registry/fence.rs`), so that the node has nothing under way any
//! more, and nothing that it begins later gets through.

use std::sync::{Mutex, PoisonError};

use crate::cluster::NodeId;

/// Shared by a store's lanes and its pool.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<Option<NodeId>>);

impl Standing {
    pub fn get(&self) -> Option<NodeId> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, node: Option<NodeId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }
}
