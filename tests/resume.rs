//! Streams that begin where another has ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    ops::get,
    pg::Pg,
    server::{Client, Server, assert_dense, soon},
};

/// Many times the ring, which is the smallest that may be.
const STORED: i64 = 300;
const WRITERS: usize = 4;
const CONNECTIONS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_stream_resumes_at_every_seq_while_the_chat_goes_on() {
    let server = Server::start(&["--ring", "16"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["reader"]).await;
    for n in 1..=STORED {
        alice.send(chat, &format!("m{n}"), "").await.unwrap();
    }

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(server.client("alice").await, chat, stop.clone()));
    }
    let joined = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for connection in 0..CONNECTIONS as i64 {
        let channel = server.connect().await;
        for after in (connection..=STORED).step_by(CONNECTIONS) {
            let client = Client::new(channel.clone(), "reader");
            let joined = joined.clone();
            readers.spawn(async move {
                let mut frames = client.read(chat, Some(after)).await;
                let mut messages = vec![frames.next().await.unwrap()];
                joined.fetch_add(1, Ordering::Relaxed);
                messages.extend(frames.until("end").await);
                (after, messages)
            });
        }
    }
    let all_joined = async {
        while joined.load(Ordering::Relaxed) <= STORED as usize {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("all readers", all_joined).await;
    stop.store(true, Ordering::Relaxed);
    soon("the writers", writers.join_all()).await;
    let last = alice.send(chat, "end", "").await.unwrap().seq;
    assert!(last > STORED + 1, "nothing was written meanwhile");

    let mut resumed = soon("the readers", readers.join_all()).await;
    resumed.sort_by_key(|(after, _)| *after);
    assert_eq!(resumed.len() as i64, STORED + 1);
    for (after, messages) in resumed {
        assert_dense(&messages, after + 1);
        assert_eq!(messages.len() as i64, last - after);
    }
}

async fn write(client: Client, chat: i64, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        client.send(chat, "more", "").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_stream_resumes_across_a_restart() {
    let mut server = Server::start(&["--ring", "16"]).await;
    let chat = server.client("alice").await.create(&["bob"]).await;
    let mut seen = 0;
    for kill in [true, false, true] {
        let alice = server.client("alice").await;
        let bob = server.client("bob").await;
        let mut frames = bob.read(chat, Some(seen)).await;
        for _ in 0..50 {
            alice.send(chat, "x", "").await.unwrap();
        }
        for _ in 0..25 {
            seen += 1;
            frames.expect(seen).await;
        }
        if kill {
            server.kill9();
        } else {
            assert_eq!(server.terminate().await, Some(0));
        }
        server.restart().await;
    }
    let mut frames = server.client("bob").await.read(chat, Some(seen)).await;
    for seq in seen + 1..=150 {
        frames.expect(seq).await;
    }
}

/// After a restart all streams come back at once, to a chat that is still to be
/// loaded, and the database stands still: none is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_storm_of_streams_waits_for_its_chat() {
    const STREAMS: usize = 20_000;
    let pg = Pg::start();
    let mut server = Server::start(&[
        "--store",
        &pg.tcp_dsn("postgres"),
        "--max-user-streams",
        "20000",
        "--first-frame-timeout",
        "60s",
        "--send-timeout",
        "60s",
    ])
    .await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    alice.send(chat, "before", "").await.unwrap();
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;

    pg.sigstop();
    let mut streams = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let bob = server.client("bob").await;
        streams.spawn(async move {
            let mut streams = Vec::with_capacity(STREAMS / CONNECTIONS);
            for _ in 0..STREAMS / CONNECTIONS {
                streams.push(bob.read(chat, Some(0)).await);
            }
            streams
        });
    }
    let mut streams = soon("the streams", streams.join_all()).await;
    pg.sigcont();
    for frames in streams.iter_mut().flatten() {
        frames.expect(1).await;
    }
    server
        .client("alice")
        .await
        .send(chat, "after", "")
        .await
        .unwrap();
    for frames in streams.iter_mut().flatten() {
        frames.expect(2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_a_seq_ahead_of_the_chat_is_refused() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    for newest in 0..3 {
        for ahead in [newest + 1, newest + 1000, i64::MAX] {
            let status = alice.read(chat, Some(ahead)).await.end().await;
            assert_eq!(status.code(), Code::OutOfRange);
            let details = status.get_error_details();
            let violations = &details.bad_request().unwrap().field_violations;
            assert_eq!(violations[0].field, "after_seq");
            let info = details.error_info().unwrap();
            assert_eq!(info.reason, "AFTER_SEQ_AHEAD");
            assert_eq!(info.metadata["last_seq"], newest.to_string());
        }
        // The newest itself is not ahead.
        let mut frames = alice.read(chat, Some(newest)).await;
        let sent = alice.send(chat, "x", "").await.unwrap();
        frames.expect(sent.seq).await;
    }
}

/// A failover, an operator or a tool for the right to be forgotten has taken
/// messages out of the database: what is behind them comes all the same, and the
/// store is not asked for them without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_messages_that_the_store_has_lost_hold_nobody_up() {
    const LOST: [i64; 4] = [2, 10, 11, 12];
    let mut server = Server::start(&["--ring", "16"]).await;
    let alice = server.client("alice").await;
    let mut chats = Vec::new();
    for messages in [60, 13] {
        let chat = alice.create(&[]).await;
        for n in 1..=messages {
            alice.send(chat, &format!("m{n}"), "").await.unwrap();
        }
        chats.push((chat, messages));
    }
    let database = rusqlite::Connection::open(server.folder().join("data/chat.db")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let gone = database.execute("DELETE FROM messages WHERE seq IN (2, 10, 11, 12)", ());
    assert_eq!(gone.unwrap(), 2 * LOST.len());
    drop(database);

    let left = |messages| (1..=messages).filter(|seq| !LOST.contains(seq));
    let (long, messages) = chats[0];
    let mut frames = alice.read(long, Some(0)).await;
    for seq in left(messages) {
        let message = soon("the next message", frames.next()).await.unwrap();
        assert_eq!((message.seq, message.text), (seq, format!("m{seq}")));
    }
    let (_, metrics) = get(server.http_address(), "/metrics").await;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let value = line.unwrap().rsplit(' ').next().unwrap();
        value.parse::<f64>().unwrap()
    };
    assert_eq!(value("chat_messages_missing_total "), LOST.len() as f64);
    assert!(value("chat_history_reads_total ") < 20.0);
    assert!(server.log().contains("messages are missing in the store"));

    // Read from the database again, no seq comes twice, and none is used again.
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;
    let alice = server.client("alice").await;
    for (chat, messages) in chats {
        let mut frames = alice.read(chat, Some(0)).await;
        for seq in left(messages) {
            let message = soon("the next message", frames.next()).await.unwrap();
            assert_eq!((message.seq, message.text), (seq, format!("m{seq}")));
        }
        let next = alice.send(chat, "next", "").await.unwrap();
        assert_eq!(next.seq, messages + 1);
        assert_eq!(frames.next().await.unwrap().seq, messages + 1);
    }
}
