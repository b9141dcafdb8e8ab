//! How a node follows chats that another one owns.

use std::collections::{BTreeMap, BTreeSet};

use super::watch::{Ask, Say};
use crate::domain::{ChatId, NodeId, Seq, UserName};

/// What an edge does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Ask(NodeId, Ask),
    /// These follow what the chat's feed has.
    Append {
        chat: ChatId,
        first: Seq,
        count: Seq,
    },
    /// The feed begins anew behind this one: its readers read what is before it in the
    /// store.
    Begin {
        chat: ChatId,
        newest: Seq,
    },
    /// End the user's streams of the chat.
    End {
        chat: ChatId,
        user: UserName,
    },
}

/// The chats that an edge's clients read and other nodes own.
#[derive(Debug, Default)]
pub struct Edge {
    chats: BTreeMap<ChatId, Followed>,
    /// Those that may have been given up.
    given_up: BTreeSet<ChatId>,
    /// How many questions have been asked.
    asked: u64,
    /// For the simulation to find.
    #[cfg(test)]
    pub(super) mutation: Option<Mutation>,
}

#[derive(Debug)]
struct Followed {
    owner: NodeId,
    /// The owner has said that it is none any more. It may become it again.
    is_given_up: bool,
    /// What the owner was asked last.
    number: u64,
    /// It has not answered that: neither who may read, nor what is new.
    is_unanswered: bool,
    /// Something that it said was lost, and it has not answered since: a removal may have
    /// been among it, so nothing behind it is shown before the answer.
    is_doubted: bool,
    newest: Option<Seq>,
    /// How many streams each user has.
    users: BTreeMap<UserName, usize>,
}

/// What is left out of an edge.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    AppendsOverAHole,
    TakesALookForAnAnswer,
    ForgetsAChat,
    LetsTheRemovedRead,
}

impl Edge {
    /// A stream of the user begins, whom the owner has let in.
    pub fn join(&mut self, chat: ChatId, user: UserName, owner: NodeId) -> Option<Effect> {
        let followed = self.chats.entry(chat).or_insert_with(|| Followed {
            owner,
            is_given_up: false,
            number: 0,
            is_unanswered: true,
            is_doubted: false,
            newest: None,
            users: BTreeMap::new(),
        });
        let streams = followed.users.entry(user).or_default();
        *streams += 1;
        // Who is another's second stream need not be asked about.
        (*streams == 1).then(|| followed.watch(chat, &mut self.asked))
    }

    /// A stream of the user has ended.
    pub fn leave(&mut self, chat: ChatId, user: &UserName) -> Option<Effect> {
        let followed = self.chats.get_mut(&chat)?;
        let streams = followed.users.get_mut(user)?;
        *streams -= 1;
        if *streams == 0 {
            followed.users.remove(user);
        }
        if !followed.users.is_empty() {
            return None;
        }
        let owner = followed.owner;
        self.chats.remove(&chat);
        Some(Effect::Ask(owner, Ask::Leave(chat)))
    }

    /// The chat lives here now, or there is nobody left who reads it.
    pub fn forget(&mut self, chat: ChatId) {
        self.chats.remove(&chat);
    }

    /// Whom the chat is watched at.
    pub fn owner(&self, chat: ChatId) -> Option<NodeId> {
        self.chats.get(&chat).map(|one| one.owner)
    }

    /// Who reads the chat.
    pub fn users(&self, chat: ChatId) -> impl Iterator<Item = &UserName> {
        let followed = self.chats.get(&chat).into_iter();
        followed.flat_map(|one| one.users.keys())
    }

    /// Something that the owner has said may be missing: it is asked again for all that is
    /// watched there.
    pub fn resync(&mut self, owner: NodeId) -> Vec<Effect> {
        let asked = &mut self.asked;
        let theirs = self.chats.iter_mut().filter(|(_, one)| one.owner == owner);
        #[cfg(test)]
        let theirs = theirs.skip(usize::from(self.mutation == Some(Mutation::ForgetsAChat)));
        let watch = |(chat, one): (&ChatId, &mut Followed)| {
            one.is_doubted = true;
            one.watch(*chat, asked)
        };
        theirs.map(watch).collect()
    }

