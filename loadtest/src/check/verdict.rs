//! Holds a record against the promises: P1 to P5, P7 and what of P8 and P10 it
//! tells. Pure: a record in, verdicts out, in n log n of its length.

mod losses;
mod removals;
mod times;

use std::{collections::HashMap, fmt};

use super::record::{Kind, Message, Op, Record, Send, Stream};
use times::{Times, times};

/// A promise that was not kept, and the records that show it. A stream is its
/// place in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// P1: acknowledged as `seq`, and not in the history.
    Lost { op: Op, chat: i64, seq: i64 },
    /// P1: acknowledged otherwise than it is stored, in place or in time.
    Moved { op: Op, acked: i64, stored: i64 },
    /// P2: the history goes on with `next` behind `after`.
    Hole { chat: i64, after: i64, next: i64 },
    /// P2: `created_at` is earlier than that of the message before.
    TimeRanBack { chat: i64, seq: i64 },
    /// P2: two streams have different messages as `seq`.
    Differ {
        chat: i64,
        seq: i64,
        streams: [usize; 2],
    },
    /// P2: `first` was known to be stored before `second` was sent, and yet is
    /// behind it.
    OutOfOrder { first: Op, second: Op },
    /// P2: a page lacks what was known to be stored before it was asked for.
    Stale { stream: usize, missing: i64 },
    /// P3: seen on a stream, and not so in the history.
    Phantom { stream: usize, seq: i64 },
    /// P3, P10: stored, and nobody has sent it so.
    Unsent { chat: i64, seq: i64 },
    /// P4: a stream or page goes on with `next` behind `after`.
    Gap {
        stream: usize,
        after: i64,
        next: i64,
    },
    /// P4: a stream or page brings what is not behind what it began with, or
    /// brought before.
    Again { stream: usize, seq: i64 },
    /// P4: a reader that waited has not seen the end.
    Behind { stream: usize, last: i64, end: i64 },
    /// P5: one send, stored as two messages.
    Twice { op: Op, seqs: [i64; 2] },
    /// P5: a duplicate of what had not been sent before.
    NoOriginal { op: Op },
    /// P7: someone who is not a member has seen something.
    Intruder { stream: usize },
    /// P7: someone has seen what was sent when it was no member any more.
    ReadOn { stream: usize, seq: i64 },
    /// P7: someone who is not a member has been let write.
    IntruderWrote { op: Op },
    /// P8: never acknowledged, although it was tried until the end.
    Unsettled { op: Op },
    /// P10: each try was refused for good, and yet it is stored.
    RefusedYetStored { op: Op },
    /// P2, P4: a stream that has shown what a failover has cost goes on.
    WentOn { stream: usize, seq: i64 },
    /// P1: a failover has cost an acknowledged message, and no operator is told.
    Unsaid { op: Op, seq: i64 },
    /// What a client has noted.
    Trouble(String),
}

impl Verdict {
    /// The kind alone, to be counted by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Moved { .. } => "moved",
            Self::Hole { .. } => "hole",
            Self::TimeRanBack { .. } => "time ran back",
            Self::Differ { .. } => "readers differ",
            Self::OutOfOrder { .. } => "out of order",
            Self::Stale { .. } => "stale page",
            Self::Phantom { .. } => "phantom",
            Self::Unsent { .. } => "unsent",
            Self::Gap { .. } => "gap",
            Self::Again { .. } => "again",
            Self::Behind { .. } => "behind",
            Self::Twice { .. } => "stored twice",
            Self::NoOriginal { .. } => "no original",
            Self::Intruder { .. } => "intruder",
            Self::ReadOn { .. } => "read on",
            Self::IntruderWrote { .. } => "intruder wrote",
            Self::Unsettled { .. } => "unsettled",
            Self::RefusedYetStored { .. } => "refused yet stored",
            Self::WentOn { .. } => "went on",
            Self::Unsaid { .. } => "unsaid",
            Self::Trouble(_) => "trouble",
        }
    }
}

impl Verdict {
    /// The streams that it names.
    pub fn streams(&self) -> Vec<usize> {
        match *self {
            Self::Differ { streams, .. } => streams.to_vec(),
            Self::Stale { stream, .. }
            | Self::Phantom { stream, .. }
            | Self::Gap { stream, .. }
            | Self::Again { stream, .. }
            | Self::Behind { stream, .. }
            | Self::Intruder { stream }
            | Self::ReadOn { stream, .. }
            | Self::WentOn { stream, .. } => vec![stream],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trouble(what) => write!(f, "trouble: {what}"),
            // The fields are what there is to say.
            verdict => write!(f, "{}: {verdict:?}", verdict.name()),
        }
    }
}

/// The history, to be looked things up in.
struct Index {
    at: HashMap<(i64, i64), Message>,
    of: HashMap<Op, (i64, Message)>,
    end: HashMap<i64, i64>,
}

/// Everything wrong with a record.
pub fn judge(record: &Record) -> Vec<Verdict> {
    let troubles = record.troubles.iter().cloned();
    let mut verdicts: Vec<_> = troubles.map(Verdict::Trouble).collect();
    let (record, more) = &losses::survivors(record);
    verdicts.extend_from_slice(more);
    let sends: HashMap<Op, &Send> = record.sends.iter().map(|send| (send.op, send)).collect();
    let index = judge_histories(record, &sends, &mut verdicts);
    for send in &record.sends {
        judge_send(send, index.of.get(&send.op), &mut verdicts);
    }
    let times = times(record, |op| {
        index.of.get(&op).map(|(_, message)| message.seq)
    });
    for send in &record.sends {
        let Some((_, message)) = index.of.get(&send.op) else {
            continue;
        };
        let newest = times[&send.chat].known_before(send.invoked);
        if let Some((seq, first)) = newest
            && seq > message.seq
        {
            let second = send.op;
            verdicts.push(Verdict::OutOfOrder { first, second });
        }
    }
    let none = Times::default();
    let mut seen = HashMap::new();
    for (at, stream) in record.streams.iter().enumerate() {
        let times = times.get(&stream.chat).unwrap_or(&none);
        judge_order(at, stream, times, &mut verdicts);
        judge_contents(at, stream, &index, &mut seen, &mut verdicts);
    }
    removals::judge(record, &sends, &mut verdicts);
    verdicts
}

