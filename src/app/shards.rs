//! The shards and their writer lanes, started, and the way to the chats.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{plan, room::Budget};
use crate::{
    config::ServeConfig,
    domain::Clock,
    feed::{History, Wakes},
    runtime::Cores,
    shard::{self, Elsewhere, ShardPlan, Shards},
    store::Store,
    telemetry::Telemetry,
    writer::{Lane, Submission},
};

/// The writer lanes, each on one of the threads; and the way to each.
pub fn start_lanes(
    config: &ServeConfig,
    threads: &Cores,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
    telemetry: &Telemetry,
) -> Vec<mpsc::Sender<Submission>> {
    let start = |index| {
        let (lane, sender) = Lane::new(
            index,
            config.shards,
            plan::lane(config),
            store.clone(),
            clock.clone(),
            telemetry.clone(),
        );
        let thread = index % threads.count();
        threads.spawner(thread).spawn_vital("lane", lane.run());
        sender
    };
    (0..config.writer_lanes).map(start).collect()
}

/// The shards, each on one of the cores; `elsewhere` where there are several nodes.
pub fn start(
    config: &ServeConfig,
    memory: Budget,
    cores: &Cores,
    lanes: &[mpsc::Sender<Submission>],
    history: &Arc<History>,
    wakes: &Arc<Wakes>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
) -> Shards {
    for core in 0..cores.count() {
        let task = wakes.clone().run(core);
        cores.spawner(core).spawn_vital("wakes", task);
    }
    let plans = (0..config.shards).map(|index| ShardPlan {
        settings: plan::shard(config, memory),
        core: index % cores.count(),
        lane: lanes[index % lanes.len()].clone(),
        wakes: wakes.clone(),
        history: history.clone(),
        elsewhere: elsewhere.clone(),
    });
    let shards = shard::start(plans.collect(), |core, task| {
        cores.spawner(core).spawn_vital("shard", task);
    });
    Shards::new(shards)
}
