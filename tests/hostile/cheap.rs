//! What costs its sender little, most of it without a token, and how little of it
//! the server takes.

use std::{net::SocketAddr, time::Duration};

use futures_util::stream;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use super::raw::{
    ACK, Connection, DATA, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PING, SETTINGS, frame,
    hello, message, open, open_path, setting,
};
use crate::{
    ops::{get, value},
    server::{Server, soon},
};

/// Most frames that cost more than they bring, of one connection at once, with
/// room for those that it is granted meanwhile.
const MOST_WALKS: usize = 60;
const MOST_PINGS: usize = 250;

/// SETTINGS that change the initial window, one after the other.
pub fn changing_windows(count: usize) -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let frames = (0..count).map(|n| setting(INITIAL_WINDOW_SIZE, 65_535 + (n % 2) as u32));
    frames.collect::<Vec<_>>().concat()
}

pub fn pings(count: usize) -> Vec<u8> {
    frame(PING, 0, 0, &[1; 8]).repeat(count)
}

/// GOAWAYs that name no stream: each makes HTTP/2 look at all of them.
fn goaways(count: usize) -> Vec<u8> {
    let last_stream = i32::MAX.to_be_bytes();
    frame(GOAWAY, 0, 0, &[last_stream, [0; 4]].concat()).repeat(count)
}

/// Sends frames until it is cut off; how many of them were answered, and whether
/// it was told why.
async fn flood(address: SocketAddr, words: &[u8], answered: u8) -> (usize, bool) {
    let mut connection = Connection::open(address, 110).await.unwrap();
    // With a stream open, a connection does not end by itself.
    let words_before = [
        hello(),
        open_path(1, "/grpc.health.v1.Health/Watch"),
        frame(DATA, END_STREAM, 1, &[0; 5]),
    ];
    connection.say(&words_before.concat()).await.unwrap();
    let begun = connection.hear_of(SETTINGS).await;
    assert!(begun.is_some(), "the server speaks first");
    // Nobody who says all this at once can be told why he is cut off before he has
    // said it: what he has sent and nobody has read makes TCP forget the answer.
    let (mut count, mut told) = (0, false);
    for piece in words.chunks(words.len() / 10) {
        if connection.say(piece).await.is_err() {
            break;
        }
        let heard = async {
            loop {
                match connection.hear().await {
                    Ok(frame) if frame.kind == GOAWAY => {
                        told |= frame.reason() == ENHANCE_YOUR_CALM;
                    }
                    Ok(frame) => count += usize::from(frame.kind == answered && frame.flags == ACK),
                    Err(_) => return,
                }
            }
        };
        if timeout(Duration::from_millis(200), heard).await.is_ok() {
            break;
        }
    }
    assert!(connection.closed(Duration::from_secs(5)).await);
    (count, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p6_frames_that_cost_more_than_they_bring_are_cut_off() {
    let server = Server::start(&[]).await;
    let bob = server.client("bob").await;
    let chat = bob.create(&[]).await;
    let address = server.address();
    for (words, answered, most) in [
        (changing_windows(5_000), SETTINGS, MOST_WALKS),
        (goaways(500), GOAWAY, 0),
        (pings(5_000), PING, MOST_PINGS),
    ] {
        let (count, _) = soon("the cut", flood(address, &words, answered)).await;
        assert!(count <= most, "{count} frames of {answered} were answered");
    }
    // Beside each other, so that they take a while.
    let paced = [changing_windows(500), pings(2_000)];
    let told = paced.iter().map(|words| flood(address, words, PING));
    let told = soon("the cuts", futures_util::future::join_all(told)).await;
    assert!(told.iter().any(|(_, told)| *told), "nobody was told why");
    bob.send(chat, "still here", "").await.unwrap();

    let (_, metrics) = get(server.http_address(), "/metrics").await;
    let cut = value(&metrics, "chat_refusals_total{reason=\"TOO_MANY_FRAMES\"}");
    assert!(cut >= 5.0, "{cut}");
}

/// A client may ask how long the way is as often as it is sent something.
#[tokio::test]
async fn a_client_that_measures_each_round_trip_is_not_cut_off() {
    let server = Server::start(&[]).await;
    let bob = server.client("bob").await;
    let chat = bob.create(&[]).await;
    let mut reader = Connection::open(server.address(), 111).await.unwrap();
    let words = [
        hello(),
        open(1, "ConnectChat", "bob"),
        message(1, END_STREAM, &super::attacks::join(chat)),
    ];
    reader.say(&words.concat()).await.unwrap();
    for n in 0..500 {
        bob.send(chat, "hello", "").await.unwrap();
        let piece = soon("a message", reader.hear_of(DATA)).await;
        assert!(piece.is_some(), "message {n}");
        soon("the PING's answer", reader.settle()).await.unwrap();
    }
}

pub async fn watch(channel: Channel) -> Result<Streaming<HealthCheckResponse>, tonic::Status> {
    let request = HealthCheckRequest::default();
    let watching = HealthClient::new(channel).watch(request).await?;
    Ok(watching.into_inner())
}

/// A stream of reflection that has been answered, and is left open.
#[derive(Debug)]
pub struct Reflected {
    pub first: Option<MessageResponse>,
    _asking: mpsc::Sender<ServerReflectionRequest>,
    _answers: Streaming<ServerReflectionResponse>,
}

/// Asks for a type's descriptor.
pub async fn reflect(channel: Channel, symbol: &str) -> Result<Reflected, tonic::Status> {
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol(symbol.to_owned())),
        ..Default::default()
    };
    let (asking, mut asked) = mpsc::channel(1);
    asking.try_send(request).unwrap();
    let asked = stream::poll_fn(move |cx| asked.poll_recv(cx));
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(asked).await?.into_inner();
    match answers.message().await? {
        Some(first) => Ok(Reflected {
            first: first.message_response,
            _asking: asking,
            _answers: answers,
        }),
        None => Err(tonic::Status::unknown("no answer")),
    }
}

