//! Messages in gzip: from clients that compress, and to those that read it.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use chat_service::proto;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use prost::Message as _;
use tonic::Code;

use crate::malformed::wire::{Answer, Connection, Raw, Server, prefixed};

fn zipped(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message).unwrap();
    let zipped = encoder.finish().unwrap();
    prefixed(1, zipped.len() as u32, &zipped)
}

/// A call whose messages are said to be in `encoding`.
fn call(method: &str, encoding: Option<&str>, body: Bytes) -> Raw {
    let mut raw = Raw::call(method, "alice", b"");
    if let Some(encoding) = encoding {
        let value = encoding.parse().unwrap();
        raw.headers.insert("grpc-encoding", value);
    }
    raw.body = vec![body];
    raw
}

fn send(text: &str) -> Vec<u8> {
    let message = proto::Message {
        text: text.into(),
        ..Default::default()
    };
    let request = proto::SendMessageRequest {
        chat_id: 1,
        message: Some(message),
        ..Default::default()
    };
    request.encode_to_vec()
}

#[tokio::test]
async fn p10_clients_may_compress() {
    let server = Server::start();
    let connection = Connection::open(server.address).await;
    let create = proto::CreateRequest::default();
    let _: proto::CreateResponse = connection.call("Create", "alice", &create).await;
    let long = "again and again ".repeat(250);
    for (encoding, body) in [
        (Some("gzip"), zipped(&send(&long))),
        // The flag decides, message by message.
        (
            Some("gzip"),
            prefixed(0, send(&long).len() as u32, &send(&long)),
        ),
        (
            Some("identity"),
            prefixed(0, send(&long).len() as u32, &send(&long)),
        ),
    ] {
        let answer = connection
            .send(call("SendMessage", encoding, body), false)
            .await;
        assert_eq!(answer.code(), Some(Code::Ok), "{answer:?}");
    }
    for (encoding, body, code) in [
        (None, zipped(&send("x")), Code::Internal),
        (Some("identity"), zipped(&send("x")), Code::Internal),
        (Some("br"), zipped(&send("x")), Code::Unimplemented),
        (Some("gzip"), prefixed(1, 4, b"what"), Code::InvalidArgument),
        // Small before, and large afterwards.
        (
            Some("gzip"),
            zipped(&vec![0; 8 << 20]),
            Code::ResourceExhausted,
        ),
    ] {
        let answer = connection
            .send(call("SendMessage", encoding, body), false)
            .await;
        assert_eq!(answer.code(), Some(code), "{encoding:?}: {answer:?}");
    }
    // Posts of a stream as well.
    let join = proto::ConnectChatRequest {
        chat_id: "1".into(),
        after_seq: Some(3),
        ..Default::default()
    };
    let post = proto::ConnectChatRequest {
        send: Some(proto::Post {
            text: long.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut stream = call("ConnectChat", Some("gzip"), zipped(&join.encode_to_vec()));
    stream.body.push(zipped(&post.encode_to_vec()));
    stream.ending = crate::malformed::wire::Ending::Open;
    let Answer::Message(first) = connection.send(stream, true).await else {
        panic!("no message");
    };
    let first = proto::Message::decode(first).unwrap();
    assert_eq!((first.seq, &first.text), (4, &long));

    // Pages are compressed for who reads gzip.
    let list = proto::ListMessagesRequest {
        chat_id: 1,
        ..Default::default()
    };
    let plain: proto::ListMessagesResponse = connection.call("ListMessages", "alice", &list).await;
    assert_eq!(plain.messages.len(), 4);
    let mut raw = Raw::call("ListMessages", "alice", &list.encode_to_vec());
    let value = "identity, deflate, gzip".parse().unwrap();
    raw.headers.insert("grpc-accept-encoding", value);
    let Answer::Grpc(status, framed) = connection.send(raw, false).await else {
        panic!("no answer");
    };
    assert_eq!((status.code(), framed[0]), (Code::Ok, 1));
    assert!(framed.len() < plain.encoded_len() / 10);
    let mut page = Vec::new();
    GzDecoder::new(&framed[5..]).read_to_end(&mut page).unwrap();
    assert_eq!(
        proto::ListMessagesResponse::decode(&page[..]).unwrap(),
        plain
    );
    server.end();
}

/// Long messages come to readers in gzip who take it, as they are to others, and to their
/// senders with the id that is theirs alone.
#[tokio::test]
async fn p4_streams_come_compressed_to_who_reads_that() {
    let server = Server::start();
    let connection = Connection::open(server.address).await;
    let create = proto::CreateRequest {
        info: Some(proto::ChatInfo {
            usernames: vec!["bob".into()],
        }),
        ..Default::default()
    };
    let _: proto::CreateResponse = connection.call("Create", "alice", &create).await;
    let long = "again and again ".repeat(250);
    for text in [&*long, "short"] {
        let send = proto::SendMessageRequest {
            chat_id: 1,
            message: Some(proto::Message {
                text: text.into(),
                ..Default::default()
            }),
            client_message_id: format!("the id of {} bytes", text.len()),
        };
        let _: proto::SendMessageResponse = connection.call("SendMessage", "alice", &send).await;
    }
    let first = async |user: &str, accepts: &str, after: i64| {
        let join = proto::ConnectChatRequest {
            chat_id: "1".into(),
            after_seq: Some(after),
            ..Default::default()
        };
        let mut raw = Raw::call("ConnectChat", user, &join.encode_to_vec());
        raw.ending = crate::malformed::wire::Ending::Open;
        let accepts = accepts.parse().unwrap();
        raw.headers.insert("grpc-accept-encoding", accepts);
        let Answer::Message(bytes) = connection.send(raw, true).await else {
            panic!("no message");
        };
        bytes
    };
    let plain = first("bob", "identity", 0).await;
    let zipped = first("bob", "identity, gzip", 0).await;
    assert!(zipped.len() < plain.len() / 10, "{}", zipped.len());
    let mut text = Vec::new();
    GzDecoder::new(&zipped[..]).read_to_end(&mut text).unwrap();
    for bytes in [&plain[..], &text] {
        let message = proto::Message::decode(&bytes[..bytes.len().min(text.len())]).unwrap();
        assert_eq!((message.seq, &message.text), (1, &long));
        assert_eq!(message.client_message_id, "");
    }
    let own = proto::Message::decode(first("alice", "gzip", 0).await).unwrap();
    assert_eq!(own.client_message_id, "the id of 4000 bytes");
    let short = proto::Message::decode(first("bob", "gzip", 1).await).unwrap();
    assert_eq!(&short.text, "short");
    server.end();
}
