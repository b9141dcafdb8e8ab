//! Connections that nobody knows, and those beside them that say little: users who
//! send a message now and then, and who has just come.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{ALONE, MAX_RATIO, Sends, TRIES, Watch, attacks, elsewhere, p99, raise_file_limit};
use crate::server::{Client, Server, soon};

const MURMURING: usize = 5_000;
const QUIET_USERS: usize = 40;
/// Between two sends of a quiet user.
const PACE: Duration = Duration::from_millis(300);
/// Between two that come, create a chat and leave.
const COMING: Duration = Duration::from_millis(20);

async fn now_and_then(client: Client, chat: i64, sends: Sends) {
    tokio::time::sleep(PACE.mul_f64(fastrand::f64())).await;
    let mut ticks = tokio::time::interval(PACE);
    loop {
        let due = ticks.tick().await.into_std();
        soon("a send", client.send(chat, "hello", ""))
            .await
            .unwrap();
        sends.lock().unwrap().push((due, due.elapsed()));
    }
}

async fn come_and_go(server: &Server, times: Sends) {
    let mut ticks = tokio::time::interval(COMING);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let come = Instant::now();
        let client = soon("a newcomer", server.client("carol")).await;
        soon("its call", client.create(&[])).await;
        times.lock().unwrap().push((come, come.elapsed()));
    }
}

/// All come from the same machine here, and the strangers from another of its
/// addresses than those who are measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "it takes times, so it has the machine to itself: make hostile, a part of make test"]
async fn p6_p10_strangers_are_hardly_felt_by_who_says_little() {
    let _alone = ALONE.lock().await;
    raise_file_limit();
    let server = Server::start(&[]).await;
    let address = server.address();
    let (sends, comings) = (Sends::default(), Sends::default());
    let mut users = JoinSet::new();
    for n in 0..QUIET_USERS {
        let client = server.client(&format!("user-{n}")).await;
        let chat = client.create(&[]).await;
        users.spawn(now_and_then(client, chat, sends.clone()));
    }
    let hostile = elsewhere();
    let mut watch = Watch::new(&server, sends);
    let measured = async {
        let mut worst = Vec::new();
        for _ in 0..TRIES {
            let since = Instant::now();
            watch
                .during("quiet", std::future::ready(()), Duration::from_secs(4))
                .await;
            let quiet = (p99(watch.times.remove("quiet").unwrap()), since);
            let since = Instant::now();
            let attack = hostile.spawn(attacks::murmur(address, MURMURING));
            watch
                .during("murmur", attack, Duration::ZERO)
                .await
                .unwrap();
            let felt = (p99(watch.times.remove("murmur").unwrap()), since);
            let come = |from: Instant, to: Instant| {
                let times = comings.lock().unwrap();
                let times = times.iter().filter(|(at, _)| (from..to).contains(at));
                p99(times.map(|(_, took)| *took).collect())
            };
            let come = (come(quiet.1, felt.1), come(felt.1, Instant::now()));
            eprintln!(
                "users {:.1?} → {:.1?}, who comes {:.1?} → {:.1?}",
                quiet.0, felt.0, come.0, come.1
            );
            let ratio = |quiet: Duration, felt: Duration| felt.as_secs_f64() / quiet.as_secs_f64();
            worst.push(ratio(quiet.0, felt.0).max(ratio(come.0, come.1)));
            if worst.last().is_some_and(|worst| *worst < MAX_RATIO) {
                break;
            }
        }
        worst
    };
    let worst = tokio::select! {
        worst = measured => worst,
        () = come_and_go(&server, comings.clone()) => unreachable!("it goes on"),
    };
    hostile.shutdown_background();
    eprintln!("{}worst, by tries: {worst:.1?} x quiet", watch.report);
    assert!(worst.last().is_some_and(|worst| *worst < MAX_RATIO));
}
