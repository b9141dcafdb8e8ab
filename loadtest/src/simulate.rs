//! A deterministic simulation of the server's core: real shards, lanes and
//! cursors on one thread, over a store that fails, with a scheduler and a time
//! of the simulation's own.
//!
//! Invariants:
//! 1. A seed decides everything, so that a failure can be played again.
//! 2. Nothing of the server is imitated but the store: what is checked is what
//!    runs.
//! 3. The model that checks knows the promises and not the server.

mod disk;
mod executor;
mod model;
mod mutation;
mod open;
mod outside;
mod plan;
mod readers;
mod senders;
mod server;
mod sim;
mod store;
mod trace;
mod weather;
mod world;

use std::time::{Duration, Instant};

use clap::Args;

use crate::Result;
use model::Counts;
use mutation::Mutation;
use world::Run;

#[derive(Args)]
pub struct Options {
    /// Runs this one seed again, and tells how it went
    #[arg(long)]
    seed: Option<u64>,

    /// How many seeds, from a random one unless --seed says which
    #[arg(long, conflicts_with = "time")]
    seeds: Option<u64>,

    /// How long: 90s, 10m
    #[arg(long = "for", value_parser = duration)]
    time: Option<Duration>,

    /// Gives the simulation itself a fault, which it must find
    #[arg(long)]
    mutation: Option<Mutation>,

    /// Tells every event
    #[arg(long)]
    trace: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number.parse().map_err(|_| "a number and s, m or h")?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        "h" => Ok(Duration::from_secs(3_600 * number)),
        _ => Err("the unit is s, m or h".into()),
    }
}

pub fn run(options: &Options) -> Result<()> {
    let first = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 48));
    let seeds = match (options.seeds, options.time, options.seed) {
        (Some(seeds), _, _) => seeds,
        (None, Some(_), _) => u64::MAX,
        (None, None, Some(_)) => 1,
        (None, None, None) => 100,
    };
    let explored = explore(first, seeds, options.time, options.mutation, options.trace);
    explored.print(first);
    match explored.failed {
        None => Ok(()),
        Some((seed, run)) => {
            eprintln!("{}", failure(seed, &run));
            Err("a promise is broken".into())
        }
    }
}

/// What a number of seeds led to.
#[derive(Default)]
struct Explored {
    seeds: u64,
    counts: Counts,
    polls: u64,
    simulated: Duration,
    took: Duration,
    last_hash: u64,
    /// The first that failed, which ends it.
    failed: Option<(u64, Run)>,
}

fn explore(
    first: u64,
    seeds: u64,
    time: Option<Duration>,
    mutation: Option<Mutation>,
    trace: bool,
) -> Explored {
    let begun = Instant::now();
    let mut all = Explored::default();
    println!("simulate: seeds from {first}");
    while all.seeds < seeds && time.is_none_or(|time| begun.elapsed() < time) {
        let seed = first + all.seeds;
        let run = world::run(seed, mutation, trace);
        all.seeds += 1;
        all.counts += run.counts;
        all.polls += run.polls;
        all.simulated += run.lasted;
        all.last_hash = run.hash;
        if run.broken.is_some() {
            all.failed = Some((seed, run));
            break;
        }
    }
    all.took = begun.elapsed();
    all
}

impl Explored {
    fn print(&self, first: u64) {
        let (hours, counts) = (self.simulated.as_secs_f64() / 3_600.0, &self.counts);
        println!(
            "{} seeds from {first} in {:.1?}: {hours:.1} hours, {} polls, last trace {:016x}",
            self.seeds, self.took, self.polls, self.last_hash
        );
        println!("{counts:#?}");
    }
}

fn failure(seed: u64, run: &Run) -> String {
    let Some(broken) = &run.broken else {
        return String::new();
    };
    let tail = run.tail.join("\n");
    format!(
        "{tail}\nseed {seed} breaks {broken}\nto replay: loadtest simulate --seed {seed} [--trace]"
    )
}

#[cfg(test)]
mod tests;
