//! What a stream shows to whom, and how it ends.

use chat_service::proto::ConnectChatRequest;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::server::{Server, join, post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_senders_own_streams_carry_the_client_message_id() {
    let server = Server::start(&["--ring", "16"]).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let chat = alice.create(&["bob"]).await;
    let (posts, mut first) = alice.open(chat, Some(0)).await;
    // Another device of the sender, and another member.
    let mut second = server.client("alice").await.read(chat, Some(0)).await;
    let mut others = bob.read(chat, Some(0)).await;
    posts.send(post("by stream", "s")).await.unwrap();
    assert_eq!(first.expect(1).await.client_message_id, "s");
    alice.send(chat, "by call", "c").await.unwrap();
    for (frames, keys) in [(&mut second, ["s", "c"]), (&mut others, ["", ""])] {
        for (seq, key) in (1..).zip(keys) {
            let message = frames.expect(seq).await;
            assert_eq!(message.client_message_id, key);
            assert_eq!((&*message.from, message.chat_id), ("alice", chat));
            assert!(message.created_at.is_some());
        }
    }
    // The same from history, by stream and by page.
    for _ in 0..40 {
        bob.send(chat, "push it off the ring", "").await.unwrap();
    }
    for (client, keys) in [(&alice, ["s", "c"]), (&bob, ["", ""])] {
        let mut frames = client.read(chat, Some(0)).await;
        let stored = client.history(chat).await;
        for (seq, key) in (1..).zip(keys) {
            assert_eq!(frames.expect(seq).await.client_message_id, key);
            assert_eq!(stored[seq as usize - 1].client_message_id, key);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_removed_members_streams_end() {
    let server = Server::start(&[]).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let chat = alice.create(&["bob", "carol"]).await;
    alice.send(chat, "x", "").await.unwrap();
    let (posts, mut open) = bob.open(chat, Some(0)).await;
    let mut other_device = server.client("bob").await.read(chat, Some(0)).await;
    let mut alices = alice.read(chat, Some(0)).await;
    open.expect(1).await;
    other_device.expect(1).await;
    alices.expect(1).await;

    let left = alice.remove(chat, &["bob", "nobody"]).await.unwrap();
    assert_eq!(left.info.unwrap().usernames, ["alice", "carol"]);
    for frames in [&mut open, &mut other_device] {
        let end = frames.end().await;
        assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
        let details = end.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "NOT_A_MEMBER");
    }
    // The stream's other half went with it.
    _ = posts.send(post("still here?", "")).await;
    let refused = bob.send(chat, "or here?", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    // The others go on, and bob may come back.
    assert_eq!(alice.send(chat, "y", "").await.unwrap().seq, 2);
    alices.expect(2).await;
    alice.add(chat, &["bob"]).await.unwrap();
    let mut again = bob.read(chat, Some(0)).await;
    again.expect(1).await;
    again.expect(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_chats_streams_end_with_not_found() {
    let mut server = Server::start(&[]).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let chat = alice.create(&["bob"]).await;
    alice.send(chat, "x", "").await.unwrap();
    let (_posts, mut alices) = alice.open(chat, Some(0)).await;
    let mut bobs = bob.read(chat, Some(0)).await;
    alices.expect(1).await;
    bobs.expect(1).await;
    let refused = bob.delete(chat).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    alice.delete(chat).await.unwrap();
    for frames in [&mut alices, &mut bobs] {
        let end = frames.end().await;
        assert_eq!(end.code(), Code::NotFound, "{end:?}");
        let details = end.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "CHAT_DELETED");
    }
    for restarted in [false, true] {
        if restarted {
            server.kill9();
            server.restart().await;
        }
        let alice = server.client("alice").await;
        let gone = alice.get(chat).await.unwrap_err();
        assert_eq!(gone.code(), Code::PermissionDenied);
        let end = alice.read(chat, Some(0)).await.end().await;
        assert_eq!(end.code(), Code::PermissionDenied);
        assert!(alice.chats(0, "").await.unwrap().chats.is_empty());
    }
}

/// A refused post comes back, and the stream goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_bad_post_is_rejected_on_its_stream() {
    let server = Server::start(&["--max-text", "10"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let (posts, mut frames) = alice.open(chat, Some(0)).await;
    let with_username = ConnectChatRequest {
        username: "alice".into(),
        ..post("x", "again")
    };
    let cases = [
        (post("", "empty"), "empty", "send.text"),
        (post("12345678901", "long"), "long", "send.text"),
        (post("a\0b", "nul"), "nul", "send.text"),
        (post("x", &"k".repeat(65)), "", "send.client_message_id"),
        (join(chat, Some(0)), "", "send"),
        (with_username, "again", "username"),
    ];
    for (seq, (frame, id, field)) in (1..).zip(cases) {
        posts.send(frame).await.unwrap();
        let answer = frames.next().await.unwrap();
        let rejected = answer.rejected.expect("a rejection");
        assert_eq!(rejected.code, Code::InvalidArgument as i32);
        assert_eq!(answer.client_message_id, id);
        assert!(rejected.message.starts_with(field), "{}", rejected.message);
        posts.send(post("1234567890", "")).await.unwrap();
        frames.expect(seq).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_stream_lives_on() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let (posts, mut frames) = alice.open(chat, Some(0)).await;
    posts.send(post("one", "k")).await.unwrap();
    drop(posts);
    assert_eq!(frames.expect(1).await.client_message_id, "k");
    for seq in 2..=20 {
        alice.send(chat, "x", "").await.unwrap();
        frames.expect(seq).await;
    }
}
