//! What all clients have in common: who they are, what they note, and when they
//! are to come to an end.

use std::{sync::Arc, time::Duration};

use chat_service::proto;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    peer::{Answer, No, Peer, Place},
    progress::Progress,
    record::{Ack, Kind, Message, Op, Record, Send, Stream},
};

/// How long readers and retries may take to come to rest after the last fault.
pub const REST: Duration = Duration::from_secs(30);

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Running,
    /// Faults are over: senders finish what they have begun, slow readers hurry.
    Ending,
    /// Readers stop where they are.
    Over,
}

/// One client of a chat.
pub struct Client {
    pub place: Arc<Place>,
    pub peer: Peer,
    pub chat: i64,
    pub member: bool,
    /// Longest pause between two messages, in milliseconds.
    pub pause: u64,
    pub phase: watch::Receiver<Phase>,
    pub progress: Arc<Progress>,
    pub random: StdRng,
    pub record: Record,
    number: u32,
    count: u32,
    /// When it stops trying, once the end has begun.
    give_up: Option<Instant>,
}

/// Who a client is.
pub struct Role<'a> {
    pub number: u32,
    pub chat: i64,
    pub user: &'a str,
    pub member: bool,
    pub pause: u64,
    pub seed: u64,
    /// The number of the node where it begins, counted around.
    pub node: usize,
}

impl Client {
    pub fn new(
        place: &Arc<Place>,
        phase: &watch::Receiver<Phase>,
        progress: &Arc<Progress>,
        role: &Role<'_>,
    ) -> Self {
        Self {
            place: place.clone(),
            peer: place.peer(role.user, role.node),
            chat: role.chat,
            member: role.member,
            pause: role.pause,
            phase: phase.clone(),
            progress: progress.clone(),
            random: StdRng::seed_from_u64(role.seed.wrapping_add(u64::from(role.number))),
            record: Record::default(),
            number: role.number,
            count: 0,
            give_up: None,
        }
    }

    pub fn runs(&self) -> bool {
        *self.phase.borrow() == Phase::Running
    }

    pub fn one_in(&mut self, of: u32) -> bool {
        self.random.random_range(0..of) == 0
    }

    /// From 0 up to and with `most`, which is not negative.
    pub fn random_up_to(&mut self, most: i64) -> i64 {
        self.random.random_range(0..=most.max(0))
    }

    pub async fn pause_up_to(&mut self, millis: u64) {
        sleep(Duration::from_millis(self.random.random_range(0..=millis))).await;
    }

    /// Asks another node from now on, if there is one.
    pub fn go_elsewhere(&mut self) {
        self.peer.go_elsewhere(&mut self.random);
    }

    pub fn trouble(&mut self, what: &str) {
        let (user, chat, node) = (&self.peer.user, self.chat, self.peer.node());
        let at = Duration::from_nanos(self.place.now());
        let trouble = format!("{user} in chat {chat} on node{node} at {at:.3?}: {what}");
        self.record.troubles.push(trouble);
    }

    /// A new message, not sent yet.
    pub fn new_send(&mut self) -> Send {
        self.count += 1;
        Send {
            op: Op::new(self.number, self.count),
            chat: self.chat,
            member: self.member,
            invoked: self.place.now(),
            tries: 0,
            open: false,
            acks: Vec::new(),
            to_the_end: false,
        }
    }

    pub fn has_made(&self, op: Op) -> bool {
        (1..=self.count).contains(&op.count()) && op == Op::new(self.number, op.count())
    }

    /// Calls SendMessage once. False if it was not acknowledged.
    pub async fn try_once(&mut self, send: &mut Send, patience: Option<Duration>) -> bool {
        let text = send.op.text(&self.peer.user);
        send.tries += 1;
        let id = send.op.to_string();
        let answer = self.peer.send(send.chat, text, id, patience).await;
        let at = self.place.now();
        match answer {
            Ok(reply) => {
                let created_at = Some(micros(reply.created_at.as_ref()));
                send.acks.push(Ack {
                    at,
                    seq: reply.seq,
                    created_at,
                    duplicate: reply.duplicate,
                });
                self.progress.reached(self.chat, reply.seq);
                return true;
            }
            Err(no) => self.note_no(send, no),
        }
        false
    }

