//! What comes back from the nodes that were asked.

use std::sync::Arc;

use super::{COOL, Waiting, what::What};
use crate::{
    cluster::{
        handle::{Answered, Joining},
        node::Node,
        wire as read,
    },
    domain::{ChatError, ChatId, NodeId, Partition, Seq},
    feed::{Reader, Slot},
    proto::cluster::{self as wire, answer::Answer},
};

impl Node {
    /// The chat is not where it was asked for.
    fn is_elsewhere(&mut self, number: u64) {
        let Some(one) = self.asks.waiting.get(&number) else {
            return;
        };
        let partition = Partition::of(one.chat);
        self.asks.unsend(number);
        self.asks.cool.insert(partition, self.now() + COOL);
        self.times.look = true;
    }

    pub(in crate::cluster::node) fn take_outcome(&mut self, from: NodeId, outcome: wire::Outcome) {
        let number = outcome.ask;
        let is_this = |one: &Waiting| matches!(one.what, What::Post(..));
        if !self.asks.waiting.get(&number).is_some_and(is_this) {
            return;
        }
        match read::read_outcome(outcome) {
            // One that is not asked any more knows nothing.
            None if !self.was_asked(number, from) => {}
            None => self.is_elsewhere(number),
            // What is stored is, whoever says so; what is not may be elsewhere.
            Some(Err(_)) if !self.was_asked(number, from) => {}
            Some(result) => {
                self.measure(number);
                if let Some(one) = self.asks.remove(number)
                    && let What::Post(post, _) = one.what
                {
                    post.reply.send(result);
                }
            }
        }
    }

    /// Its owner has answered.
    fn measure(&self, number: u64) {
        let at = self.asks.waiting.get(&number).and_then(|one| one.at);
        if let Some(at) = at {
            let took = self.now().saturating_duration_since(at);
            self.plan.history.metrics.owner_answered(took);
        }
    }

    fn was_asked(&self, number: u64, node: NodeId) -> bool {
        let one = self.asks.waiting.get(&number);
        one.is_some_and(|one| one.to == Some(node))
    }

    pub(in crate::cluster::node) fn take_answer(&mut self, from: NodeId, answer: wire::Answer) {
        let number = answer.ask;
        let Some(answer) = answer.answer.filter(|_| self.was_asked(number, from)) else {
            return;
        };
        if let Answer::Refused(refused) = &answer
            && read::read_error(refused) == ChatError::Moved
        {
            return self.is_elsewhere(number);
        }
        self.measure(number);
        let Some(one) = self.asks.remove(number) else {
            return;
        };
        match one.what {
            What::Post(..) => {}
            What::Call(_, caller) => {
                let read = match answer {
                    Answer::Described(described) => read::read_described(described)
                        .map(|(record, count)| Answered::Described(record, count))
                        .map_err(|_| ChatError::Unavailable),
                    Answer::Done(_) => Ok(Answered::Done),
                    Answer::Refused(refused) => Err(read::read_error(&refused)),
                    Answer::Joined(_) => Err(ChatError::Unavailable),
                };
                // Whoever has gone away does not want it any more.
                _ = caller.send(read);
            }
            What::Join(joining) => self.joined(one.chat, joining, &answer),
        }
    }

    fn joined(&mut self, chat: ChatId, joining: Joining, answer: &Answer) {
        let Joining {
            user,
            after_seq,
            core,
            answer: caller,
        } = joining;
        let last: Seq = match answer {
            Answer::Joined(last) => *last,
            Answer::Refused(refused) => return drop(caller.send(Err(read::read_error(refused)))),
            _ => return drop(caller.send(Err(ChatError::Unavailable))),
        };
        if caller.is_closed() {
            return;
        }
        let feed = self.followed(chat, last);
        let slot = Arc::new(Slot::new(user.clone(), self.plan.stream_posts));
        let cursor = after_seq.unwrap_or(last);
        let reader = Reader::join(feed, slot, core, cursor, self.plan.history.clone());
        self.reader_joined(chat, user);
        // A reader that nobody takes leaves at once.
        _ = caller.send(Ok(reader));
    }
}
