//! The promises over gRPC-Web, for a client that can't stream upwards.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use chat_service::proto::{
    ConnectChatRequest, CreateRequest, CreateResponse, DeleteRequest, ListMessagesRequest,
    ListMessagesResponse, Message as Chat, SendMessageRequest, SendMessageResponse,
};
use http::Request;
use prost::Message as _;
use tokio::net::TcpStream;

use super::raw::{Http1, Piece};
use crate::server::{Server, assert_dense, join, soon, text_of};

fn send(chat_id: i64, text: &str, id: &str) -> SendMessageRequest {
    SendMessageRequest {
        chat_id,
        message: Some(Chat {
            text: text.to_owned(),
            ..Default::default()
        }),
        client_message_id: id.to_owned(),
    }
}

/// A stream that reads: the first frame, then the half-close.
async fn read(
    address: SocketAddr,
    user: &'static str,
    text: bool,
    first: &ConnectChatRequest,
) -> Http1 {
    let mut http = Http1::connect(address, user).await;
    http.text = text;
    let head = http.ask("ConnectChat", first).await;
    assert_eq!(head.status, 200);
    http
}

/// Reads until there are so many messages.
async fn messages(http: &mut Http1, count: usize) -> Vec<Chat> {
    let mut all = Vec::new();
    while all.len() < count {
        for piece in http.pieces().await {
            match piece {
                Piece::Message(bytes) => all.push(Chat::decode(bytes).unwrap()),
                Piece::End(..) => panic!("{piece:?}"),
            }
        }
    }
    all
}

#[tokio::test]
async fn p2_a_page_sees_what_others_see_and_posts_to_them() {
    let mut server = Server::start(&["--max-header", "1KiB"]).await;
    let carol = server.client("carol").await;
    for text in [false, true] {
        let mut alice = Http1::connect(server.address(), "alice").await;
        alice.text = text;
        let create = CreateRequest {
            info: Some(chat_service::proto::ChatInfo {
                usernames: vec!["bob".into(), "carol".into()],
            }),
            ..Default::default()
        };
        let CreateResponse { id } = alice.call("Create", &create).await.unwrap();
        let mut bob = read(server.address(), "bob", text, &join(id, Some(0))).await;
        let mut other = carol.read(id, Some(0)).await;

        // One connection serves call after call; a retry is stored once (P5).
        for seq in 1..=20 {
            let (from, key) = (format!("m{seq}"), format!("k{seq}"));
            if seq % 2 == 0 {
                assert_eq!(carol.send(id, &from, &key).await.unwrap().seq, seq);
                continue;
            }
            for duplicate in [false, true] {
                let sent = alice.call("SendMessage", &send(id, &from, &key)).await;
                let sent: SendMessageResponse = sent.unwrap();
                assert_eq!((sent.seq, sent.duplicate), (seq, duplicate));
            }
        }
        let seen = messages(&mut bob, 20).await;
        assert_dense(&seen, 1);
        for message in &seen {
            assert_eq!(text_of(&other.expect(message.seq).await), text_of(message));
        }
        let request = ListMessagesRequest {
            chat_id: id,
            ..Default::default()
        };
        let page: ListMessagesResponse = alice.call("ListMessages", &request).await.unwrap();
        assert_eq!(page.messages.len(), 20);
        assert_eq!(page.messages[0].client_message_id, "k1");

        // Refusals come with their status, and the connection goes on (P7, P10).
        let strange = send(id + 100, "x", "");
        let refused = alice
            .call::<SendMessageResponse>("SendMessage", &strange)
            .await;
        assert_eq!(refused, Err(7));
        let empty = send(id, "", "");
        let refused = alice
            .call::<SendMessageResponse>("SendMessage", &empty)
            .await;
        assert_eq!(refused, Err(3));
        let deleted: Result<(), i32> = alice.call("Delete", &DeleteRequest { id }).await;
        deleted.unwrap();
        let Piece::End(status, lines) = bob.piece().await else {
            panic!("a message after the end");
        };
        assert_eq!(status, 5);
        assert!(lines.contains("grpc-message:") && lines.contains("grpc-status-details-bin:"));
    }
    assert_eq!(server.terminate().await, Some(0));
}

