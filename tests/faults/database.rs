use std::time::Duration;

use tokio::task::block_in_place;

use super::{
    count,
    load::{Done, Load, Plan},
    millis, seeded,
    server::Chatd,
};
use crate::pg::Pg;

/// `--send-timeout`, and what a loaded machine adds to it.
const ANSWERED: Duration = Duration::from_secs(4);

/// P8 of a load that the database went away under, while the server went on.
fn check_p8(done: &Done) {
    assert_eq!(done.stream_ends(), 0, "readers stay connected");
    let slowest = done.record.slowest;
    assert!(slowest < ANSWERED, "a send was answered after {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_database_that_crashes_and_comes_back_is_only_waited_for() {
    let mut random = seeded("restarts");
    let pg = block_in_place(Pg::start);
    let chatd = Chatd::start(&pg.tcp_dsn("postgres"), &[]);
    let mut all = Vec::new();
    for round in 0..count("FAULT_RESTARTS", 2) {
        let load = Load::start(Plan::new(&[chatd.address()], random.u64(..))).await;
        millis(random.u64(50..400)).await;
        block_in_place(|| pg.stop_immediate());
        // Every other time too long for the sends under way.
        let longer = if round % 2 == 0 { 2_300 } else { 0 };
        millis(longer + random.u64(..300)).await;
        block_in_place(|| pg.start_again());
        millis(random.u64(300..800)).await;
        let done = load.finish().await;
        check_p8(&done);
        assert!(longer == 0 || done.failures() > 0, "UNAVAILABLE is said");
        all.push(done);
    }
    for done in &all {
        done.check_again().await;
    }
    let messages: usize = all.iter().map(Done::messages).sum();
    let failures: usize = all.iter().map(Done::failures).sum();
    println!(
        "{} restarts, {messages} messages, {failures} failed tries",
        all.len()
    );
}

/// A stopped server's sockets stay open and say nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_database_that_hangs_is_given_up_and_found_again() {
    let mut random = seeded("stalls");
    let pg = block_in_place(Pg::start);
    let stall = ["--store-stall", "300ms"];
    let chatd = Chatd::start(&pg.tcp_dsn("postgres"), &stall);
    let mut all = Vec::new();
    for _ in 0..count("FAULT_STALLS", 1) {
        let load = Load::start(Plan::new(&[chatd.address()], random.u64(..))).await;
        millis(random.u64(50..300)).await;
        block_in_place(|| pg.sigstop());
        millis(random.u64(600..3_500)).await;
        block_in_place(|| pg.sigcont());
        millis(random.u64(300..800)).await;
        let done = load.finish().await;
        check_p8(&done);
        all.push(done);
    }
    for done in &all {
        done.check_again().await;
    }
    let log = chatd.log();
    assert!(log.contains("did not answer in time"), "{log}");
    println!("{} stalls", all.len());
}
