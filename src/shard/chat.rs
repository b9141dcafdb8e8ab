mod changes;
mod outcomes;
mod taking;
mod targets;

use std::{collections::VecDeque, time::Instant};

use smallvec::SmallVec;

use self::targets::Targets;
use super::{
    members::Members,
    post::{Effect, Load, Post},
    window::{Key, Known, TextDigest, Window},
};
use crate::{
    domain::{
        ChatId, Draft, GivenId, Invalid, MessageId, Receipt, Refusal, Row, Seq, Timestamp, UserName,
    },
    store::ChatRecord,
    telemetry::SpanRef,
};

/// How many calls may wait for the outcome of one message.
const MAX_WAITERS: usize = 16;

/// Bytes of a member, about: its name, twice referred to.
const MEMBER: usize = 96;

/// The state of one chat: command in, effects out, time as an argument.
///
/// Invariants:
/// 1. A message gets its seq when it leaves for the writer, and while some are
///    with the writer no others leave. So no seq is promised twice (P2).
/// 2. Effects that show a message follow the writer's word that it is committed
///    (P1, P3).
/// 3. Every post gets exactly one answer.
/// 4. What changes a message is held against all that has a seq before it.
#[derive(Debug)]
pub struct Chat<R> {
    id: ChatId,
    created_by: UserName,
    created_at: Timestamp,
    members: Members,
    last_seq: Seq,
    /// Of the newest message, if there is one.
    last_id: Option<MessageId>,
    last_time: Timestamp,
    /// Messages up to and with the newest entry.
    number: Seq,
    /// Accepted, without a seq yet; in the order of their tickets.
    queued: VecDeque<Queued<R>>,
    /// The same of what waits for the message that it changes to be read.
    aside: VecDeque<Queued<R>>,
    /// With the writer; in the order of their tickets and seqs.
    in_flight: VecDeque<InFlight<R>>,
    next_ticket: u64,
    bytes: usize,
    window: Window,
    targets: Targets,
    /// Spans of the sampled posts that [`Chat::take`] gave out last.
    sampled: Vec<SpanRef>,
}

/// Who waits for the outcome of a message: the call that posted it, and its
/// retries.
type Waiters<R> = SmallVec<[Waiter<R>; 1]>;

#[derive(Debug)]
struct Waiter<R> {
    reply: R,
    deadline: Instant,
}

#[derive(Debug)]
struct Queued<R> {
    ticket: u64,
    from: UserName,
    draft: Draft,
    id: Option<GivenId>,
    key: Option<Key>,
    span: Option<Box<SpanRef>>,
    waiters: Waiters<R>,
}

#[derive(Debug)]
struct InFlight<R> {
    ticket: u64,
    id: MessageId,
    weight: usize,
    key: Option<Key>,
    /// Of one that is no plain message.
    rare: Option<Box<Rare>>,
    waiters: Waiters<R>,
}

/// What few posts have, as their drafts had it.
#[derive(Debug)]
struct Rare {
    refers_to: Option<Seq>,
    admin: bool,
}

impl<R> Chat<R> {
    /// A chat as the store has it, with its newest messages. The last `window`
    /// messages are known when they are posted again (P5); `by_id`, also those that no
    /// client has given an id: another node may post them again.
    pub fn new(record: ChatRecord, newest: &[Row], window: usize, by_id: bool) -> Self {
        let mut known = Window::new(window);
        for row in newest {
            let id = || by_id.then(|| Key::of_id(row.id));
            let key = Key::of(row).or_else(id);
            known.store(row, key);
        }
        let last_time = newest
            .last()
            .map_or(record.created_at, |row| row.created_at);
        Self {
            id: record.id,
            created_by: record.created_by,
            created_at: record.created_at,
            members: Members::new(record.members),
            last_seq: record.last_seq,
            last_id: newest.last().map(|row| row.id),
            last_time,
            number: newest.last().map_or(0, |row| row.number),
            queued: VecDeque::new(),
            aside: VecDeque::new(),
            in_flight: VecDeque::new(),
            next_ticket: 0,
            bytes: 0,
            window: known,
            targets: Targets::default(),
            sampled: Vec::new(),
        }
    }

    pub fn id(&self) -> ChatId {
        self.id
    }

    pub fn created_by(&self) -> &UserName {
        &self.created_by
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    pub fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }

    pub fn last_seq(&self) -> Seq {
        self.last_seq
    }

    /// The newest message, if there is one.
    pub fn newest(&self) -> Option<(Seq, MessageId)> {
        self.last_id.map(|id| (self.last_seq, id))
    }

    /// The time of the newest message, if a clock that was ahead has left it so far
    /// ahead of this one: those that follow have it too, until the clock is there.
    pub fn time_ahead(&self, wall: Timestamp) -> Option<Timestamp> {
        const NOTABLE: i64 = 1_000_000;
        (self.last_time.0 - wall.0 > NOTABLE).then_some(self.last_time)
    }

