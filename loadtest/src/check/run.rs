//! One run: a world, clients at work in it, faults by a schedule, rest, and the
//! verdicts.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use super::{
    client::{Client, Phase, REST, Role},
    faults::{Fault, Step, schedule},
    peer::Place,
    progress::Progress,
    readers,
    record::{Loss, Message, Record, Stream},
    samples::Sample,
    senders,
    verdict::{Verdict, judge},
    world::{MEMBERS, STRANGER, Setting, World},
};
use crate::Result;

/// Last messages in each chat, each seen by all before the next is sent.
const LAST: usize = 32;

/// Sends of one flood.
const FLOOD: usize = 400;

/// How often the server's memory is looked at.
const SAMPLE: Duration = Duration::from_secs(1);

/// Verdicts that are shown of one run.
const SHOWN: usize = 10;

/// The numbers of clients that are not of a chat's own.
const OTHERS: u32 = 1_000_000;

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

/// The clients, by whether they end by themselves when they are asked to.
struct Load {
    place: Arc<Place>,
    progress: Arc<Progress>,
    phase: watch::Sender<Phase>,
    senders: JoinSet<Record>,
    readers: JoinSet<Record>,
    chats: Vec<i64>,
    plan: Plan,
    others: u32,
}

/// The thread that calls must stay for as long as the run takes.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let mut world = World::start(&plan.setting).await?;
    let place = Arc::new(Place {
        address: world.address(),
        tokens: world.tokens().await?,
        epoch: Instant::now(),
    });
    let mut load = Load::start(plan, place.clone()).await?;
    let steps = schedule(plan.seed, &plan.setting.faults, plan.time);
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
        if world.chatd.has_ended() {
            break;
        }
    }
    wait_until(begun + plan.time, &world, &mut samples).await;
    let mut record = load.finish().await?;
    record.losses = losses;
    record.loss_is_said = world.chatd.says("the store has lost messages");
    if world.chatd.has_ended() {
        record
            .troubles
            .push("the server has ended by itself".into());
    } else if plan.setting.faults.contains(&Fault::Kill) {
        // What is not on the disk by now was never stored.
        world.chatd.kill();
        world.chatd.start_again()?;
    }
    match load.histories().await {
        Ok(histories) => record.histories = histories,
        Err(why) => record.troubles.push(why.to_string()),
    }
    if world.chatd.says("panicked at") {
        record.troubles.push("the server has panicked".into());
    }
    let acknowledged = record.sends.iter().filter(|send| !send.acks.is_empty());
    let verdicts = judge(&record);
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
        log: world.chatd.log(),
    })
}

fn show(verdict: &Verdict, record: &Record) -> String {
    let mut shown = verdict.to_string();
    for at in verdict.streams() {
        let Stream {
            user,
            kind,
            after,
            asked,
            ..
        } = &record.streams[at];
        let asked = Duration::from_nanos(*asked);
        shown += &format!("; {at} is {user}'s, {kind:?}, after {after:?}, from {asked:.1?} on");
    }
    shown
}

async fn wait_until(until: tokio::time::Instant, world: &World, samples: &mut Vec<Sample>) {
    while tokio::time::Instant::now() < until {
        if let Some(pid) = world.chatd.pid() {
            samples.extend(Sample::take(pid));
        }
        sleep_until(until.min(tokio::time::Instant::now() + SAMPLE)).await;
    }
}

impl Load {
    async fn start(plan: &Plan, place: Arc<Place>) -> Result<Self> {
        let (phase, _) = watch::channel(Phase::Running);
        let mut load = Self {
            place,
            progress: Arc::default(),
            phase,
            senders: JoinSet::new(),
            readers: JoinSet::new(),
            chats: Vec::new(),
            plan: plan.clone(),
            others: OTHERS,
        };
        for _ in 0..plan.chats {
            let chat = load.place.peer(MEMBERS[0]).create(&MEMBERS).await;
            let chat = chat.map_err(|no| format!("no chat: {no:?}"))?;
            load.chats.push(chat);
            load.populate(chat);
        }
        Ok(load)
    }

