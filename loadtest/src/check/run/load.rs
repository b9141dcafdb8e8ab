//! The clients of a run: begun with it, and brought to an end after the last fault.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::Plan;
use crate::{
    Result,
    check::{
        client::{Client, Phase, REST, Role},
        faults::Fault,
        guest,
        peer::Place,
        progress::Progress,
        readers,
        record::{Message, Record},
        senders,
        world::{GUESTS, MEMBERS, STRANGER, Setting},
    },
};

/// Last messages in each chat, each seen by all before the next is sent.
const LAST: usize = 32;

/// Sends of one flood.
const FLOOD: usize = 400;

/// The numbers of clients begin above this.
const OTHERS: u32 = 1_000_000;

/// The clients, by whether they end by themselves when they are asked to.
pub struct Load {
    place: Arc<Place>,
    progress: Arc<Progress>,
    phase: watch::Sender<Phase>,
    senders: JoinSet<Record>,
    readers: JoinSet<Record>,
    chats: Vec<i64>,
    plan: Plan,
    others: u32,
}

impl Load {
    pub async fn start(plan: &Plan, place: Arc<Place>) -> Result<Self> {
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
        for number in 0..plan.chats {
            let mut peer = load.place.peer(MEMBERS[0], number);
            let chat = peer.create(&MEMBERS).await;
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
        let Setting {
            cluster, faults, ..
        } = &self.plan.setting;
        // A failover that loses messages loses changes of members as well.
        if cluster.nodes > 1 && !faults.contains(&Fault::DbLose) {
            let client = self.client(chat, GUESTS[0]);
            let owner = self.place.peer(ann, self.others as usize);
            self.senders.spawn(guest::come_and_go(client, owner));
        }
    }

    fn client(&mut self, chat: i64, user: &str) -> Client {
        self.others += 1;
        let role = Role {
            number: self.others,
            chat,
            user,
            member: MEMBERS.contains(&user),
            pause: self.plan.pause,
            seed: self.plan.seed,
            // The same clients of different chats begin on different nodes.
            node: self.others as usize + self.chats.len(),
        };
        Client::new(&self.place, &self.phase.subscribe(), &self.progress, &role)
    }

    pub fn flood(&mut self) {
        for chat in self.chats.clone() {
            let client = self.client(chat, MEMBERS[1]);
            let count = FLOOD / self.plan.chats;
            self.senders.spawn(senders::flood(client, count));
        }
    }

    /// Ends the load, has the rest stored, and waits for the readers.
    pub async fn finish(&mut self) -> Result<Record> {
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
    pub async fn histories(&mut self) -> Result<BTreeMap<i64, Vec<Message>>> {
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
                    Err(_) => {
                        client.go_elsewhere();
                        sleep(Duration::from_millis(50)).await;
                    }
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
