//! The server's core as a process has it: shards, lanes, wakes, each a task.

use std::sync::Arc;

use chat_service::{
    chats::Chats,
    domain::Clock,
    feed::{History, Pages, Wakes},
    shard::{self, ShardPlan, Shards},
    store::Store,
    telemetry::Telemetry,
    writer::Lane,
};

use super::{
    executor::Life,
    sim::{Sim, SimClock},
    store::SimStore,
};

/// A running server. Gone with its tasks.
#[derive(Clone)]
pub struct Server {
    pub chats: Chats,
    pub cores: usize,
}

impl Server {
    /// Starts one on what the disk has.
    pub fn start(sim: &Sim) {
        let plan = sim.state().plan.clone();
        let store: Arc<dyn Store> = Arc::new(SimStore::new(sim.clone(), plan.lane.batch_rows));
        let clock: Arc<dyn Clock> = Arc::new(SimClock(sim.clone()));
        let telemetry = Telemetry::quiet(plan.lanes);
        let wakes = Arc::new(Wakes::new(plan.cores));
        for core in 0..plan.cores {
            let run = wakes.clone().run(core);
            sim.spawn(Life::Server, format!("wakes {core}"), run);
        }
        let mut lanes = Vec::with_capacity(plan.lanes);
        for index in 0..plan.lanes {
            let (lane, sender) = Lane::new(
                index,
                plan.shards,
                plan.lane,
                store.clone(),
                clock.clone(),
                telemetry.clone(),
            );
            sim.spawn(Life::Server, format!("lane {index}"), lane.run());
            lanes.push(sender);
        }
        let history = Arc::new(History {
            store: store.clone(),
            clock: clock.clone(),
            metrics: telemetry.metrics.clone(),
            pages: Pages::new(plan.shard.memory / 4),
        });
        let plans = (0..plan.shards).map(|index| ShardPlan {
            settings: plan.shard,
            core: index % plan.cores,
            lane: lanes[index % plan.lanes].clone(),
            wakes: wakes.clone(),
            history: history.clone(),
            elsewhere: None,
        });
        let mut index = 0;
        let shards = shard::start(plans.collect(), |_, task| {
            sim.spawn(Life::Server, format!("shard {index}"), task);
            index += 1;
        });
        let cores = plan.cores;
        let mut state = sim.state();
        state.trace.note("server starts");
        let chats = Chats::new(Shards::new(shards), None);
        state.server = Some(Self { chats, cores });
    }

    /// Kills it: every task is dropped, the disk stays.
    pub fn crash(sim: &Sim) {
        let state = &mut *sim.state();
        state.trace.note("server dies");
        state.server = None;
        state.orders.crash();
        state.model.crashed();
        if state.mutation == Some(super::mutation::Mutation::ForgetsInCrash) {
            state
                .disk
                .chats
                .values_mut()
                .for_each(|chat| chat.forget(1));
        }
    }
}
