//! An adversary: clients at work on a server that is killed, stopped, cut off and
//! robbed of what it stands on, who note all they are told, and a judge who holds
//! that against what is stored in the end. It knows the server by its port alone, and
//! several nodes of one cluster (`--nodes`) by theirs: clients are spread over them, and
//! each goes to another one when its own fails it.
//!
//! Invariants:
//! 1. [`verdict`] has no I/O: a record in, verdicts out.
//! 2. What happens to the server, and when, comes from the seed that is printed.
//! 3. Processes, mounts and files go with this process, however it ends.

mod auth;
mod build;
mod client;
mod database;
mod disk;
mod faults;
mod guest;
mod nats;
mod operator;
mod peer;
// By its path, as the bench has it: the tests' throw-away PostgreSQL.
#[path = "../../tests/pg.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod pg;
mod progress;
mod prove;
mod proxy;
mod readers;
mod record;
mod run;
mod samples;
mod senders;
mod server;
mod verdict;
mod world;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::Result;
use faults::Fault;
use run::{Outcome, Plan};
use samples::Slopes;
use world::{Cluster, Setting, StoreKind, WINDOW};

/// Faults of one run, of those there are.
const FAULTS: usize = 5;

/// Longest pause of a sender, and of one in a soak, in milliseconds.
const PAUSE: u64 = 8;
const SOAK_PAUSE: u64 = 200;

/// Full after two minutes of a soak, so that it does not pass for a leak.
const SOAK_WINDOW: u32 = 2_048;

/// How long a reader may take to see a last message: the machine may be busy.
const SEEN: Duration = Duration::from_secs(20);

const HEAD: &str = "\
| seed | store | faults | made | sends | tries | acknowledged | stored | seen | verdicts |
|---|---|---|---|---|---|---|---|---|---|";

#[derive(Args)]
pub struct Options {
    /// How often, each run with the next seed and the next store
    #[arg(long, default_value_t = 1)]
    runs: u64,

    /// How long a run is under load
    #[arg(long = "for", default_value = "10s", value_parser = humantime::parse_duration)]
    time: Duration,

    /// One run as long as this, of faults that the server's process survives,
    /// whose memory and open files must not grow
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "runs")]
    soak: Option<Duration>,

    /// Of the first run; it gives the faults and their times again, though not
    /// what the system makes of them [default: random]
    #[arg(long)]
    seed: Option<u64>,

    /// memory, sqlite, postgres: in turn [default: sqlite,postgres; of several nodes
    /// postgres]
    #[arg(long, value_delimiter = ',')]
    store: Vec<StoreKind>,

    /// How many servers there are; several are the nodes of one cluster over one
    /// PostgreSQL and one NATS
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    nodes: u8,

    /// The program of the NATS server, for several nodes
    #[arg(long, default_value = "nats-server")]
    nats: String,

    /// What is done to the server [default: for each run, five that the seed picks,
    /// and with several nodes moves in every second run]
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<Fault>>,

    #[arg(long, default_value_t = 4)]
    chats: usize,

    /// The server's binary; without it, it is built
    #[arg(long)]
    chatd: Option<PathBuf>,

    /// The server's binary with the feature testing, which the fault clock and
    /// --broken take; without it, it is built if need be
    #[arg(long)]
    testing: Option<PathBuf>,

    /// The folder for the records and the servers' logs of runs with verdicts, each
    /// named by its seed [default: they are not kept]
    #[arg(long)]
    keep: Option<PathBuf>,

    /// A fault of the server itself, by its name in src/fault.rs
    #[arg(long)]
    broken: Option<String>,

    /// Instead of all that: every fault of the server itself, each of which has to
    /// be found
    #[arg(long)]
    prove: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let seed = options
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>()));
    if options.nodes > 1 && options.stores().iter().any(|s| *s != StoreKind::Postgres) {
        return Err("the nodes of a cluster share a PostgreSQL database".into());
    }
    println!("seed {seed}");
    runtime.block_on(async {
        if options.prove {
            return prove::prove(&options.testing()?, seed, &options.cluster()).await;
        }
        match options.soak {
            Some(time) => soak(options, seed, time).await,
            None => runs(options, seed).await,
        }
    })
}

impl Options {
    fn testing(&self) -> Result<PathBuf> {
        self.testing.clone().map_or_else(build::testing, Ok)
    }

    fn stores(&self) -> &[StoreKind] {
        match (&self.store[..], self.nodes) {
            ([], 1) => &[StoreKind::Sqlite, StoreKind::Postgres],
            ([], _) => &[StoreKind::Postgres],
            (stores, _) => stores,
        }
    }

    fn cluster(&self) -> Cluster {
        Cluster {
            nodes: self.nodes.into(),
            nats: self.nats.clone(),
        }
    }

