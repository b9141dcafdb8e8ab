//! What streams yield, and what they post.

use chat_service::proto::{
    ConnectChatRequest, DeleteMessageRequest, EditMessageRequest, ReactRequest, Rejected,
};

use super::{ALL, MESSAGES, all_said, chat_of_all, said, servers};
use crate::server::{Client, Frames, Posts, Server, join, post};

/// A stream of all entries.
async fn entries(client: &Client, chat: i64, after: Option<i64>) -> (Posts, Frames) {
    let first = ConnectChatRequest {
        entries: true,
        ..join(chat, after)
    };
    client.open_with(first).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p4_streams_resume_at_every_seq_with_and_without_entries() {
    for mut server in servers(&["--ring", "16"]).await {
        let (alice, chat) = chat_of_all(&server).await;
        for round in 0..3 {
            let bob = server.client("bob").await;
            for after in 0..10 {
                let mut frames = bob.read(chat, Some(after)).await;
                for (seq, text) in MESSAGES.iter().filter(|(seq, _)| *seq > after) {
                    let message = frames.expect(*seq).await;
                    assert_eq!((said(&message).as_str(), &message.change), (*text, &None));
                }
                let (_posts, mut frames) = entries(&bob, chat, Some(after)).await;
                for (seq, text) in (1..).zip(ALL).filter(|(seq, _)| *seq > after) {
                    assert_eq!(said(&frames.expect(seq).await), text);
                }
            }
            match round {
                // From the store, to a chat that is read anew.
                0 => {
                    assert_eq!(server.terminate().await, Some(0));
                    server.restart().await;
                }
                // From the store, to a chat whose ring has nothing of it.
                1 => {
                    let alice = server.client("alice").await;
                    for _ in 0..64 {
                        alice.send(chat, "more", "").await.unwrap();
                    }
                }
                _ => {}
            }
        }
        drop(alice);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_live_streams_see_entries_in_their_place() {
    for server in servers(&[]).await {
        let alice = server.client("alice").await;
        let bob = server.client("bob").await;
        let chat = alice.create(&["bob"]).await;
        let mut old = bob.read(chat, Some(0)).await;
        let (_posts, mut all) = entries(&bob, chat, Some(0)).await;
        let mut seen = Vec::new();
        for round in 0..20 {
            let seq = alice
                .send(chat, &format!("m{round}"), "")
                .await
                .unwrap()
                .seq;
            alice.edit(chat, seq, "better").await.unwrap();
            bob.react(chat, seq, "👍").await.unwrap();
            old.expect(seq).await;
            for seq in seq..seq + 3 {
                seen.push(all.expect(seq).await);
            }
        }
        assert_eq!(seen.len(), 60);
        assert_eq!(all_said(&seen[57..]), ["m19", "edit 58: better", "58: 👍"]);
        // A stream that has passed over what is not for it is where the chat is.
        let mut late = bob.read(chat, Some(58)).await;
        alice.send(chat, "end", "").await.unwrap();
        assert_eq!(late.expect(61).await.text, "end");
        assert_eq!(old.expect(61).await.text, "end");
    }
}

fn edit(seq: i64, text: &str, id: &str) -> ConnectChatRequest {
    ConnectChatRequest {
        edit: Some(EditMessageRequest {
            seq,
            text: text.into(),
            client_message_id: id.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn delete(seq: i64, id: &str) -> ConnectChatRequest {
    ConnectChatRequest {
        delete: Some(DeleteMessageRequest {
            seq,
            client_message_id: id.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn react(seq: i64, emoji: &str, id: &str) -> ConnectChatRequest {
    ConnectChatRequest {
        react: Some(ReactRequest {
            seq,
            emoji: emoji.into(),
            client_message_id: id.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The refusal of a post of this id.
async fn rejected(frames: &mut Frames, id: &str) -> Rejected {
    let frame = frames.next().await.unwrap();
    assert_eq!(frame.client_message_id, id);
    frame.rejected.expect("a refusal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_on_a_stream_come_back_as_entries_or_rejected() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    let (posts, mut frames) = entries(&alice, chat, Some(0)).await;
    let send = async |frame| posts.send(frame).await.unwrap();
    send(post("one", "m")).await;
    assert_eq!(frames.expect(1).await.client_message_id, "m");
    for (seq, frame, id, expected) in [
        (2, edit(1, "two", "e"), "e", "edit 1: two"),
        (3, react(1, "👍", "r"), "r", "1: 👍"),
        (4, delete(1, "d"), "d", "deletion of 1"),
    ] {
        send(frame.clone()).await;
        let entry = frames.expect(seq).await;
        assert_eq!((&*entry.client_message_id, &*said(&entry)), (id, expected));
        send(frame).await;
        let twice = rejected(&mut frames, id).await;
        assert_eq!((&*twice.reason, twice.seq), ("DUPLICATE", seq));
    }
    for (frame, reason, words) in [
        (edit(1, "three", "x"), "MESSAGE_DELETED", "seq"),
        (edit(9, "three", "x"), "MESSAGE_NOT_FOUND", "seq"),
        (delete(2, "x"), "NOT_A_MESSAGE", "seq"),
        (edit(1, "", "x"), "INVALID_FIELD", "edit.text"),
        (edit(0, "t", "x"), "INVALID_FIELD", "edit.seq"),
        (react(1, "no", "x"), "INVALID_FIELD", "react.emoji"),
        (delete(-1, "x"), "INVALID_FIELD", "delete.seq"),
        (
            ConnectChatRequest {
                send: post("two", "x").send,
                ..edit(1, "three", "y")
            },
            "INVALID_FIELD",
            "edit",
        ),
        (
            ConnectChatRequest {
                entries: true,
                ..post("two", "x")
            },
            "INVALID_FIELD",
            "entries",
        ),
    ] {
        send(frame).await;
        let refused = rejected(&mut frames, "x").await;
        assert_eq!(refused.reason, reason);
        assert!(refused.message.starts_with(words), "{}", refused.message);
    }
    let mut other = edit(1, "three", "x");
    other.edit.as_mut().unwrap().chat_id = chat + 1;
    send(other).await;
    let refused = rejected(&mut frames, "x").await;
    assert!(
        refused.message.starts_with("edit.chat_id"),
        "{}",
        refused.message
    );
    // The stream is as good as before.
    send(post("last", "")).await;
    assert_eq!(frames.expect(5).await.text, "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_messages_posts_no_changes() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let (posts, mut frames) = alice.open(chat, Some(0)).await;
    posts.send(post("one", "")).await.unwrap();
    frames.expect(1).await;
    posts.send(edit(1, "two", "e")).await.unwrap();
    let refused = rejected(&mut frames, "e").await;
    assert_eq!(refused.reason, "INVALID_FIELD");
    assert!(refused.message.contains("entries"), "{}", refused.message);
    posts.send(post("two", "")).await.unwrap();
    assert_eq!(frames.expect(2).await.text, "two");
}
