//! One simulation from start to end: busy times in which all goes wrong, and
//! calms in which everything must come to rest.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use chat_service::writer::SHARD_BATCHES;
use fastrand::Rng;

use super::{
    executor::{Executor, Life},
    model::{Broken, Counts},
    mutation::Mutation,
    outside,
    plan::Plan,
    readers, senders,
    server::Server,
    sim::{Sim, now, sleep},
    weather::Weather,
};

/// After this time of calm whatever was under way has come to its end.
const SETTLE: u64 = 30_000;
/// After this time those that read in fits and starts have seen their end.
const LAST_LOOK: u64 = 8_000;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What one seed led to.
pub struct Run {
    pub broken: Option<Broken>,
    pub counts: Counts,
    /// Of the whole trace: the same seed gives the same.
    pub hash: u64,
    pub polls: u64,
    pub lasted: Duration,
    pub tail: Vec<String>,
}

/// Runs one seed. A panic of the server is a broken promise too.
pub fn run(seed: u64, mutation: Option<Mutation>, loud: bool) -> Run {
    // The server draws message ids, placement and jitter from here.
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    let mut plan = Plan::draw(&mut rng);
    if mutation == Some(Mutation::LosesWakes) {
        plan.pace.lost = 20;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads");
    let _inside = runtime.enter();
    let pace = plan.pace;
    let sim = Sim::new(plan, rng.fork(), mutation, loud);
    sim.note(format!("{:?}", sim.state().plan));
    let executor = Executor::new(sim.clone(), rng, pace);
    sim.spawn(Life::Outside, "driver".into(), drive(sim.clone()));
    let polls = catch_unwind(AssertUnwindSafe(|| runtime.block_on(executor.run())));
    let polls = polls.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        sim.broken("a panic", words.unwrap_or_default());
        0
    });
    let state = sim.state();
    Run {
        broken: state.model.broken.clone(),
        counts: state.model.counts,
        hash: state.trace.hash(),
        polls,
        lasted: state.trace.at(),
        tail: state.trace.tail(),
    }
}

async fn drive(sim: Sim) {
    let plan = sim.state().plan.clone();
    (0..plan.chats).for_each(|_| outside::create_chat(&sim));
    Server::start(&sim);
    for at in 0..plan.senders {
        let user = plan.user(at % plan.users);
        sim.spawn(
            Life::Outside,
            format!("sender {at}"),
            senders::run(sim.clone(), user),
        );
    }
    for at in 0..plan.readers {
        let user = plan.user(at % plan.users);
        sim.spawn(
            Life::Outside,
            format!("reader {at}"),
            readers::run(sim.clone(), user),
        );
    }
    sim.spawn(
        Life::Outside,
        "changes".into(),
        outside::changes(sim.clone()),
    );
    sim.spawn(
        Life::Outside,
        "weather".into(),
        outside::weather(sim.clone()),
    );
    sim.spawn(Life::Outside, "clock".into(), outside::clock(sim.clone()));
    sim.spawn(
        Life::Outside,
        "second server".into(),
        outside::second_server(sim.clone()),
    );
    sim.spawn(Life::Outside, "bounds".into(), watch_bounds(sim.clone()));
    for _ in 0..plan.rounds {
        for _ in 0..sim.draw(|rng| rng.u8(1..4)) {
            sim.nap(500..15_000).await;
            match sim.draw(|rng| rng.u8(..4)) {
                _ if plan.takeovers && sim.one_in(2) => outside::take_over(&sim).await,
                0 | 1 => crash(&sim).await,
                2 => drain(&sim).await,
                _ => {}
            }
        }
        calm(&sim).await;
    }
    sim.end();
}

async fn crash(sim: &Sim) {
    Server::crash(sim);
    // Mostly up again before the clients have noticed.
    let down = if sim.one_in(3) { 3_000 } else { 20 };
    sim.nap(0..down).await;
    Server::start(sim);
}

/// P9: whoever was promised something gets it, all streams end, and then nothing
/// is left to kill.
async fn drain(sim: &Sim) {
    let Some(server) = sim.server() else { return };
    sim.state().model.draining = true;
    sim.note("drains");
    let chats = server.chats.clone();
    let drained = sim.call(
        "drain".into(),
        DRAIN_TIMEOUT,
        async move { chats.drain().await },
    );
    if drained.await.is_some() {
        sim.note("drained");
        let end = sim.state().model.now();
        sleep(LAST_LOOK).await;
        sim.told("all is drained", |model, _| model.drained(end));
        sim.state().model.counts.drains += 1;
    }
    crash(sim).await;
}

async fn calm(sim: &Sim) {
    {
        let state = &mut *sim.state();
        state.calm = true;
        state.weather = Weather::Fine;
        state.locked.clear();
        state.trace.note("calm");
    }
    sleep(SETTLE).await;
    senders::probe(sim).await;
    sleep(SETTLE).await;
    sim.told("at rest", |model, disk| model.at_rest(disk));
    let waiting = sim.server().map_or(0, |server| server.chats.waiting());
    if waiting > 0 {
        sim.broken("P6", format!("{waiting} posts wait for nothing"));
    }
    sim.state().calm = false;
}

/// P6: no mailbox holds more than it may.
async fn watch_bounds(sim: Sim) {
    loop {
        sim.nap(1..500).await;
        let plan = sim.state().plan.clone();
        let waiting = sim.server().map_or(0, |server| server.chats.waiting());
        let most = plan.shards * plan.shard.mailbox;
        if waiting > most {
            sim.broken("P6", format!("{waiting} posts wait, of at most {most}"));
        }
        // Each waits for one message, with its retries, or for its turn.
        let batches = SHARD_BATCHES * plan.shard.batch.rows;
        let held = plan.shard.pending.posts + batches + 2 * plan.shard.mailbox;
        let most = plan.shards * held * 17;
        let open = sim.state().model.open_calls();
        if open > most {
            sim.broken("P6", format!("{open} calls are open at {:?}", now()));
        }
    }
}
