//! P10: any bytes on the port, any field value, any order of frames gets a
//! precise status, and nothing else changes.

mod cases;
mod random;
pub mod wire;

use std::{collections::BTreeMap, time::Duration};

use cases::{CALLS, bad_fields, bad_posts, good, not_yourself};
use chat_service::proto;
use fastrand::Rng;
use prost::Message as _;
use random::random_case;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;
use tonic_types::StatusExt as _;
use wire::{Answer, Connection, Raw, Server, framed};

const CASES: usize = 3_000;
const RAW_CASES: usize = 150;

const USERS: [&str; 4] = ["alice", "bob", "carol", "mallory"];

/// All that users can see: their chats, and what is in them.
type Snapshot = Vec<(proto::Chat, Vec<proto::Message>)>;

async fn make_chats(server: &Connection) {
    for (creator, others) in [
        ("alice", &["bob"][..]),
        ("bob", &["alice", "carol"]),
        ("mallory", &[]),
    ] {
        let usernames = others.iter().map(|name| name.to_string()).collect();
        let info = Some(proto::ChatInfo { usernames });
        let request = proto::CreateRequest {
            info,
            ..Default::default()
        };
        let chat: proto::CreateResponse = server.call("Create", creator, &request).await;
        for n in 0..5 {
            let request = proto::SendMessageRequest {
                chat_id: chat.id,
                message: Some(proto::Message {
                    text: format!("message {n}"),
                    ..Default::default()
                }),
                client_message_id: format!("{n}"),
            };
            let sent: proto::SendMessageResponse =
                server.call("SendMessage", creator, &request).await;
            assert_eq!(sent.seq, n + 1);
        }
    }
}

async fn snapshot(server: &Connection) -> Snapshot {
    let mut all = Vec::new();
    for user in USERS {
        let request = proto::ListChatsRequest::default();
        let chats: proto::ListChatsResponse = server.call("ListChats", user, &request).await;
        assert_eq!(chats.next_page_token, "");
        for chat in chats.chats {
            let request = proto::ListMessagesRequest {
                chat_id: chat.id,
                page_size: 1_000,
                ..Default::default()
            };
            let messages: proto::ListMessagesResponse =
                server.call("ListMessages", user, &request).await;
            let request = proto::GetRequest { id: chat.id };
            let got: proto::GetResponse = server.call("Get", user, &request).await;
            assert_eq!(got.chat.as_ref(), Some(&chat));
            all.push((chat, messages.messages));
        }
    }
    all
}

fn seed() -> u64 {
    let seed = std::env::var("CHAT_TEST_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("to replay: CHAT_TEST_SEED={seed}");
    seed
}

#[tokio::test]
async fn p10_generated_requests_are_answered_and_change_nothing() {
    let mut rng = Rng::with_seed(seed());
    let server = Server::start();
    let mut connection = Connection::open(server.address).await;
    make_chats(&connection).await;
    let before = snapshot(&connection).await;
    let mut seen: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for number in 0..CASES {
        if number % 100 == 0 {
            connection = Connection::open(server.address).await;
        }
        let case = random_case(&mut rng);
        let sent = format!("{number}, {}: {:?}", case.what, case.raw);
        let answer = connection.send(case.raw, case.stream).await;
        let said = match &answer {
            Answer::Grpc(status, _) => {
                let code = status.code();
                assert!(case.may_succeed || code != Code::Ok, "it went well: {sent}");
                let vague = [Code::Unknown, Code::Internal, Code::DataLoss, Code::Aborted];
                assert!(!vague.contains(&code), "{status:?} to {sent}");
                format!("{code:?}")
            }
            Answer::Message(message) => {
                let message = proto::Message::decode(&message[..]).unwrap();
                let rejected = message.rejected.unwrap_or_else(|| panic!("posted: {sent}"));
                assert_eq!(rejected.code, Code::InvalidArgument as i32);
                "rejected".into()
            }
            Answer::Http(status) => {
                assert!(status.is_client_error(), "{status} to {sent}");
                status.to_string()
            }
            Answer::Reset => "reset".into(),
        };
        *seen.entry((case.what, said)).or_default() += 1;
    }
    for ((what, said), times) in &seen {
        println!("{times:5} {what}: {said}");
    }
    let kinds: std::collections::BTreeSet<_> = seen.keys().map(|(what, _)| what).collect();
    assert!(kinds.len() >= 18, "{kinds:?}");
    let connection = Connection::open(server.address).await;
    assert_eq!(snapshot(&connection).await, before);
    server.end();
}

#[tokio::test]
async fn p10_bytes_that_are_no_http_2_do_no_harm() {
    let mut rng = Rng::with_seed(seed());
    let server = Server::start();
    let connection = Connection::open(server.address).await;
    make_chats(&connection).await;
    let before = snapshot(&connection).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..RAW_CASES {
        let (address, bytes) = (server.address, raw_bytes(&mut rng));
        let half_close = rng.bool();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The server may hang up before it has heard all.
            _ = stream.write_all(&bytes).await;
            if half_close {
                _ = stream.shutdown().await;
            }
            let mut answer = Vec::new();
            let wait = Duration::from_millis(300);
            _ = tokio::time::timeout(wait, stream.read_to_end(&mut answer)).await;
        });
    }
    clients.join_all().await;
    assert_eq!(
        snapshot(&connection).await,
        before,
        "on a connection of before"
    );
    let connection = Connection::open(server.address).await;
    assert_eq!(snapshot(&connection).await, before);
    server.end();
}

