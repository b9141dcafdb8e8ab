//! What was known to be stored when, chat by chat.

use std::collections::HashMap;

use crate::check::record::{Nanos, Op, Record};

/// One chat's times.
#[derive(Default)]
pub struct Times {
    /// From when on some message was known to be stored, an acknowledgement or a
    /// reader says so, and the largest seq until then. Ascending.
    known: Vec<(Nanos, (i64, Op))>,
    /// The same by acknowledgements alone: readers and pages may have from the
    /// store what the server does not know yet to be there.
    acked: Vec<(Nanos, (i64, Op))>,
}

/// The times of all chats; `seq` says where an op is stored, if it is.
pub fn times(record: &Record, seq: impl Fn(Op) -> Option<i64>) -> HashMap<i64, Times> {
    let mut known: HashMap<Op, Nanos> = HashMap::new();
    let acks = record.sends.iter();
    let acks = acks.flat_map(|send| send.acks.iter().map(|ack| (send.op, ack.at)));
    let seen = record.streams.iter().flat_map(|stream| &stream.messages);
    let seen = seen.filter_map(|message| Some((message.op?, message.at)));
    for (op, at) in acks.chain(seen) {
        let earliest = known.entry(op).or_insert(at);
        *earliest = at.min(*earliest);
    }
    let mut chats: HashMap<i64, Times> = HashMap::new();
    for send in &record.sends {
        let times = chats.entry(send.chat).or_default();
        let Some(seq) = seq(send.op) else {
            continue;
        };
        if let Some(at) = known.get(&send.op) {
            times.known.push((*at, (seq, send.op)));
        }
        let acked = send.acks.iter().map(|ack| (ack.at, (seq, send.op)));
        times.acked.extend(acked);
    }
    for times in chats.values_mut() {
        keep_largest(&mut times.known);
        keep_largest(&mut times.acked);
    }
    chats
}

/// In order of time, each with the largest seq so far.
fn keep_largest(known: &mut [(Nanos, (i64, Op))]) {
    known.sort_unstable();
    let mut largest = None;
    for (_, newest) in known {
        largest = largest.max(Some(*newest));
        *newest = largest.unwrap_or(*newest);
    }
}

fn before(known: &[(Nanos, (i64, Op))], time: Nanos) -> Option<(i64, Op)> {
    let count = known.partition_point(|(at, _)| *at < time);
    let (_, newest) = known.get(count.checked_sub(1)?)?;
    Some(*newest)
}

impl Times {
    /// The newest message that was known to be stored before then.
    pub fn known_before(&self, time: Nanos) -> Option<(i64, Op)> {
        before(&self.known, time)
    }

    /// The seq of the newest message that was acknowledged before then, 0 if none
    /// was.
    pub fn acked_before(&self, time: Nanos) -> i64 {
        before(&self.acked, time).map_or(0, |(seq, _)| seq)
    }
}
