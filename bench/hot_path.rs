//! A message's way through the core, without transport and store, so often as
//! asked: `hot_path READERS MESSAGES`. For counting instructions under callgrind;
//! it takes no times.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use chat_service::{
    domain::{ChatId, ClientMessageId, Draft, Seq, Timestamp, UserName},
    feed::{Entry, Read, Ring, RingBound, Takes},
    shard::{Chat, Effect, Post, Room, Rules},
    store::ChatRecord,
    writer::Landed,
};

const TEXT: usize = 100;
/// Messages of one commit.
const BATCH: usize = 20;
const RULES: Rules = Rules {
    edit_window: Duration::ZERO,
    max_reactions: 1,
};
const RING: RingBound = RingBound {
    messages: 256,
    bytes: 256 * 1024,
};

fn main() {
    // `cargo test` and `cargo bench` start benches with options of their own.
    let numbers: Vec<usize> = std::env::args().skip(1).flat_map(|n| n.parse()).collect();
    let &[readers, messages] = &numbers[..] else {
        return println!("usage: hot_path READERS MESSAGES");
    };
    let mut core = Core::new(readers);
    for _ in 0..messages / BATCH {
        core.commit();
    }
    assert_eq!(core.ring_last as usize, messages / BATCH * BATCH);
}

/// One chat, its ring and its readers.
struct Core {
    alice: UserName,
    chat: Chat<()>,
    ring: Ring,
    ring_last: Seq,
    readers: Vec<UserName>,
    deadline: Instant,
    posted: u64,
}

impl Core {
    fn new(readers: usize) -> Self {
        let user = |name: &str| UserName::new(name).expect("a name");
        let alice = user("alice");
        let record = ChatRecord {
            id: ChatId::new(1).expect("an id"),
            created_by: alice.clone(),
            created_at: Timestamp(0),
            members: vec![alice.clone()],
            member_count: 1,
            last_seq: 0,
        };
        Self {
            alice,
            chat: Chat::new(record, &[], RING.messages, false),
            ring: Ring::new(0, RING),
            ring_last: 0,
            readers: (0..readers).map(|n| user(&format!("reader-{n}"))).collect(),
            deadline: Instant::now() + Duration::from_secs(3_600),
            posted: 0,
        }
    }

    /// A batch: posted, numbered, landed, framed, read by everybody.
    fn commit(&mut self) {
        let mut effects = Vec::new();
        for _ in 0..BATCH {
            self.posted += 1;
            let id = ClientMessageId::from_wire(&format!("{:012}", self.posted));
            let post = Post {
                from: self.alice.clone(),
                draft: Draft::message("x".repeat(TEXT), id.expect("an id")),
                id: None,
                span: None,
                deadline: self.deadline,
                reply: (),
            };
            self.chat.accept(post, &mut effects);
        }
        let mut rows = Vec::with_capacity(BATCH);
        let mut room = Room {
            rows: BATCH,
            bytes: 1 << 20,
        };
        self.chat
            .take(&mut rows, &mut room, Timestamp(1), &RULES, &mut effects);
        for row in rows {
            self.chat.landed(Landed::Stored(row), &mut effects);
        }
        let before = self.ring_last;
        let published = effects.into_iter().filter_map(|effect| match effect {
            Effect::Publish(row) => Some(row),
            Effect::Answer(..) => None,
        });
        let ring_last = &mut self.ring_last;
        self.ring.append(published.map(|row| {
            *ring_last = row.seq;
            Entry::new(&row)
        }));
        for reader in &self.readers {
            let mut cursor = before;
            while let Read::Chunk(chunk) = self.ring.read(cursor, reader, Takes::default()) {
                cursor = chunk.through;
                black_box(chunk);
            }
        }
    }
}
