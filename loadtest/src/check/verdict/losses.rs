//! What a failover may cost: of the messages behind what was left, acknowledgements
//! are void, and streams that have shown them have to end before they show what came
//! in their places.

use std::{borrow::Cow, collections::HashMap};

use super::Verdict;
use crate::check::record::{Ack, Kind, Message, Nanos, Record};

/// So long after a failover an acknowledgement from before may come, whoever posts on a
/// stream takes time over each message of it, and whoever joins a chat may be shown what
/// memory has of it. Until something new is in the chat that may take longer: the next
/// faults may hold the server off the database.
const LATE: Nanos = 2_000_000_000;

/// What each chat has in the end.
struct Stored<'r> {
    record: &'r Record,
    at: HashMap<(i64, i64), Message>,
    /// When something of each chat was first known that came after each failover.
    renewed: Vec<HashMap<i64, Nanos>>,
}

impl Stored<'_> {
    /// Whether a failover may have cost a message that was known before `time`.
    fn may_lack(&self, chat: i64, seq: i64, time: Nanos) -> bool {
        let mut losses = self.record.losses.iter().zip(&self.renewed);
        losses.any(|(loss, renewed)| {
            let known = renewed.get(&chat).is_some_and(|at| *at <= time);
            seq > loss.kept(chat) && (time < loss.until + LATE || !known)
        })
    }

    /// What is there in the end and is behind what a failover left came after it.
    fn renew(&mut self) {
        let record = self.record;
        let acks = record.sends.iter().flat_map(|send| {
            let acks = send.acks.iter();
            acks.map(|ack| (send.chat, ack.seq, Some(send.op), ack.at))
        });
        let seen = record.streams.iter().flat_map(|stream| {
            let messages = stream.messages.iter();
            messages.map(|message| (stream.chat, message.seq, message.op, message.at))
        });
        let is_there = |chat, seq, op| self.at.get(&(chat, seq)).is_some_and(|at| at.op == op);
        let known: Vec<_> = acks
            .chain(seen)
            .filter(|&(chat, seq, op, _)| is_there(chat, seq, op))
            .collect();
        for loss in &record.losses {
            let mut renewed = HashMap::new();
            for &(chat, seq, _, at) in &known {
                if seq > loss.kept(chat) {
                    let first = renewed.entry(chat).or_insert(at);
                    *first = at.min(*first);
                }
            }
            self.renewed.push(renewed);
        }
    }

    fn has(&self, chat: i64, message: &Message) -> bool {
        self.at.get(&(chat, message.seq)).is_some_and(|stored| {
            (stored.op, stored.created_at) == (message.op, message.created_at)
        })
    }
}

/// The record as if what is lost had never been told, to be held against the
/// promises; and what was wrong with how it was lost.
pub fn survivors(record: &Record) -> (Cow<'_, Record>, Vec<Verdict>) {
    let mut verdicts = Vec::new();
    if record.losses.is_empty() {
        if record.ahead > 0 {
            let what = "told to have read more than there is, and nothing was lost";
            verdicts.push(Verdict::Trouble(format!("{} times {what}", record.ahead)));
        }
        return (Cow::Borrowed(record), verdicts);
    }
    let histories = record.histories.iter();
    let messages = histories.flat_map(|(chat, all)| all.iter().map(|m| ((*chat, m.seq), *m)));
    let at = messages.collect();
    let mut stored = Stored {
        record,
        at,
        renewed: Vec::new(),
    };
    stored.renew();
    let mut left = record.clone();
    for send in &mut left.sends {
        let (chat, op) = (send.chat, send.op);
        let is_void = |ack: &Ack| {
            let there = stored.at.get(&(chat, ack.seq));
            there.is_none_or(|there| there.op != Some(op)) && stored.may_lack(chat, ack.seq, ack.at)
        };
        let Some(first) = send.acks.iter().find(|ack| is_void(ack)).copied() else {
            continue;
        };
        if !record.loss_is_said {
            let seq = first.seq;
            verdicts.push(Verdict::Unsaid { op, seq });
        }
        send.acks.retain(|ack| !is_void(ack));
        // A try before that may have it stored again, or none.
        send.open = true;
        send.to_the_end &= !send.acks.is_empty();
        send.tries = send.tries.max(2);
    }
    for (place, stream) in left.streams.iter_mut().enumerate() {
        let (chat, asked) = (stream.chat, stream.asked);
        // However late the reader takes them from where they wait for it.
        let is_void = |message: &Message| {
            !stored.has(chat, message) && stored.may_lack(chat, message.seq, asked)
        };
        let Some(first) = stream.messages.iter().position(is_void) else {
            continue;
        };
        let seq = stream.messages[first].seq;
        let mut behind = stream.messages[first..].iter();
        if stream.kind == Kind::Stays || behind.any(|message| !is_void(message)) {
            verdicts.push(Verdict::WentOn { stream: place, seq });
        }
        stream.messages.retain(|message| !is_void(message));
    }
    (Cow::Owned(left), verdicts)
}
