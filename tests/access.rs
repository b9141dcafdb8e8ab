//! Only members, only as themselves (P7).

use std::net::SocketAddr;

use chat_service::proto::{
    ConnectChatRequest, ListMessagesRequest, Message, SendMessageRequest,
    chat_v1_client::ChatV1Client,
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::server::{Client, Server, join, post};

/// What every call says about one chat to one caller.
async fn refusals(client: &Client, chat: i64) -> Vec<(&'static str, Status)> {
    let page = ListMessagesRequest {
        chat_id: chat,
        ..Default::default()
    };
    let (posts, mut open) = client.open(chat, Some(1 << 40)).await;
    _ = posts.send(post("x", "k")).await;
    vec![
        ("get", client.get(chat).await.unwrap_err()),
        ("delete", client.delete(chat).await.unwrap_err()),
        ("send", client.send(chat, "x", "k").await.unwrap_err()),
        ("page", client.page(page).await.unwrap_err()),
        ("add", client.add(chat, &["x"]).await.unwrap_err()),
        ("remove", client.remove(chat, &["alice"]).await.unwrap_err()),
        ("leave", client.remove(chat, &["eve"]).await.unwrap_err()),
        ("live", client.read(chat, None).await.end().await),
        ("from 0", client.read(chat, Some(0)).await.end().await),
        ("ahead", open.end().await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_chat_of_others_looks_like_none() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let eve = server.client("eve").await;
    let chat = alice.create(&["bob"]).await;
    alice.send(chat, "secret", "k").await.unwrap();
    let existing = refusals(&eve, chat).await;
    let missing = refusals(&eve, chat + 1000).await;
    for ((call, a), (_, b)) in existing.iter().zip(&missing) {
        assert_eq!(a.code(), Code::PermissionDenied, "{call}: {a:?}");
        let told = |status: &Status| {
            let mut headers = status.metadata().clone().into_headers();
            // The call's own random number says nothing about the chat.
            headers.remove("x-request-id");
            (
                status.message().to_owned(),
                status.details().to_vec(),
                headers,
            )
        };
        assert_eq!(told(a), told(b), "{call}");
        assert_eq!(a.code(), b.code(), "{call}");
    }
    let stored = alice.history(chat).await;
    assert_eq!(stored.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_nobody_speaks_for_somebody_else() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    let send = |from: &str| {
        let request = SendMessageRequest {
            chat_id: chat,
            message: Some(Message {
                from: from.into(),
                text: "x".into(),
                // Whatever it says, the server's clock decides.
                created_at: Some(prost_types::Timestamp::default()),
                seq: 99,
                chat_id: chat + 1,
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut grpc = alice.grpc.clone();
        async move { grpc.send_message(request).await }
    };
    let connect = |username: &str| ConnectChatRequest {
        username: username.into(),
        ..join(chat, Some(0))
    };
    let not_yourself = |status: Status, field: &str| {
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, field);
        assert_eq!(details.error_info().unwrap().reason, "NOT_YOURSELF");
    };
    for other in ["bob", "Alice", "alice ", "mallory"] {
        not_yourself(send(other).await.unwrap_err(), "message.from");
        let (_posts, mut frames) = alice.open_with(connect(other)).await;
        not_yourself(frames.end().await, "username");
    }
    for (seq, own) in (1..).zip(["", "alice"]) {
        let sent = send(own).await.unwrap().into_inner();
        assert_eq!(sent.seq, seq);
        assert!(sent.created_at.unwrap().seconds > 1_700_000_000);
        let (_posts, mut frames) = alice.open_with(connect(own)).await;
        let message = frames.expect(1).await;
        assert_eq!((&*message.from, message.chat_id), ("alice", chat));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_no_token_no_call() {
    let server = Server::start(&[]).await;
    let chat = server.client("alice").await.create(&[]).await;
    let tokens = [
        "",
        "alice",
        "Basic alice",
        "Bearer",
        "Bearer ",
        "Bearer a  ",
    ];
    for token in [None].into_iter().chain(tokens.map(Some)) {
        let status = get(server.address(), chat, token).await;
        assert_eq!(status.unwrap_err(), Code::Unauthenticated, "{token:?}");
    }
    for token in ["Bearer alice", "bearer alice"] {
        assert_eq!(get(server.address(), chat, Some(token)).await, Ok(()));
    }
}

async fn get(server: SocketAddr, id: i64, token: Option<&'static str>) -> Result<(), Code> {
    let mut grpc = ChatV1Client::connect(format!("http://{server}"))
        .await
        .unwrap();
    let mut request = Request::new(chat_service::proto::GetRequest { id });
    if let Some(token) = token {
        let token = token.parse().unwrap();
        request.metadata_mut().insert("authorization", token);
    }
    let answer = grpc.get(request).await;
    answer.map(|_| ()).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_change_only_by_the_creator_an_admin_or_themselves() {
    let server = Server::start(&["--dev-admins", "root", "--max-members", "6"]).await;
    let alice = server.client("alice").await;
    let bob = server.client("bob").await;
    let chat = alice.create(&["carol", "bob", "alice", "carol"]).await;
    let members = async |client: &Client| client.get(chat).await.unwrap().info.unwrap().usernames;
    assert_eq!(members(&bob).await, ["alice", "carol", "bob"]);

    for denied in [
        bob.add(chat, &["dave"]).await,
        bob.remove(chat, &["carol"]).await,
    ] {
        let status = denied.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "NOT_THE_CREATOR");
    }
    let now = alice.add(chat, &["dave", "carol", "erin"]).await.unwrap();
    let expected = ["alice", "carol", "bob", "dave", "erin"];
    assert_eq!(now.info.unwrap().usernames, expected);
    assert_eq!(now.created_by, "alice");
    let full = alice.add(chat, &["f", "g"]).await.unwrap_err();
    assert_eq!(full.code(), Code::FailedPrecondition);

    // Anyone may go; who comes back comes last.
    server
        .client("carol")
        .await
        .remove(chat, &["carol"])
        .await
        .unwrap();
    alice.add(chat, &["carol"]).await.unwrap();
    assert_eq!(
        members(&alice).await,
        ["alice", "bob", "dave", "erin", "carol"]
    );
    let none = alice.add(chat, &[]).await.unwrap_err();
    assert_eq!(none.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_sees_and_changes_every_chat() {
    let server = Server::start(&["--dev-admins", "root,boss"]).await;
    let alice = server.client("alice").await;
    let root = server.client("root").await;
    let chat = alice.create(&["bob"]).await;
    alice.send(chat, "x", "k").await.unwrap();
    assert_eq!(root.get(chat).await.unwrap().last_seq, 1);
    assert_eq!(root.history(chat).await[0].client_message_id, "");
    root.add(chat, &["carol"]).await.unwrap();
    root.remove(chat, &["bob"]).await.unwrap();
    // Reading along and speaking is for members, though.
    let refused = root.send(chat, "x", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = root.read(chat, Some(0)).await.end().await;
    assert_eq!(refused.code(), Code::PermissionDenied);
    // Only an admin is told that there is no such chat.
    let missing = root.get(chat + 1).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    server.client("boss").await.delete(chat).await.unwrap();
    assert_eq!(root.get(chat).await.unwrap_err().code(), Code::NotFound);
    let denied = alice.get(chat).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
}

async fn members(client: &Client, chat: i64) -> Vec<String> {
    client.get(chat).await.unwrap().info.unwrap().usernames
}

/// Names that came before the rule against invisible characters go on as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_member_with_an_old_name_stays_and_can_be_removed() {
    const OLD: &str = "alice\u{200b}";
    let mut server = Server::start(&[]).await;
    let chat = server.client("alice").await.create(&["bob"]).await;
    assert_eq!(server.terminate().await, Some(0));
    let file = rusqlite::Connection::open(server.folder().join("data/chat.db")).unwrap();
    let add = "INSERT INTO members (chat_id, user_name) VALUES (?1, ?2)";
    file.execute(add, (chat, OLD)).unwrap();
    drop(file);
    server.restart().await;
    let alice = server.client("alice").await;
    assert_eq!(members(&alice, chat).await, ["alice", "bob", OLD]);
    alice.add(chat, &["carol"]).await.unwrap();
    assert_eq!(
        alice.add(chat, &["eve\u{200b}"]).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    alice.remove(chat, &[OLD]).await.unwrap();
    assert_eq!(members(&alice, chat).await, ["alice", "bob", "carol"]);
}
