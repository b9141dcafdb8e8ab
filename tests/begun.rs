//! Requests that have begun and do not go on (P6): what they hold is bounded, and others
//! do not notice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chat_service::proto::ConnectChatRequest;

use crate::{
    hostile::raw::{
        ACK, Connection, DATA, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
        frame, hello, message, open,
    },
    ops::{get, value},
    server::{Server, soon},
};

/// Each connection begins so many requests.
const REQUESTS: u32 = 600;
const CONNECTIONS: u8 = 3;
/// Of a list of a thousand names, of which all but the end is sent.
const LENGTH: usize = 66_000;
const SENT: usize = 60_000;
/// One user's share with `--memory 64MiB`, in KiB, and what connections, HTTP/2 and the
/// allocator need besides. Without a bound it would be 105 MiB.
const OF_USER: u64 = 1024;
const SLACK: u64 = 40 * 1024;

/// Windows of HTTP/2, which the server opens as it reads.
struct Windows {
    connection: usize,
    of_new: usize,
    streams: BTreeMap<u32, usize>,
    ended: BTreeSet<u32>,
}

impl Windows {
    /// Takes in all that the server has said.
    async fn hear(&mut self, connection: &mut Connection) {
        const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.say(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
        loop {
            let heard = soon("a frame", connection.hear()).await.unwrap();
            match heard.kind {
                WINDOW_UPDATE => {
                    let more = u32::from_be_bytes(heard.payload[..4].try_into().unwrap()) as usize;
                    match heard.stream {
                        0 => self.connection += more,
                        stream => *self.streams.entry(stream).or_default() += more,
                    }
                }
                SETTINGS => {
                    for setting in heard.payload.chunks_exact(6) {
                        if setting[..2] == INITIAL_WINDOW_SIZE {
                            let size = u32::from_be_bytes(setting[2..].try_into().unwrap());
                            self.of_new = size as usize;
                        }
                    }
                }
                PING if heard.flags == ACK => return,
                RST_STREAM => {
                    self.ended.insert(heard.stream);
                }
                HEADERS if heard.flags & END_STREAM != 0 => {
                    self.ended.insert(heard.stream);
                }
                _ => {}
            }
        }
    }
}

/// Begins requests, and sends of each as much as the server lets it. How many were refused.
async fn begin(server: &Server, from: u8) -> (Connection, usize) {
    let mut connection = Connection::open(server.address(), from).await.unwrap();
    connection.say(&hello()).await.unwrap();
    let mut windows = Windows {
        connection: 65_535,
        of_new: 65_535,
        streams: BTreeMap::new(),
        ended: BTreeSet::new(),
    };
    windows.hear(&mut connection).await;
    let length = u32::try_from(LENGTH).unwrap().to_be_bytes();
    let body = [&[0][..], &length, &[0x0a; SENT]].concat();
    let mut left = BTreeMap::new();
    for n in 0..REQUESTS {
        let stream = 2 * n + 1;
        let words = open(stream, "Create", "mallory");
        connection.say(&words).await.unwrap();
        windows.streams.insert(stream, windows.of_new);
        left.insert(stream, &body[..]);
    }
    // Until nothing has moved for a second.
    let mut still = 0;
    while !left.is_empty() && still < 10 {
        let mut words = Vec::new();
        for (stream, rest) in &mut left {
            let window = windows.streams.get_mut(stream).unwrap();
            let size = rest.len().min(*window).min(windows.connection).min(16_384);
            if size > 0 {
                words.extend(frame(DATA, 0, *stream, &rest[..size]));
                *rest = &rest[size..];
                *window -= size;
                windows.connection -= size;
            }
        }
        connection.say(&words).await.unwrap();
        let ended = windows.ended.len();
        windows.hear(&mut connection).await;
        left.retain(|stream, rest| !rest.is_empty() && !windows.ended.contains(stream));
        let moved = !words.is_empty() || windows.ended.len() > ended;
        still = if moved { 0 } else { still + 1 };
    }
    (connection, windows.ended.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_requests_that_do_not_go_on_are_bounded() {
    let server = Server::start(&["--memory", "64MiB", "--send-timeout", "60s"]).await;
    let alice = server.client("alice").await;
    let names: Vec<String> = (0..990).map(|n| format!("{n:0>64}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    alice.create(&members).await;
    let before = server.memory_kb();
    let (mut begun, mut refused) = (Vec::new(), 0);
    for from in 0..CONNECTIONS {
        let (connection, over) = begin(&server, 120 + from).await;
        begun.push(connection);
        refused += over;
    }
    let grown = server.memory_kb().saturating_sub(before);
    assert!(grown < OF_USER + SLACK, "P6: {grown} KiB");
    assert!(refused > 1_000, "{refused}");
    let held = || async {
        let (_, metrics) = get(server.http_address(), "/metrics").await;
        value(&metrics, "chat_memory_requests_bytes") as u64 / 1024
    };
    let counted = held().await;
    assert!(counted > 0 && counted <= OF_USER, "{counted} KiB");
    // Large requests of others find room.
    soon("a large request", alice.create(&members)).await;
    drop(begun);
    let given_back = async {
        while held().await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("all is given back", given_back).await;
}

#[tokio::test]
async fn p6_a_post_that_has_begun_on_a_stream_is_whole_in_time_or_ends_it() {
    let server = Server::start(&["--send-timeout", "2s"]).await;
    let chat = server.client("alice").await.create(&[]).await;
    let mut connection = Connection::open(server.address(), 124).await.unwrap();
    let join = ConnectChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let words = [
        hello(),
        open(1, "ConnectChat", "alice"),
        message(1, 0, &join),
    ];
    connection.say(&words.concat()).await.unwrap();
    connection.hear_of(HEADERS).await.unwrap();
    // A stream may say nothing for as long as it likes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = std::time::Instant::now();
    let half = frame(DATA, 0, 1, b"\0\0\0\x10\0half of it");
    connection.say(&half).await.unwrap();
    let trailers = soon("the end", connection.hear_of(HEADERS)).await.unwrap();
    assert!(trailers.flags & END_STREAM != 0, "{trailers:?}");
    assert!(began.elapsed() >= Duration::from_millis(1_900));
    let told = String::from_utf8_lossy(&trailers.payload).into_owned();
    let (_, metrics) = get(server.http_address(), "/metrics").await;
    let slow = r#"chat_calls_total{method="ConnectChat",code="DEADLINE_EXCEEDED"} 1"#;
    assert!(metrics.contains(slow), "{told}");
}
