//! Requests with something wrong with them: each call, and what can be wrong.

use chat_service::proto;
use prost::Message as _;

pub const CALLS: [&str; 9] = [
    "Create",
    "Get",
    "Delete",
    "SendMessage",
    "ConnectChat",
    "ListMessages",
    "ListChats",
    "AddMembers",
    "RemoveMembers",
];

/// A request that is well in all its fields, from a member of the chat.
pub fn good(call: &str, chat: i64) -> Vec<u8> {
    let usernames = vec!["dave".to_owned()];
    match call {
        "Create" => proto::CreateRequest {
            info: Some(proto::ChatInfo { usernames }),
            ..Default::default()
        }
        .encode_to_vec(),
        "Get" => proto::GetRequest { id: chat }.encode_to_vec(),
        "Delete" => proto::DeleteRequest { id: chat }.encode_to_vec(),
        "SendMessage" => send(chat, "hello", "k").encode_to_vec(),
        "ConnectChat" => join(&chat.to_string()).encode_to_vec(),
        "ListMessages" => proto::ListMessagesRequest {
            chat_id: chat,
            ..Default::default()
        }
        .encode_to_vec(),
        "ListChats" => proto::ListChatsRequest::default().encode_to_vec(),
        "AddMembers" | "RemoveMembers" => members(chat, usernames).encode_to_vec(),
        other => panic!("{other}"),
    }
}

fn send(chat_id: i64, text: &str, id: &str) -> proto::SendMessageRequest {
    proto::SendMessageRequest {
        chat_id,
        message: Some(proto::Message {
            text: text.into(),
            ..Default::default()
        }),
        client_message_id: id.into(),
    }
}

fn send_from(from: &str) -> proto::SendMessageRequest {
    let mut request = send(1, "hello", "");
    request.message.as_mut().unwrap().from = from.into();
    request
}

fn join(chat: &str) -> proto::ConnectChatRequest {
    proto::ConnectChatRequest {
        chat_id: chat.into(),
        ..Default::default()
    }
}

