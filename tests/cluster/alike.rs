//! What one server promises holds on every node for every chat: slow readers, bad input, a
//! database that is away, and clients that know nothing of all this.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chat_service::proto::{
    ChatInfo, ConnectChatRequest, CreateRequest, DeleteRequest, GetRequest, ListMessagesRequest,
    Message, SendMessageRequest, chat_v1_client::ChatV1Client,
};
use tonic::{Code, Request, Status};

use super::nodes::{Nodes, status};
use crate::server::{Client, assert_dense, soon};

/// So many chats that each of three nodes owns some.
const CHATS: usize = 9;

async fn clients(nodes: &Nodes, user: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for server in &nodes.all {
        clients.push(server.client(user).await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_p6_who_reads_slowly_holds_nobody_up_on_any_node() {
    // Rings of a few messages, so that who is behind reads the store.
    let nodes = Nodes::start_with(3, &["--ring", "16", "--ring-bytes", "64KiB"]).await;
    let alice = clients(&nodes, "alice").await;
    let bob = clients(&nodes, "bob").await;
    let text = "x".repeat(4_000);
    for n in 0..3 {
        let chat = alice[n].create(&["bob"]).await;
        let (mut slow, mut quick) = (Vec::new(), Vec::new());
        for (alice, bob) in alice.iter().zip(&bob) {
            slow.push(bob.read(chat, Some(0)).await);
            quick.push(alice.read(chat, Some(0)).await);
        }
        // More than HTTP/2's windows take.
        for seq in 1..=300 {
            alice[seq % 3].send(chat, &text, "").await.unwrap();
            for reader in &mut quick {
                soon("a delivery", reader.expect(seq as i64)).await;
            }
        }
        for reader in &mut slow {
            for seq in 1..=300 {
                soon("what was missed", reader.expect(seq)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_the_database_is_away_and_nobody_is_replaced_for_it() {
    let nodes = Nodes::start_with(3, &["--send-timeout", "2s"]).await;
    let alice = clients(&nodes, "alice").await;
    let mut chats = Vec::new();
    for n in 0..CHATS {
        let chat = alice[n % 3].create(&[]).await;
        alice[n % 3].send(chat, "before", "").await.unwrap();
        let reader = alice[(n + 1) % 3].read(chat, Some(0)).await;
        chats.push((chat, reader));
    }
    for (_, reader) in &mut chats {
        reader.expect(1).await;
    }
    let owners = async || {
        let status = status(&nodes.all[0]).await.unwrap();
        let nodes = status["nodes"].as_array().unwrap().clone();
        let owned = nodes
            .iter()
            .map(|one| (one["id"].to_string(), one["partitions"].to_string()));
        owned.collect::<BTreeMap<_, _>>()
    };
    let before = owners().await;
    nodes.pg.stop_immediate();
    let stopped = Instant::now();
    for (n, (chat, _)) in chats.iter().enumerate() {
        let refused = alice[n % 3].send(*chat, "lost", &format!("k{chat}")).await;
        let code = refused.unwrap_err().code();
        assert_eq!(code, Code::Unavailable, "P8");
    }
    // Longer than a node's beat may stand still.
    tokio::time::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed())).await;
    nodes.pg.start_again();
    for (n, (chat, reader)) in chats.iter_mut().enumerate() {
        let id = format!("k{chat}");
        let again = async {
            loop {
                match alice[(n + 2) % 3].send(*chat, "lost", &id).await {
                    Ok(sent) => return sent.seq,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        assert_eq!(
            soon("a post after the outage", again).await,
            2,
            "stored once"
        );
        assert_eq!(
            reader.expect(2).await.text,
            "lost",
            "the stream is the same"
        );
    }
    assert_eq!(
        owners().await,
        before,
        "nobody was replaced, and nothing moved"
    );
}

#[tokio::test]
async fn p10_bad_input_is_answered_alike_whichever_node_it_reaches() {
    let nodes = Nodes::start(3).await;
    let alice = clients(&nodes, "alice").await;
    let long = "x".repeat(4_097);
    for n in 0..CHATS {
        let chat = alice[n % 3].create(&["bob"]).await;
        let mut said: Vec<Vec<(Code, String, Vec<u8>)>> = Vec::new();
        for client in &alice {
            let mut all = Vec::new();
            let mut keep = |refused: Status| {
                let details = refused.details().to_vec();
                all.push((refused.code(), refused.message().to_owned(), details));
            };
            for (text, id) in [("", ""), ("a\0b", ""), (&*long, ""), ("a", "ü")] {
                keep(client.send(chat, text, id).await.unwrap_err());
            }
            keep(client.send(-1, "a", "").await.unwrap_err());
            keep(client.add(chat, &["a\u{7}"]).await.unwrap_err());
            keep(client.add(chat, &[]).await.unwrap_err());
            keep(client.remove(chat, &[""]).await.unwrap_err());
            keep(client.read(chat, Some(-1)).await.end().await);
            keep(client.read(chat, Some(7)).await.end().await);
            let page = ListMessagesRequest {
                chat_id: chat,
                before_seq: Some(0),
                ..ListMessagesRequest::default()
            };
            keep(client.page(page).await.unwrap_err());
            // A frame that is bad ends nothing.
            let (posts, mut frames) = client.open(chat, None).await;
            posts.send(crate::server::post("", "k")).await.unwrap();
            let rejected = soon("an answer", frames.next())
                .await
                .unwrap()
                .rejected
                .unwrap();
            assert_eq!(rejected.code, Code::InvalidArgument as i32, "{rejected:?}");
            said.push(all);
        }
        assert_eq!(said[0], said[1]);
        assert_eq!(said[0], said[2]);
        assert!(
            said[0]
                .iter()
                .all(|(code, ..)| matches!(code, Code::InvalidArgument | Code::OutOfRange))
        );
        assert_eq!(
            alice[0].get(chat).await.unwrap().last_seq,
            0,
            "nothing changed"
        );
    }
}

/// They set the fields that there were at first, and read those.
#[tokio::test]
async fn clients_of_the_first_release_see_what_they_always_saw() {
    let nodes = Nodes::start(3).await;
    let mut clients = Vec::new();
    for server in &nodes.all {
        clients.push(ChatV1Client::new(server.connect().await));
    }
    fn by<T>(user: &str, body: T) -> Request<T> {
        let mut request = Request::new(body);
        let token = format!("Bearer {user}").parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        request
    }
    for n in 0..CHATS {
        let at = |step: usize| clients[(n + step) % 3].clone();
        let usernames = vec!["alice".to_owned(), "bob".to_owned()];
        let info = Some(ChatInfo { usernames });
        let made = at(0)
            .create(by(
                "alice",
                CreateRequest {
                    info,
                    ..Default::default()
                },
            ))
            .await;
        let id = made.unwrap().into_inner().id;
        let got = at(1).get(by("bob", GetRequest { id })).await.unwrap();
        let names = got.into_inner().chat.unwrap().info.unwrap().usernames;
        assert_eq!(names, ["alice", "bob"]);
        let first = ConnectChatRequest {
            chat_id: id.to_string(),
            username: "bob".to_owned(),
            ..ConnectChatRequest::default()
        };
        let frames = futures_util::stream::iter([first]);
        let mut frames = at(2)
            .connect_chat(by("bob", frames))
            .await
            .unwrap()
            .into_inner();
        for step in 0..3 {
            let message = Message {
                from: "alice".to_owned(),
                text: format!("hello {step}"),
                created_at: Some(std::time::SystemTime::now().into()),
                ..Message::default()
            };
            let send = SendMessageRequest {
                chat_id: id,
                message: Some(message),
                ..SendMessageRequest::default()
            };
            at(step).send_message(by("alice", send)).await.unwrap();
            let read = soon("a delivery", frames.message()).await.unwrap().unwrap();
            assert_eq!((&*read.from, read.text), ("alice", format!("hello {step}")));
            assert!(read.created_at.is_some());
        }
        let history = nodes.all[n % 3].client("bob").await.history(id).await;
        assert_dense(&history, 1);
        at(1)
            .delete(by("alice", DeleteRequest { id }))
            .await
            .unwrap();
        let end = soon("the end", frames.message()).await.unwrap_err();
        assert_eq!(end.code(), Code::NotFound);
        let gone = at(2).get(by("bob", GetRequest { id })).await.unwrap_err();
        assert_eq!(gone.code(), Code::PermissionDenied);
    }
}
