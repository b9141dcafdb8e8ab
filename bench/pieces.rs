//! The pieces of a message's way that this server adds to what the transport
//! and the store cost: `cargo bench`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use chat_service::{
    domain::{
        ChatId, ClientMessageId, Draft, Frame, MessageId, Row, Seq, Timestamp, UserName, packed,
    },
    feed::{Entry, Read, Ring, RingBound, Takes},
    shard::{Chat, Effect, Post, Room, Rules},
    store::ChatRecord,
    writer::Landed,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

criterion_group!(pieces, frame, gzip, ring, chat);
criterion_main!(pieces);

const TEXT: usize = 100;
const READERS: usize = 1_000;
const POSTS: u64 = 1_000;
const RULES: Rules = Rules {
    edit_window: Duration::ZERO,
    max_reactions: 1,
};
const RING: RingBound = RingBound {
    messages: 256,
    bytes: 256 * 1024,
};

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn key(seq: Seq) -> Option<ClientMessageId> {
    ClientMessageId::from_wire(&format!("{seq:012}")).unwrap()
}

fn row(seq: Seq) -> Row {
    Row {
        chat: ChatId::new(1).unwrap(),
        seq,
        id: MessageId(seq),
        from: user("alice"),
        text: "x".repeat(TEXT).into(),
        client_message_id: key(seq),
        created_at: Timestamp(1_700_000_000_000_000 + seq),
        number: seq,
        change: None,
    }
}

fn frame(c: &mut Criterion) {
    let row = row(1_000);
    c.bench_function("frame: encode", |b| {
        b.iter(|| Frame::encode(black_box(&row)))
    });
}

/// A long message compressed, once for all readers that take it so; what is left of it.
fn gzip(c: &mut Criterion) {
    // Words of this file, as they come: somewhat more even than what people write.
    let words: Vec<&str> = include_str!("pieces.rs").split_whitespace().collect();
    let mut group = c.benchmark_group("gzip");
    for length in [1_024, 4_096, 16_384] {
        let mut random = fastrand::Rng::with_seed(7);
        let mut text = String::new();
        while text.len() < length {
            text.push_str(words[random.usize(..words.len())]);
            text.push(' ');
        }
        let row = Row {
            text: text.into(),
            ..row(1)
        };
        let frame = Frame::encode(&row);
        let left = packed(frame.as_bytes()).map_or(frame.len(), |packed| packed.len());
        println!("{} bytes become {left}", frame.len());
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(format!("{length} bytes"), |b| {
            b.iter(|| packed(black_box(frame.as_bytes())))
        });
    }
    group.finish();
}

/// One message appended, and read by every reader of the chat.
fn ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    group.throughput(Throughput::Elements(READERS as u64));
    let readers: Vec<UserName> = (0..READERS).map(|n| user(&format!("reader-{n}"))).collect();
    for burst in [1, 10] {
        group.bench_function(format!("append {burst}, read by 1,000"), |b| {
            let mut ring = Ring::new(0, RING);
            let mut last = 0;
            b.iter(|| {
                let after = last;
                last += burst;
                ring.append((after + 1..=last).map(|seq| Entry::new(&row(seq))));
                for reader in &readers {
                    let Read::Chunk(chunk) = ring.read(after, reader, Takes::default()) else {
                        panic!("nothing to read");
                    };
                    black_box(chunk);
                }
            });
        });
    }
    group.finish();
}

/// Posts taken in, given their seqs, and published once the writer has them.
fn chat(c: &mut Criterion) {
    let mut group = c.benchmark_group("chat");
    group.throughput(Throughput::Elements(POSTS));
    let record = ChatRecord {
        id: ChatId::new(1).unwrap(),
        created_by: user("alice"),
        created_at: Timestamp(0),
        members: vec![user("alice")],
        member_count: 1,
        last_seq: 0,
    };
    let mut chat = Chat::new(record, &[], RING.messages, false);
    let deadline = Instant::now() + Duration::from_secs(3_600);
    let mut number = 0;
    let mut posts = || -> Vec<Post<()>> {
        (0..POSTS)
            .map(|_| {
                number += 1;
                Post {
                    from: user("alice"),
                    draft: Draft::message("x".repeat(TEXT), key(number)),
                    id: None,
                    span: None,
                    deadline,
                    reply: (),
                }
            })
            .collect()
    };
    group.bench_function("accept, take, publish 1,000", |b| {
        let (mut effects, mut rows) = (Vec::new(), Vec::new());
        b.iter_batched(
            &mut posts,
            |posts| {
                for post in posts {
                    chat.accept(post, &mut effects);
                }
                let mut room = Room {
                    rows: POSTS as usize,
                    bytes: 1 << 30,
                };
                chat.take(&mut rows, &mut room, Timestamp(1), &RULES, &mut effects);
                for row in rows.drain(..) {
                    chat.landed(Landed::Stored(row), &mut effects);
                }
                let published = |effect: &Effect<()>| matches!(effect, Effect::Publish(_));
                assert_eq!(
                    effects.iter().filter(|e| published(e)).count() as u64,
                    POSTS
                );
                effects.clear();
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}
