//! What clients did and saw, with times of one monotonic clock, for
//! [`super::verdict`] to judge.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// Nanoseconds since the run began.
pub type Nanos = u64;

/// A message that a client wants to have stored, once, however often it tries.
/// It is the client's number and the client's count, the `client_message_id`,
/// and the beginning of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(u64);

#[derive(Debug, Clone, Default)]
pub struct Record {
    pub sends: Vec<Send>,
    pub streams: Vec<Stream>,
    pub removals: Vec<Removal>,
    /// All messages of each chat, as the server tells them in the end.
    pub histories: BTreeMap<i64, Vec<Message>>,
    /// What no server may do, noted where it was seen.
    pub troubles: Vec<String>,
    /// Failovers that have cost messages, in order of time.
    pub losses: Vec<Loss>,
    /// The server has said that messages were lost.
    pub loss_is_said: bool,
    /// Somebody was told to have read more than there is.
    pub ahead: usize,
}

/// A failover to a server of the database that had not got the newest messages.
#[derive(Debug, Clone, Default)]
pub struct Loss {
    /// It was over by then.
    pub until: Nanos,
    /// The newest seq that was left, by chat; of others, nothing was left.
    pub kept: BTreeMap<i64, i64>,
}

impl Loss {
    /// The newest seq of the chat that was left.
    pub fn kept(&self, chat: i64) -> i64 {
        self.kept.get(&chat).copied().unwrap_or(0)
    }
}

/// A time in which a user was no member of a chat, though before and maybe after.
#[derive(Debug, Clone)]
pub struct Removal {
    pub user: String,
    pub chat: i64,
    /// The removal was acknowledged.
    pub from: Nanos,
    /// It was asked to be a member again.
    pub until: Nanos,
}

/// All tries to send one message.
#[derive(Debug, Clone)]
pub struct Send {
    pub op: Op,
    pub chat: i64,
    /// The sender is a member of the chat.
    pub member: bool,
    /// When the first try began.
    pub invoked: Nanos,
    pub tries: u32,
    /// Some try was answered by nobody, or with `OUTCOME_UNKNOWN`.
    pub open: bool,
    pub acks: Vec<Ack>,
    /// It was tried until the end, so that it has to have an answer.
    pub to_the_end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    pub at: Nanos,
    pub seq: i64,
    /// Microseconds since 1970; none on a stream's `ALREADY_EXISTS`.
    pub created_at: Option<i64>,
    pub duplicate: bool,
}

/// What one stream or page brought.
#[derive(Debug, Clone)]
pub struct Stream {
    pub user: String,
    /// The number of the node that was asked for it.
    pub node: usize,
    pub chat: i64,
    /// The reader is a member of the chat.
    pub member: bool,
    pub kind: Kind,
    /// Behind which seq it was asked for; `None`: what comes from now on.
    pub after: Option<i64>,
    pub asked: Nanos,
    /// It was not refused. Not known of a member's stream that brought nothing.
    pub let_in: bool,
    pub messages: Vec<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Page {
        more: bool,
    },
    /// A stream that ended, or was ended.
    Ended,
    /// A stream that was read until nothing came any more.
    Stays,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub at: Nanos,
    pub seq: i64,
    /// `None`: it is not what anybody sent, or shows what it must not.
    pub op: Option<Op>,
    /// Microseconds since 1970.
    pub created_at: i64,
}

impl Op {
    pub fn new(client: u32, count: u32) -> Self {
        Self(u64::from(client) << 32 | u64::from(count))
    }

    pub fn count(self) -> u32 {
        self.0 as u32
    }

    /// The text that `user` sends: no two are alike.
    pub fn text(self, user: &str) -> String {
        // Any length up to 200, and the same each time.
        let length = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let padding = "x".repeat(length as usize % 200);
        format!("{self} {user} {padding}")
    }

    /// Which op a message is, if it is what its sender sent, and shows `viewer`
    /// what it may see of it.
    pub fn of(message: &chat_service::proto::Message, viewer: &str) -> Option<Self> {
        let op: Self = message.text.split(' ').next()?.parse().ok()?;
        let id = match message.from == viewer {
            true => op.to_string(),
            false => String::new(),
        };
        (message.text == op.text(&message.from) && message.client_message_id == id).then_some(op)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 as u32)
    }
}

impl FromStr for Op {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (client, count) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self::new(client.parse()?, count.parse()?))
    }
}

impl Stream {
    /// The seq of the last message, or where it began.
    pub fn last(&self) -> Option<i64> {
        self.messages
            .last()
            .map(|message| message.seq)
            .or(self.after)
    }
}

impl Record {
    pub fn add(&mut self, more: Self) {
        self.sends.extend(more.sends);
        self.streams.extend(more.streams);
        self.removals.extend(more.removals);
        self.histories.extend(more.histories);
        self.troubles.extend(more.troubles);
        self.losses.extend(more.losses);
        self.loss_is_said |= more.loss_is_said;
        self.ahead += more.ahead;
    }

    pub fn stored(&self) -> usize {
        self.histories.values().map(Vec::len).sum()
    }

    pub fn seen(&self) -> usize {
        self.streams
            .iter()
            .map(|stream| stream.messages.len())
            .sum()
    }
}