    /// What a refusal says of a send, which is then tried at another node.
    pub fn note_no(&mut self, send: &mut Send, no: No) {
        match no {
            No::Refused => self.go_elsewhere(),
            No::Open => {
                send.open = true;
                self.go_elsewhere();
            }
            No::NotAMember if !self.member => {}
            No::NotAMember => self.trouble("a member is told that it is none"),
            No::Ahead(_) => self.trouble("a send is told where a chat ends"),
            No::Wrong(what) => self.trouble(&what),
        }
    }

    /// Tries until it is acknowledged, or until long after the last fault.
    pub async fn settle(&mut self, send: &mut Send) {
        send.to_the_end = true;
        while !self.try_once(send, None).await && !self.gives_up() {
            self.pause_up_to(100).await;
        }
    }

    /// Whether it has had as long as anybody may need in the end.
    pub fn gives_up(&mut self) -> bool {
        let end = self.give_up.get_or_insert_with(|| Instant::now() + REST);
        Instant::now() > *end
    }

    /// A stream or page that is asked for now.
    pub fn new_stream(&self, kind: Kind, after: Option<i64>) -> Stream {
        Stream {
            user: self.peer.user.clone(),
            node: self.peer.node(),
            chat: self.chat,
            member: self.member,
            kind,
            after,
            asked: self.place.now(),
            let_in: false,
            messages: Vec::new(),
        }
    }

    pub fn read(&self, message: &proto::Message) -> Message {
        self.progress.reached(self.chat, message.seq);
        Message {
            at: self.place.now(),
            seq: message.seq,
            op: Op::of(message, &self.peer.user).filter(|_| message.chat_id == self.chat),
            created_at: micros(message.created_at.as_ref()),
        }
    }

    /// Asks for a stream that it should not have, and notes what became of that.
    pub async fn try_to_join(&mut self, after: Option<i64>, patience: Duration) {
        let mut stream = self.new_stream(Kind::Ended, after);
        match self.peer.join(self.chat, after).await {
            // The refusal comes on the stream.
            Ok(mut connected) => match timeout(patience, connected.next()).await {
                Ok(Ok(message)) => {
                    stream.let_in = true;
                    stream.messages.push(self.read(&message));
                }
                Ok(Err(no)) => self.note_end(no),
                Err(_) => {}
            },
            Err(no) => self.note_end(no),
        }
        self.record.streams.push(stream);
    }

    /// Reads one page and notes it. `None` if there was none to be had.
    pub async fn read_page(&mut self, after: i64, size: i32) -> Option<Stream> {
        let mut page = self.new_stream(Kind::Page { more: true }, Some(after));
        let answer: Answer<_> = self.peer.page(self.chat, after, size).await;
        match answer {
            Ok(answer) => {
                page.let_in = true;
                let more = answer.has_more;
                page.kind = Kind::Page { more };
                page.messages = answer.messages.iter().map(|m| self.read(m)).collect();
                Some(page)
            }
            Err(no) => {
                self.note_end(no);
                None
            }
        }
    }

    /// What a stream or page says at its end, or in place of a beginning. The next one
    /// is another node's.
    pub fn note_end(&mut self, no: No) {
        match no {
            No::NotAMember if self.member => self.trouble("a member is told that it is none"),
            No::Wrong(what) => self.trouble(&what),
            No::Ahead(last) => {
                self.record.ahead += 1;
                self.progress.set_back(self.chat, last);
            }
            No::Refused | No::Open => self.go_elsewhere(),
            No::NotAMember => {}
        }
    }
}

fn micros(time: Option<&prost_types::Timestamp>) -> i64 {
    time.map_or(0, |time| {
        time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
    })
}
