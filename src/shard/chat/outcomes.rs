//! What becomes of the posts that a chat has taken in: they land, they expire,
//! they are refused. Each waiter is answered once.

use std::{collections::VecDeque, time::Instant};

use super::{Chat, InFlight, Queued, Waiters, another_text, insert};
use crate::{
    domain::{Draft, GivenId, MessageId, Receipt, Refusal, Row, Seq, Timestamp},
    shard::{
        post::{Effect, Post},
        window::{Key, Known, TextDigest},
    },
    writer::Landed,
};

impl<R> Chat<R> {
    /// What became of a message that [`Chat::take`] gave out, or which message
    /// another writer has put into this chat. In order of seq.
    pub fn landed(&mut self, landed: Landed, effects: &mut Vec<Effect<R>>) {
        if !matches!(landed, Landed::Stored(_)) {
            self.targets.forget();
        }
        match landed {
            Landed::Stored(row) => {
                let key = match self.settle(row.id) {
                    Some(post) => {
                        answer_stored(post.waiters, row.seq, row.created_at, false, effects);
                        post.key
                    }
                    None => Key::of(&row),
                };
                self.publish(row, key, effects);
            }
            Landed::Foreign(row) => {
                let key = Key::of(&row);
                self.settle_queued(&row, key, effects);
                self.publish(row, key, effects);
            }
            Landed::Duplicate {
                id,
                seq,
                created_at,
                ..
            } => {
                if let Some(post) = self.settle(id) {
                    answer_stored(post.waiters, seq, created_at, true, effects);
                }
            }
            Landed::Held(row) => self.take_back(row),
            Landed::Refused { id, .. } => {
                if let Some(post) = self.settle(id) {
                    self.drop_post(post.key, post.waiters, Refusal::Refused, effects);
                }
            }
            Landed::NoChat { id, .. } => {
                if let Some(post) = self.settle(id) {
                    self.drop_post(post.key, post.waiters, Refusal::NotMember, effects);
                }
            }
            Landed::Lost { id, .. } => {
                if let Some(post) = self.settle(id) {
                    self.drop_post(post.key, post.waiters, Refusal::Lost, effects);
                }
            }
        }
    }

    /// A message that was not written waits again, where it was.
    fn take_back(&mut self, row: Row) {
        let Some(post) = self.settle(row.id) else {
            return;
        };
        self.bytes += post.weight;
        let queued = Queued {
            ticket: post.ticket,
            from: row.from,
            draft: Draft {
                text: row.text,
                client_message_id: row.client_message_id,
                change: row.change,
                admin: post.rare.is_some_and(|rare| rare.admin),
            },
            id: GivenId::of(row.id),
            key: post.key,
            span: None,
            waiters: post.waiters,
        };
        insert(&mut self.queued, queued);
    }

    /// Another writer has stored a post that is queued here.
    fn settle_queued(&mut self, row: &Row, key: Option<Key>, effects: &mut Vec<Effect<R>>) {
        let known = key.and_then(|key| self.window.get(key));
        if let Some(Known::UnderWay(ticket, text)) = known
            && let Some(post) = self.take_out(ticket)
        {
            self.bytes -= post.draft.weight();
            if !text.is_same(TextDigest::of_row(row)) {
                return answer_refused(post.waiters, another_text(), effects);
            }
            let again = post.id.map(MessageId::from) != Some(row.id);
            answer_stored(post.waiters, row.seq, row.created_at, again, effects);
        }
    }

    /// Takes out a post that has not left for the writer.
    fn take_out(&mut self, ticket: u64) -> Option<Queued<R>> {
        for posts in [&mut self.queued, &mut self.aside] {
            if let Ok(at) = posts.binary_search_by_key(&ticket, |post| post.ticket) {
                return posts.remove(at);
            }
        }
        None
    }

    /// Mostly the first; a duplicate may be settled before those ahead of it.
    fn settle(&mut self, id: MessageId) -> Option<InFlight<R>> {
        let at = self.in_flight.iter().position(|post| post.id == id);
        debug_assert!(at.is_some(), "every row out is one of ours");
        let post = self.in_flight.remove(at?)?;
        self.bytes -= post.weight;
        Some(post)
    }

    fn publish(&mut self, row: Row, key: Option<Key>, effects: &mut Vec<Effect<R>>) {
        debug_assert_eq!(row.seq, self.last_seq + 1, "P2");
        self.last_seq = row.seq;
        self.last_id = Some(row.id);
        self.last_time = self.last_time.max(row.created_at);
        self.number = row.number;
        self.window.store(&row, key);
        if row.change.is_some() {
            self.sweep_targets();
        }
        effects.push(Effect::Publish(row));
    }

