//! Every call by everybody, held against a written table.

use std::fs;

use chat_service::proto::{
    AddMembersRequest, DeleteRequest, GetRequest, ListChatsRequest, ListMessagesRequest,
    RemoveMembersRequest,
};
use tonic::{Code, Request, Status};

use crate::guarded::{
    Client, client, connect, create, keys::Key, outcome, send, start, stop, with_token,
};

const SECRET: &str = "k7Vq2mZx9TfL4cVn8RwYp3HsW6jD1bGa";

const NO: Code = Code::Unauthenticated;
const DENIED: Code = Code::PermissionDenied;
const OK: Code = Code::Ok;

/// Who calls: no token, garbage, expired, other user, member, creator, admin.
const CALLERS: [&str; 7] = [
    "none", "garbage", "expired", "other", "member", "creator", "admin",
];

/// What they get. An admin may see and change every chat, but takes part only in
/// those that they are a member of.
const TABLE: [(&str, [Code; 7]); 9] = [
    ("Create", [NO, NO, NO, OK, OK, OK, OK]),
    ("Get", [NO, NO, NO, DENIED, OK, OK, OK]),
    ("Delete", [NO, NO, NO, DENIED, DENIED, OK, OK]),
    ("SendMessage", [NO, NO, NO, DENIED, OK, OK, DENIED]),
    ("ConnectChat", [NO, NO, NO, DENIED, OK, OK, DENIED]),
    ("ListMessages", [NO, NO, NO, DENIED, OK, OK, OK]),
    ("ListChats", [NO, NO, NO, OK, OK, OK, OK]),
    ("AddMembers", [NO, NO, NO, DENIED, DENIED, OK, OK]),
    ("RemoveMembers", [NO, NO, NO, DENIED, DENIED, OK, OK]),
];

async fn call(client: &Client, method: &str, token: Option<&str>, chat: i64) -> Result<(), Status> {
    fn request<T>(message: T, token: Option<&str>) -> Request<T> {
        match token {
            Some(token) => with_token(message, token),
            None => Request::new(message),
        }
    }
    let mut c = client.clone();
    let usernames = vec!["third".to_owned()];
    match method {
        "Create" => c.create(request(Default::default(), token)).await.map(drop),
        "Get" => c
            .get(request(GetRequest { id: chat }, token))
            .await
            .map(drop),
        "Delete" => c
            .delete(request(DeleteRequest { id: chat }, token))
            .await
            .map(drop),
        "SendMessage" => match token {
            Some(token) => send(client, token, chat, "hi").await.map(drop),
            None => c
                .send_message(Request::new(Default::default()))
                .await
                .map(drop),
        },
        "ConnectChat" => match token {
            Some(token) => {
                let mut stream = connect(client, token, chat).await?;
                stream.messages.message().await.map(drop)
            }
            None => {
                let none = futures_util::stream::empty();
                c.connect_chat(Request::new(none)).await.map(drop)
            }
        },
        "ListMessages" => {
            let message = ListMessagesRequest {
                chat_id: chat,
                ..Default::default()
            };
            c.list_messages(request(message, token)).await.map(drop)
        }
        "ListChats" => {
            let message = ListChatsRequest::default();
            c.list_chats(request(message, token)).await.map(drop)
        }
        "AddMembers" => {
            let message = AddMembersRequest {
                chat_id: chat,
                usernames,
            };
            c.add_members(request(message, token)).await.map(drop)
        }
        "RemoveMembers" => {
            let message = RemoveMembersRequest {
                chat_id: chat,
                usernames,
            };
            c.remove_members(request(message, token)).await.map(drop)
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn p7_every_call_by_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, SECRET).unwrap();
    let app = start(&["--auth", "jwt", "--jwt-secret-file", path.to_str().unwrap()]).await;
    let client = client(&app);
    let key = Key::hs(SECRET);
    let creator = key.token("creator", "0", 600);
    let tokens = CALLERS.map(|caller| match caller {
        "none" => None,
        "garbage" => Some("garbage".to_owned()),
        "expired" => Some(key.token("creator", "1", -60)),
        "creator" => Some(creator.clone()),
        "admin" => Some(key.token("admin", "1", 600)),
        other => Some(key.token(other, "0", 600)),
    });
    for (method, expected) in TABLE {
        for ((caller, token), expected) in CALLERS.iter().zip(&tokens).zip(expected) {
            let chat = create(&client, &creator, &["member", "third"])
                .await
                .unwrap();
            send(&client, &creator, chat, "one").await.unwrap();
            let here = call(&client, method, token.as_deref(), chat).await;
            let (code, reason) = outcome(&here);
            assert_eq!(code, expected, "{method} by {caller}: {reason}");
            // Whether the chat exists shows to nobody who may not see it.
            if *caller == "other" && code == DENIED {
                let nowhere = call(&client, method, token.as_deref(), 987_654).await;
                assert_eq!(outcome(&nowhere), (code, reason), "{method}");
            }
        }
    }
    stop(app).await;
}
