//! Answers that are asked for and not read (P6): who does so waits, and nobody else.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use chat_service::proto::{ConnectChatRequest, GetRequest, ListChatsRequest, ListMessagesRequest};

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

/// Bytes that the kernel has of what was written to the other end of this connection
/// and not taken there: `tx_queue` of proc(5)'s /proc/net/tcp.
fn kept(server: SocketAddr, client: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let line = table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let ends = (port(columns.get(1)?)?, port(columns.get(2)?)?);
        (ends == (server.port(), client.port())).then_some(columns)
    });
    let columns = line.expect("the connection");
    u64::from_str_radix(columns[4].split(':').next().unwrap(), 16).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_the_kernel_keeps_little_for_who_does_not_read() {
    const MESSAGES: usize = 4_000;
    const MOST: u64 = 512 * 1024;
    let server = Server::start(&[]).await;
    let mallory = server.client("mallory").await;
    let chat = mallory.create(&[]).await;
    let text = "x".repeat(4_096);
    for _ in 0..MESSAGES {
        mallory.send(chat, &text, "").await.unwrap();
    }
    let mut connection = Connection::open(server.address(), 111).await.unwrap();
    let join = ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq: Some(0),
        ..Default::default()
    };
    let words = [
        hello(),
        open(1, "ConnectChat", "mallory"),
        message(1, 0, &join),
    ];
    connection.say(&words.concat()).await.unwrap();
    let client = connection.0.local_addr().unwrap();
    // What the client's own kernel takes has gone; then nothing moves any more.
    let (mut most, mut before) = (0, None);
    let still = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = kept(server.address(), client);
            most = most.max(now);
            if now > 0 && before.replace(now) == Some(now) {
                return;
            }
        }
    };
    soon("it is stuck", still).await;
    assert!(most < MOST, "{most}");
    // And all of it comes to who reads after all.
    let mut bytes = 0;
    while bytes < MESSAGES * text.len() {
        bytes += soon("more", connection.hear_of(DATA))
            .await
            .unwrap()
            .payload
            .len();
    }
}
