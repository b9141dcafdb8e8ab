use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    askers::Waiting,
    callers::Answer,
    chat::Chat,
    handle::{ChatCommand, Reply},
    post::Load,
    queue::Queue,
};
use crate::{
    domain::{Caller, ChatError, ChatId, MessageId, Seq, UserName},
    feed::{End, Feed},
    store::ChatRecord,
};

/// A chat's place in its shard.
#[derive(Debug)]
pub(super) enum Place {
    /// Being read from the store; what came for it meanwhile waits here.
    Loading(Waiting),
    Active(Box<Active>),
}

/// A chat in use.
#[derive(Debug)]
pub(super) struct Active {
    pub chat: Chat<Reply>,
    pub feed: Arc<Feed>,
    pub touched: Instant,
    /// In the shard's list of chats that have posts to write.
    pub listed: bool,
    /// Its posts came back from the lane, and are to wait before they go there again.
    pub deferred: bool,
    /// The change that is with the store; others wait for it.
    pub change: Option<Change>,
    pub trust: Trust,
    pub waiting: Queue,
    /// Bytes, as of when it was last weighed.
    pub held: usize,
    /// Its place in the line of chats whose rings may be cut, if it stands there, and
    /// whether it has been used since it came there.
    pub place: Option<u64>,
    pub used: bool,
}

/// A change that is with the store.
#[derive(Debug)]
pub(super) enum Change {
    Add {
        users: Vec<UserName>,
        answer: Answer<(ChatRecord, usize)>,
    },
    Remove {
        users: Vec<UserName>,
        answer: Answer<(ChatRecord, usize)>,
    },
    /// Begins once nothing of the chat is with the writer any more.
    Delete {
        begun: bool,
        /// The store's lineage that the caller's right is known of.
        as_of: u64,
        answer: Answer<()>,
    },
    /// The chat is read again: the outcome of a change was lost, or there is doubt
    /// (`doubted`) whether the store still has it with all its messages, up to the one
    /// that is the newest now.
    Reload {
        doubted: bool,
        newest: Option<(Seq, MessageId)>,
    },
    /// The store has the chat no more, or has lost messages of it. It goes once
    /// nothing of it is with the writer.
    Gone(End),
}

/// Whether what memory has of a chat is what the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Sure,
    /// It is to be read again, once the change that is under way has ended.
    Doubted,
    /// It is being read again.
    Asked,
}

impl Active {
    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + size_of::<Feed>() + self.feed.weight() + self.chat.weight()
    }

    pub fn is_idle(&self) -> bool {
        self.feed.readers() == 0 && self.change.is_none() && self.chat.load() == Load::default()
    }

    /// Being deleted: what comes now is to be answered when that is settled.
    pub fn is_ending(&self) -> bool {
        matches!(self.change, Some(Change::Delete { .. } | Change::Gone(_)))
    }

    /// Somebody waits for the change that is with the store.
    pub fn is_changing(&self) -> bool {
        let change = self.change.as_ref();
        change.is_some_and(|change| !matches!(change, Change::Reload { .. } | Change::Gone(_)))
    }

    /// Whether whoever asks is a member, or nobody that has to be one.
    pub fn knows(&self, asker: Option<&UserName>) -> bool {
        asker.is_none_or(|user| self.chat.members().contains(user))
    }

    pub fn check_may_see(&self, caller: &Caller) -> Result<(), ChatError> {
        if caller.admin || self.chat.members().contains(&caller.user) {
            Ok(())
        } else {
            Err(ChatError::NotMember)
        }
    }

    pub fn check_may_change(&self, caller: &Caller) -> Result<(), ChatError> {
        self.check_may_see(caller)?;
        if caller.admin || *self.chat.created_by() == caller.user {
            Ok(())
        } else {
            Err(ChatError::NotCreator)
        }
    }

    pub fn check_may_remove(&self, caller: &Caller, users: &[UserName]) -> Result<(), ChatError> {
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
            ChatError::NotFound
        } else {
            ChatError::NotMember
        }
    });
}

/// Answers a command with an error; the choice may depend on the caller.
pub(super) fn refuse(command: ChatCommand, error: impl Fn(Option<&Caller>) -> ChatError) {
    match command {
        ChatCommand::Join { answer, .. } => answer.send(Err(error(None))),
        ChatCommand::Watch { answer, .. } => answer.send(Err(error(None))),
        ChatCommand::Get { caller, answer } => answer.send(Err(error(Some(&caller)))),
        ChatCommand::AddMembers { caller, answer, .. }
        | ChatCommand::RemoveMembers { caller, answer, .. } => {
            answer.send(Err(error(Some(&caller))));
        }
        ChatCommand::Delete { caller, answer } => answer.send(Err(error(Some(&caller)))),
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

    pub fn len(&self) -> usize {
        self.0.len()
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
