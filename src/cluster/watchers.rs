//! How an owner tells other nodes what becomes of its chats.

use std::collections::{BTreeMap, BTreeSet};

use super::watch::{Ask, Say};
use crate::domain::{ChatId, NodeId, Seq, UserName};

/// The edges that watch chats of this node.
#[derive(Debug, Default)]
pub struct Watchers {
    chats: BTreeMap<ChatId, BTreeMap<NodeId, BTreeSet<UserName>>>,
}

impl Watchers {
    /// An edge watches a chat of this node's whose newest message and oldest message in
    /// memory are these. What it is told, first of all who of its users may not read.
    pub fn watch(
        &mut self,
        edge: NodeId,
        ask: Ask,
        newest: Seq,
        oldest: Seq,
        may_read: impl Fn(&UserName) -> bool,
    ) -> Vec<Say> {
        let (chat, known, users) = match ask {
            Ask::Watch {
                chat,
                newest,
                users,
            } => (chat, newest, users),
            Ask::Leave(chat) => {
                self.leave(edge, chat);
                return Vec::new();
            }
        };
        let (stay, refused): (BTreeSet<_>, BTreeSet<_>) = users.into_iter().partition(may_read);
        if stay.is_empty() {
            self.leave(edge, chat);
        } else {
            self.chats.entry(chat).or_default().insert(edge, stay);
        }
        let mut says = Vec::new();
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
        for (edge, readers) in edges {
            let gone: BTreeSet<UserName> = readers.intersection(users).cloned().collect();
            readers.retain(|user| !gone.contains(user));
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
