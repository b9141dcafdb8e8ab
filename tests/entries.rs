//! What happens to messages has its place in the order: edits, deletions, reactions.

mod abuse;
mod attached;
mod gone;
mod migration;
mod nodes;
mod streams;
mod who;

use chat_service::proto::{Message, message::Change};

use crate::{
    pg::{Pg, fresh_database_on},
    server::{Client, Server},
};

/// The servers that each of these tests runs on: with a file, and with PostgreSQL.
async fn servers(options: &[&str]) -> Vec<Server> {
    let pg = tokio::task::spawn_blocking(Pg::shared).await.unwrap();
    let dsn = fresh_database_on(pg).await;
    let (_, name) = dsn.rsplit_once("dbname=").unwrap();
    let url = pg.tcp_dsn(name);
    let with = [options, &["--store", &url]].concat();
    vec![Server::start(options).await, Server::start(&with).await]
}

/// What an entry says, in short.
fn said(message: &Message) -> String {
    match &message.change {
        None if message.deleted => "deleted".into(),
        None => message.text.clone(),
        Some(Change::Edit(edit)) => format!("edit {}: {}", edit.target, edit.text),
        Some(Change::Deletion(deletion)) => format!("deletion of {}", deletion.target),
        Some(Change::Reaction(one)) if one.removed => format!("{}: -{}", one.target, one.emoji),
        Some(Change::Reaction(one)) => format!("{}: {}", one.target, one.emoji),
    }
}

fn all_said(messages: &[Message]) -> Vec<String> {
    messages.iter().map(said).collect()
}

/// A chat with an entry of each kind, and its owner.
async fn chat_of_all(server: &Server) -> (Client, i64) {
    let alice = server.client("alice").await;
    let bob = server.client("bob").await;
    let chat = alice.create(&["bob"]).await;
    for text in ["one", "two", "three"] {
        alice.send(chat, text, "").await.unwrap();
    }
    assert_eq!(alice.edit(chat, 1, "better").await.unwrap(), 4);
    assert_eq!(bob.react(chat, 1, "👍").await.unwrap().seq, 5);
    alice.send(chat, "six", "").await.unwrap();
    assert_eq!(alice.delete_message(chat, 2).await.unwrap(), 7);
    assert_eq!(bob.react(chat, 1, "-👍").await.unwrap().seq, 8);
    assert_eq!(bob.react(chat, 3, "🦀").await.unwrap().seq, 9);
    alice.send(chat, "ten", "").await.unwrap();
    (alice, chat)
}

/// What a stream of entries has of it, and a LOG page.
const ALL: [&str; 10] = [
    "one",
    "deleted",
    "three",
    "edit 1: better",
    "1: 👍",
    "six",
    "deletion of 2",
    "1: -👍",
    "3: 🦀",
    "ten",
];

/// … and a stream of messages, with their seqs.
const MESSAGES: [(i64, &str); 5] = [
    (1, "one"),
    (2, "deleted"),
    (3, "three"),
    (6, "six"),
    (10, "ten"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_messages_as_they_are_or_all_that_happened() {
    for mut server in servers(&["--ring", "16"]).await {
        for _ in 0..2 {
            let (alice, chat) = chat_of_all(&server).await;
            let now = alice.history(chat).await;
            let seqs: Vec<i64> = now.iter().map(|message| message.seq).collect();
            assert_eq!(seqs, [1, 2, 3, 6, 10]);
            assert_eq!(all_said(&now), ["better", "deleted", "three", "six", "ten"]);
            assert!(now[0].edited_at.is_some() && now[1].edited_at.is_none());
            assert!(now[0].edited_at.unwrap().seconds > 1_700_000_000);
            assert!(now[1].deleted && now[1].from == "alice" && now[1].text.is_empty());
            assert!(now[0].reactions.is_empty() && now[0].change.is_none());
            let crab = &now[2].reactions[0];
            assert_eq!((&*crab.emoji, crab.count, crab.mine), ("🦀", 1, false));
            let bob = server.client("bob").await;
            assert!(bob.history(chat).await[2].reactions[0].mine);
            assert_eq!(all_said(&alice.log(chat).await), ALL);
            assert_eq!(alice.get(chat).await.unwrap().last_seq, 10);
            // And the same once all of it comes from the store.
            assert_eq!(server.terminate().await, Some(0));
            server.restart().await;
            let alice = server.client("alice").await;
            assert_eq!(alice.history(chat).await, now);
            assert_eq!(all_said(&alice.log(chat).await), ALL);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_change_that_is_sent_again_is_stored_once() {
    use chat_service::proto::{DeleteMessageRequest, EditMessageRequest, ReactRequest};
    for mut server in servers(&[]).await {
        let alice = server.client("alice").await;
        let chat = alice.create(&[]).await;
        alice.send(chat, "one", "m").await.unwrap();
        let edit = EditMessageRequest {
            chat_id: chat,
            seq: 1,
            text: "two".into(),
            client_message_id: "e".into(),
        };
        let react = ReactRequest {
            chat_id: chat,
            seq: 1,
            emoji: "👍".into(),
            remove: false,
            client_message_id: "r".into(),
        };
        let delete = DeleteMessageRequest {
            chat_id: chat,
            seq: 1,
            client_message_id: "d".into(),
        };
        for round in 0..3 {
            let alice = server.client("alice").await;
            let mut grpc = alice.grpc.clone();
            let edited = grpc.edit_message(edit.clone()).await.unwrap().into_inner();
            assert_eq!((edited.seq, edited.duplicate), (2, round > 0));
            let reacted = grpc.react(react.clone()).await.unwrap().into_inner();
            assert_eq!((reacted.seq, reacted.duplicate), (3, round > 0));
            let deleted = grpc.delete_message(delete.clone()).await;
            let deleted = deleted.unwrap().into_inner();
            assert_eq!((deleted.seq, deleted.duplicate), (4, round > 0));
            let again = alice.send(chat, "one", "m").await.unwrap();
            assert_eq!((again.seq, again.duplicate), (1, true), "its text is gone");
            // The same id for something else.
            let other = EditMessageRequest {
                seq: 3,
                ..edit.clone()
            };
            if round == 0 {
                let refused = grpc.edit_message(other).await.unwrap_err();
                assert_eq!(refused.code(), tonic::Code::InvalidArgument);
            }
            match round {
                0 => server.kill9(),
                _ => assert_eq!(server.terminate().await, Some(0)),
            }
            server.restart().await;
        }
        let alice = server.client("alice").await;
        assert_eq!(alice.get(chat).await.unwrap().last_seq, 4);
    }
}
