use std::time::{Duration, Instant};

use chat_service::proto::DeleteRequest;
use tokio::{task::JoinSet, task::block_in_place};

use super::{count, millis, server::Chatd};
use crate::pg::{fresh_database, sql};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a step of the purge may cost a send at most, on a machine that has other
/// things to do.
const BOUND: Duration = Duration::from_millis(1_000);

/// Sends to chats of their own until `deadline`; how long each took.
async fn sends(chatd: &Chatd, chats: &[i64], time: Duration) -> Vec<Duration> {
    let mut senders = JoinSet::new();
    for &chat in chats {
        let mut peer = chatd.peer("ann");
        senders.spawn(async move {
            let (begin, mut times) = (Instant::now(), Vec::new());
            while begin.elapsed() < time {
                let start = Instant::now();
                peer.send(chat, "meanwhile", "").await.unwrap();
                times.push(start.elapsed());
                millis(2).await;
            }
            times
        });
    }
    let mut times = senders.join_all().await.concat();
    times.sort();
    times
}

fn percentile(times: &[Duration], of: usize) -> Duration {
    times[(times.len() * of / 100).min(times.len() - 1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_chat_is_removed_without_stalling_others_and_across_a_kill() {
    let rows = count("FAULT_PURGE_ROWS", 200_000);
    let dsn = fresh_database().await;
    let mut chatd = Chatd::start(&dsn, &[]);
    let mut ann = chatd.peer("ann");
    let big = ann.create(&[]).await;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(ann.create(&[]).await);
    }
    sql(
        &dsn,
        &format!(
            "INSERT INTO messages SELECT {big}, n, n, 'ann', 'a message of some length ' || n, NULL, n
               FROM generate_series(1, {rows}) n; ANALYZE messages"
        ),
    )
    .await;
    let left = async || -> i64 {
        let count = format!("SELECT count(*) FROM messages WHERE chat_id = {big}");
        sql(&dsn, &count).await[0].parse().unwrap()
    };
    let before = sends(&chatd, &others, Duration::from_secs(1)).await;

    ann.client
        .delete(ann.request(DeleteRequest { id: big }))
        .await
        .unwrap();
    let gone = ann.page(big, 0, 1).await.unwrap_err();
    assert_eq!(gone.code(), tonic::Code::PermissionDenied);
    let during = sends(&chatd, &others, Duration::from_secs(1)).await;
    let at_kill = left().await;
    block_in_place(|| chatd.kill());
    assert!(0 < at_kill && at_kill < rows as i64, "{at_kill} left");
    block_in_place(|| chatd.start_again());

    let resumed = sends(&chatd, &others, Duration::from_secs(1)).await;
    let start = Instant::now();
    while left().await > 0 {
        assert!(start.elapsed() < PATIENCE, "the purge was not resumed");
        millis(100).await;
    }
    let bound = BOUND + percentile(&before, 99);
    for (when, times) in [("before", before), ("during", during), ("resumed", resumed)] {
        let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
        println!(
            "sends {when} the purge: {} p50 {p50:?} p99 {p99:?}",
            times.len()
        );
        assert!(p99 < bound, "{when}: {p99:?}");
    }
}
