//! What a hostile client does. Each attack goes as far as the server lets it.

use std::{net::SocketAddr, time::Duration};

use chat_service::proto::ConnectChatRequest;
use futures_util::{StreamExt as _, future::join_all, stream};

use super::{
    cheap::changing_windows,
    raw::{
        ACK, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS,
        PING, PRIORITY, SETTINGS, WINDOW_UPDATE, call, frame, head, hello, literal, message, open,
        open_path, reset, window_update,
    },
};

/// Who does all this, a member of one chat.
pub const MALLORY: &str = "mallory";

/// The largest frame of HTTP/2 unless both sides agree on more.
const MAX_FRAME: usize = 16 * 1024;

/// Whatever must happen to a connection under attack happens in this time.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn join(chat: i64) -> ConnectChatRequest {
    ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq: Some(0),
        ..Default::default()
    }
}

/// Opens connections and leaves them: without a word, after the first words, or
/// in the middle of a call. So many from one address.
pub async fn left(address: SocketAddr, count: usize) -> Vec<Connection> {
    const FROM_ONE: usize = 1_000;
    const AT_ONCE: usize = 64;
    let opened = stream::iter(0..count).map(|n| async move {
        let from = u8::try_from(2 + n / FROM_ONE).unwrap();
        let mut connection = Connection::open(address, from).await.unwrap();
        let words = match n % 4 {
            0 => vec![],
            1 | 2 => hello(),
            _ => [hello(), open(1, "SendMessage", MALLORY)].concat(),
        };
        connection.say(&words).await.unwrap();
        connection
    });
    opened.buffer_unordered(AT_ONCE).collect().await
}

/// Begins connections a byte a second, each to be cut off; how many were.
pub async fn slow(address: SocketAddr, count: usize) -> usize {
    let began = stream::iter(0..count).map(|_| async {
        let mut connection = Connection::open(address, 100).await.unwrap();
        for byte in super::raw::PREFACE {
            if connection.say(&[*byte]).await.is_err() {
                return true;
            }
            if connection.closed(Duration::from_secs(1)).await {
                return true;
            }
        }
        false
    });
    let cut = began.buffer_unordered(count).filter(|cut| {
        let cut = *cut;
        async move { cut }
    });
    cut.count().await
}

/// Opens streams that read a chat from its first message on, grants them any
/// window, and reads nothing.
pub async fn unread(address: SocketAddr, chat: i64, count: usize) -> Vec<Connection> {
    const PER_CONNECTION: usize = 100;
    let mut connections = Vec::new();
    for _ in 0..count / PER_CONNECTION {
        let mut connection = Connection::open(address, 101).await.unwrap();
        connection.say(&hello()).await.unwrap();
        for stream in (1..).step_by(2).take(PER_CONNECTION) {
            let words = [
                open(stream, "ConnectChat", MALLORY),
                message(stream, END_STREAM, &join(chat)),
            ];
            connection.say(&words.concat()).await.unwrap();
        }
        connections.push(connection);
    }
    connections
}

/// Takes calls back as soon as they are made, `count` of them: half in bursts
/// until the connection is closed, half as fast as the server works them off.
/// How many bursts were told to calm down.
pub async fn resets(address: SocketAddr, chat: i64, count: usize) -> usize {
    // More than a newcomer sends: its calls are worked off as they are read, a few
    // at a time, and then there is nothing to cut short.
    const BURST: usize = 1_000;
    const PACED: usize = 32;
    /// A connection's streams have odd numbers that only grow.
    const ROUNDS: usize = 500;
    let take_back = |first: usize, count: usize| -> Vec<u8> {
        let streams = (first..first + count).map(|n| 2 * n as u32 + 1);
        let calls = streams.flat_map(|stream| {
            let method = ["SendMessage", "ConnectChat"][stream as usize / 2 % 2];
            let request = message(stream, 0, &join(chat));
            [open(stream, method, MALLORY), request, reset(stream)].concat()
        });
        calls.collect()
    };
    let mut calmed = 0;
    for _ in 0..count / 2 / BURST {
        let mut connection = Connection::open(address, 102).await.unwrap();
        _ = connection
            .say(&[hello(), take_back(0, BURST)].concat())
            .await;
        let told = tokio::time::timeout(PATIENCE, connection.settle()).await;
        calmed += usize::from(told.unwrap() == Err(Some(ENHANCE_YOUR_CALM)));
    }
    let mut left = count / 2;
    while left > 0 {
        let mut connection = Connection::open(address, 103).await.unwrap();
        connection.say(&hello()).await.unwrap();
        for round in 0..ROUNDS.min(left.div_ceil(PACED)) {
            let sent = connection.say(&take_back(round * PACED, PACED)).await;
            let told = tokio::time::timeout(PATIENCE, connection.settle()).await;
            left = left.saturating_sub(PACED);
            if sent.is_err() || told.unwrap().is_err() {
                break;
            }
        }
    }
    calmed
}

