use std::collections::{VecDeque, vec_deque};

use super::handle::ChatCommand;
use crate::{
    domain::UserName,
    fault::{self, Fault},
};

impl ChatCommand {
    /// How many calls it is: a stream that joins is none, and neither are those of
    /// another node.
    pub fn calls(&self) -> usize {
        usize::from(!matches!(self, Self::Join { .. } | Self::Watch { .. }))
    }

    /// The user who has to be a member for the chat to be read; none for an admin.
    pub fn asker(&self) -> Option<&UserName> {
        match self {
            Self::Join { .. } if fault::is_on(Fault::SkipMembership) => None,
            Self::Join { user, .. } => Some(user),
            Self::Watch { asker, .. } => asker.as_ref(),
            Self::Get { caller, .. }
            | Self::AddMembers { caller, .. }
            | Self::RemoveMembers { caller, .. }
            | Self::Delete { caller, .. } => (!caller.admin).then_some(&caller.user),
        }
    }

    /// The stream that wanted to join has gone.
    pub fn is_abandoned_join(&self) -> bool {
        matches!(self, Self::Join { answer, .. } if answer.is_closed())
    }
}

/// Commands that wait until their chat is loaded or changed.
///
/// A stream that joins and is dropped while it waits leaves its command behind.
/// Those are let go before the queue grows, so that it holds at most about twice
/// as many as there are streams open and calls waiting, however long the store
/// is away (P6).
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<ChatCommand>);

impl Queue {
    pub fn push(&mut self, command: ChatCommand) {
        let capacity = self.0.capacity();
        if self.0.len() == capacity {
            self.0.retain(|command| !command.is_abandoned_join());
            // Or else the next push might look through all of them again.
            if self.0.len() > capacity / 2 {
                self.0.reserve(self.0.len());
            }
        }
        self.0.push_back(command);
    }

    pub fn pop(&mut self) -> Option<ChatCommand> {
        self.0.pop_front()
    }

    pub fn iter(&self) -> impl Iterator<Item = &ChatCommand> {
        self.0.iter()
    }

    /// How many of the commands are calls.
    pub fn calls(&self) -> usize {
        self.0.iter().map(ChatCommand::calls).sum()
    }
}

impl IntoIterator for Queue {
    type Item = ChatCommand;
    type IntoIter = vec_deque::IntoIter<ChatCommand>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{shard::callers::Answer, testing::user};

    #[test]
    fn p6_streams_that_have_gone_make_no_queue_grow() {
        let mut queue = Queue::default();
        let mut join = || {
            let (answer, joined) = Answer::new(Default::default());
            queue.push(ChatCommand::Join {
                user: user("bob"),
                after_seq: None,
                core: 0,
                answer,
            });
            joined
        };
        let here: Vec<_> = (0..100).map(|_| join()).collect();
        for _ in 0..100_000 {
            drop(join());
        }
        assert!(queue.0.len() <= 512, "{}", queue.0.len());
        let waiting = std::iter::from_fn(|| queue.pop());
        let waiting = waiting.filter(|command| !command.is_abandoned_join());
        assert_eq!(waiting.count(), here.len());
    }
}