    /// Answers whoever waits past a deadline. A queued post that nobody waits
    /// for any more is dropped: it will not be stored.
    pub fn expire(&mut self, now: Instant, effects: &mut Vec<Effect<R>>) {
        let is_late = |post: &Queued<R>| post.waiters.iter().all(|waiter| waiter.deadline <= now);
        let mut late = Vec::new();
        for posts in [&mut self.queued, &mut self.aside] {
            let (gone, left): (VecDeque<_>, _) =
                std::mem::take(posts).into_iter().partition(is_late);
            *posts = left;
            late.extend(gone);
        }
        for post in late {
            self.drop_queued(post, Refusal::Expired, effects);
        }
        let queued = self.queued.iter_mut().chain(&mut self.aside);
        let queued = queued.map(|post| &mut post.waiters);
        let in_flight = self.in_flight.iter_mut().map(|post| &mut post.waiters);
        for waiters in queued.chain(in_flight) {
            if waiters.iter().any(|waiter| waiter.deadline <= now) {
                let (late, rest): (Waiters<R>, _) =
                    waiters.drain(..).partition(|waiter| waiter.deadline <= now);
                *waiters = rest;
                answer_refused(late, Refusal::OutcomeUnknown, effects);
            }
        }
    }

    /// Answers every post that has not left for the writer.
    pub fn refuse_queued(&mut self, refusal: Refusal, effects: &mut Vec<Effect<R>>) {
        for post in self.take_all() {
            self.drop_queued(post, refusal.clone(), effects);
        }
    }

    /// Takes out every post that has not left for the writer, one for each who waits
    /// for its outcome: the chat goes on elsewhere.
    pub fn take_queued(&mut self) -> Vec<Post<R>> {
        let mut posts = Vec::with_capacity(self.queued.len() + self.aside.len());
        for post in self.take_all() {
            self.bytes -= post.draft.weight();
            if let Some(key) = post.key {
                self.window.forget(key);
            }
            // All are the same post, so they have one id.
            let id = match post.waiters.len() {
                1 => post.id,
                _ => post.id.or_else(|| GivenId::of(MessageId::random())),
            };
            posts.extend(post.waiters.into_iter().map(|waiter| Post {
                from: post.from.clone(),
                draft: post.draft.clone(),
                id,
                span: None,
                deadline: waiter.deadline,
                reply: waiter.reply,
            }));
        }
        posts
    }

    /// In the order of their tickets.
    fn take_all(&mut self) -> Vec<Queued<R>> {
        let queued = std::mem::take(&mut self.queued);
        let aside = std::mem::take(&mut self.aside);
        let mut all: Vec<Queued<R>> = queued.into_iter().chain(aside).collect();
        all.sort_by_key(|post| post.ticket);
        all
    }

    /// The earliest deadline of anyone who waits.
    pub fn earliest_deadline(&self) -> Option<Instant> {
        let queued = self.queued.iter().chain(&self.aside);
        let queued = queued.flat_map(|post| &post.waiters);
        let in_flight = self.in_flight.iter().flat_map(|post| &post.waiters);
        queued.chain(in_flight).map(|waiter| waiter.deadline).min()
    }

    pub(super) fn drop_queued(
        &mut self,
        post: Queued<R>,
        refusal: Refusal,
        effects: &mut Vec<Effect<R>>,
    ) {
        self.bytes -= post.draft.weight();
        self.drop_post(post.key, post.waiters, refusal, effects);
    }

    fn drop_post(
        &mut self,
        key: Option<Key>,
        waiters: Waiters<R>,
        refusal: Refusal,
        effects: &mut Vec<Effect<R>>,
    ) {
        if let Some(key) = key {
            self.window.forget(key);
        }
        answer_refused(waiters, refusal, effects);
    }
}

/// The first who waited stored it; the others are its retries.
pub(super) fn answer_stored<R>(
    waiters: Waiters<R>,
    seq: Seq,
    created_at: Timestamp,
    duplicate: bool,
    effects: &mut Vec<Effect<R>>,
) {
    effects.extend(waiters.into_iter().enumerate().map(|(at, waiter)| {
        let receipt = Receipt {
            seq,
            created_at,
            duplicate: duplicate || at > 0,
        };
        Effect::Answer(waiter.reply, Ok(receipt))
    }));
}

fn answer_refused<R>(waiters: Waiters<R>, refusal: Refusal, effects: &mut Vec<Effect<R>>) {
    let results = waiters.into_iter();
    effects.extend(results.map(|waiter| Effect::Answer(waiter.reply, Err(refusal.clone()))));
}