fn post(text: &str, id: &str) -> proto::ConnectChatRequest {
    proto::ConnectChatRequest {
        send: Some(proto::Post {
            text: text.into(),
            client_message_id: id.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Of the same shape as RemoveMembersRequest.
fn members(chat_id: i64, usernames: Vec<String>) -> proto::AddMembersRequest {
    proto::AddMembersRequest { chat_id, usernames }
}

/// A call, the field that is wrong, and the message.
pub type BadField = (&'static str, &'static str, Vec<u8>);

/// Every field of every call with every kind of bad value, for `alice`, who is a
/// member of chat 1.
pub fn bad_fields() -> Vec<BadField> {
    let mut bad = Vec::new();
    let ids = [0, -1, i64::MIN];
    for id in ids {
        bad.push(("Get", "id", proto::GetRequest { id }.encode_to_vec()));
        bad.push(("Delete", "id", proto::DeleteRequest { id }.encode_to_vec()));
        let list = proto::ListMessagesRequest {
            chat_id: id,
            ..Default::default()
        };
        bad.push(("ListMessages", "chat_id", list.encode_to_vec()));
        bad.push(("SendMessage", "chat_id", send(id, "x", "").encode_to_vec()));
        let change = members(id, vec!["bob".into()]).encode_to_vec();
        bad.push(("AddMembers", "chat_id", change.clone()));
        bad.push(("RemoveMembers", "chat_id", change));
    }
    let long_name = "x".repeat(65);
    let names = [
        "", " bob", "bob ", "b\0b", "b\nb", "\u{7f}", "\u{85}", &long_name, "\u{2003}",
    ];
    let crowd: Vec<String> = (0..21).map(|n| format!("user{n}")).collect();
    let lists = names.map(|name| vec!["bob".to_owned(), name.to_owned()]);
    for usernames in lists.into_iter().chain([crowd.clone()]) {
        let change = members(1, usernames.clone()).encode_to_vec();
        bad.push(("AddMembers", "usernames", change.clone()));
        bad.push(("RemoveMembers", "usernames", change));
        let info = Some(proto::ChatInfo { usernames });
        let create = proto::CreateRequest {
            info,
            ..Default::default()
        };
        bad.push(("Create", "info.usernames", create.encode_to_vec()));
    }
    for name in [
        "\u{202e}gnp.exe",
        "alice\u{200b}",
        "\u{3164}",
        "\u{301}",
        "a\u{a0}b",
    ] {
        let usernames = vec!["bob".to_owned(), name.to_owned()];
        let change = members(1, usernames.clone()).encode_to_vec();
        bad.push(("AddMembers", "usernames", change));
        let info = Some(proto::ChatInfo { usernames });
        let create = proto::CreateRequest {
            info,
            ..Default::default()
        };
        bad.push(("Create", "info.usernames", create.encode_to_vec()));
    }
    // With the caller one too many.
    let info = Some(proto::ChatInfo {
        usernames: crowd[..20].to_vec(),
    });
    bad.push((
        "Create",
        "info.usernames",
        proto::CreateRequest {
            info,
            ..Default::default()
        }
        .encode_to_vec(),
    ));
    let nobody = members(1, Vec::new()).encode_to_vec();
    bad.push(("AddMembers", "usernames", nobody.clone()));
    bad.push(("RemoveMembers", "usernames", nobody));

    let no_message = proto::SendMessageRequest {
        chat_id: 1,
        ..Default::default()
    };
    bad.push(("SendMessage", "message", no_message.encode_to_vec()));
    let long_text = "ü".repeat(4_097);
    for text in ["", "\0", "a\0b", &long_text, " \n", "\u{200b}\u{2800}"] {
        bad.push((
            "SendMessage",
            "message.text",
            send(1, text, "").encode_to_vec(),
        ));
    }
    let long_id = "k".repeat(65);
    for id in [&long_id, "é", "a\tb", "\0", "\u{7f}"] {
        bad.push((
            "SendMessage",
            "client_message_id",
            send(1, "x", id).encode_to_vec(),
        ));
    }

    for id in [
        "",
        "0",
        "-1",
        "+1",
        "01",
        " 1",
        "1 ",
        "x",
        "１",
        "1\0",
        "9223372036854775808",
    ] {
        bad.push(("ConnectChat", "chat_id", join(id).encode_to_vec()));
    }
    for after_seq in [-1, i64::MIN] {
        let first = proto::ConnectChatRequest {
            after_seq: Some(after_seq),
            ..join("1")
        };
        bad.push(("ConnectChat", "after_seq", first.encode_to_vec()));
    }
    let early = proto::ConnectChatRequest {
        chat_id: "1".into(),
        ..post("too early", "")
    };
    bad.push(("ConnectChat", "send", early.encode_to_vec()));

    for page_size in [-1, 1_001, i32::MAX, i32::MIN] {
        let list = proto::ListMessagesRequest {
            chat_id: 1,
            page_size,
            ..Default::default()
        };
        bad.push(("ListMessages", "page_size", list.encode_to_vec()));
        let list = proto::ListChatsRequest {
            page_size,
            ..Default::default()
        };
        bad.push(("ListChats", "page_size", list.encode_to_vec()));
    }
    for max_usernames in [-1, 1_001, i32::MIN] {
        let list = proto::ListChatsRequest {
            max_usernames: Some(max_usernames),
            ..Default::default()
        };
        bad.push(("ListChats", "max_usernames", list.encode_to_vec()));
    }
    for (field, before_seq, after_seq) in [
        ("before_seq", Some(0), None),
        ("before_seq", Some(-1), None),
        ("before_seq", Some(i64::MIN), None),
        ("after_seq", None, Some(-1)),
        ("after_seq", None, Some(i64::MIN)),
        ("after_seq", Some(5), Some(1)),
    ] {
        let list = proto::ListMessagesRequest {
            chat_id: 1,
            before_seq,
            after_seq,
            page_size: 0,
            ..Default::default()
        };
        bad.push(("ListMessages", field, list.encode_to_vec()));
    }
    let zeros = format!("{:016x}.{:016x}", 0, 0);
    let signed = format!("+{:015x}.{:016x}", 1, 1);
    for token in [
        "x",
        ".",
        "1.2",
        "é",
        "\0",
        &zeros,
        &signed,
        &"f".repeat(5_000),
    ] {
        let list = proto::ListChatsRequest {
            page_size: 0,
            page_token: token.into(),
            ..Default::default()
        };
        bad.push(("ListChats", "page_token", list.encode_to_vec()));
    }
    bad
}

/// Later frames of a stream that are refused, by the field that the refusal
/// speaks of.
pub fn bad_posts() -> Vec<(&'static str, Vec<u8>)> {
    let long_text = "ü".repeat(4_097);
    let long_id = "k".repeat(65);
    let mut bad = vec![
        ("send", proto::ConnectChatRequest::default().encode_to_vec()),
        ("send", join("1").encode_to_vec()),
    ];
    for text in ["", "\0", "a\0b", &long_text, " \n", "\u{200b}\u{2800}"] {
        bad.push(("send.text", post(text, "id").encode_to_vec()));
    }
    for id in [&long_id, "é", "a\tb", "\0"] {
        bad.push(("send.client_message_id", post("x", id).encode_to_vec()));
    }
    let again = [
        ("chat_id", Some("1"), None, None),
        ("username", None, Some("alice"), None),
        ("after_seq", None, None, Some(0)),
    ];
    for (field, chat_id, username, after_seq) in again {
        let frame = proto::ConnectChatRequest {
            chat_id: chat_id.unwrap_or_default().into(),
            username: username.unwrap_or_default().into(),
            after_seq,
            ..post("x", "")
        };
        bad.push((field, frame.encode_to_vec()));
    }
    bad
}

/// Names somebody other than the token's user.
pub fn not_yourself() -> [(&'static str, &'static str, Vec<u8>); 2] {
    let username = "bob".to_owned();
    let first = proto::ConnectChatRequest {
        username,
        ..join("1")
    };
    [
        (
            "SendMessage",
            "message.from",
            send_from("bob").encode_to_vec(),
        ),
        ("ConnectChat", "username", first.encode_to_vec()),
    ]
}
