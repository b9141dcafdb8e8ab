//! One run: a world, clients at work in it, faults by a schedule, rest, and the
//! verdicts.

mod load;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet, time::sleep_until};

use self::load::Load;
use super::{
    faults::{Fault, Step, schedule},
    operator,
    peer::Place,
    record::{Loss, Record, Stream},
    samples::Sample,
    verdict::{Verdict, judge},
    world::{Setting, World},
};
use crate::Result;

/// How often the server's memory is looked at.
const SAMPLE: Duration = Duration::from_secs(1);

/// Verdicts that are shown of one run.
const SHOWN: usize = 10;

#[derive(Debug, Clone)]
pub struct Plan {
    pub setting: Setting,
    pub time: Duration,
    pub seed: u64,
    pub chats: usize,
    /// Longest pause of a sender, in milliseconds.
    pub pause: u64,
    /// How long readers may take to see a last message, when all is well again.
    pub seen: Duration,
    /// Where the record and the servers' logs of a run with verdicts are kept.
    pub keep: Option<PathBuf>,
}

/// What came of a run.
pub struct Outcome {
    pub verdicts: Vec<Verdict>,
    /// The first verdicts, with the streams that they name.
    pub shown: Vec<String>,
    pub steps: Vec<Step>,
    pub sends: usize,
    pub acknowledged: usize,
    pub tries: usize,
    pub stored: usize,
    pub seen: usize,
    pub samples: Vec<Sample>,
    /// The end of the server's log.
    pub log: String,
}

/// The thread that calls must stay for as long as the run takes.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let mut world = World::start(&plan.setting).await?;
    let place = Arc::new(Place {
        addresses: world.addresses(),
        tokens: world.tokens().await?,
        epoch: Instant::now(),
    });
    let mut load = Load::start(plan, place.clone()).await?;
    let Setting {
        faults, cluster, ..
    } = &plan.setting;
    let steps = schedule(plan.seed, faults, plan.time, cluster.nodes);
    let (over, is_over) = watch::channel(false);
    let mut moves = JoinSet::new();
    if faults.contains(&Fault::Moves) {
        moves.spawn(operator::move_partitions(world.https(), plan.seed, is_over));
    }
    let mut samples = Vec::new();
    let mut losses = Vec::new();
    let begun = tokio::time::Instant::now();
    for step in &steps {
        wait_until(begun + step.at, &world, &mut samples).await;
        if step.fault == Fault::Flood {
            load.flood();
        }
        if let Some(kept) = world.suffer(*step).await? {
            let until = place.now();
            losses.push(Loss { until, kept });
        }
        if world.has_ended() {
            break;
        }
    }
    wait_until(begun + plan.time, &world, &mut samples).await;
    over.send_replace(true);
    moves.join_all().await;
    let settled = match world.is_cluster() {
        true => operator::rebalance(&world.https()).await,
        false => Ok(()),
    };
    let mut record = load.finish().await?;
    if let Err(why) = settled {
        record.troubles.push(why.to_string());
    }
    record.losses = losses;
    record.loss_is_said = world.says("the store has lost messages");
    if world.has_ended() {
        record
            .troubles
            .push("the server has ended by itself".into());
    } else if faults.contains(&Fault::Kill) {
        // What is not on the disk by now was never stored.
        world.kill_all()?;
    }
    match load.histories().await {
        Ok(histories) => record.histories = histories,
        Err(why) => record.troubles.push(why.to_string()),
    }
    if world.says("panicked at") {
        record.troubles.push("the server has panicked".into());
    }
    let acknowledged = record.sends.iter().filter(|send| !send.acks.is_empty());
    let verdicts = judge(&record);
    if let Some(folder) = &plan.keep
        && !verdicts.is_empty()
    {
        keep(&record, folder, plan.seed)?;
        world.keep_logs(folder, &plan.seed.to_string())?;
    }
    let shown = verdicts.iter().take(SHOWN);
    Ok(Outcome {
        shown: shown.map(|verdict| show(verdict, &record)).collect(),
        verdicts,
        steps,
        sends: record.sends.len(),
        acknowledged: acknowledged.count(),
        tries: record.sends.iter().map(|send| send.tries as usize).sum(),
        stored: record.stored(),
        seen: record.seen(),
        samples,
        log: world.log(),
    })
}

fn show(verdict: &Verdict, record: &Record) -> String {
    let mut shown = verdict.to_string();
    for at in verdict.streams() {
        let Stream {
            user,
            node,
            kind,
            after,
            asked,
            ..
        } = &record.streams[at];
        let asked = Duration::from_nanos(*asked);
        shown += &format!(
            "; {at} is {user}'s on node{node}, {kind:?}, after {after:?}, from {asked:.1?} on"
        );
    }
    shown
}

/// Writes the record down as `SEED.record`, a line for each send and each stream.
fn keep(record: &Record, folder: &Path, seed: u64) -> Result<()> {
    let sends = record.sends.iter().map(|send| format!("{send:?}\n"));
    let streams = record.streams.iter().map(|stream| format!("{stream:?}\n"));
    let histories = record.histories.iter();
    let histories = histories.flat_map(|(chat, messages)| {
        let messages = messages.iter();
        messages.map(move |message| format!("{chat} {message:?}\n"))
    });
    let rest = format!("{:?}\n{:?}\n", record.losses, record.troubles);
    let text: String = sends
        .chain(streams)
        .chain(histories)
        .chain([rest])
        .collect();
    fs::create_dir_all(folder)?;
    Ok(fs::write(folder.join(format!("{seed}.record")), text)?)
}

async fn wait_until(until: tokio::time::Instant, world: &World, samples: &mut Vec<Sample>) {
    while tokio::time::Instant::now() < until {
        if let Some(pid) = world.pid() {
            samples.extend(Sample::take(pid));
        }
        sleep_until(until.min(tokio::time::Instant::now() + SAMPLE)).await;
    }
}