    /// Some users are more than one client, and some of these read what they write.
    fn populate(&mut self, chat: i64) {
        let [ann, bob, cid, dan] = MEMBERS;
        for user in [ann, bob, ann] {
            let client = self.client(chat, user);
            self.senders.spawn(senders::call(client));
        }
        let client = self.client(chat, cid);
        self.senders.spawn(senders::post(client));
        for (user, after, slow) in [
            (ann, Some(0), false),
            (dan, None, false),
            (bob, Some(0), true),
        ] {
            let client = self.client(chat, user);
            self.readers.spawn(readers::stay(client, after, slow));
        }
        let client = self.client(chat, dan);
        self.senders.spawn(readers::jump(client));
        let client = self.client(chat, STRANGER);
        self.senders.spawn(senders::intrude(client));
    }

    fn client(&mut self, chat: i64, user: &str) -> Client {
        self.others += 1;
        let role = Role {
            number: self.others,
            chat,
            user,
            member: user != STRANGER,
            pause: self.plan.pause,
            seed: self.plan.seed,
        };
        Client::new(&self.place, &self.phase.subscribe(), &self.progress, &role)
    }

    fn flood(&mut self) {
        for chat in self.chats.clone() {
            let client = self.client(chat, MEMBERS[1]);
            let count = FLOOD / self.plan.chats;
            self.senders.spawn(senders::flood(client, count));
        }
    }

    /// Ends the load, has the rest stored, and waits for the readers.
    async fn finish(&mut self) -> Result<Record> {
        let mut record = Record::default();
        self.phase.send_replace(Phase::Ending);
        gather(&mut self.senders, &mut record).await;
        'rounds: for _ in 0..LAST {
            let mut seqs = Vec::new();
            for chat in self.chats.clone() {
                let mut client = self.client(chat, MEMBERS[0]);
                let mut send = client.new_send();
                client.settle(&mut send).await;
                let ack = send.acks.last().copied();
                client.record.sends.push(send);
                record.add(client.record);
                let Some(ack) = ack else {
                    break 'rounds;
                };
                seqs.push((chat, ack.seq));
            }
            // The verdicts say which did not get there. A next message might bring
            // it there.
            if timeout(self.plan.seen, self.all_saw(&seqs)).await.is_err() {
                break;
            }
        }
        self.phase.send_replace(Phase::Over);
        gather(&mut self.readers, &mut record).await;
        Ok(record)
    }

    async fn all_saw(&self, seqs: &[(i64, i64)]) {
        while !seqs
            .iter()
            .all(|&(chat, seq)| self.progress.all_saw(chat, seq))
        {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// All messages of the chats, page by page, as soon as the server can tell.
    async fn histories(&mut self) -> Result<BTreeMap<i64, Vec<Message>>> {
        let mut histories = BTreeMap::new();
        let give_up = Instant::now() + REST;
        for chat in self.chats.clone() {
            let mut client = self.client(chat, MEMBERS[3]);
            let mut history: Vec<Message> = Vec::new();
            loop {
                let after = history.last().map_or(0, |message| message.seq);
                match client.peer.page(chat, after, 1_000).await {
                    Ok(page) => {
                        history.extend(page.messages.iter().map(|message| client.read(message)));
                        if !page.has_more || page.messages.is_empty() {
                            break;
                        }
                    }
                    Err(no) if Instant::now() > give_up => {
                        return Err(format!("no history of {chat}: {no:?}").into());
                    }
                    Err(_) => sleep(Duration::from_millis(50)).await,
                }
            }
            histories.insert(chat, history);
        }
        Ok(histories)
    }
}

/// What all tasks have noted; one that does not end is a trouble.
async fn gather(tasks: &mut JoinSet<Record>, record: &mut Record) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(noted) => record.add(noted),
                Err(error) => record.troubles.push(error.to_string()),
            }
        }
    };
    if timeout(2 * REST, all).await.is_err() {
        let left = tasks.len();
        tasks.shutdown().await;
        record
            .troubles
            .push(format!("{left} clients do not come to an end"));
    }
}
