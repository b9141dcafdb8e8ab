use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    change::Change,
    chat::Chat,
    feed::Feed,
    handle::{Caller, ChatCommand, Reply, ShardError},
    post::{Load, Post},
    queue::Queue,
};
use crate::domain::{ChatId, UserName};

/// A chat's place in its shard.
#[derive(Debug)]
pub(super) enum Place {
    /// Being read from the store; what came for it meanwhile waits here.
    Loading(Waiting),
    Active(Box<Active>),
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub posts: Vec<Post<Reply>>,
    pub commands: Queue,
}

impl Waiting {
    pub fn load(&self) -> Load {
        Load {
            posts: self.posts.len(),
            bytes: self.posts.iter().map(|post| post.draft.weight()).sum(),
        }
    }
}

/// A chat in use.
#[derive(Debug)]
pub(super) struct Active {
    pub chat: Chat<Reply>,
    pub feed: Arc<Feed>,
    pub touched: Instant,
    /// In the shard's list of chats that have posts to write.
    pub listed: bool,
    /// The change that is with the store; others wait for it.
    pub change: Option<Change>,
    pub waiting: Queue,
}

impl Active {
    pub fn is_idle(&self) -> bool {
        self.feed.readers() == 0
            && self.change.is_none()
            && !self.chat.has_queued()
            && !self.chat.has_in_flight()
    }

    /// Being deleted: what comes now is to be answered when that is settled.
    pub fn is_ending(&self) -> bool {
        matches!(self.change, Some(Change::Delete { .. } | Change::Gone))
    }

    /// Somebody waits for the change that is with the store.
    pub fn is_changing(&self) -> bool {
        let change = self.change.as_ref();
        change.is_some_and(|change| !matches!(change, Change::Reload | Change::Gone))
    }

    pub fn check_may_see(&self, caller: &Caller) -> Result<(), ShardError> {
        if caller.admin || self.chat.members().contains(&caller.user) {
            Ok(())
        } else {
            Err(ShardError::NotMember)
        }
    }

    pub fn check_may_change(&self, caller: &Caller) -> Result<(), ShardError> {
        self.check_may_see(caller)?;
        if caller.admin || *self.chat.created_by() == caller.user {
            Ok(())
        } else {
            Err(ShardError::NotCreator)
        }
    }

    pub fn check_may_remove(&self, caller: &Caller, users: &[UserName]) -> Result<(), ShardError> {
        if users.iter().all(|user| *user == caller.user) {
            self.check_may_see(caller)
        } else {
            self.check_may_change(caller)
        }
    }
}

/// Answers a command on a chat that the store does not have.
pub(super) fn refuse_missing(command: ChatCommand) {
    refuse(command, |caller| {
        if caller.is_some_and(|caller| caller.admin) {
            ShardError::NotFound
        } else {
            ShardError::NotMember
        }
    });
}

/// Answers a command with an error; the choice may depend on the caller.
pub(super) fn refuse(command: ChatCommand, error: impl Fn(Option<&Caller>) -> ShardError) {
    // Whoever has gone away does not want the answer any more.
    match command {
        ChatCommand::Join { answer, .. } => _ = answer.send(Err(error(None))),
        ChatCommand::Get { caller, answer }
        | ChatCommand::AddMembers { caller, answer, .. }
        | ChatCommand::RemoveMembers { caller, answer, .. } => {
            _ = answer.send(Err(error(Some(&caller))));
        }
        ChatCommand::Delete { caller, answer } => _ = answer.send(Err(error(Some(&caller)))),
    }
}

/// Chats by the time they were last used, each once; the times may be behind
/// those that the chats themselves hold.
#[derive(Debug, Default)]
pub(super) struct IdleList(VecDeque<(Instant, ChatId)>);

impl IdleList {
    pub fn push(&mut self, touched: Instant, chat: ChatId) {
        self.0.push_back((touched, chat));
    }

    pub fn first(&self) -> Option<Instant> {
        self.0.front().map(|(touched, _)| *touched)
    }

    pub fn pop_before(&mut self, time: Instant) -> Option<ChatId> {
        let (_, chat) = self.0.pop_front_if(|(touched, _)| *touched <= time)?;
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to_fit();
        }
        Some(chat)
    }
}