/// Sends headers that never end until the server hangs up; the most bytes that
/// it took of one connection.
pub async fn endless_headers(address: SocketAddr, count: usize) -> usize {
    /// Beyond this nobody can say that there is a bound.
    const ENOUGH: usize = 64 * 1024 * 1024;
    let full = literal("x-filler", &"x".repeat(MAX_FRAME - 20));
    let many = literal("x", "x").repeat(MAX_FRAME / 5);
    let kinds = [vec![], full, many];
    let sent = stream::iter(0..count).map(|n| {
        let more = frame(CONTINUATION, 0, 1, &kinds[n % kinds.len()]).repeat(4);
        async move {
            let mut connection = Connection::open(address, 104).await.unwrap();
            let begin = frame(HEADERS, 0, 1, &call("SendMessage", MALLORY));
            connection.say(&[hello(), begin].concat()).await.unwrap();
            let mut sent = 0;
            while sent < ENOUGH && connection.say(&more).await.is_ok() {
                sent += more.len();
            }
            sent
        }
    });
    sent.buffer_unordered(10)
        .fold(0, |most, sent| async move { most.max(sent) })
        .await
}

/// Announces the largest frames that HTTP/2 can, which nobody has agreed to; how
/// many connections were closed for it.
pub async fn large_frames(address: SocketAddr, count: usize) -> usize {
    const LARGEST: u32 = (1 << 24) - 1;
    let mut closed = 0;
    for n in 0..count {
        let kind = [DATA, HEADERS, SETTINGS, CONTINUATION][n % 4];
        let mut connection = Connection::open(address, 105).await.unwrap();
        let head = head(LARGEST, kind, END_HEADERS, u32::from(kind != SETTINGS));
        let words = [hello(), head.to_vec(), vec![0; 256 * 1024]].concat();
        // It may hang up in the middle.
        _ = connection.say(&words).await;
        closed += usize::from(connection.closed(PATIENCE).await);
    }
    closed
}

/// Begins requests as large as may be, `count` of them, and ends none.
pub async fn large_requests(address: SocketAddr, count: usize) -> Vec<Connection> {
    const PER_CONNECTION: u32 = 100;
    let mut connections = Vec::new();
    for _ in 0..count / PER_CONNECTION as usize {
        let mut connection = Connection::open(address, 106).await.unwrap();
        connection.say(&hello()).await.unwrap();
        // From then on the windows are as the server wants them.
        connection.hear_of(SETTINGS).await.unwrap();
        connection.say(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        for stream in (1..).step_by(2).take(PER_CONNECTION as usize) {
            // 64 KiB are announced, names for a chat; a window's worth comes.
            let prefix = [&[0][..], &(64 * 1024_u32).to_be_bytes()].concat();
            let piece = vec![0; MAX_FRAME - prefix.len()];
            let words = [
                open(stream, "Create", MALLORY),
                frame(DATA, 0, stream, &[prefix, piece].concat()),
            ];
            connection.say(&words.concat()).await.unwrap();
        }
        // The server makes room for more as it puts pieces together.
        let mut sent = vec![MAX_FRAME; PER_CONNECTION as usize];
        while sent.iter().any(|sent| *sent < 4 * MAX_FRAME) {
            let update = connection.hear_of(WINDOW_UPDATE).await;
            let update = update.expect("the connection stays");
            if update.stream > 0 {
                let sent = &mut sent[(update.stream / 2) as usize];
                let room = u32::from_be_bytes(update.payload[..4].try_into().unwrap()) as usize;
                let more = room.min(4 * MAX_FRAME - *sent);
                let piece = frame(DATA, 0, update.stream, &vec![0; more]);
                connection.say(&piece).await.unwrap();
                *sent += more;
            }
        }
        connections.push(connection);
    }
    connections
}

/// Opens as many streams as it is let on two connections, without a token or with
/// one, and floods them with frames that cost a walk over all of them.
pub async fn walks(address: SocketAddr, chat: Option<i64>) -> Vec<Connection> {
    /// As many as a user may have.
    const STREAMS: usize = 16_000;
    let mut connections = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(address, 107).await.unwrap();
        connection.say(&hello()).await.unwrap();
        for stream in (1..).step_by(2).take(STREAMS / 2) {
            let words = match chat {
                Some(chat) => [
                    open(stream, "ConnectChat", MALLORY),
                    message(stream, END_STREAM, &join(chat)),
                ],
                None => [
                    open_path(stream, "/grpc.health.v1.Health/Watch"),
                    frame(DATA, END_STREAM, stream, &[0; 5]),
                ],
            };
            _ = connection.say(&words.concat()).await;
        }
        connections.push(connection);
    }
    for connection in &mut connections {
        _ = connection.say(&changing_windows(20_000)).await;
    }
    connections
}

