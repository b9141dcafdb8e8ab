//! Streams that one user opens by the thousand and does not read (P6).

use std::time::Duration;

use chat_service::proto::ConnectChatRequest;

use crate::{
    hostile::raw::{Connection, DATA, hello, message, open},
    ops::{get, value},
    server::{Server, soon},
};

/// Streams that have ended keep their places while HTTP/2 has frames of them: who is
/// removed from a chat and added again, over and over, has no more than anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_an_ended_stream_has_its_place_until_all_of_it_is_written() {
    const MOST: u32 = 200;
    let most = MOST.to_string();
    let server = Server::start(&["--http-port", "0", "--max-user-streams", &most]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["mallory"]).await;
    let text = "x".repeat(TEXT);
    // All of it fits into what HTTP/2 keeps of a stream.
    for _ in 0..14 {
        alice.send(chat, &text, "").await.unwrap();
    }
    let join = ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq: Some(0),
        ..Default::default()
    };
    let readers = async |count: u32| {
        loop {
            let (_, metrics) = get(server.http_address(), "/metrics").await;
            if value(&metrics, "chat_readers") as u32 == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let open_all = async |connection: &mut Connection, first: u32| {
        for stream in (first..first + 150).map(|n| 2 * n + 1) {
            let words = [
                open(stream, "ConnectChat", "mallory"),
                message(stream, 0, &join),
            ];
            connection.say(&words.concat()).await.unwrap();
        }
    };
    let mut connection = Connection::open(server.address(), 112).await.unwrap();
    connection.say(&hello()).await.unwrap();
    for (first, reading) in [(0, 150), (150, MOST - 150)] {
        open_all(&mut connection, first).await;
        soon("the streams are open", readers(reading)).await;
        // Time for their frames to be with HTTP/2, and for one more to come in.
        tokio::time::sleep(Duration::from_secs(1)).await;
        soon("no more are let in", readers(reading)).await;
        alice.remove(chat, &["mallory"]).await.unwrap();
        soon("the streams have ended", readers(0)).await;
        alice.add(chat, &["mallory"]).await.unwrap();
    }
    // The places are free again once the connection is gone.
    drop(connection);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut connection = Connection::open(server.address(), 112).await.unwrap();
    connection.say(&hello()).await.unwrap();
    open_all(&mut connection, 0).await;
    soon("the streams are open", readers(150)).await;
}

const STREAMS: u32 = 1_000;
const A_CONNECTION: u32 = 250;
const MESSAGES: i64 = 60;
const TEXT: usize = 4_000;

/// What the first 128 may hold, and all others together, with two messages a stream, and
/// what a stream takes in any case. Without a bound each has as much as the first.
const MOST_KB: u64 = 128 * (64 + 64) + 16 * 1024 + STREAMS as u64 * (2 * 4 + 6) + 24 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_p6_the_streams_of_a_user_who_does_not_read_share_their_bytes() {
    let server = Server::start(&["--http-port", "0"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["mallory"]).await;
    let text = "x".repeat(TEXT);
    for _ in 0..MESSAGES {
        alice.send(chat, &text, "").await.unwrap();
    }
    let join = ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq: Some(0),
        ..Default::default()
    };
    let before = server.memory_kb();
    let mut unread = Vec::new();
    for _ in 0..STREAMS / A_CONNECTION {
        let mut connection = Connection::open(server.address(), 112).await.unwrap();
        connection.say(&hello()).await.unwrap();
        for stream in (0..A_CONNECTION).map(|n| 2 * n + 1) {
            let words = [
                open(stream, "ConnectChat", "mallory"),
                message(stream, 0, &join),
            ];
            connection.say(&words.concat()).await.unwrap();
        }
        unread.push(connection);
    }
    let mut grown = 0;
    let mut last = u64::MAX;
    let still = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (_, metrics) = get(server.http_address(), "/metrics").await;
            let now = server.memory_kb().saturating_sub(before);
            grown = grown.max(now);
            if value(&metrics, "chat_readers") as u32 == STREAMS && now.abs_diff(last) < 256 {
                return;
            }
            last = now;
        }
    };
    soon("all streams are stuck", still).await;
    eprintln!("{STREAMS} unread streams of one user hold {grown} KiB");
    assert!(grown < MOST_KB, "{grown} KiB of {MOST_KB}");
    // Another user's streams have all that they may have, and wait for nobody.
    let mut frames = alice.read(chat, Some(0)).await;
    for seq in 1..=MESSAGES {
        frames.expect(seq).await;
    }
    // And who reads after all gets everything, on every stream.
    let all = usize::try_from(MESSAGES).unwrap() * TEXT;
    for mut connection in unread {
        let mut bytes = vec![0; A_CONNECTION as usize];
        while bytes.iter().any(|bytes| *bytes < all) {
            let frame = soon("more", connection.hear_of(DATA)).await.unwrap();
            bytes[frame.stream as usize / 2] += frame.payload.len();
        }
    }
    let given_back = async {
        loop {
            let (_, metrics) = get(server.http_address(), "/metrics").await;
            if value(&metrics, "chat_memory_pages_bytes") == 0.0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("all is given back", given_back).await;
}
