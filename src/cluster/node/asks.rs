//! What this node's clients want of chats that live elsewhere.
//!
//! Each ask has a number. It goes to the owner of the chat's partition; if that owner
//! changes, or something between the two nodes was lost, it goes out again under the same
//! number, and a post under the same id, so that it is stored once. Asks of one partition
//! go out in the order of their numbers, and those that were with a shard before come
//! first: they were made before the others.

mod answers;
mod what;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::what::{What, refuse};
use super::Node;
use crate::{
    cluster::handle::{Answered, Asked, Joining},
    domain::{ChatError, ChatId, GivenId, MessageId, NodeId, Partition, Refusal},
    shard::{Asking, Post, Reply},
};

/// After an owner has said that the chat lives elsewhere, the table is read before it is
/// asked for again.
const COOL: Duration = Duration::from_millis(10);

/// An owner answers by the deadline; so long after it nothing is waited for.
const GRACE: Duration = Duration::from_millis(100);

/// Where numbers begin, about; those of what comes back from shards are smaller. They are
/// drawn, so that no answer to another node, or of another time, passes for one of these.
const FIRST: u64 = 1 << 62;

/// All that waits.
#[derive(Debug)]
pub(in crate::cluster) struct Asks {
    /// The last numbers: from [`FIRST`] on, and of those that have come back from shards.
    asked: u64,
    moved: u64,
    waiting: BTreeMap<u64, Waiting>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those that are with nobody.
    unsent: BTreeMap<Partition, BTreeSet<u64>>,
    cool: BTreeMap<Partition, Instant>,
}

#[derive(Debug)]
struct Waiting {
    chat: ChatId,
    deadline: Instant,
    /// Who has it; nobody, if it is to be sent.
    to: Option<NodeId>,
    /// When it was sent last, if it ever was: somebody may have it, or has had it.
    at: Option<Instant>,
    what: What,
}

impl Default for Asks {
    fn default() -> Self {
        Self {
            asked: fastrand::u64(..FIRST),
            moved: fastrand::u64(..FIRST / 2),
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unsent: BTreeMap::new(),
            cool: BTreeMap::new(),
        }
    }
}

impl Asks {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn add(&mut self, chat: ChatId, what: What, was_here: bool, deadline: Instant) -> Partition {
        let number = match was_here {
            true => {
                self.moved += 1;
                self.moved
            }
            false => {
                self.asked += 1;
                FIRST + self.asked
            }
        };
        self.deadlines.insert((deadline, number));
        let waiting = Waiting {
            chat,
            deadline,
            to: None,
            at: None,
            what,
        };
        self.waiting.insert(number, waiting);
        let partition = Partition::of(chat);
        self.unsent.entry(partition).or_default().insert(number);
        partition
    }

    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let one = self.waiting.remove(&number)?;
        self.deadlines.remove(&(one.deadline, number));
        if one.to.is_none() {
            self.sent(Partition::of(one.chat), number);
        }
        Some(one)
    }

    fn sent(&mut self, partition: Partition, number: u64) {
        if let Some(unsent) = self.unsent.get_mut(&partition) {
            unsent.remove(&number);
            if unsent.is_empty() {
                self.unsent.remove(&partition);
                self.cool.remove(&partition);
            }
        }
    }

    /// It is with nobody any more, and to be sent again.
    fn unsend(&mut self, number: u64) {
        if let Some(one) = self.waiting.get_mut(&number) {
            one.to = None;
            let partition = Partition::of(one.chat);
            self.unsent.entry(partition).or_default().insert(number);
        }
    }
}

impl Node {
    pub(super) fn ask_post(&mut self, chat: ChatId, post: Post<Reply>) {
        let id = post.id.map_or_else(MessageId::random, MessageId::from);
        self.ask(chat, What::Post(post, id), false);
    }

    /// A post that a shard had has to go elsewhere.
    pub(super) fn ask_moved(&mut self, chat: ChatId, post: Post<Reply>) {
        match post.reply {
            Reply::Call(Asking::Node(asking)) => self.moved_post(asking.node, asking.ask),
            _ => {
                let id = post.id.map_or_else(MessageId::random, MessageId::from);
                self.ask(chat, What::Post(post, id), true);
            }
        }
    }

    pub(super) fn ask_call(
        &mut self,
        chat: ChatId,
        asked: Asked,
        answer: oneshot::Sender<Result<Answered, ChatError>>,
    ) {
        self.ask(chat, What::Call(asked, answer), false);
    }

    pub(super) fn ask_join(&mut self, chat: ChatId, joining: Joining) {
        self.ask(chat, What::Join(joining), false);
    }

    fn ask(&mut self, chat: ChatId, what: What, was_here: bool) {
        if self.ending.is_some() && !was_here {
            return refuse(what, &Refusal::Draining, ChatError::Draining);
        }
        let deadline = match &what {
            What::Post(post, _) => post.deadline,
            What::Call(..) | What::Join(_) => self.now() + self.plan.patience,
        };
        let partition = self.asks.add(chat, what, was_here, deadline);
        self.send_unsent(partition);
    }

