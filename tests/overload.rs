//! More than the server is willing to hold.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::server::{Client, Server, soon};

const CONNECTIONS: usize = 4;
/// Calls in flight on each connection.
const IN_FLIGHT: usize = 500;
const ROUNDS: usize = 10;

/// The least that each queue may hold.
const TINY: [&str; 12] = [
    "--shards",
    "1",
    "--writer-lanes",
    "1",
    "--mailbox",
    "64",
    "--pending-rows",
    "64",
    "--pending-bytes",
    "1MiB",
    "--ring",
    "16",
];

/// Of what is offered, 4 KiB a message, next to nothing is held: see below.
const MAX_GROWTH_KB: u64 = 48 * 1024;

#[derive(Default)]
struct Answers {
    stored: HashMap<i64, String>,
    refused: Vec<Duration>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_flood_is_refused_early_and_what_is_accepted_is_stored() {
    let server = Server::start(&TINY).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let before = server.memory_kb();

    let filler: Arc<str> = "x".repeat(4000).into();
    let mut callers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let client = server.client("alice").await;
        for n in 0..IN_FLIGHT {
            let name = format!("{connection}/{n}");
            callers.spawn(call(client.clone(), chat, name, filler.clone()));
        }
    }
    let mut all = Answers::default();
    let mut peak = before;
    while let Some(answers) = soon("the calls", callers.join_next()).await {
        let answers = answers.unwrap();
        all.stored.extend(answers.stored);
        all.refused.extend(answers.refused);
        peak = peak.max(server.memory_kb());
    }

    let calls = CONNECTIONS * IN_FLIGHT * ROUNDS;
    assert_eq!(all.stored.len() + all.refused.len(), calls);
    assert!(!all.refused.is_empty(), "no flood");
    // Refused long before a deadline (10 s) would have been the reason. All of
    // the flood shares two cores with the server here.
    all.refused.sort_unstable();
    let median = all.refused[all.refused.len() / 2];
    assert!(median < Duration::from_secs(3), "refused after {median:?}");
    // 2,000 calls of 4 KiB are on their way at a time: 8 MB in the connections'
    // buffers and the calls themselves. What is stored shows in SQLite's cache.
    let grown = peak - before;
    let stored_kb = all.stored.len() as u64 * 8;
    assert!(grown < MAX_GROWTH_KB + stored_kb, "grown by {grown} kB");

    let stored = alice.history(chat).await;
    assert_eq!(stored.len(), all.stored.len(), "P1, and nothing refused");
    for message in &stored {
        assert_eq!(all.stored[&message.seq], message.text);
    }
    // And when it is over, it is over.
    alice.send(chat, "calm", "").await.unwrap();
    eprintln!(
        "{} stored, {} refused after {median:?}, {:?} at most, grown by {grown} kB",
        all.stored.len(),
        all.refused.len(),
        all.refused.last(),
    );
}

async fn call(client: Client, chat: i64, name: String, filler: Arc<str>) -> Answers {
    let mut answers = Answers::default();
    for round in 0..ROUNDS {
        let text = format!("{name}/{round} {filler}");
        let begin = Instant::now();
        match client.send(chat, &text, "").await {
            Ok(sent) => _ = answers.stored.insert(sent.seq, text),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                let details = status.get_error_details();
                let retry = details.retry_info().and_then(|info| info.retry_delay);
                assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
                assert_eq!(details.error_info().unwrap().reason, "OVERLOADED");
                answers.refused.push(begin.elapsed());
            }
        }
    }
    answers
}
