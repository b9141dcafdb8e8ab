//! One order for everybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chat_service::proto::Message;
use tokio::task::JoinSet;

use crate::server::{Client, Frames, Posts, Server, assert_dense, post, soon, text_of};

const READERS: usize = 50;
const CONNECTIONS: usize = 5;
const EACH: usize = 300;

/// How a reader goes about it.
struct Manner {
    from_the_start: bool,
    half_closes: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_three_senders_and_fifty_readers_see_one_order() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob", "carol", "reader"]).await;

    // Live readers join at some moment or other: they are heard of when they
    // have seen their first message.
    let met = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let channel = server.connect().await;
        for n in 0..READERS / CONNECTIONS {
            let client = Client::new(channel.clone(), "reader");
            let manner = Manner {
                from_the_start: n % 2 == 0,
                half_closes: (n / 2 + connection) % 2 == 0,
            };
            readers.spawn(read(client, chat, manner, met.clone()));
        }
    }
    let all_met = async {
        while met.load(Ordering::Relaxed) < READERS {
            alice.send(chat, "knock", "").await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("all readers", all_met).await;

    let bob = server.client("bob").await.open(chat, None).await;
    let carol = server.client("carol").await.open(chat, None).await;
    let mut senders = JoinSet::new();
    senders.spawn(send_all(alice.clone(), chat));
    senders.spawn(post_all(bob, "bob"));
    senders.spawn(post_all(carol, "carol"));
    soon("the senders", senders.join_all()).await;
    alice.send(chat, "end", "").await.unwrap();

    let stored = alice.history(chat).await;
    assert_dense(&stored, 1);
    assert!(stored.is_sorted_by_key(time_of), "time ran back");
    for user in ["alice", "bob", "carol"] {
        let of_user = |m: &&Message| m.from == user && m.text.starts_with("n");
        let texts = stored.iter().filter(of_user).map(|m| m.text.clone());
        let expected: Vec<_> = (0..EACH).map(|n| format!("n{n}")).collect();
        assert_eq!(texts.collect::<Vec<_>>(), expected, "the order of {user}");
    }
    for (from_the_start, seen) in soon("the readers", readers.join_all()).await {
        let first = seen[0].seq;
        assert!(!from_the_start || first == 1);
        let expected = stored[first as usize - 1..].iter().map(text_of);
        assert!(seen.iter().map(text_of).eq(expected), "another order");
        let times = stored[first as usize - 1..].iter().map(time_of);
        assert!(seen.iter().map(time_of).eq(times), "another time");
    }
}

async fn read(
    client: Client,
    chat: i64,
    manner: Manner,
    met: Arc<AtomicUsize>,
) -> (bool, Vec<Message>) {
    let after = manner.from_the_start.then_some(0);
    let (posts, mut frames) = if manner.half_closes {
        (None, client.read(chat, after).await)
    } else {
        let (posts, frames) = client.open(chat, after).await;
        (Some(posts), frames)
    };
    let mut seen = vec![frames.next().await.unwrap()];
    met.fetch_add(1, Ordering::Relaxed);
    seen.extend(frames.until("end").await);
    drop(posts);
    (manner.from_the_start, seen)
}

async fn send_all(client: Client, chat: i64) {
    for n in 0..EACH {
        client.send(chat, &format!("n{n}"), "").await.unwrap();
    }
}

/// Posts as fast as the stream takes it, and waits for the last to come back.
async fn post_all((posts, mut frames): (Posts, Frames), user: &str) {
    let last = format!("n{}", EACH - 1);
    let posting = async {
        for n in 0..EACH {
            posts.send(post(&format!("n{n}"), "")).await.unwrap();
        }
    };
    let reading = async {
        loop {
            let message = frames.next().await.unwrap();
            if message.from == user && message.text == last {
                return;
            }
        }
    };
    tokio::join!(posting, reading);
}

fn time_of(message: &Message) -> (i64, i32) {
    let time = message.created_at.unwrap();
    (time.seconds, time.nanos)
}
