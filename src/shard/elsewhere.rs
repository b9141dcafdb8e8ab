//! Chats that this node does not answer for: where what comes for them goes.

use std::{fmt, sync::Arc};

use ahash::AHashMap;

use super::{handle::Reply, post::Post};
use crate::{
    domain::{ChatId, NodeId, PARTITIONS, Partition, PostResult, Seq, UserName},
    feed::{Feed, Tap},
};

/// Takes what a shard does not answer for, and what it answers to other nodes. Must not
/// block.
pub trait Elsewhere: fmt::Debug + Send + Sync + 'static {
    /// The chat lives elsewhere: the post has not been stored, and still wants its
    /// answer.
    fn moved(&self, chat: ChatId, post: Post<Reply>);

    /// What became of a post that the node has asked for under this number.
    fn outcome(&self, node: NodeId, ask: u64, result: PostResult);
}

/// What a shard has for those on another node who read a chat, or want to.
#[derive(Debug)]
pub struct Watched {
    /// A place behind `last_seq`, which hears of all who are removed from now on.
    pub tap: Tap,
    pub last_seq: Seq,
    /// Messages behind that one that are with the writer.
    pub in_flight: usize,
    /// Of those who were named, the users who are no members.
    pub refused: Vec<UserName>,
}

/// The partitions that a shard answers for, where there are several nodes.
#[derive(Debug)]
pub(super) struct Partitions {
    served: [bool; PARTITIONS as usize],
    pub elsewhere: Arc<dyn Elsewhere>,
    /// Feeds that were followed from here, and whose chats are being read.
    pub adopted: AHashMap<ChatId, Arc<Feed>>,
}

impl Partitions {
    pub fn new(elsewhere: Arc<dyn Elsewhere>) -> Self {
        Self {
            served: [false; PARTITIONS as usize],
            elsewhere,
            adopted: AHashMap::new(),
        }
    }

    pub fn serves(&self, chat: ChatId) -> bool {
        self.served[usize::from(Partition::of(chat))]
    }

    pub fn set(&mut self, partition: Partition, served: bool) {
        self.served[usize::from(partition)] = served;
    }
}
