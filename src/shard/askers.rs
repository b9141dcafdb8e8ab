//! Users who ask for chats that they are not known to be members of.
//!
//! The store is asked before anything is read or refused on their behalf. That
//! costs the same whether or not there is such a chat (P7), and what one user asks
//! takes no more than its share (P6): so many look-ups at a time, the others wait
//! behind them in the order they came.

use std::{collections::VecDeque, sync::Arc};

use ahash::{AHashMap, AHashSet};

use super::{
    handle::{ChatCommand, Reply},
    post::{Load, Post},
    queue::Queue,
};
use crate::domain::{ChatId, UserName};

/// Look-ups that one user may have under way, a shard. The pool of a store has
/// about as many sessions, and a user's chats are read one after another in any
/// case once there are more.
const MAX_LOOKUPS: usize = 8;

/// Look-ups that may wait for those, before calls of the user are refused. After a
/// restart somebody may well post to hundreds of chats at once.
const MAX_QUEUED: usize = 1_024;

/// How far the look-up is on which the waiting of a chat depend.
#[derive(Debug, Default)]
pub(super) enum Asked {
    /// It waits until one of those who ask has room for it.
    #[default]
    NotYet,
    /// It is under way on behalf of these users, and counts for the first.
    For(Arc<[UserName]>),
    /// An admin asks: the chat is read, whoever its members are.
    ForAdmin,
}

/// What waits until it is known whether its user is a member of the chat, and
/// until the chat is read.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub asked: Asked,
    /// What the look-up under way brings is not to be believed.
    pub doubted: bool,
    pub posts: Vec<Post<Reply>>,
    pub commands: Queue,
}

impl Waiting {
    /// Those on whose behalf the store has to be asked, each once, in the order
    /// they came; none if an admin is among them.
    pub fn users(&self) -> Option<Vec<UserName>> {
        let commands = self.commands.iter().map(ChatCommand::asker);
        let posts = self.posts.iter().map(Post::asker);
        let mut seen = AHashSet::new();
        let mut users = Vec::new();
        for user in commands.chain(posts) {
            let user = user?;
            if seen.insert(user) {
                users.push(user.clone());
            }
        }
        Some(users)
    }

    /// The same, with `first` before all others.
    pub fn users_behind(&self, first: UserName) -> Arc<[UserName]> {
        let others = self.users().into_iter().flatten();
        let others: Vec<UserName> = others.filter(|user| *user != first).collect();
        std::iter::once(first).chain(others).collect()
    }

    /// The user for whom the look-up under way counts.
    pub fn first_asked(&self) -> Option<UserName> {
        match &self.asked {
            Asked::For(users) => users.first().cloned(),
            Asked::NotYet | Asked::ForAdmin => None,
        }
    }

    /// Takes out what the look-up that has just ended was not about.
    pub fn split_unasked(&mut self) -> Self {
        let Asked::For(asked) = std::mem::take(&mut self.asked) else {
            return Self::default();
        };
        let asked: AHashSet<&UserName> = asked.iter().collect();
        self.split_off(|asker| asker.is_none_or(|user| !asked.contains(user)))
    }

    /// Takes out what those wait for whom `goes` says, admins being nobody in
    /// particular.
    pub fn split_off(&mut self, goes: impl Fn(Option<&UserName>) -> bool) -> Self {
        let gone = self.posts.extract_if(.., |post| goes(post.asker()));
        let mut rest = Self {
            posts: gone.collect(),
            ..Self::default()
        };
        for command in std::mem::take(&mut self.commands) {
            let queue = match goes(command.asker()) {
                true => &mut rest.commands,
                false => &mut self.commands,
            };
            queue.push(command);
        }
        rest
    }

    pub fn load(&self) -> Load {
        Load {
            posts: self.posts.len(),
            bytes: self.posts.iter().map(|post| post.draft.weight()).sum(),
        }
    }
}

/// What each user asks of a shard.
#[derive(Debug, Default)]
pub(super) struct Askers(AHashMap<UserName, Asker>);

#[derive(Debug, Default)]
struct Asker {
    under_way: usize,
    /// Chats whose look-up waits for the end of another.
    queue: VecDeque<ChatId>,
}

impl Askers {
    /// Whether the user may begin another look-up; it then counts as under way.
    pub fn begin(&mut self, user: &UserName) -> bool {
        let asker = self.0.entry(user.clone()).or_default();
        let free = asker.under_way < MAX_LOOKUPS;
        asker.under_way += usize::from(free);
        free
    }

    /// The look-up of this chat comes once others of the user have ended.
    pub fn wait(&mut self, user: &UserName, chat: ChatId) {
        self.0
            .entry(user.clone())
            .or_default()
            .queue
            .push_back(chat);
    }

    /// A look-up of the user has ended.
    pub fn end(&mut self, user: &UserName) {
        if let Some(asker) = self.0.get_mut(user) {
            asker.under_way = asker.under_way.saturating_sub(1);
            self.forget(user);
        }
    }

    /// Takes the chat out that the user has waited for longest.
    pub fn next(&mut self, user: &UserName) -> Option<ChatId> {
        let next = self.0.get_mut(user)?.queue.pop_front();
        self.forget(user);
        next
    }

    /// Whether the user has as many look-ups waiting as it may.
    pub fn is_full(&self, user: &UserName) -> bool {
        let asker = self.0.get(user);
        asker.is_some_and(|asker| asker.queue.len() >= MAX_QUEUED)
    }

    fn forget(&mut self, user: &UserName) {
        let gone = |asker: &Asker| asker.under_way == 0 && asker.queue.is_empty();
        if self.0.get(user).is_some_and(gone) {
            self.0.remove(user);
        }
    }
}
