//! What clients did and saw, for [`super::check`] to hold against the history.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tonic::Code;

#[derive(Debug, Clone, Default)]
pub struct Record {
    pub attempts: Vec<Attempt>,
    pub seen: Vec<Seen>,
    /// What no server may do: answers with a code that the fault does not
    /// excuse, and calls that were never answered.
    pub faults: Vec<String>,
    /// The longest that a call took to be answered, one way or the other.
    pub slowest: Duration,
    /// When a message was acknowledged, to whomever.
    pub acked: Vec<Instant>,
}

/// A message that a client wants to have stored, once, however often it tries.
/// No two have the same text.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    pub chat: i64,
    pub from: String,
    pub id: String,
    pub text: String,
    pub acks: Vec<Ack>,
    /// Tries that were not acknowledged.
    pub failures: Vec<Code>,
    /// The server would not have it, ever.
    pub refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    pub seq: i64,
    pub duplicate: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub seq: i64,
    pub from: String,
    pub text: String,
}

/// What a reader saw over all its streams.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub chat: i64,
    pub user: String,
    /// Behind which seq it began; `None`: with what came from then on.
    pub after: Option<i64>,
    pub lines: Vec<Line>,
    /// How its streams ended that it did not end itself.
    pub ends: Vec<Code>,
    /// When it last had a stream opened.
    pub opened: Option<Instant>,
    /// It stays until it has seen everything.
    pub stays: bool,
}

impl Record {
    /// The longest time in which nothing was acknowledged.
    pub fn longest_silence(&self) -> Duration {
        let pauses = self.acked.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.max().unwrap_or_default()
    }
}

impl Seen {
    pub fn last(&self) -> Option<i64> {
        self.lines.last().map(|line| line.seq).or(self.after)
    }
}

/// The messages of each chat as the server tells them afterwards.
pub type Histories = BTreeMap<i64, Vec<Line>>;

/// The record while it is written.
#[derive(Debug, Clone, Default)]
pub struct Book(Arc<Mutex<Record>>);

impl Book {
    pub fn open(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    pub fn attempt(&self, chat: i64, from: &str, id: &str, text: &str) -> usize {
        let mut record = self.open();
        record.attempts.push(Attempt {
            chat,
            from: from.into(),
            id: id.into(),
            text: text.into(),
            ..Default::default()
        });
        record.attempts.len() - 1
    }

    pub fn ack(&self, attempt: usize, seq: i64, duplicate: bool) {
        let ack = Ack { seq, duplicate };
        let mut record = self.open();
        record.attempts[attempt].acks.push(ack);
        record.acked.push(Instant::now());
    }

    pub fn fail(&self, attempt: usize, code: Code) {
        self.open().attempts[attempt].failures.push(code);
    }

    pub fn refuse(&self, attempt: usize) {
        self.open().attempts[attempt].refused = true;
    }

    pub fn reader(&self, seen: Seen) -> usize {
        let mut record = self.open();
        record.seen.push(seen);
        record.seen.len() - 1
    }

    pub fn fault(&self, what: impl Into<String>) {
        self.open().faults.push(what.into());
    }

    pub fn took(&self, time: Duration) {
        let mut record = self.open();
        record.slowest = record.slowest.max(time);
    }
}
