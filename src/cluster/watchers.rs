//! How an owner tells other nodes what becomes of its chats.

use std::collections::{BTreeMap, BTreeSet};

use super::watch::{Ask, Say};
use crate::domain::{ChatId, NodeId, Seq, UserName};

/// The edges that watch chats of this node.
#[derive(Debug, Default)]
pub struct Watchers {
    chats: BTreeMap<ChatId, BTreeMap<NodeId, Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    /// Of its newest question.
    number: u64,
    users: BTreeSet<UserName>,
}

impl Watchers {
    /// An edge watches a chat of this node's whose newest message and oldest message in
    /// memory are these. What it is told, first of all who of its users may not read: they
    /// get no message any more.
    pub fn watch(
        &mut self,
        edge: NodeId,
        ask: Ask,
        newest: Seq,
        oldest: Seq,
        may_read: impl Fn(&UserName) -> bool,
    ) -> Vec<Say> {
        let (chat, known, users, number) = match ask {
            Ask::Watch {
                chat,
                newest,
                users,
                number,
            } => (chat, newest, users, number),
            Ask::Leave(chat) => {
                self.leave(edge, chat);
                return Vec::new();
            }
        };
        let edges = self.chats.entry(chat).or_default();
        if edges.get(&edge).is_some_and(|one| one.number > number) {
            // It has been overtaken, and says nothing of who came since.
            return Vec::new();
        }
        let (stay, refused): (BTreeSet<_>, BTreeSet<_>) = users.into_iter().partition(may_read);
        edges.insert(
            edge,
            Watcher {
                number,
                users: stay,
            },
        );
        if edges[&edge].users.is_empty() {
            self.leave(edge, chat);
        }
        let mut says = Vec::new();
        if !refused.is_empty() {
            let users = refused.clone();
            says.push(Say::Removed { chat, users });
        }
        if let Some(known) = known
            && known < newest
            && known + 1 >= oldest
        {
            let (first, count) = (known + 1, newest - known);
            says.push(Say::Entries { chat, first, count });
        }
        says.push(Say::Watching {
            chat,
            newest,
            refused,
            number,
        });
        says
    }

    /// The edges that messages of the chat go to, each once.
    pub fn of(&self, chat: ChatId) -> impl Iterator<Item = NodeId> {
        self.chats
            .get(&chat)
            .into_iter()
            .flat_map(|edges| edges.keys().copied())
    }

    /// The users may not read the chat any more: which edges are to be told, and of whom.
    pub fn remove(&mut self, chat: ChatId, users: &BTreeSet<UserName>) -> Vec<(NodeId, Say)> {
        let Some(edges) = self.chats.get_mut(&chat) else {
            return Vec::new();
        };
        let mut told = Vec::new();
        for (edge, one) in edges {
            let gone: BTreeSet<UserName> = one.users.intersection(users).cloned().collect();
            one.users.retain(|user| !gone.contains(user));
            if !gone.is_empty() {
                told.push((*edge, Say::Removed { chat, users: gone }));
            }
        }
        told
    }

    /// Another node owns these chats now: who is to be told so.
    pub fn give_up(&mut self, is_given: impl Fn(ChatId) -> bool) -> Vec<(NodeId, Say)> {
        let given: Vec<ChatId> = self
            .chats
            .keys()
            .copied()
            .filter(|chat| is_given(*chat))
            .collect();
        let mut told = Vec::new();
        for chat in given {
            let edges = self.chats.remove(&chat).unwrap_or_default();
            told.extend(edges.into_keys().map(|edge| (edge, Say::NotMine(chat))));
        }
        told
    }

    /// The node is no more.
    pub fn forget(&mut self, edge: NodeId) {
        self.chats.retain(|_, edges| {
            edges.remove(&edge);
            !edges.is_empty()
        });
    }

    fn leave(&mut self, edge: NodeId, chat: ChatId) {
        if let Some(edges) = self.chats.get_mut(&chat) {
            edges.remove(&edge);
            if edges.is_empty() {
                self.chats.remove(&chat);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{chat_id, user};

    const EDGE: NodeId = NodeId(7);

    fn watch(watchers: &mut Watchers, number: u64, users: &[&str], known: Seq) -> Vec<Say> {
        let ask = Ask::Watch {
            chat: chat_id(1),
            newest: Some(known),
            users: users.iter().map(|name| user(name)).collect(),
            number,
        };
        watchers.watch(EDGE, ask, 9, 1, |who| *who != user("bob"))
    }

    #[test]
    fn p7_who_was_removed_hears_so_before_any_message() {
        let mut watchers = Watchers::default();
        let says = watch(&mut watchers, 1, &["ann", "bob"], 4);
        let [
            Say::Removed { users, .. },
            Say::Entries {
                first: 5, count: 5, ..
            },
            last,
        ] = &says[..]
        else {
            panic!("{says:?}");
        };
        assert_eq!(*users, [user("bob")].into());
        assert!(matches!(last, Say::Watching { number: 1, .. }), "{last:?}");
        let says = watch(&mut watchers, 2, &["ann"], 9);
        assert!(
            matches!(says[..], [Say::Watching { number: 2, .. }]),
            "{says:?}"
        );
    }

    #[test]
    fn p7_a_question_that_was_overtaken_takes_nobody_out() {
        let mut watchers = Watchers::default();
        watch(&mut watchers, 2, &["ann", "cyd"], 9);
        assert_eq!(watch(&mut watchers, 1, &["ann"], 9), []);
        let told = watchers.remove(chat_id(1), &[user("cyd")].into());
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
