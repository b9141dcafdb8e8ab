//! Posts that change or answer a message: they wait until that is known.

use super::{
    Chat, Queued, insert, join,
    targets::{Asker, Verdict},
};
use crate::{
    domain::{Refusal, Seq, Target, Timestamp},
    shard::post::{Effect, Rules},
};

impl<R> Chat<R> {
    /// Puts a new post where it waits for its seq, or first for its message to be read.
    pub(super) fn enqueue(&mut self, post: Queued<R>) {
        match post.draft.refers_to() {
            Some(target) if !self.targets.is_known(target) => self.put_aside(post),
            _ => self.queued.push_back(post),
        }
    }

    /// Has the message read that the post changes or answers.
    pub(super) fn put_aside(&mut self, post: Queued<R>) {
        if let Some(target) = post.draft.refers_to() {
            self.targets.want(target);
        }
        insert(&mut self.aside, post);
    }

    /// Whether messages are to be read from the store.
    pub fn wants_targets(&self) -> bool {
        self.targets.is_wanting()
    }

    /// Those that are to be read, and the number of the question.
    pub fn targets_to_read(&mut self) -> Option<(u64, Vec<Seq>)> {
        self.targets.begin_reading()
    }

    /// Takes in what the store has of them; `None`: it could not be asked.
    pub fn targets_read(
        &mut self,
        number: u64,
        found: Option<Vec<Target>>,
        effects: &mut Vec<Effect<R>>,
    ) {
        let failed = found.is_none();
        let read = self.targets.read(number, found);
        for post in std::mem::take(&mut self.aside) {
            let target = post
                .draft
                .refers_to()
                .filter(|target| read.contains(target));
            match target {
                None => self.aside.push_back(post),
                Some(_) if failed => self.drop_queued(post, Refusal::Unavailable, effects),
                // Where it would be if it had not had to wait.
                Some(_) => insert(&mut self.queued, post),
            }
        }
    }

    /// Whether the post may change or answer its message as all is that has a seq.
    pub(super) fn judge(&self, post: &Queued<R>, now: Timestamp, rules: &Rules) -> Verdict {
        let asker = Asker {
            from: &post.from,
            is_creator: self.created_by == post.from,
            now,
            rules,
        };
        self.targets.judge(&post.draft, &asker)
    }

    /// Answers a post that wants what is so already, by the entry `seq`: once that is
    /// stored.
    pub(super) fn answer_standing(
        &mut self,
        post: Queued<R>,
        seq: Seq,
        created_at: Timestamp,
        effects: &mut Vec<Effect<R>>,
    ) {
        self.bytes -= post.draft.weight();
        if let Some(key) = post.key {
            self.window.forget(key);
        }
        if seq <= self.last_seq {
            return super::outcomes::answer_stored(post.waiters, seq, created_at, true, effects);
        }
        let at = (seq - self.last_seq - 1) as usize;
        for waiter in post.waiters {
            let joined = match self.in_flight.get_mut(at) {
                Some(other) => join(&mut other.waiters, waiter),
                None => Err(waiter),
            };
            if let Err(waiter) = joined {
                let queue = "retries of one message";
                effects.push(Effect::Answer(waiter.reply, Err(Refusal::Busy { queue })));
            }
        }
    }

    /// Lets go of what is known of messages that nobody is about to change.
    pub(super) fn sweep_targets(&mut self) {
        let queued = self.queued.iter();
        let queued = queued.filter_map(|post| post.draft.refers_to());
        let in_flight = self.in_flight.iter();
        let in_flight = in_flight.filter_map(|post| post.rare.as_ref()?.refers_to);
        let needed: Vec<Seq> = queued.chain(in_flight).collect();
        self.targets.sweep(|seq| needed.contains(&seq));
    }
}

#[cfg(test)]
mod tests;
