//! Answers that are asked for and not read (P6): who does so waits, and nobody else.

use std::time::{Duration, Instant};

use chat_service::proto::{GetRequest, ListChatsRequest, ListMessagesRequest};

use crate::{
    hostile::raw::{Connection, DATA, END_STREAM, hello, message, open},
    ops::{get, value},
    server::{Server, soon},
};

/// What one user may have open, and what all of it takes besides, in KiB.
const OF_USER: u64 = 16 * 1024;
const SLACK: u64 = 48 * 1024;

const CALLS: u32 = 300;

/// A connection with windows as wide as HTTP/2 lets them be, whose socket is not read.
async fn ask(server: &Server, user: &str, chat: i64) -> Connection {
    let mut connection = Connection::open(server.address(), 110).await.unwrap();
    connection.say(&hello()).await.unwrap();
    for n in 0..CALLS {
        let stream = 2 * n + 1;
        let (method, request) = match n % 3 {
            0 => {
                let chat_id = chat;
                let request = ListMessagesRequest {
                    chat_id,
                    page_size: 1_000,
                    ..Default::default()
                };
                ("ListMessages", message(stream, END_STREAM, &request))
            }
            1 => {
                let request = ListChatsRequest {
                    page_size: 1_000,
                    max_usernames: Some(1_000),
                    ..Default::default()
                };
                ("ListChats", message(stream, END_STREAM, &request))
            }
            _ => ("Get", message(stream, END_STREAM, &GetRequest { id: chat })),
        };
        let words = [open(stream, method, user), request].concat();
        connection.say(&words).await.unwrap();
    }
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_answers_that_nobody_reads_are_bounded() {
    let server = Server::start(&["--send-timeout", "5s"]).await;
    let alice = server.client("alice").await;
    let names: Vec<String> = (0..990).map(|n| format!("{n:0>64}")).collect();
    let mut members: Vec<&str> = names.iter().map(String::as_str).collect();
    members.extend(["mallory", "eve"]);
    let chat = alice.create(&members).await;
    for _ in 0..15 {
        alice.create(&members).await;
    }
    let text = "x".repeat(4_096);
    for _ in 0..1_000 {
        alice.send(chat, &text, "").await.unwrap();
    }
    let before = server.memory_kb();
    let mut unread = Vec::new();
    for user in ["mallory", "mallory", "mallory", "eve", "eve"] {
        unread.push(ask(&server, user, chat).await);
    }
    // Others are answered as ever, meanwhile and while those wait.
    let began = Instant::now();
    let mut grown = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let page = ListMessagesRequest {
            chat_id: chat,
            page_size: 50,
            ..Default::default()
        };
        let asked = Instant::now();
        assert_eq!(
            soon("a page", alice.page(page))
                .await
                .unwrap()
                .messages
                .len(),
            50
        );
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
        grown = grown.max(server.memory_kb().saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(grown < 2 * OF_USER + SLACK, "{grown} KiB");
    let (_, metrics) = get(server.http_address(), "/metrics").await;
    let held = value(&metrics, "chat_memory_answers_bytes") as u64 / 1024;
    assert!(held > 0 && held <= 2 * OF_USER, "{held} KiB");
    // Who reads after all is answered: each call in full, or that it was too late.
    let reader = &mut unread[4];
    let mut ended = 0;
    while ended < CALLS {
        let heard = soon("an answer", reader.hear()).await.unwrap();
        ended += u32::from(heard.flags & END_STREAM != 0 && heard.kind != DATA);
    }
    drop(unread);
    let given_back = async {
        loop {
            let (_, metrics) = get(server.http_address(), "/metrics").await;
            if value(&metrics, "chat_memory_answers_bytes") == 0.0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("all is given back", given_back).await;
}