    /// The chats for which this holds are owned by this node, as the table says.
    pub fn owned(&mut self, is_theirs: impl Fn(ChatId) -> bool, owner: NodeId) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (chat, one) in &mut self.chats {
            if is_theirs(*chat) && (one.owner != owner || one.is_given_up) {
                (one.owner, one.is_given_up) = (owner, false);
                effects.push(one.watch(*chat, &mut self.asked));
            }
        }
        effects
    }

    /// Watches again what was given up: whoever said so may not have known yet that the
    /// chat is its own.
    pub fn ask_again(&mut self, owner: impl Fn(ChatId) -> Option<NodeId>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for chat in std::mem::take(&mut self.given_up) {
            let Some(one) = self.chats.get_mut(&chat).filter(|one| one.is_given_up) else {
                continue;
            };
            match owner(chat) {
                Some(owner) => {
                    (one.owner, one.is_given_up) = (owner, false);
                    effects.push(one.watch(chat, &mut self.asked));
                }
                None => _ = self.given_up.insert(chat),
            }
        }
        effects
    }

    /// Watches again what has not been answered for long.
    pub fn ask_unanswered(&mut self) -> Vec<Effect> {
        let waiting = self.chats.iter_mut().filter(|(_, one)| one.is_unanswered);
        waiting.map(|(chat, one)| one.ask(*chat)).collect()
    }

    /// Chats of which it is not known who may still read them, and what is new: while that
    /// lasts, the store is looked at instead.
    pub fn unanswered(&self) -> impl Iterator<Item = ChatId> {
        let waiting = self.chats.iter().filter(|(_, one)| one.is_unanswered);
        waiting.map(|(chat, _)| *chat)
    }

    /// Takes in what an owner says, or one that was: what was committed is true whoever
    /// says it.
    pub fn said(&mut self, say: Say) -> Vec<Effect> {
        let chat = say.chat();
        let Some(one) = self.chats.get_mut(&chat) else {
            return Vec::new();
        };
        let doubts = one.is_doubted;
        #[cfg(test)]
        let doubts = doubts && self.mutation != Some(Mutation::AppendsOverAHole);
        match say {
            Say::Watching {
                newest,
                refused,
                number,
                ..
            } => {
                // The answer to an earlier question says nothing of who came since.
                one.is_unanswered &= number != one.number;
                one.is_doubted &= one.is_unanswered;
                self.looked(chat, newest, refused)
            }
            // The answer names the newest, and readers find the rest in the store.
            Say::Entries { .. } if doubts => Vec::new(),
            Say::Entries { first, count, .. } => one.append(
                chat,
                first,
                count,
                #[cfg(test)]
                self.mutation,
            ),
            Say::Removed { users, .. } => self.end(chat, users),
            Say::NotMine(_) => {
                one.is_given_up = true;
                self.given_up.insert(chat);
                Vec::new()
            }
        }
    }

    /// Takes in what was found in the store. It is no answer of the owner, who may not
    /// know who reads here: as long as there is none, the store is looked at again.
    pub fn looked(
        &mut self,
        chat: ChatId,
        newest: Seq,
        refused: BTreeSet<UserName>,
    ) -> Vec<Effect> {
        let mut effects = self.end(chat, refused);
        let Some(one) = self.chats.get_mut(&chat) else {
            return effects;
        };
        #[cfg(test)]
        if self.mutation == Some(Mutation::TakesALookForAnAnswer) {
            one.is_unanswered = false;
        }
        // What is between comes behind this, or is in the store.
        if one.newest.is_none_or(|known| known < newest) {
            one.newest = Some(newest);
            effects.push(Effect::Begin { chat, newest });
        }
        effects
    }

    fn end(&mut self, chat: ChatId, users: BTreeSet<UserName>) -> Vec<Effect> {
        #[cfg(test)]
        if self.mutation == Some(Mutation::LetsTheRemovedRead) {
            return Vec::new();
        }
        let Some(one) = self.chats.get_mut(&chat) else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        for user in users {
            if one.users.remove(&user).is_some() {
                effects.push(Effect::End { chat, user });
            }
        }
        if one.users.is_empty() {
            let owner = one.owner;
            self.chats.remove(&chat);
            effects.push(Effect::Ask(owner, Ask::Leave(chat)));
        }
        effects
    }
}

