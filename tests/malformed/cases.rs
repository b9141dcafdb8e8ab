//! Requests with something wrong with them: each call, and what can be wrong.

use bytes::Bytes;
use chat_service::proto;
use fastrand::Rng;
use http::{HeaderValue, Method};
use prost::Message as _;

use super::wire::{Ending, Raw, framed, prefixed};

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
        let create = proto::CreateRequest { info };
        bad.push(("Create", "info.usernames", create.encode_to_vec()));
    }
    // With the caller one too many.
    let info = Some(proto::ChatInfo {
        usernames: crowd[..20].to_vec(),
    });
    bad.push((
        "Create",
        "info.usernames",
        proto::CreateRequest { info }.encode_to_vec(),
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
    for text in ["", "\0", "a\0b", &long_text] {
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
    for text in ["", "\0", "a\0b", &long_text] {
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

/// A request with at least one thing wrong, so that nothing may change.
pub struct Case {
    pub raw: Raw,
    pub what: &'static str,
    /// The stream stays open after its refusal, which is a message.
    pub stream: bool,
    /// It only reads, and a reader may know more fields than we do.
    pub may_succeed: bool,
}

/// A tag of the wire type 7, which there is not.
const NO_SUCH_TYPE: u8 = 0x0f;

/// What cannot be read as protobuf. The last tag alone does not see to that: it
/// may be what a field before it holds.
fn no_protobuf(rng: &mut Rng) -> Vec<u8> {
    loop {
        let mut bytes: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
        bytes.push(NO_SUCH_TYPE);
        if <()>::decode(&bytes[..]).is_err() {
            return bytes;
        }
    }
}

pub fn random_case(rng: &mut Rng) -> Case {
    let call = CALLS[rng.usize(..CALLS.len())];
    let chat = rng.i64(1..=2);
    let mut raw = Raw::call(call, "alice", &good(call, chat));
    let mut stream = false;
    let mut may_succeed = false;
    let what = match rng.u8(..18) {
        0 => {
            raw.body = vec![framed(&no_protobuf(rng))];
            "random bytes"
        }
        1 => {
            let mut bytes = good(call, chat);
            // A length-delimited field that is longer than what follows.
            bytes.extend([[0x0a, 0x12, 0x7a][rng.usize(..3)], rng.u8(2..120), b'x']);
            raw.body = vec![framed(&bytes)];
            "truncated protobuf"
        }
        2 => {
            let mut bytes = good(call, chat);
            let at = rng.usize(..=bytes.len());
            bytes.truncate(at);
            // Varints without an end, or of more than ten bytes.
            bytes.extend(std::iter::repeat_n(0xff, rng.usize(11..20)));
            raw.body = vec![framed(&bytes)];
            "endless varint"
        }
        3 => {
            // Field 1 is a number or has a length: these types are neither.
            let bytes = [
                &[8 | [1, 5, 3, 4][rng.usize(..4)]],
                &[0; 8][..],
                &[NO_SUCH_TYPE],
            ];
            raw.body = vec![framed(&bytes.concat())];
            "wrong wire type"
        }
        4 => {
            let bytes = good(call, chat);
            let length = bytes.len() as u32 + rng.u32(1..10_000);
            raw.body = vec![prefixed(0, length, &bytes)];
            "prefix longer than the message"
        }
        5 => {
            let bytes = good(call, chat);
            let frame = framed(&bytes);
            let cut = rng.usize(1..frame.len());
            raw.body = vec![frame.slice(..cut)];
            "cut anywhere"
        }
        6 => {
            raw.body = vec![prefixed(1, 0, &good(call, chat))];
            "compressed"
        }
        7 => {
            raw.body = vec![prefixed(rng.u8(2..), rng.u32(..), &good(call, chat))];
            "unknown flags"
        }
        8 => {
            let length = [u32::MAX, 1 << 31, 64 << 20, 100_000][rng.usize(..4)];
            raw.body = vec![prefixed(0, length, &good(call, chat))];
            "huge length"
        }
        9 => {
            raw.body = (0..rng.usize(..3)).map(|_| Bytes::new()).collect();
            "no message"
        }
        10 if call != "ConnectChat" => {
            raw.body = vec![framed(&good(call, chat)); rng.usize(2..5)];
            "more than one message"
        }
        10 | 11 => {
            let posts = bad_posts();
            let (_, post) = &posts[rng.usize(..posts.len())];
            let first = framed(&good("ConnectChat", 1));
            raw = Raw::call("ConnectChat", "alice", &[]);
            // Some of these join, and are then followed by a second join.
            stream = true;
            if rng.bool() {
                raw.body = vec![framed(post), first];
                "post before join"
            } else {
                raw.body = vec![first, framed(post)];
                "bad post"
            }
        }
        12 => {
            let fields = bad_fields();
            let (call, _, message) = &fields[rng.usize(..fields.len())];
            raw = Raw::call(call, "alice", message);
            "bad field"
        }
        13 => bad_token(&mut raw, rng),
        14 => bad_http(&mut raw, rng),
        15 => {
            let bytes = framed(&good(call, chat));
            let cut = rng.usize(..=bytes.len());
            raw.body = vec![bytes.slice(..cut)];
            raw.ending = Ending::Reset;
            "reset in the middle"
        }
        16 => {
            // Chats of others, and none.
            let chat = [1, 2, 4, 99, i64::MAX][rng.usize(..5)];
            let call = [
                "Get",
                "Delete",
                "SendMessage",
                "ConnectChat",
                "ListMessages",
                "AddMembers",
                "RemoveMembers",
            ][rng.usize(..7)];
            raw = Raw::call(call, "mallory", &good(call, chat));
            "not a member"
        }
        _ => {
            may_succeed = ["Get", "ListMessages", "ListChats"].contains(&call);
            let timeouts = ["", "x", "-1S", "0n", "1n", "99999999H", "100000000S", "1"];
            let timeout = timeouts[rng.usize(..timeouts.len())];
            raw.headers
                .insert("grpc-timeout", HeaderValue::from_static(timeout));
            if !may_succeed {
                raw.body.push(Bytes::from_static(&[0, 0, 0]));
            }
            if call == "ConnectChat" {
                raw.body.remove(0);
            }
            "odd deadline"
        }
    };
    // These are known to be wrong before the request ends, so it need not.
    let early = [
        "random bytes",
        "truncated protobuf",
        "endless varint",
        "wrong wire type",
        "compressed",
        "unknown flags",
        "huge length",
        "bad post",
    ];
    if early.contains(&what) && rng.u8(..4) == 0 {
        raw.ending = Ending::Open;
    }
    if raw.ending != Ending::Reset && rng.u8(..4) == 0 {
        raw.body = raw
            .body
            .iter()
            .flat_map(|chunk| shatter(chunk, rng))
            .collect();
    }
    Case {
        raw,
        what,
        stream,
        may_succeed,
    }
}

/// The same bytes in many DATA frames.
fn shatter(chunk: &Bytes, rng: &mut Rng) -> Vec<Bytes> {
    let size = rng.usize(1..8);
    let at = (0..chunk.len()).step_by(size);
    at.map(|at| chunk.slice(at..chunk.len().min(at + size)))
        .collect()
}

fn bad_token(raw: &mut Raw, rng: &mut Rng) -> &'static str {
    let long = format!("Bearer {}", "x".repeat(1_000));
    let bad: [&[u8]; 9] = [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer  alice",
        b"Basic YWxpY2U6eA==",
        b"alice",
        b"Bearer \xff\xfe",
        b"Bearer a\tb",
        long.as_bytes(),
    ];
    raw.headers.remove("authorization");
    if rng.u8(..5) > 0 {
        let value = HeaderValue::from_bytes(bad[rng.usize(..bad.len())]).unwrap();
        raw.headers.insert("authorization", value);
    }
    "bad token"
}

fn bad_http(raw: &mut Raw, rng: &mut Rng) -> &'static str {
    match rng.u8(..3) {
        0 => {
            raw.headers.remove("content-type");
            let kinds = [
                "",
                "text/html",
                "application/json",
                "application/grpc-web+json",
                "a/b;c=\"d",
            ];
            if rng.bool() {
                let kind = HeaderValue::from_static(kinds[rng.usize(..kinds.len())]);
                raw.headers.insert("content-type", kind);
            }
            "wrong content type"
        }
        1 => {
            let methods = [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS];
            raw.method = methods[rng.usize(..methods.len())].clone();
            "wrong method"
        }
        _ => {
            let paths = [
                "/",
                "/chat_v1.ChatV1/",
                "/chat_v1.ChatV1/create",
                "/chat_v1.ChatV1/Create/",
                "/chat_v1.ChatV1/%43reate",
                "/chat_v1.ChatV2/Create",
                "//chat_v1.ChatV1/Create",
                "/chat_v1.ChatV1/Create%00",
                "/grpc.health.v1.Health/Nothing",
                "/x?y=/z",
            ];
            raw.path = paths[rng.usize(..paths.len())].to_owned();
            "wrong path"
        }
    }
}
