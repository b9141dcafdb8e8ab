use tokio::task::block_in_place;

use super::{
    count,
    load::{Load, Plan},
    millis, seeded,
    server::Chatd,
};
use crate::pg::fresh_database;

/// Any moment will do: a commit under way, a batch half sent, an answer on its
/// way to the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p5_kill_9_of_the_server_loses_nothing() {
    let mut random = seeded("kills");
    let mut chatd = Chatd::start(&fresh_database().await, &[]);
    let mut all = Vec::new();
    for _ in 0..count("FAULT_KILLS", 3) {
        let mut plan = Plan::new(&[chatd.address()], random.u64(..));
        plan.server_dies = true;
        let load = Load::start(plan).await;
        millis(random.u64(30..400)).await;
        block_in_place(|| chatd.kill());
        millis(random.u64(..50)).await;
        block_in_place(|| chatd.start_again());
        millis(random.u64(50..200)).await;
        all.push(load.finish().await);
    }
    for done in &all {
        done.check_again().await;
        assert!(done.stream_ends() > 0, "the kill was not felt");
    }
    let messages: usize = all.iter().map(|done| done.messages()).sum();
    let failures: usize = all.iter().map(|done| done.failures()).sum();
    println!(
        "{} kills, {messages} messages, {failures} failed tries",
        all.len()
    );
}