impl Followed {
    fn watch(&mut self, chat: ChatId, asked: &mut u64) -> Effect {
        *asked += 1;
        (self.number, self.is_unanswered) = (*asked, true);
        self.ask(chat)
    }

    fn ask(&self, chat: ChatId) -> Effect {
        let ask = Ask::Watch {
            chat,
            newest: self.newest,
            users: self.users.keys().cloned().collect(),
            number: self.number,
        };
        Effect::Ask(self.owner, ask)
    }

    /// Takes in so many messages from `first` on.
    fn append(
        &mut self,
        chat: ChatId,
        first: Seq,
        count: Seq,
        #[cfg(test)] mutation: Option<Mutation>,
    ) -> Vec<Effect> {
        let last = first + count - 1;
        let known = self.newest.replace(last);
        match known {
            // It was said before.
            Some(known) if last <= known => {
                self.newest = Some(known);
                Vec::new()
            }
            Some(known) if first <= known + 1 => vec![Effect::Append {
                chat,
                first: known + 1,
                count: last - known,
            }],
            #[cfg(test)]
            Some(_) if mutation == Some(Mutation::AppendsOverAHole) => {
                vec![Effect::Append { chat, first, count }]
            }
            _ => vec![
                Effect::Begin {
                    chat,
                    newest: first - 1,
                },
                Effect::Append { chat, first, count },
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{chat_id, user};

    #[test]
    fn p7_only_the_answer_to_the_last_question_says_who_may_read() {
        let (chat, owner) = (chat_id(1), NodeId(1));
        let mut edge = Edge::default();
        let mut join = |name| match edge.join(chat, user(name), owner) {
            Some(Effect::Ask(_, Ask::Watch { number, .. })) => number,
            other => panic!("{other:?}"),
        };
        let (first, last) = (join("ann"), join("bob"));
        let answer = |number| Say::Watching {
            chat,
            newest: 0,
            refused: BTreeSet::new(),
            number,
        };
        for number in [first, 0] {
            edge.said(answer(number));
            assert_eq!(edge.unanswered().count(), 1, "{number}");
        }
        edge.looked(chat, 0, BTreeSet::new());
        assert_eq!(
            edge.unanswered().count(),
            1,
            "what the store says is no answer"
        );
        edge.said(answer(last));
        assert_eq!(edge.unanswered().count(), 0);
    }

    #[test]
    fn p7_behind_a_gap_nothing_is_shown_before_it_is_known_who_may_read() {
        let (chat, owner) = (chat_id(1), NodeId(1));
        let mut edge = Edge::default();
        edge.join(chat, user("eve"), owner);
        let watching = |newest, refused: &[&str], number| Say::Watching {
            chat,
            newest,
            refused: refused.iter().map(|name| user(name)).collect(),
            number,
        };
        edge.said(watching(4, &[], 1));
        let entries = |first, count| Say::Entries { chat, first, count };
        assert_eq!(edge.said(entries(5, 1)).len(), 1);
        // Her removal was lost, and so was the sixth message.
        let asked = edge.resync(owner);
        let [Effect::Ask(_, Ask::Watch { number, .. })] = asked[..] else {
            panic!("{asked:?}");
        };
        assert_eq!(edge.said(entries(7, 2)), []);
        // The answer to an earlier question does not count.
        edge.said(watching(5, &[], number - 1));
        assert_eq!(edge.said(entries(9, 1)), []);
        let effects = edge.said(watching(9, &["eve"], number));
        let end = Effect::End {
            chat,
            user: user("eve"),
        };
        assert_eq!(effects[0], end);
    }
}