    /// What is done in the run of this seed.
    fn faults(&self, store: StoreKind, seed: u64) -> Vec<Fault> {
        if let Some(faults) = &self.faults {
            return faults.clone();
        }
        let mut all = Fault::all(store, self.nodes.into());
        all.retain(|fault| *fault != Fault::Moves);
        let mut random = StdRng::seed_from_u64(seed);
        let picked = all.choose_multiple(&mut random, FAULTS);
        let mut faults: Vec<Fault> = picked.copied().collect();
        if self.nodes > 1 && random.random() {
            faults.push(Fault::Moves);
        }
        faults
    }

    fn setting(&self, store: StoreKind, faults: Vec<Fault>) -> Result<Setting> {
        let nodes = self.nodes.into();
        if let Some(fault) = faults.iter().find(|fault| !fault.is_for(store, nodes)) {
            return Err(format!("{fault} is not for this store and so many nodes").into());
        }
        let testing = self.broken.is_some() || faults.contains(&Fault::Clock);
        let binary = match (testing, &self.chatd) {
            (true, _) => self.testing()?,
            (false, Some(chatd)) => chatd.clone(),
            (false, None) => build::usual()?,
        };
        Ok(Setting {
            store,
            faults,
            binary,
            window: if self.soak.is_some() {
                SOAK_WINDOW
            } else {
                WINDOW
            },
            broken: self.broken.clone(),
            cluster: self.cluster(),
        })
    }
}

async fn runs(options: &Options, first: u64) -> Result<()> {
    println!("{HEAD}");
    let stores = options.stores();
    let mut bad = 0;
    for number in 0..options.runs {
        let seed = first.wrapping_add(number);
        let store = stores[number as usize % stores.len()];
        let faults = options.faults(store, seed);
        let plan = Plan {
            setting: options.setting(store, faults)?,
            time: options.time,
            seed,
            chats: options.chats,
            pause: PAUSE,
            seen: SEEN,
            keep: options.keep.clone(),
        };
        let outcome = run::run(&plan).await?;
        println!("{}", row(&plan, &outcome));
        bad += u64::from(tell(&plan, &outcome));
    }
    match bad {
        0 => Ok(()),
        bad => Err(format!("{bad} of {} runs have verdicts", options.runs).into()),
    }
}

async fn soak(options: &Options, seed: u64, time: Duration) -> Result<()> {
    let stores = options.stores();
    let store = stores[stores.len() - 1];
    let faults = options.faults.clone().unwrap_or_else(|| {
        let all = Fault::all(store, options.nodes.into()).into_iter();
        // The clock takes the other build, the disk one that is large enough.
        let kept = all.filter(|fault| !matches!(fault, Fault::Clock | Fault::Disk));
        kept.filter(|fault| !fault.restarts()).collect()
    });
    if faults.iter().any(|fault| fault.restarts()) {
        return Err("a soak looks at one process, which these faults end".into());
    }
    let plan = Plan {
        setting: options.setting(store, faults)?,
        time,
        seed,
        chats: options.chats,
        pause: SOAK_PAUSE,
        seen: SEEN,
        keep: options.keep.clone(),
    };
    let outcome = run::run(&plan).await?;
    println!("{HEAD}");
    println!("{}", row(&plan, &outcome));
    let slopes = Slopes::of(&outcome.samples).ok_or("too short for a slope")?;
    println!("{slopes}");
    if tell(&plan, &outcome) {
        return Err("the soak has verdicts".into());
    }
    if slopes.grows() {
        return Err("the server grows".into());
    }
    Ok(())
}

fn row(plan: &Plan, outcome: &Outcome) -> String {
    let faults: Vec<String> = plan.setting.faults.iter().map(Fault::to_string).collect();
    format!(
        "| {} | {:?} | {} | {} | {} | {} | {} | {} | {} | {} |",
        plan.seed,
        plan.setting.store,
        faults.join(" "),
        outcome.steps.len(),
        outcome.sends,
        outcome.tries,
        outcome.acknowledged,
        outcome.stored,
        outcome.seen,
        outcome.verdicts.len(),
    )
}

/// Says what is wrong, if anything is, and how to see it again.
fn tell(plan: &Plan, outcome: &Outcome) -> bool {
    if outcome.verdicts.is_empty() {
        return false;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for verdict in &outcome.verdicts {
        *counts.entry(verdict.name()).or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} × {count}"))
        .collect();
    eprintln!("seed {}: {}", plan.seed, counts.join(", "));
    for verdict in &outcome.shown {
        eprintln!("{verdict}");
    }
    for step in &outcome.steps {
        eprintln!("{step}");
    }
    eprintln!("the end of each server's log:\n{}", outcome.log);
    let faults: Vec<String> = plan.setting.faults.iter().map(Fault::to_string).collect();
    let (seed, store) = (plan.seed, plan.setting.store);
    eprintln!(
        "again: loadtest check --nodes {} --seed {seed} --store {} --faults {} --for {}",
        plan.setting.cluster.nodes,
        format!("{store:?}").to_lowercase(),
        faults.join(","),
        humantime::format_duration(plan.time)
    );
    true
}
