//! What messages carry besides their text: what they answer, whom they mention, and data
//! of the embedder's own.

use chat_service::proto::{ConnectChatRequest, Message, Post, SendMessageRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::servers;
use crate::{
    cluster::nodes::Nodes,
    server::{Client, Server, post, soon},
};

const DATA: &[u8] = b"\0the data\xff";

/// A message that carries one of each.
fn loaded(text: &str, reply_to: i64) -> Message {
    Message {
        text: text.into(),
        reply_to,
        data: DATA.into(),
        data_type: "application/x-poll".into(),
        mentions: vec!["bob".into(), "карл".into(), "bob".into()],
        ..Default::default()
    }
}

async fn send(client: &Client, chat: i64, message: Message, id: &str) -> Result<i64, Status> {
    let request = SendMessageRequest {
        chat_id: chat,
        message: Some(message),
        client_message_id: id.into(),
    };
    let sent = client.grpc.clone().send_message(request).await?;
    Ok(sent.into_inner().seq)
}

/// The same by a stream.
fn frame(message: Message, id: &str) -> ConnectChatRequest {
    ConnectChatRequest {
        send: Some(Post {
            text: message.text,
            client_message_id: id.into(),
            reply_to: message.reply_to,
            data: message.data,
            data_type: message.data_type,
            mentions: message.mentions,
        }),
        ..Default::default()
    }
}

/// Whether it carries what [`loaded`] says, and nobody twice.
fn check(message: &Message, text: &str, reply_to: i64) {
    assert_eq!((&*message.text, message.reply_to), (text, reply_to));
    let said = (&message.data[..], &*message.data_type);
    assert_eq!(said, (DATA, "application/x-poll"));
    assert_eq!(message.mentions, ["bob", "карл"]);
}

fn is_plain(message: &Message) -> bool {
    message.reply_to == 0
        && message.data.is_empty()
        && message.data_type.is_empty()
        && message.mentions.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p4_p12_what_a_message_carries_comes_with_it_and_goes_with_it() {
    for mut server in servers(&["--ring", "16"]).await {
        let alice = server.client("alice").await;
        let chat = alice.create(&["bob"]).await;
        let bob = server.client("bob").await;
        let mut live = bob.read(chat, None).await;
        assert_eq!(alice.send(chat, "one", "").await.unwrap().seq, 1);
        assert_eq!(send(&alice, chat, loaded("two", 1), "").await.unwrap(), 2);
        let (posts, mut frames) = alice.open(chat, None).await;
        posts.send(frame(loaded("three", 2), "k")).await.unwrap();
        check(&frames.expect(3).await, "three", 2);
        assert!(is_plain(&live.expect(1).await));
        check(&live.expect(2).await, "two", 1);
        check(&live.expect(3).await, "three", 2);

        // An edit leaves it as it is.
        assert_eq!(alice.edit(chat, 3, "better").await.unwrap(), 4);
        let expected = [(2, "two", 1), (3, "three", 2)];
        for round in 0..3 {
            let bob = server.client("bob").await;
            let page = bob.history(chat).await;
            assert!(is_plain(&page[0]));
            check(&page[1], "two", 1);
            check(&page[2], "better", 2);
            let log = bob.log(chat).await;
            let mut frames = bob.read(chat, Some(1)).await;
            for (seq, text, reply_to) in expected {
                check(&log[seq as usize - 1], text, reply_to);
                check(&frames.expect(seq).await, text, reply_to);
            }
            match round {
                0 => {
                    assert_eq!(server.terminate().await, Some(0));
                    server.restart().await;
                }
                // The ring has none of it any more.
                1 => {
                    let alice = server.client("alice").await;
                    for _ in 0..32 {
                        alice.send(chat, "more", "").await.unwrap();
                    }
                }
                _ => {}
            }
        }

        // What was deleted carries nothing any more, and may be answered all the same.
        let (alice, bob) = (server.client("alice").await, server.client("bob").await);
        alice.delete_message(chat, 3).await.unwrap();
        let answer = send(&alice, chat, loaded("late", 3), "").await.unwrap();
        let mut frames = bob.read(chat, Some(2)).await;
        let deleted = frames.expect(3).await;
        for gone in [
            &deleted,
            &bob.history(chat).await[2],
            &bob.log(chat).await[2],
        ] {
            assert!(gone.deleted && gone.text.is_empty() && is_plain(gone));
        }
        check(bob.history(chat).await.last().unwrap(), "late", 3);
        assert_eq!(bob.log(chat).await.last().unwrap().seq, answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_the_same_message_is_one_that_carries_the_same() {
    for server in servers(&[]).await {
        let alice = server.client("alice").await;
        let chat = alice.create(&[]).await;
        alice.send(chat, "one", "").await.unwrap();
        assert_eq!(send(&alice, chat, loaded("two", 1), "k").await.unwrap(), 2);
        assert_eq!(send(&alice, chat, loaded("two", 1), "k").await.unwrap(), 2);
        for other in [
            Message {
                reply_to: 0,
                ..loaded("two", 1)
            },
            Message {
                data: b"other".into(),
                ..loaded("two", 1)
            },
            Message {
                mentions: Vec::new(),
                ..loaded("two", 1)
            },
            Message {
                text: "two".into(),
                ..Default::default()
            },
        ] {
            let status = send(&alice, chat, other, "k").await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains("client_message_id"), "{status:?}");
        }
        // Also once it was edited.
        alice.edit(chat, 2, "better").await.unwrap();
        assert_eq!(send(&alice, chat, loaded("two", 1), "k").await.unwrap(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_what_a_message_cannot_carry_is_refused_by_its_field() {
    let server = Server::start(&["--max-data", "100B", "--max-mentions", "3"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    alice.send(chat, "one", "").await.unwrap();
    alice.react(chat, 1, "👍").await.unwrap();
    let plain = || Message {
        text: "x".into(),
        ..Default::default()
    };
    let typed = |data: usize, data_type: &str| Message {
        data: vec![7; data],
        data_type: data_type.into(),
        ..plain()
    };
    let mention = |names: &[&str]| Message {
        mentions: names.iter().map(|name| (*name).to_owned()).collect(),
        ..plain()
    };
    let to = |reply_to| Message {
        reply_to,
        ..plain()
    };
    let invalid = Code::InvalidArgument;
    let table = [
        (typed(101, "t"), invalid, "data"),
        (typed(1, ""), invalid, "data_type"),
        (typed(0, "t"), invalid, "data_type"),
        (typed(1, &"t".repeat(129)), invalid, "data_type"),
        (typed(1, "a b"), invalid, "data_type"),
        (typed(1, "é"), invalid, "data_type"),
        (mention(&["a", "b", "c", "d"]), invalid, "mentions"),
        (mention(&[""]), invalid, "mentions"),
        (mention(&["a\nb"]), invalid, "mentions"),
        (to(-1), invalid, "reply_to"),
        (to(2), Code::NotFound, "reply_to"),
        (to(3), Code::NotFound, "reply_to"),
        (to(i64::MAX), Code::NotFound, "reply_to"),
    ];
    let (posts, mut frames) = alice.open(chat, None).await;
    for (at, (message, code, field)) in table.into_iter().enumerate() {
        let status = send(&alice, chat, message.clone(), "").await.unwrap_err();
        assert_eq!(status.code(), code, "{at}: {status:?}");
        let details = status.get_error_details();
        let named = &details.bad_request().unwrap().field_violations[0].field;
        let is_named = named == field || *named == format!("message.{field}");
        assert!(is_named, "{at}: {named}");

        let id = at.to_string();
        posts.send(frame(message, &id)).await.unwrap();
        let refused = soon("the answer", frames.next()).await.unwrap();
        assert_eq!(refused.client_message_id, id);
        let refused = refused.rejected.unwrap();
        assert_eq!(refused.code, i32::from(code), "{at}: {refused:?}");
        assert!(refused.message.contains(field), "{at}: {refused:?}");
    }
    let largest = [
        typed(100, &"t".repeat(128)),
        mention(&["a", "b", "c"]),
        to(1),
    ];
    for (at, message) in largest.into_iter().enumerate() {
        posts.send(frame(message, "")).await.unwrap();
        frames.expect(3 + at as i64).await;
    }
    posts.send(post("the end", "")).await.unwrap();
    frames.expect(6).await;
}

/// Half a megabyte of mentions and data is refused before anybody looks at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_what_is_far_too_large_is_refused() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let names: Vec<String> = (0..1_000).map(|n| format!("user{n}")).collect();
    let many = Message {
        mentions: names,
        ..loaded("x", 0)
    };
    let large = Message {
        data: vec![1; 500_000],
        ..loaded("x", 0)
    };
    for message in [many, large] {
        let status = send(&alice, chat, message, "").await.unwrap_err();
        let codes = [
            Code::InvalidArgument,
            Code::ResourceExhausted,
            Code::OutOfRange,
        ];
        assert!(codes.contains(&status.code()), "{status:?}");
    }
    let most: Vec<String> = (0..100).map(|n| format!("{n:064}")).collect();
    let most = Message {
        mentions: most,
        text: "\u{1f980}".repeat(4096),
        data: vec![1; 16 * 1024],
        data_type: "t".repeat(128),
        ..Default::default()
    };
    assert_eq!(send(&alice, chat, most.clone(), "").await.unwrap(), 1);
    let (posts, mut frames) = alice.open(chat, Some(0)).await;
    assert_eq!(frames.expect(1).await.mentions, most.mentions);
    posts.send(frame(most.clone(), "")).await.unwrap();
    assert_eq!(frames.expect(2).await.data, most.data);
    assert_eq!(alice.history(chat).await[1].text, most.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_what_a_message_carries_goes_through_every_node() {
    let nodes = Nodes::start(2).await;
    let chat = nodes.all[0].client("alice").await.create(&["bob"]).await;
    let mut streams = Vec::new();
    for node in &nodes.all {
        streams.push(node.client("bob").await.read(chat, Some(0)).await);
    }
    for (at, node) in nodes.all.iter().enumerate() {
        let alice = node.client("alice").await;
        let first = 1 + 2 * at as i64;
        assert_eq!(alice.send(chat, "first", "").await.unwrap().seq, first);
        let sent = send(&alice, chat, loaded("second", first), "").await;
        assert_eq!(sent.unwrap(), first + 1);
        let missing = send(&alice, chat, loaded("x", 99), "").await.unwrap_err();
        assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
        for stream in &mut streams {
            stream.expect(first).await;
            check(&stream.expect(first + 1).await, "second", first);
        }
    }
}