fn assert_too_many<T>(outcome: Result<T, tonic::Status>) {
    let status = outcome.err().expect("refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = tonic_types::StatusExt::get_error_details(&status);
    let reason = &details.error_info().unwrap().reason;
    assert_eq!(reason, "TOO_MANY_OPEN_CALLS");
    assert!(details.retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p6_calls_without_a_token_are_few_and_probes_always_answered() {
    const CONNECTIONS: usize = 200;
    let server = Server::start(&[]).await;
    let before = server.memory_kb();

    let mut held = Vec::new();
    let one = server.connect().await;
    for _ in 0..8 {
        held.push(soon("a watch", watch(one.clone())).await.unwrap());
    }
    assert_too_many(watch(one.clone()).await);
    assert_too_many(reflect(one.clone(), "chat_v1.ChatV1").await);
    // What has ended makes room.
    held.pop();
    soon("room again", async {
        while watch(one.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let mut reflected = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = server.connect().await;
        for _ in 0..4 {
            match soon("reflection", reflect(channel.clone(), "chat_v1.ChatV1")).await {
                Ok(answers) => reflected.push(answers),
                refused => assert_too_many(refused),
            }
        }
        // Whatever others hold, a probe is answered on each connection.
        held.push(soon("a watch", watch(channel.clone())).await.unwrap());
        let mut health = HealthClient::new(channel);
        let checked = health.check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(checked.into_inner().status(), ServingStatus::Serving);
    }
    assert_eq!(reflected.len(), 128);
    let grown = server.memory_kb() - before;
    eprintln!("{grown} kB for 128 reflections and {} watches", held.len());
    // 20 for a connection and 64 for a stream.
    let bound = 20 * (CONNECTIONS as u64 + 1) + 64 * (128 + held.len() as u64) + 8 * 1024;
    assert!(grown < bound, "P6: {grown} kB of {bound}");

    // A request is short: 4 MiB of it would be kept a stream.
    drop((held, reflected));
    let long = "x".repeat(64 * 1024);
    soon("room for reflection again", async {
        while reflect(server.connect().await, "chat_v1.ChatV1")
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(reflect(server.connect().await, &long).await.is_err());
    let request = HealthCheckRequest { service: long };
    let mut health = HealthClient::new(server.connect().await);
    assert!(health.check(request).await.is_err());
}

/// A call whose request does not come gives its place back.
#[tokio::test]
async fn p6_a_check_that_does_not_come_ends() {
    let server = Server::start(&["--send-timeout", "500ms"]).await;
    let mut connection = Connection::open(server.address(), 112).await.unwrap();
    let path = "/grpc.health.v1.Health/Check";
    let words = [hello(), open_path(1, path)];
    connection.say(&words.concat()).await.unwrap();
    let answer = soon("the refusal", connection.hear_of(HEADERS)).await;
    assert_eq!(answer.unwrap().stream, 1);
}
