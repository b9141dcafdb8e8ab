//! One server ends as it is told to and another takes its place, over the same
//! database, while everybody works: a move to another machine, an upgrade.

use std::{env, fs, path::PathBuf, process::Command, time::Instant};

use tokio::task::block_in_place;
use tonic::Code;

use super::{
    load::{Done, Load, Plan},
    millis,
    rest::REST,
    seeded,
    server::{BINARY, Chatd},
};
use crate::pg::{fresh_database, run};

/// 1,000 streams that read, and 40 clients that write.
fn crowd(chatd: &Chatd, seed: u64) -> Plan {
    Plan {
        chats: 20,
        callers: 1,
        posters: 1,
        readers: 50,
        readers_share: true,
        pause: 100,
        server_dies: true,
        ..Plan::new(&[chatd.address()], seed)
    }
}

/// Waits until every reader has had a stream opened since then.
async fn all_read(load: &Load, since: Instant) {
    let begun = Instant::now();
    loop {
        let missing = {
            let record = load.book.open();
            let readers = record.seen.iter().filter(|seen| seen.stays);
            readers.filter(|seen| seen.opened < Some(since)).count()
        };
        if missing == 0 {
            return;
        }
        assert!(begun.elapsed() < REST, "{missing} readers are not back");
        millis(20).await;
    }
}

/// The times of a handover that began then, and how many readers went through it.
fn report(what: &str, begun: Instant, steps: &str, done: &Done) -> usize {
    let readers = || done.record.seen.iter().filter(|seen| seen.stays);
    for seen in readers() {
        // What the server itself said to a stream that was open.
        assert_eq!(seen.ends.first(), Some(&Code::Unavailable), "{}", seen.user);
    }
    let back = readers().filter_map(|seen| seen.opened).max().unwrap();
    println!(
        "{what}: {steps}; {} messages; without an acknowledgement for {:?}, the last of {} \
         readers back after {:?}",
        done.messages(),
        done.record.longest_silence(),
        readers().count(),
        back - begun,
    );
    readers().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_p9_a_thousand_streams_resume_on_a_second_server() {
    let mut random = seeded("a second server");
    let dsn = fresh_database().await;
    let mut first = Chatd::start(&dsn, &[]);
    let started = Instant::now();
    let load = Load::start(crowd(&first, random.u64(..))).await;
    all_read(&load, started).await;
    millis(1_000).await;

    let begun = Instant::now();
    block_in_place(|| first.terminate());
    let drained = begun.elapsed();
    // In the first one's place, as behind a name or a load balancer.
    let program = PathBuf::from(BINARY);
    let second = block_in_place(|| Chatd::start_at(first.address(), &program, &dsn, &[]));
    let listening = begun.elapsed() - drained;
    all_read(&load, begun).await;
    millis(500).await;
    let done = load.finish().await;
    let steps = format!("drained in {drained:?}, the second listened after {listening:?}");
    assert_eq!(report("a second server", begun, &steps, &done), 1_000);
    drop(second);
}

/// By the steps of the README. `UPGRADE_FROM` is the program to be replaced;
/// without it, a copy of the one that replaces it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p4_an_upgrade_under_load_loses_nothing() {
    let mut random = seeded("upgrade");
    let dsn = fresh_database().await;
    let folder = tempfile::tempdir().unwrap();
    let (program, new) = (folder.path().join("chatd"), folder.path().join("chatd.new"));
    let old = env::var_os("UPGRADE_FROM").unwrap_or_else(|| BINARY.into());
    fs::copy(&old, &program).unwrap_or_else(|error| panic!("{old:?}: {error}"));
    let any_port = ([127, 0, 0, 1], 0).into();
    let mut chatd = Chatd::start_at(any_port, &program, &dsn, &[]);
    let mut plan = Plan::new(&[chatd.address()], random.u64(..));
    plan.server_dies = true;
    let started = Instant::now();
    let load = Load::start(plan).await;
    all_read(&load, started).await;
    millis(1_000).await;

    fs::copy(BINARY, &new).unwrap();
    let mut doctor = Command::new(&new);
    doctor
        .args(["doctor", "--grpc-port", "0", "--config-path", ""])
        .env_clear()
        .env("PG_DSN", &dsn)
        .current_dir(&folder);
    block_in_place(|| run(&mut doctor));
    fs::rename(&new, &program).unwrap();
    let begun = Instant::now();
    block_in_place(|| chatd.terminate());
    let drained = begun.elapsed();
    block_in_place(|| chatd.start_again());
    let listening = begun.elapsed() - drained;
    all_read(&load, begun).await;
    millis(500).await;
    let done = load.finish().await;
    let steps = format!("{old:?} drained in {drained:?}, the new one listened after {listening:?}");
    report("upgrade", begun, &steps, &done);
}
