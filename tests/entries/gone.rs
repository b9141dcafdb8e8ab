//! What is deleted is gone (P12).

use std::time::Duration;

use chat_service::proto::{ConnectChatRequest, Message};

use super::servers;
use crate::server::{Client, Frames, Posts, join, soon};

const SECRET: &str = "the secret of the pyramids";

/// Whether any text of an entry, as the debug form has all of them, has the secret.
fn has_secret(message: &Message) -> bool {
    format!("{message:?}").contains(SECRET)
}

async fn reader(client: &Client, chat: i64, after: i64, entries: bool) -> (Posts, Frames) {
    let first = ConnectChatRequest {
        entries,
        ..join(chat, Some(after))
    };
    client.open_with(first).await
}

/// Nobody is given the secret, from wherever.
async fn is_gone(client: &Client, chat: i64, last: i64) {
    for page in [client.history(chat).await, client.log(chat).await] {
        assert!(!page.iter().any(has_secret));
    }
    let mut streams = Vec::new();
    for after in 0..last {
        for entries in [false, true] {
            streams.push(reader(client, chat, after, entries).await);
        }
    }
    for (_posts, mut frames) in streams {
        loop {
            let message = frames.next().await.unwrap();
            assert!(!has_secret(&message), "{message:?}");
            if message.seq == last {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_deleted_text_is_given_to_nobody() {
    for ring in ["16", "256"] {
        for mut server in servers(&["--ring", ring]).await {
            let alice = server.client("alice").await;
            let chat = alice.create(&["bob"]).await;
            for n in 1..=40 {
                let text = match n % 10 {
                    3 => format!("{SECRET} {n} {}", "x".repeat(2_000)),
                    _ => format!("m{n}"),
                };
                alice.send(chat, &text, "").await.unwrap();
            }
            for n in [3, 13, 23, 33] {
                let text = format!("still {SECRET}");
                alice.edit(chat, n, &text).await.unwrap();
            }
            // Readers who have taken some of it, and chunks that are shared.
            let bob = server.client("bob").await;
            let mut early = bob.read(chat, Some(0)).await;
            early.expect(1).await;
            for n in [3, 13, 23, 33] {
                alice.delete_message(chat, n).await.unwrap();
            }
            let last = alice.send(chat, "end", "").await.unwrap().seq;
            is_gone(&bob, chat, last).await;
            let marks = alice.history(chat).await;
            assert_eq!(marks.iter().filter(|one| one.deleted).count(), 4);
            assert_eq!(marks.len(), 41);
            server.kill9();
            server.restart().await;
            let bob = server.client("bob").await;
            is_gone(&bob, chat, last).await;
            assert_eq!(server.terminate().await, Some(0));
            let file = server.folder().join("data/chat.db");
            if let Ok(bytes) = std::fs::read(file) {
                let secret = SECRET.as_bytes();
                let is_there = bytes.windows(secret.len()).any(|part| part == secret);
                assert!(!is_there, "the file has it still");
            }
        }
    }
}

/// A reader who does not read has a page of history waiting: what is deleted meanwhile
/// is not in it any more once it is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p12_a_page_that_waits_for_its_reader_loses_what_is_deleted() {
    const COUNT: i64 = 2_000;
    for server in servers(&["--ring", "16", "--stream-buffer", "4KiB"]).await {
        let alice = server.client("alice").await;
        let chat = alice.create(&["bob"]).await;
        for n in 1..=COUNT {
            let text = format!("{n} {SECRET} {}", "x".repeat(500));
            alice.send(chat, &text, "").await.unwrap();
        }
        let endpoint = server
            .endpoint()
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535);
        let mut streams = Vec::new();
        for entries in [false, true] {
            // Each on a connection of its own, whose window the other can't take.
            let channel = endpoint.connect().await.unwrap();
            let bob = Client::new(channel, "bob");
            streams.push(reader(&bob, chat, 0, entries).await);
        }
        // They get as far as their windows go, and a page behind it.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for n in 1..=COUNT {
            if n > COUNT / 2 || n % 3 == 0 {
                alice.delete_message(chat, n).await.unwrap();
            }
        }
        let last = alice.send(chat, "end", "").await.unwrap().seq;
        for (_posts, mut frames) in streams {
            let (mut given, mut at) = (0, 0);
            while at < last {
                let message = soon("the next", frames.next()).await.unwrap();
                at = message.seq;
                if has_secret(&message) && (at > COUNT / 2 || at % 3 == 0) {
                    given += 1;
                    // What HTTP/2 had before the deletion is not to be had back.
                    assert!(at < 400, "given {at} after it was deleted");
                }
            }
            println!("{given} were on their way before");
        }
    }
}