    pub fn made(&self) -> Timestamp {
        self.created_at
    }

    /// Whether the record is of this chat, and not of another one with its id.
    pub fn is_made_as(&self, record: &ChatRecord) -> bool {
        (self.created_at, &self.created_by) == (record.created_at, &record.created_by)
    }

    /// The chat as the store has it now.
    pub fn record(&self) -> ChatRecord {
        ChatRecord {
            id: self.id,
            created_by: self.created_by.clone(),
            created_at: self.created_at,
            members: self.members.in_order().to_vec(),
            member_count: self.members.in_order().len(),
            last_seq: self.last_seq,
        }
    }

    /// Bytes that it takes in memory besides this struct, about, less its posts'.
    pub fn weight(&self) -> usize {
        let members = self.members.in_order().len() * MEMBER;
        self.window.weight() + self.targets.weight() + members
    }

    pub fn load(&self) -> Load {
        Load {
            posts: self.queued.len() + self.aside.len() + self.in_flight.len(),
            bytes: self.bytes,
        }
    }

    pub fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Posts that [`Chat::take`] could give out.
    pub fn ready(&self) -> usize {
        if self.has_in_flight() {
            return 0;
        }
        self.queued.len()
    }

    pub fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Messages that are with the writer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes a post in, or answers it at once.
    pub fn accept(&mut self, post: Post<R>, effects: &mut Vec<Effect<R>>) {
        let Post {
            from,
            draft,
            id,
            span,
            deadline,
            reply,
        } = post;
        if !draft.admin && !self.members.contains(&from) {
            effects.push(Effect::Answer(reply, Err(Refusal::NotMember)));
            return;
        }
        let waiter = Waiter { reply, deadline };
        let own = Key::new(&from, draft.client_message_id.as_ref());
        let key = own.or_else(|| id.map(|id| Key::of_id(id.into())));
        let ticket = self.next_ticket;
        let text = key.map(|_| TextDigest::of(&draft.text, draft.posted()));
        let both = key.zip(text);
        match both.and_then(|(key, text)| self.window.begin(key, ticket, text)) {
            Some(known) if text.is_some_and(|text| !known.text().is_same(text)) => {
                effects.push(Effect::Answer(waiter.reply, Err(another_text())));
            }
            Some(Known::Stored(seq, created_at, _, stored)) => {
                let receipt = Receipt {
                    seq,
                    created_at,
                    // Under the same id it is another node that asks again, not the client.
                    duplicate: own.is_some() && id.map(MessageId::from) != Some(stored),
                };
                effects.push(Effect::Answer(waiter.reply, Ok(receipt)));
            }
            Some(Known::UnderWay(ticket, _)) => {
                if let Err(waiter) = self.attach(ticket, waiter) {
                    let queue = "retries of one message";
                    effects.push(Effect::Answer(waiter.reply, Err(Refusal::Busy { queue })));
                }
            }
            None => {
                self.next_ticket += 1;
                self.bytes += draft.weight();
                self.enqueue(Queued {
                    ticket,
                    from,
                    draft,
                    id,
                    key,
                    span,
                    waiters: SmallVec::from_buf([waiter]),
                });
            }
        }
    }

    fn attach(&mut self, ticket: u64, waiter: Waiter<R>) -> Result<(), Waiter<R>> {
        let in_flight = self
            .in_flight
            .binary_search_by_key(&ticket, |post| post.ticket);
        let place =
            |posts: &VecDeque<Queued<R>>| posts.binary_search_by_key(&ticket, |post| post.ticket);
        let waiters = match (in_flight, place(&self.queued), place(&self.aside)) {
            (Ok(at), ..) => &mut self.in_flight[at].waiters,
            (_, Ok(at), _) => &mut self.queued[at].waiters,
            (.., Ok(at)) => &mut self.aside[at].waiters,
            // The window names only posts that one of the three holds.
            (Err(_), Err(_), Err(_)) => return Err(waiter),
        };
        join(waiters, waiter)
    }
}

/// Puts a post where its ticket is.
fn insert<R>(posts: &mut VecDeque<Queued<R>>, post: Queued<R>) {
    let at = posts.partition_point(|other| other.ticket < post.ticket);
    posts.insert(at, post);
}

/// Another call that waits for the same outcome, unless there are many.
fn join<R>(waiters: &mut Waiters<R>, waiter: Waiter<R>) -> Result<(), Waiter<R>> {
    if waiters.len() >= MAX_WAITERS {
        return Err(waiter);
    }
    waiters.push(waiter);
    Ok(())
}

/// An id that names another message already: to answer "stored" would lose this
/// one without a word.
fn another_text() -> Refusal {
    Refusal::Invalid {
        field: "client_message_id",
        why: Invalid("names another message of yours, with another text".to_owned()),
    }
}

#[cfg(test)]
mod tests;
