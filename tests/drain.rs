//! SIGTERM.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use futures_util::stream;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::server::{Client, Load, Server, soon};

/// Under load: health says so, what was accepted is committed and acknowledged,
/// everything else and every stream ends with UNAVAILABLE, and the process ends
/// well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_stop_under_load_is_boring() {
    let mut server = Server::start(&[]).await;
    let members = Load::members();
    let members: Vec<_> = members.iter().map(String::as_str).collect();
    let chat = server.client("alice").await.create(&members).await;

    let mut health = HealthClient::new(server.connect().await);
    let service = "chat_v1.ChatV1".to_owned();
    let watch = health.watch(HealthCheckRequest { service }).await;
    let mut watch = watch.unwrap().into_inner();
    let mut health = async || {
        let next = soon("health", watch.message()).await?;
        Ok::<_, tonic::Status>(next.expect("a watch ends with an error only").status())
    };
    assert_eq!(health().await.unwrap(), ServingStatus::Serving);

    let load = Load::start(&server, chat, 0).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = Instant::now();
    server.signal_term();
    assert_eq!(health().await.unwrap(), ServingStatus::NotServing);
    assert_eq!(health().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.exit_code().await, Some(0));
    // With clients that read there is nothing to wait for.
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");

    let tally = load.ended().await;
    assert!(!tally.acked.is_empty(), "the load never got going");
    server.restart().await;
    let stored = server.client("alice").await.history(chat).await;
    tally.check(&stored, &tally.sent);
    for (call, end) in &tally.ends {
        match call {
            // The connection was closed, or about to be, before the client had sent the
            // call: tonic's own words for that.
            Some(text) if is_unsent(end) => {
                assert!(stored.iter().all(|message| message.text != *text));
            }
            _ => assert_eq!(end.code(), Code::Unavailable, "{end:?}"),
        }
    }
    // What the streams were owed they got before they ended: the reader has
    // seen every message.
    let read = tally.seen.iter().map(|(_, seq)| *seq).max();
    assert_eq!(read, Some(stored.len() as i64), "P9: cut in the middle");
}

/// What the server says has no source on the client's side.
fn is_unsent(end: &tonic::Status) -> bool {
    let goes_away = || format!("{end:?}").contains("GoAway(b\"\", NO_ERROR, Remote)");
    match end.code() {
        Code::Cancelled => end.source().is_some(),
        Code::Internal => end.source().is_some() && goes_away(),
        _ => false,
    }
}

/// Clients that do nothing do not hold a stop up beyond its bound: one has
/// stopped reading, one has never said which chat it wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_client_that_does_not_answer_is_not_waited_for() {
    let mut server = Server::start(&["--drain-timeout", "1500ms"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    let long = "x".repeat(4000);
    for _ in 0..100 {
        alice.send(chat, &long, "").await.unwrap();
    }
    // Of 400 KB, HTTP/2 takes less than half for a client that stops.
    let endpoint = server.endpoint().initial_stream_window_size(64 * 1024);
    let channel = endpoint.connect().await.unwrap();
    let bob = Client::new(channel, "bob");
    let mut stopped = bob.read(chat, Some(0)).await;
    stopped.expect(1).await;
    let silent = alice.grpc.clone().connect_chat(stream::pending()).await;

    let begin = Instant::now();
    assert_eq!(server.terminate().await, Some(0));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    drop(silent.unwrap());
    server.restart().await;
    let stored = server.client("bob").await.history(chat).await;
    assert_eq!(stored.len(), 100);
}

/// An idle server with open streams ends at once, and its streams say why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_open_streams_end_with_unavailable() {
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "x", "").await.unwrap();
    let (_posts, mut open) = alice.open(chat, Some(0)).await;
    let mut half_closed = alice.read(chat, Some(0)).await;
    open.expect(1).await;
    half_closed.expect(1).await;
    let begin = Instant::now();
    server.signal_term();
    for frames in [&mut open, &mut half_closed] {
        let end = frames.end().await;
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
        assert_eq!(end.message(), "the server is shutting down");
    }
    assert_eq!(server.exit_code().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(4));
    // Nobody is served any more.
    let refused = alice.get(chat).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}
