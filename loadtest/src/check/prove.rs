//! That the checker can fail: a server that has each fault in turn, and the
//! verdict that finds it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{
    faults::Fault,
    run::{Plan, run},
    world::{Cluster, Setting, StoreKind, WINDOW},
};
use crate::Result;

/// How long the load is on; what finds the fault comes right after.
const TIME: Duration = Duration::from_secs(2);
const SEEN: Duration = Duration::from_secs(3);

/// A name of `CHATD_FAULT`, what it takes to show, and the verdicts of which one
/// must be among those that come.
const FAULTS: [(&str, StoreKind, &[Fault], &[&str]); 11] = {
    use Fault::{Clock, DbLose, Kill};
    use StoreKind::{Memory, Postgres, Sqlite};
    [
        ("ack-before-commit", Sqlite, &[Kill], &["lost"]),
        ("lose-a-row", Sqlite, &[], &["lost"]),
        ("swap-rows", Memory, &[], &["moved"]),
        ("reuse-a-seq", Sqlite, &[Kill], &["lost"]),
        ("time-runs-back", Memory, &[Clock], &["time ran back"]),
        ("deliver-before-commit", Sqlite, &[Kill], &["phantom"]),
        ("gap-at-handover", Memory, &[], &["gap"]),
        ("lose-a-wake", Memory, &[], &["behind"]),
        ("forget-duplicates", Memory, &[], &["stored twice"]),
        ("skip-membership", Memory, &[], &["intruder"]),
        ("believe-memory", Postgres, &[DbLose], &["went on"]),
    ]
};

/// Errs if a fault was not found. Several nodes have PostgreSQL, whatever the store
/// that a fault is quickest to show on.
pub async fn prove(binary: &Path, seed: u64, cluster: &Cluster) -> Result<()> {
    println!("| fault of the server | done to it | found as | verdicts | after s |");
    println!("|---|---|---|---|---|");
    let mut missed = Vec::new();
    for (name, store, faults, expected) in FAULTS {
        let store = match cluster.nodes {
            1 => store,
            _ => StoreKind::Postgres,
        };
        let plan = Plan {
            setting: Setting {
                store,
                faults: faults.to_vec(),
                binary: binary.into(),
                window: WINDOW,
                broken: Some(name.into()),
                cluster: cluster.clone(),
            },
            time: TIME,
            seed,
            chats: 3,
            pause: 8,
            seen: SEEN,
            keep: None,
        };
        let begun = Instant::now();
        let outcome = run(&plan).await?;
        let found = outcome.verdicts.iter().map(|verdict| verdict.name());
        let found = found.filter(|name| expected.contains(name)).count();
        let done: Vec<String> = faults.iter().map(Fault::to_string).collect();
        println!(
            "| {name} | {} | {} × {found} | {} | {:.1} |",
            done.join(", "),
            expected.join(", "),
            outcome.verdicts.len(),
            begun.elapsed().as_secs_f64()
        );
        if found == 0 {
            missed.push(name);
        }
    }
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("not found: {}", missed.join(", ")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::faults::schedule, *};

    #[test]
    fn whatever_the_seed_a_fault_is_done_before_the_load_ends() {
        for (name, _, faults, _) in FAULTS.iter().filter(|(_, _, faults, _)| !faults.is_empty()) {
            for (seed, nodes) in (0..10_000).flat_map(|seed| [(seed, 1), (seed, 3)]) {
                let steps = schedule(seed, faults, TIME, nodes);
                assert!(!steps.is_empty(), "{name}, {seed}, {nodes} nodes");
            }
        }
    }
}