#[tokio::test]
async fn p4_a_page_resumes_and_a_slow_one_misses_nothing() {
    const COUNT: i64 = 3_000;
    let mut server = Server::start(&["--ring", "16", "--ring-bytes", "16KiB"]).await;
    let alice = server.client("alice").await;
    let id = alice.create(&["bob", "carol"]).await;
    // Bob does not read for a while, which neither ends nor delays anybody.
    let mut bob = read(server.address(), "bob", false, &join(id, Some(0))).await;
    let mut carol = alice.read(id, Some(0)).await;
    let text = "x".repeat(1_000);
    let sends = (0..COUNT).map(|_| alice.send(id, &text, ""));
    let sent = futures_util::future::join_all(sends).await;
    assert!(sent.iter().all(Result::is_ok));
    for seq in 1..=COUNT {
        carol.expect(seq).await;
    }
    assert_dense(&messages(&mut bob, COUNT as usize).await, 1);

    // Killed and started again, it goes on behind what the page has seen.
    server.kill9();
    while bob.more().await {}
    server.restart_here().await;
    let mut bob = read(server.address(), "bob", false, &join(id, Some(COUNT - 2))).await;
    let alice = server.client("alice").await;
    alice.send(id, "after", "").await.unwrap();
    let seen = messages(&mut bob, 3).await;
    assert_dense(&seen, COUNT - 1);
    assert_eq!(seen[2].text, "after");
}

#[tokio::test]
async fn p9_a_stop_ends_the_streams_of_pages_with_a_status() {
    let mut server = Server::start(&[]).await;
    let id = server.client("alice").await.create(&["bob"]).await;
    let mut bob = read(server.address(), "bob", false, &join(id, Some(0))).await;
    let _idle = Http1::connect(server.address(), "carol").await;
    server.signal_term();
    let Piece::End(status, lines) = bob.piece().await else {
        panic!("a message out of nothing");
    };
    assert_eq!(status, 14, "{lines}");
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn grpc_web_also_comes_over_http2() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut h2, connection) = h2::client::handshake(stream).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let request = Request::post("http://chat/chat_v1.ChatV1/SendMessage")
        .header("content-type", "application/grpc-web+proto")
        .header("authorization", "Bearer alice")
        .body(())
        .unwrap();
    let (answer, mut body) = h2.send_request(request, false).unwrap();
    let message = send(chat, "hi", "").encode_to_vec();
    let frame = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
    body.send_data(frame.into(), true).unwrap();
    let mut answer = soon("the answer", answer).await.unwrap();
    assert_eq!(
        answer.headers()["content-type"],
        "application/grpc-web+proto"
    );
    let mut all = Vec::new();
    while let Some(data) = soon("data", answer.body_mut().data()).await {
        all.extend_from_slice(&data.unwrap());
    }
    let length = usize::from(all[4]);
    let stored = SendMessageResponse::decode(Bytes::from(all[5..5 + length].to_vec())).unwrap();
    assert_eq!(stored.seq, 1);
    assert_eq!(&all[5 + length..], b"\x80\0\0\0\x0fgrpc-status:0\r\n");
    assert_eq!(answer.body_mut().trailers().await.unwrap(), None);
}

#[tokio::test]
async fn p10_other_bytes_over_http1_get_an_answer() {
    let mut server = Server::start(&["--handshake-timeout", "500ms"]).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nhost: x\r\n\r\n", 415),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n\r\n",
            505,
        ),
        ("POST no HTTP/9\r\n\r\n", 400),
    ] {
        let mut http = Http1::connect(server.address(), "eve").await;
        // The first byte may well come alone.
        http.write(&request.as_bytes()[..1]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        http.write(&request.as_bytes()[1..]).await;
        assert_eq!(http.head().await.status, status, "{request}");
    }
    // What is no base64, and what is cut short.
    for body in ["!!!!", "AAAAAA"] {
        let mut http = Http1::connect(server.address(), "eve").await;
        let head = format!(
            "POST /chat_v1.ChatV1/Get HTTP/1.1\r\nhost: x\r\nauthorization: Bearer eve\r\n\
             content-type: application/grpc-web-text\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        http.write(head.as_bytes()).await;
        assert_eq!(http.head().await.header("grpc-status"), Some("3"));
    }
    // A head that does not end, and a connection that says nothing, are let go.
    for start in ["", "P", "POST /x HTTP/1.1\r\n"] {
        let mut http = Http1::connect(server.address(), "eve").await;
        http.write(start.as_bytes()).await;
        while http.more().await {}
    }
    assert_eq!(server.terminate().await, Some(0));
}