fn raw_bytes(rng: &mut Rng) -> Vec<u8> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let noise: Vec<u8> = (0..rng.usize(..2_000)).map(|_| rng.u8(..)).collect();
    match rng.u8(..8) {
        0 => noise,
        1 => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        2 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise].concat(),
        3 => PREFACE[..rng.usize(..PREFACE.len())].to_vec(),
        4 => [PREFACE, &noise].concat(),
        5 => [PREFACE, SETTINGS, &noise].concat(),
        6 => {
            // A frame of any type, for any stream, of a length that is not so.
            let (kind, flags, stream) = (rng.u8(..12), rng.u8(..), rng.u32(..4));
            let length = rng.u32(..1 << 24).to_be_bytes();
            let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
            [PREFACE, SETTINGS, &head, &noise].concat()
        }
        _ => {
            // Many empty CONTINUATION frames, none the last.
            let headers = [0, 0, 0, 1, 0, 0, 0, 0, 1];
            let more = [0, 0, 0, 9, 0, 0, 0, 0, 1].repeat(rng.usize(1..5_000));
            [PREFACE, SETTINGS, &headers, &more].concat()
        }
    }
}

#[tokio::test]
async fn p10_every_field_of_every_call_is_named_when_it_is_wrong() {
    let server = Server::start();
    let connection = Connection::open(server.address).await;
    make_chats(&connection).await;
    let before = snapshot(&connection).await;
    let table = bad_fields();
    for call in CALLS {
        assert!(table.iter().any(|(of, ..)| *of == call), "{call}");
    }
    for (call, field, message) in table {
        let answer = connection
            .send(Raw::call(call, "alice", &message), false)
            .await;
        let status = answer.status();
        let what = format!("{call}, {field}, {message:?}: {status:?}");
        assert_eq!(status.code(), Code::InvalidArgument, "{what}");
        check_field(&status, field, "INVALID_FIELD", &what);
        assert!(status.message().starts_with(field), "{what}");
    }
    for (call, field, message) in not_yourself() {
        let answer = connection
            .send(Raw::call(call, "alice", &message), false)
            .await;
        let status = answer.status();
        assert_eq!(status.code(), Code::PermissionDenied, "{call}");
        check_field(&status, field, "NOT_YOURSELF", call);
    }
    for (field, post) in bad_posts() {
        let mut raw = Raw::call("ConnectChat", "alice", &good("ConnectChat", 1));
        raw.body.push(framed(&post));
        let Answer::Message(message) = connection.send(raw, true).await else {
            panic!("{field}: not refused on the stream");
        };
        let message = proto::Message::decode(&message[..]).unwrap();
        let rejected = message.rejected.expect(field);
        assert_eq!(rejected.code, Code::InvalidArgument as i32, "{field}");
        assert_eq!(rejected.reason, "INVALID_FIELD");
        assert!(
            rejected.message.starts_with(&format!("{field}: ")),
            "{rejected:?}"
        );
        assert_eq!((message.seq, message.text.as_str()), (0, ""));
    }
    assert_eq!(snapshot(&connection).await, before);
    server.end();
}

fn check_field(status: &tonic::Status, field: &str, reason: &str, what: &str) {
    let details = status.get_error_details();
    let violations = &details.bad_request().expect(what).field_violations;
    assert_eq!(violations.len(), 1, "{what}");
    assert_eq!(violations[0].field, field, "{what}");
    assert!(!violations[0].description.is_empty(), "{what}");
    let info = details.error_info().expect(what);
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        (reason, "chat.v1"),
        "{what}"
    );
}

/// What is wrong around the message, call by call: the same answer from all.
#[tokio::test]
async fn p10_every_call_says_what_is_wrong_with_its_frames() {
    let server = Server::start();
    let connection = Connection::open(server.address).await;
    make_chats(&connection).await;
    let before = snapshot(&connection).await;
    for call in CALLS {
        let message = good(call, 1);
        let cut = framed(&message).slice(..3);
        let broken = framed(&[&message[..], &[0x0f]].concat());
        let zipped = wire::prefixed(1, message.len() as u32, &message);
        let flags = wire::prefixed(9, message.len() as u32, &message);
        let huge = wire::prefixed(0, u32::MAX, &message);
        for (body, code) in [
            (vec![], Code::InvalidArgument),
            (vec![cut], Code::InvalidArgument),
            (vec![broken], Code::InvalidArgument),
            (vec![zipped], Code::Internal),
            (vec![flags], Code::InvalidArgument),
            (vec![huge], Code::ResourceExhausted),
        ] {
            let mut raw = Raw::call(call, "alice", &[]);
            raw.body = body;
            let what = format!("{raw:?}");
            assert_eq!(
                connection.send(raw, false).await.code(),
                Some(code),
                "{what}"
            );
        }
        let mut nobody = Raw::call(call, "alice", &message);
        nobody.headers.remove("authorization");
        let code = connection.send(nobody, false).await.code();
        assert_eq!(code, Some(Code::Unauthenticated), "{call}");
    }
    // A frame that can't be read ends a stream that has begun.
    let mut raw = Raw::call("ConnectChat", "alice", &good("ConnectChat", 1));
    raw.body.push(framed(&[0x0f]));
    let code = connection.send(raw, false).await.code();
    assert_eq!(code, Some(Code::InvalidArgument));
    assert_eq!(snapshot(&connection).await, before);
    server.end();
}