    /// Sends what is with nobody, if there is somebody to send it to.
    pub(super) fn send_unsent(&mut self, partition: Partition) {
        let Some(unsent) = self.asks.unsent.get(&partition) else {
            return;
        };
        let now = self.now();
        let is_cool = self.asks.cool.get(&partition).is_some_and(|at| *at > now);
        let numbers: Vec<u64> = unsent.iter().copied().collect();
        if self.state.serves(partition) {
            numbers
                .into_iter()
                .for_each(|number| self.serve_ask(number));
            return;
        }
        let owner = self.known.owner(partition).filter(|one| *one != self.id);
        if let Some(owner) = owner.filter(|_| !is_cool) {
            for number in numbers {
                self.send_ask(number, owner, now);
            }
        }
    }

    pub(super) fn send_all_unsent(&mut self, now: Instant) {
        let due = |(partition, _): &(&Partition, &BTreeSet<u64>)| {
            self.asks.cool.get(partition).is_none_or(|at| *at <= now)
        };
        let partitions = self.asks.unsent.iter().filter(due);
        let partitions: Vec<Partition> = partitions.map(|(one, _)| *one).collect();
        partitions.into_iter().for_each(|one| self.send_unsent(one));
    }

    /// The chat lives here.
    fn serve_ask(&mut self, number: u64) {
        let Some(one) = self.asks.remove(number) else {
            return;
        };
        match one.what {
            What::Post(mut post, id) => {
                post.id = GivenId::of(id);
                self.plan.shards.of(one.chat).pass(one.chat, post);
            }
            // Whoever has asked asks again, and the shard.
            What::Call(_, answer) => _ = answer.send(Err(ChatError::Moved)),
            What::Join(joining) => _ = joining.answer.send(Err(ChatError::Moved)),
        }
    }

    fn send_ask(&mut self, number: u64, owner: NodeId, now: Instant) {
        let Some(one) = self.asks.waiting.get_mut(&number) else {
            return;
        };
        let item = one.what.to_wire(one.chat, number, now);
        (one.to, one.at) = (Some(owner), Some(now));
        let partition = Partition::of(one.chat);
        self.asks.sent(partition, number);
        self.tell(owner, item);
    }

    /// Asks again what this node has: it may not have heard it, or its answer was lost.
    pub(super) fn ask_again(&mut self, with: NodeId) {
        let theirs = self
            .asks
            .waiting
            .iter()
            .filter(|(_, one)| one.to == Some(with));
        let theirs: Vec<(u64, Partition)> = theirs
            .map(|(number, one)| (*number, Partition::of(one.chat)))
            .collect();
        for (number, _) in &theirs {
            self.asks.unsend(*number);
        }
        let partitions: BTreeSet<Partition> = theirs.into_iter().map(|(_, one)| one).collect();
        partitions.into_iter().for_each(|one| self.send_unsent(one));
    }

    /// The partitions have other owners now: what their old ones have goes there.
    pub(super) fn ask_elsewhere(&mut self, partitions: &BTreeSet<Partition>) {
        let is_theirs = |one: &&Waiting| partitions.contains(&Partition::of(one.chat));
        let sent = self.asks.waiting.iter().filter(|(_, one)| is_theirs(one));
        let sent: Vec<u64> = sent
            .filter(|(_, one)| one.to.is_some())
            .map(|(number, _)| *number)
            .collect();
        sent.into_iter().for_each(|number| self.asks.unsend(number));
        for partition in partitions {
            self.asks.cool.remove(partition);
            self.send_unsent(*partition);
        }
    }

    /// This node is another one now, and nobody knows what it has asked for.
    pub(super) fn forget_where_asked(&mut self) {
        let all: Vec<u64> = self.asks.waiting.keys().copied().collect();
        all.into_iter().for_each(|number| self.asks.unsend(number));
    }

    pub(super) fn expire_asks(&mut self, now: Instant) {
        while let Some((deadline, number)) = self.asks.deadlines.first().copied() {
            let Some(one) = self.asks.waiting.get(&number) else {
                self.asks.deadlines.pop_first();
                continue;
            };
            let wait = if one.to.is_some() {
                GRACE
            } else {
                Duration::ZERO
            };
            if deadline + wait > now {
                return;
            }
            let was_sent = one.at.is_some();
            if let Some(one) = self.asks.remove(number) {
                let refusal = match was_sent {
                    true => Refusal::OutcomeUnknown,
                    false => Refusal::Expired,
                };
                refuse(one.what, &refusal, ChatError::Unavailable);
            }
        }
    }

    /// Forgets what nobody waits for any more.
    pub(super) fn sweep_asks(&mut self) {
        let is_left = |one: &Waiting| match &one.what {
            What::Post(..) => false,
            What::Call(_, answer) => answer.is_closed(),
            What::Join(joining) => joining.answer.is_closed(),
        };
        let left = self.asks.waiting.iter().filter(|(_, one)| is_left(one));
        let left: Vec<u64> = left.map(|(number, _)| *number).collect();
        for number in left {
            self.asks.remove(number);
        }
    }
}
