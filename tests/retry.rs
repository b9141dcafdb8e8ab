//! Sends that are repeated under one client_message_id.

use chat_service::proto::{CreateRequest, Message};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::server::{Server, assert_dense, post, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_retry_gets_the_first_answer_also_after_a_restart() {
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    let first = alice.send(chat, "hello", "k").await.unwrap();
    assert!(!first.duplicate);
    alice.send(chat, "another", "").await.unwrap();

    let retry = alice.send(chat, "hello", "k").await.unwrap();
    let same = |answer: &chat_service::proto::SendMessageResponse| {
        assert!(answer.duplicate);
        assert_eq!((answer.seq, answer.created_at), (1, first.created_at));
    };
    same(&retry);
    server.kill9();
    server.restart().await;
    let alice = server.client("alice").await;
    same(&alice.send(chat, "hello", "k").await.unwrap());
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;
    let alice = server.client("alice").await;
    same(&alice.send(chat, "hello", "k").await.unwrap());
    let stored = alice.history(chat).await;
    let texts: Vec<_> = stored.iter().map(|m| m.text.as_str()).collect();
    assert_eq!(texts, ["hello", "another"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_two_calls_at_once_are_stored_once() {
    let server = Server::start(&[]).await;
    // Connections on their own, so that either may be first, and on another
    // core.
    let [one, two] = [server.client("alice").await, server.client("alice").await];
    let chat = one.create(&[]).await;
    for n in 0..100 {
        let key = format!("k{n}");
        let (a, b) = tokio::join!(one.send(chat, "x", &key), two.send(chat, "x", &key));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((a.seq, a.created_at), (b.seq, b.created_at));
        assert!(a.duplicate != b.duplicate, "one of them was first");
    }
    assert_eq!(one.get(chat).await.unwrap().last_seq, 100);
    assert_dense(&one.history(chat).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_retry_on_a_stream_comes_back_rejected() {
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let stored = alice.send(chat, "hello", "k").await.unwrap();
    let already = |frame: Message| {
        let rejected = frame.rejected.expect("a rejection");
        assert_eq!(rejected.code, Code::AlreadyExists as i32);
        assert_eq!((rejected.seq, frame.seq), (stored.seq, 0));
        assert_eq!(rejected.reason, "DUPLICATE");
        assert_eq!(frame.client_message_id, "k");
        assert_eq!((frame.chat_id, frame.text.as_str()), (chat, ""));
    };

    let (posts, mut frames) = alice.open(chat, Some(1)).await;
    posts.send(post("hello", "k")).await.unwrap();
    already(frames.next().await.unwrap());
    // The stream goes on, and a retry of its own post is one as well.
    posts.send(post("more", "m")).await.unwrap();
    assert_eq!(frames.expect(2).await.client_message_id, "m");
    posts.send(post("more", "m")).await.unwrap();
    let again = frames.next().await.unwrap();
    assert_eq!(again.rejected.unwrap().seq, 2);

    server.kill9();
    server.restart().await;
    let alice = server.client("alice").await;
    let (posts, mut frames) = alice.open(chat, None).await;
    posts.send(post("hello", "k")).await.unwrap();
    already(frames.next().await.unwrap());
    // A call after the stream's post is told the same.
    let call = soon("a call", alice.send(chat, "more", "m")).await.unwrap();
    assert!(call.duplicate && call.seq == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_another_sender_or_chat_is_no_retry() {
    let server = Server::start(&[]).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let chat = alice.create(&["bob"]).await;
    let other = alice.create(&["bob"]).await;
    for (client, chat, seq) in [(&alice, chat, 1), (&bob, chat, 2), (&alice, other, 1)] {
        let sent = client.send(chat, "hello", "k").await.unwrap();
        assert_eq!((sent.seq, sent.duplicate), (seq, false));
    }
    // Without an id there is nothing to recognise.
    for seq in [3, 4] {
        let sent = alice.send(chat, "hello", "").await.unwrap();
        assert_eq!((sent.seq, sent.duplicate), (seq, false));
    }
}

/// The window is at least the ring, whose lower bound this takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_the_window_is_at_least_the_ring_also_after_a_restart() {
    let mut server = Server::start(&["--ring", "16"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    for n in 1..=16 {
        alice.send(chat, "x", &format!("k{n}")).await.unwrap();
    }
    for restarted in [false, true] {
        if restarted {
            assert_eq!(server.terminate().await, Some(0));
            server.restart().await;
        }
        let alice = server.client("alice").await;
        for n in 1..=16 {
            let retry = alice.send(chat, "x", &format!("k{n}")).await.unwrap();
            assert_eq!((retry.seq, retry.duplicate), (n, true));
        }
    }
}

/// An id that is used for another text is a client's mistake: to call the second
/// message a duplicate would lose it without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_an_id_used_for_another_text_is_refused() {
    let mut server = Server::start(&[]).await;
    let mut alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    alice.send(chat, "A", "k").await.unwrap();
    for _ in 0..2 {
        let refused = alice.send(chat, "B", "k").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let details = refused.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "client_message_id");

        let (posts, mut frames) = alice.open(chat, None).await;
        posts.send(post("B", "k")).await.unwrap();
        let rejected = frames.next().await.unwrap().rejected.unwrap();
        assert_eq!(rejected.code, Code::InvalidArgument as i32);
        assert!(
            rejected.message.contains("client_message_id"),
            "{rejected:?}"
        );

        // The same text is the same message, and another's id is no matter.
        assert!(alice.send(chat, "A", "k").await.unwrap().duplicate);
        server.kill9();
        server.restart().await;
        alice = server.client("alice").await;
        let bob = server.client("bob").await;
        assert!(alice.send(chat, "A", "k").await.unwrap().duplicate);
        if alice.history(chat).await.len() == 1 {
            assert!(!bob.send(chat, "B", "k").await.unwrap().duplicate);
        }
    }
    let texts: Vec<_> = server.client("alice").await.history(chat).await;
    let texts: Vec<_> = texts.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(texts, ["A", "B"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_chat_that_is_made_again_is_the_same_also_after_a_kill() {
    let mut server = Server::start(&[]).await;
    let make = async |server: &Server, user: &str, id: &str| {
        let request = CreateRequest {
            client_chat_id: id.into(),
            ..Default::default()
        };
        let mut client = server.client(user).await.grpc;
        let made = client.create(request).await?;
        Ok::<i64, Status>(made.into_inner().id)
    };
    let first = make(&server, "alice", "k").await.unwrap();
    server.kill9();
    server.restart().await;
    assert_eq!(make(&server, "alice", "k").await.unwrap(), first);
    assert_ne!(make(&server, "bob", "k").await.unwrap(), first);
    for bad in ["é".to_owned(), "x".repeat(65)] {
        let status = make(&server, "alice", &bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let field = &details.bad_request().unwrap().field_violations[0].field;
        assert_eq!(field, "client_chat_id");
    }
    let chats = server.client("alice").await.chats(100, "").await;
    assert_eq!(chats.unwrap().chats.len(), 1);
}