fn judge_histories(
    record: &Record,
    sends: &HashMap<Op, &Send>,
    verdicts: &mut Vec<Verdict>,
) -> Index {
    let (at, of, end) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut index = Index { at, of, end };
    for (&chat, history) in &record.histories {
        let (mut after, mut time) = (0, i64::MIN);
        for message in history {
            let seq = message.seq;
            if seq != after + 1 {
                let next = seq;
                verdicts.push(Verdict::Hole { chat, after, next });
            }
            if message.created_at < time {
                verdicts.push(Verdict::TimeRanBack { chat, seq });
            }
            (after, time) = (seq, message.created_at);
            index.at.insert((chat, seq), *message);
            let send = message.op.and_then(|op| sends.get(&op));
            let Some(send) = send.filter(|send| send.chat == chat) else {
                verdicts.push(Verdict::Unsent { chat, seq });
                continue;
            };
            let op = send.op;
            if let Some((_, first)) = index.of.get(&op) {
                let seqs = [first.seq, seq];
                verdicts.push(Verdict::Twice { op, seqs });
            } else {
                index.of.insert(op, (chat, *message));
            }
        }
        index.end.insert(chat, after);
    }
    index
}

fn judge_send(send: &Send, stored: Option<&(i64, Message)>, verdicts: &mut Vec<Verdict>) {
    let Send { op, chat, .. } = *send;
    let stored = stored.map(|(_, message)| message);
    if !send.member {
        if !send.acks.is_empty() || stored.is_some() {
            verdicts.push(Verdict::IntruderWrote { op });
        }
        return;
    }
    match (send.acks.first(), stored) {
        (Some(ack), None) => {
            let seq = ack.seq;
            verdicts.push(Verdict::Lost { op, chat, seq });
        }
        (Some(_), Some(message)) => {
            let moved = send.acks.iter().find(|ack| {
                let time = ack.created_at.unwrap_or(message.created_at);
                (ack.seq, time) != (message.seq, message.created_at)
            });
            if let Some(ack) = moved {
                let (acked, stored) = (ack.seq, message.seq);
                verdicts.push(Verdict::Moved { op, acked, stored });
            }
        }
        (None, _) if send.to_the_end => verdicts.push(Verdict::Unsettled { op }),
        (None, Some(_)) if !send.open => verdicts.push(Verdict::RefusedYetStored { op }),
        (None, _) => {}
    }
    if send.tries == 1 && send.acks.first().is_some_and(|ack| ack.duplicate) {
        verdicts.push(Verdict::NoOriginal { op });
    }
}

/// P4: from where it began, one after the other.
fn judge_order(at: usize, stream: &Stream, times: &Times, verdicts: &mut Vec<Verdict>) {
    let mut last = stream.after;
    for message in &stream.messages {
        let next = message.seq;
        match last {
            Some(after) if next > after + 1 => {
                verdicts.push(Verdict::Gap {
                    stream: at,
                    after,
                    next,
                });
            }
            Some(after) if next <= after => {
                verdicts.push(Verdict::Again {
                    stream: at,
                    seq: next,
                });
            }
            _ => {}
        }
        last = Some(next);
    }
    let known = times.known_before(stream.asked).map_or(0, |(seq, _)| seq);
    if let Kind::Page { more: false } = stream.kind
        && last.is_some_and(|last| last < known)
    {
        let missing = known;
        verdicts.push(Verdict::Stale {
            stream: at,
            missing,
        });
    }
    // From now on: nothing of before.
    if stream.after.is_none()
        && let Some(first) = stream.messages.first()
        && first.seq <= times.acked_before(stream.asked)
    {
        let seq = first.seq;
        verdicts.push(Verdict::Again { stream: at, seq });
    }
}

/// P2, P3, P7: what others see, what is stored, and only for members.
fn judge_contents(
    at: usize,
    stream: &Stream,
    index: &Index,
    seen: &mut HashMap<(i64, i64), (Option<Op>, usize)>,
    verdicts: &mut Vec<Verdict>,
) {
    let chat = stream.chat;
    if !stream.member && (stream.let_in || !stream.messages.is_empty()) {
        verdicts.push(Verdict::Intruder { stream: at });
    }
    for message in &stream.messages {
        let seq = message.seq;
        let (op, other) = *seen.entry((chat, seq)).or_insert((message.op, at));
        if op != message.op {
            let streams = [other, at];
            verdicts.push(Verdict::Differ { chat, seq, streams });
        }
        let same =
            |stored: &Message| (stored.op, stored.created_at) == (message.op, message.created_at);
        if !index.at.get(&(chat, seq)).is_some_and(same) {
            verdicts.push(Verdict::Phantom { stream: at, seq });
        }
    }
    let end = index.end.get(&chat).copied().unwrap_or(0);
    if stream.kind == Kind::Stays
        && let Some(last) = stream.last()
        && last < end
    {
        verdicts.push(Verdict::Behind {
            stream: at,
            last,
            end,
        });
    }
}

#[cfg(test)]
mod tests;
