//! What the rest of this node has for the task that speaks with others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{
    domain::{ChatId, NodeId, PostResult, UserName},
    shard::{Elsewhere, Post, Reply},
};

/// Left by shards and readers, who never wait for it. What is here is bounded: posts by
/// the places of the mailboxes, outcomes by the posts under way, the rest by streams and
/// chats.
#[derive(Debug, Default)]
pub struct News {
    latest: Mutex<Latest>,
    notify: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Latest {
    /// Posts of chats that do not live here any more.
    pub moved: Vec<(ChatId, Post<Reply>)>,
    /// What became of posts of other nodes.
    pub outcomes: Vec<(NodeId, u64, PostResult)>,
    /// Chats that others follow, and that have something for them.
    pub tapped: Vec<ChatId>,
    /// Streams of followed chats that have gone, with the number of the following.
    pub left: Vec<(ChatId, UserName, u64)>,
}

impl News {
    /// Ends once there is something.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }

    pub(super) fn take(&self) -> Latest {
        std::mem::take(&mut *self.latest())
    }

    pub(super) fn tapped(&self, chat: ChatId) {
        self.latest().tapped.push(chat);
        self.notify.notify_one();
    }

    pub(super) fn left(&self, chat: ChatId, user: &UserName, number: u64) {
        self.latest().left.push((chat, user.clone(), number));
        self.notify.notify_one();
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Elsewhere for News {
    fn moved(&self, chat: ChatId, post: Post<Reply>) {
        self.latest().moved.push((chat, post));
        self.notify.notify_one();
    }

    fn outcome(&self, node: NodeId, ask: u64, result: PostResult) {
        self.latest().outcomes.push((node, ask, result));
        self.notify.notify_one();
    }
}

/// So that feeds can hold it.
pub(super) type Shared = Arc<News>;