/// Opens a stream with a user's token on each of so many connections, and then sends
/// nothing for a while but frames that bring nothing.
pub async fn idle(address: SocketAddr, chat: i64, count: usize) {
    const FOR: Duration = Duration::from_secs(2);
    const UNKNOWN: u8 = 0x33;
    let kinds = [
        window_update(0, 1),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        frame(UNKNOWN, 0, 0, &[]),
    ];
    let flooding = stream::iter(0..count).map(|at| {
        let words = kinds[at % kinds.len()].repeat(4 * 1024);
        async move {
            let mut connection = Connection::open(address, 109).await.unwrap();
            let begin = [
                hello(),
                open(1, "ConnectChat", MALLORY),
                message(1, 0, &join(chat)),
            ];
            connection.say(&begin.concat()).await.unwrap();
            while connection.say(&words).await.is_ok() {}
        }
    });
    let flooding = flooding.buffer_unordered(count).for_each(|()| async {});
    _ = tokio::time::timeout(FOR, flooding).await;
}

/// Sends one kind of frame without end for a while, on so many connections; who is
/// cut off comes again.
pub async fn frames(address: SocketAddr, kind: u8, count: usize) {
    const FOR: Duration = Duration::from_secs(2);
    let words = match kind {
        PING => frame(PING, 0, 0, &[7; 8]),
        PRIORITY => frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]),
        other => frame(other, 0, 0, &[]),
    };
    let words = words.repeat(4 * 1024);
    let flooding = stream::iter(0..count).map(|_| async {
        loop {
            let mut connection = Connection::open(address, 108).await.unwrap();
            _ = connection.say(&hello()).await;
            while connection.say(&words).await.is_ok() {}
        }
    });
    let flooding = flooding.buffer_unordered(count).for_each(|()| async {});
    _ = tokio::time::timeout(FOR, flooding).await;
}

/// Opens streams of reflection that are asked and not read, as many as it is let.
pub async fn reflections(address: SocketAddr, count: usize) -> Vec<Connection> {
    const PER_CONNECTION: usize = 100;
    const PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let symbol = b"chat_v1.ChatV1";
    let request = [&[0x22, symbol.len() as u8], &symbol[..]].concat();
    let framed = [&[0, 0, 0, 0, request.len() as u8], &request[..]].concat();
    let mut connections = Vec::new();
    for _ in 0..count / PER_CONNECTION {
        let mut connection = Connection::open(address, 109).await.unwrap();
        connection.say(&hello()).await.unwrap();
        for stream in (1..).step_by(2).take(PER_CONNECTION) {
            let words = [open_path(stream, PATH), frame(DATA, 0, stream, &framed)];
            connection.say(&words.concat()).await.unwrap();
        }
        connections.push(connection);
    }
    connections
}

/// Opens connections, 5,000 a second, that each say a little now and then, without
/// a token: 1.4 MB a second in all.
pub async fn murmur(address: SocketAddr, count: usize) {
    const FOR: Duration = Duration::from_secs(3);
    const A_SECOND: usize = 100_000;
    const OPENED_AT_ONCE: usize = 50;
    let mut connections = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while connections.len() < count {
        ticks.tick().await;
        let opened = (0..OPENED_AT_ONCE).map(|_| async {
            let mut connection = Connection::open(address, 120).await.unwrap();
            connection.say(&hello()).await.unwrap();
            connection
        });
        connections.extend(join_all(opened).await);
    }
    let word = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
    let begin = std::time::Instant::now();
    let mut said = 0;
    'murmur: loop {
        for connection in &mut connections {
            if begin.elapsed() > FOR {
                break 'murmur;
            }
            _ = connection.0.try_write(&word);
            said += 1;
            let due = Duration::from_secs_f64(said as f64 / A_SECOND as f64);
            if let Some(early) = due.checked_sub(begin.elapsed())
                && early > Duration::from_millis(2)
            {
                tokio::time::sleep(early).await;
            }
        }
    }
    eprintln!("murmur: {said} frames in {:.1?}", begin.elapsed());
}
