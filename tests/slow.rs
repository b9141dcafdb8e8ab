//! Readers that stop reading.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::server::{Client, Frames, Posts, Server, join, post, soon, text_of};

const MESSAGES: i64 = 100_000;
const POSTERS: i64 = 2;
const STOPPED: usize = 40;

/// Of a client that reads nothing, the least that HTTP/2 lets it take.
const WINDOW: u32 = 64 * 1024;

/// What the server may grow by while 40 readers are 100,000 messages behind: a
/// queue for each would take at least 40 × 100,000 × 60 bytes, 240 MB. What it
/// does take is the ring, a connection's buffers (64 KiB a stream) and SQLite's
/// cache of what it has written, which is there without any reader.
const MAX_GROWTH_KB: u64 = 64 * 1024;

/// Readers stop for 100,000 messages; the others are served meanwhile; then one
/// goes on and finds every message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_reader_may_stop_for_100_000_messages() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["poster", "reader", "stopped"]).await;
    alice.send(chat, "first", "").await.unwrap();

    let endpoint = server.endpoint().initial_stream_window_size(WINDOW);
    let endpoint = endpoint.initial_connection_window_size(WINDOW * STOPPED as u32);
    let stopping = Client::new(endpoint.connect().await.unwrap(), "stopped");
    let mut stopped = Vec::new();
    for _ in 0..STOPPED {
        let mut frames = stopping.read(chat, Some(0)).await;
        frames.expect(1).await;
        stopped.push(frames);
    }

    let before = server.memory_kb();
    let begin = Instant::now();
    let mut others = JoinSet::new();
    for n in 0..POSTERS {
        let (posts, frames) = server.client("poster").await.open(chat, Some(1)).await;
        others.spawn(post_and_read(posts, frames, n));
    }
    others.spawn(read(
        server.client("reader").await.read(chat, Some(1)).await,
    ));
    let mut all = Vec::new();
    let mut peak = before;
    while !others.is_empty() {
        let next = tokio::time::timeout(Duration::from_millis(100), others.join_next());
        if let Ok(Some(done)) = next.await {
            all.push(done.unwrap());
        }
        peak = peak.max(server.memory_kb());
        assert!(begin.elapsed() < Duration::from_secs(120), "P4: held up");
    }
    let served = begin.elapsed();
    assert!(all.iter().all(|hash| *hash == all[0]), "P2: another order");
    let grown = peak - before;
    assert!(grown < MAX_GROWTH_KB, "P6: {before} kB and {grown} kB more");

    let begin = Instant::now();
    let frames = stopped.swap_remove(STOPPED / 2);
    assert_eq!(soon("the reader", read(frames)).await, all[0]);
    let caught_up = begin.elapsed();
    eprintln!("served {served:?}, caught up {caught_up:?}, grown {grown} kB of {before} kB");
}

/// Posts its share as fast as the stream takes it, and reads everything.
async fn post_and_read(posts: Posts, frames: Frames, poster: i64) -> u64 {
    let posting = async {
        for n in (poster..MESSAGES).step_by(POSTERS as usize) {
            posts.send(post(&format!("m{n}"), "")).await.unwrap();
        }
    };
    tokio::join!(posting, read(frames)).1
}

/// Reads all messages behind the first, without gap or duplicate; a hash of
/// them.
async fn read(mut frames: Frames) -> u64 {
    let mut hash = DefaultHasher::new();
    for seq in 2..=MESSAGES + 1 {
        text_of(&frames.expect(seq).await).hash(&mut hash);
    }
    hash.finish()
}

/// Answers wait for their reader as well: a poster that reads none of them is
/// held back, by the bound on its posts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_poster_that_does_not_read_its_answers_is_held_back() {
    const RETRIES: usize = 6_000;
    let server = Server::start(&["--stream-posts", "64"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "x", "k").await.unwrap();
    let endpoint = server.endpoint().initial_stream_window_size(WINDOW);
    let client = Client::new(endpoint.connect().await.unwrap(), "alice");
    let (posts, mut frames) = client.open_with(join(chat, None)).await;

    let taken = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let count = taken.clone();
    tasks.spawn(async move {
        for _ in 0..RETRIES {
            posts.send(post("x", "k")).await.unwrap();
            // Each in a DATA frame of its own, as many clients send them.
            tokio::time::sleep(Duration::from_micros(1)).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
        posts
    });
    let standstill = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = taken.load(Ordering::Relaxed);
            if now > 0 && now == before {
                return now;
            }
            before = now;
        }
    };
    let held = soon("a standstill", standstill).await;
    assert!(held < RETRIES - 1_000, "P6: nothing held it back");
    for _ in 0..RETRIES {
        let answer = frames.next().await.unwrap();
        assert_eq!(answer.rejected.unwrap().seq, 1);
    }
    soon("the posts", tasks.join_all()).await;
    assert_eq!(alice.get(chat).await.unwrap().last_seq, 1);
}
