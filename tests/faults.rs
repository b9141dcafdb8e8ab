//! The promises under fire: servers that are killed, databases that stop, hang
//! or lose an answer, two servers at once. Real processes, real clients.
//!
//! Each test prints its seed; `FAULT_SEED` replays its choices (not the
//! scheduler's). `FAULT_KILLS`, `FAULT_RESTARTS`, `FAULT_STALLS` and `FAULT_CUTS`
//! say how often; `make faults` asks for the full counts.

mod check;
mod commits;
mod database;
mod handover;
mod history;
mod kills;
mod load;
mod poison;
mod proxy;
mod purge;
mod record;
mod rest;
mod sender;
mod server;
mod two_servers;

use std::time::Duration;

/// How often a fault is made, unless the environment says otherwise.
fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// A generator that can be had again.
fn seeded(test: &str) -> fastrand::Rng {
    let seed = std::env::var("FAULT_SEED").map_or_else(
        |_| fastrand::u64(..),
        |value| value.parse().expect("FAULT_SEED is a number"),
    );
    println!("{test}: FAULT_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

async fn millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
