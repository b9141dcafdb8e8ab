//! The simulation of chats that are read on other nodes than they are written on: links
//! that lose, double and hold back, owners that come back anew and hand over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::Millis;
use crate::{
    cluster::{
        edge::{Edge, Effect, Mutation},
        link::{Batch, Inbox, Outbox, Received},
        watch::{Ask, Say},
        watchers::Watchers,
    },
    domain::{ChatId, NodeId, Seq, UserName},
    testing::{chat_id, user},
};

const CHATS: i64 = 4;
const USERS: [&str; 4] = ["ann", "bob", "cyd", "dan"];
/// A tick of all nodes.
const TICK: Millis = 5;
/// So long an edge hears nothing of an owner before it looks in the store by itself.
const DEAF: Millis = 600;
/// What a removed reader may still be sent: what was committed so long after the removal.
const GRACE: Millis = 1_000;
/// Messages that an owner has in memory.
const RING: Seq = 20;

#[derive(Debug, Clone)]
enum Item {
    Ask(Ask),
    Say(Say),
    /// Something that the other has said is missing.
    Missing,
}

/// A node: an owner of chats, and an edge for its clients.
struct Node {
    id: NodeId,
    edge: Edge,
    watchers: Watchers,
    outboxes: BTreeMap<usize, Outbox<Item>>,
    inboxes: BTreeMap<usize, Inbox>,
    /// When each other node was last heard.
    heard: BTreeMap<usize, Millis>,
    feeds: BTreeMap<ChatId, Feed>,
    readers: Vec<Reader>,
}

/// An edge's copy of a chat's newest messages.
#[derive(Debug, Default)]
struct Feed {
    begin: Seq,
    entries: Vec<Seq>,
}

struct Reader {
    chat: ChatId,
    user: UserName,
    /// What it was sent last.
    at: Seq,
}

#[derive(Debug, Default)]
struct Chat {
    owner: usize,
    /// When each message was committed.
    log: Vec<Millis>,
    members: BTreeSet<UserName>,
    /// When each was removed.
    removed: BTreeMap<UserName, Millis>,
}

pub struct Following {
    rng: Rng,
    pub now: Millis,
    start: Instant,
    faults_until: Millis,
    mutation: Option<Mutation>,
    nodes: Vec<Node>,
    chats: BTreeMap<ChatId, Chat>,
    /// On the way: when it arrives, from whom, to whom.
    bus: BTreeMap<(Millis, u64), (usize, usize, Batch<Item>)>,
    drawn: u64,
    /// Which links are cut, until when.
    cut: BTreeMap<(usize, usize), Millis>,
    pub wrong: Option<String>,
    pub delivered: usize,
    pub begun: usize,
}

impl Following {
    pub fn new(mut rng: Rng, faults_until: Millis, mutation: Option<Mutation>) -> Self {
        let count = rng.usize(2..=4);
        let nodes = (0..count).map(|_| Node::new(NodeId(rng.i64(..)), mutation));
        let nodes: Vec<Node> = nodes.collect();
        let chat = |id| {
            let chat = Chat {
                owner: rng.usize(..count),
                members: USERS.iter().map(|name| user(name)).collect(),
                ..Chat::default()
            };
            (chat_id(id), chat)
        };
        let chats = (1..=CHATS).map(chat).collect();
        Self {
            rng,
            now: 0,
            start: Instant::now(),
            faults_until,
            mutation,
            nodes,
            chats,
            bus: BTreeMap::new(),
            drawn: 0,
            cut: BTreeMap::new(),
            wrong: None,
            delivered: 0,
            begun: 0,
        }
    }

    /// Runs until then, or until something is wrong. Nothing is committed in the last
    /// second, so that all can be told.
    pub fn run(&mut self, until: Millis) {
        while self.now < until && self.wrong.is_none() {
            self.now += TICK;
            self.arrive();
            if self.now + 1_000 < until {
                self.live();
            }
            if self.now < self.faults_until {
                self.fault();
            }
            if self.now.is_multiple_of(100) {
                self.look_at_the_table();
                self.look_in_the_store();
            }
            self.read();
            self.send();
        }
        let behind = self.behind();
        self.wrong = self.wrong.take().or(behind);
    }

    fn behind(&self) -> Option<String> {
        let readers = self.nodes.iter().flat_map(|node| &node.readers);
        for reader in readers {
            let chat = &self.chats[&reader.chat];
            if !chat.members.contains(&reader.user) {
                return Some(format!("P7: {} still reads {}", reader.user, reader.chat));
            }
            if reader.at != chat.log.len() as Seq {
                return Some(format!("P4: {} of {}", reader.at, chat.log.len()));
            }
        }
        None
    }

    fn index(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Members join and leave, are removed, and post.
    fn live(&mut self) {
        let id = chat_id(self.rng.i64(1..=CHATS));
        let at = self.rng.usize(..self.nodes.len());
        let who = user(USERS[self.rng.usize(..USERS.len())]);
        let chat = self.chats.get_mut(&id).unwrap();
        let owner = chat.owner;
        match self.rng.u8(..100) {
            0..20 => {
                let first = chat.log.len() as Seq + 1;
                let count = self.rng.i64(1..4);
                chat.log.extend((0..count).map(|_| self.now));
                let node = &mut self.nodes[owner];
                let edges: Vec<NodeId> = node.watchers.of(id).collect();
                for edge in edges {
                    let say = Say::Entries {
                        chat: id,
                        first,
                        count,
                    };
                    self.say(owner, edge, say);
                }
            }
            20..22 if chat.members.contains(&who) => {
                let newest = chat.log.len() as Seq;
                let reader = Reader {
                    chat: id,
                    user: who.clone(),
                    at: (newest - self.rng.i64(0..60)).max(0),
                };
                let owner = self.nodes[owner].id;
                let node = &mut self.nodes[at];
                node.readers.push(reader);
                let effect = node.edge.join(id, who, owner);
                self.effects(at, effect);
            }
            22..23 if !self.nodes[at].readers.is_empty() => {
                let node = &mut self.nodes[at];
                let reader = self.rng.usize(..node.readers.len());
                let reader = node.readers.swap_remove(reader);
                let effect = node.edge.leave(reader.chat, &reader.user);
                self.effects(at, effect);
            }
            // Whoever was removed is a member again, some time.
            23 if self.rng.u8(..8) == 0 && !chat.members.contains(&who) => {
                chat.removed.remove(&who);
                chat.members.insert(who);
            }
            24 if self.rng.u8(..2) == 0 && chat.members.remove(&who) => {
                chat.removed.insert(who.clone(), self.now);
                let told = self.nodes[owner].watchers.remove(id, &[who].into());
                for (edge, say) in told {
                    self.say(owner, edge, say);
                }
            }
            _ => {}
        }
    }

    fn fault(&mut self) {
        let (from, to) = (
            self.rng.usize(..self.nodes.len()),
            self.rng.usize(..self.nodes.len()),
        );
        match self.rng.u16(..2_000) {
            0..6 => {
                let until = self.now + self.rng.u64(10..8_000);
                self.cut.insert((from, to), until);
            }
            6 => {
                // The whole bus.
                let until = self.now + self.rng.u64(10..3_000);
                for link in 0..self.nodes.len() * self.nodes.len() {
                    let link = (link / self.nodes.len(), link % self.nodes.len());
                    self.cut.insert(link, until);
                }
            }
            7 => self.nodes[from] = Node::new(NodeId(self.rng.i64(..)), self.mutation),
            8..11 => {
                let id = chat_id(self.rng.i64(1..=CHATS));
                let chat = self.chats.get_mut(&id).unwrap();
                let before = std::mem::replace(&mut chat.owner, to);
                if before == to {
                    return;
                }
                let told = self.nodes[before].watchers.give_up(|chat| chat == id);
                for (edge, say) in told {
                    self.say(before, edge, say);
                }
            }
            _ => {}
        }
    }

    /// Who owns what is in the database, and each node looks there now and then.
    fn look_at_the_table(&mut self) {
        for at in 0..self.nodes.len() {
            for owner in 0..self.nodes.len() {
                let id = self.nodes[owner].id;
                let chats = &self.chats;
                let is_theirs = |chat| chats[&chat].owner == owner;
                let effects = self.nodes[at].edge.owned(is_theirs, id);
                self.effects(at, effects);
            }
        }
    }

    /// What an edge does about owners that it does not hear.
    fn look_in_the_store(&mut self) {
        for at in 0..self.nodes.len() {
            for (id, chat) in &self.chats {
                let heard = self.nodes[at]
                    .heard
                    .get(&chat.owner)
                    .copied()
                    .unwrap_or_default();
                let is_deaf = heard + DEAF <= self.now
                    || self.nodes[at].edge.unanswered().any(|chat| chat == *id);
                if !is_deaf || self.nodes[at].edge.owner(*id).is_none() {
                    continue;
                }
                let newest = chat.log.len() as Seq;
                let refused = chat.removed.keys().cloned().collect();
                let effects = self.nodes[at].edge.looked(*id, newest, refused);
                self.nodes[at].handle(effects, &mut self.begun);
            }
        }
    }

    fn read(&mut self) {
        for node in &mut self.nodes {
            for reader in &mut node.readers {
                let Some(feed) = node.feeds.get(&reader.chat) else {
                    continue;
                };
                let chat = &self.chats[&reader.chat];
                let next = reader.at + 1;
                let seq = match feed.entries.get((next - feed.begin - 1).max(0) as usize) {
                    // In the store.
                    _ if next <= feed.begin => next,
                    Some(seq) => *seq,
                    None => continue,
                };
                if seq != next {
                    self.wrong = Some(format!("P2: {seq} behind {}", reader.at));
                    return;
                }
                let committed = chat.log[seq as usize - 1];
                let removed = chat.removed.get(&reader.user);
                if removed.is_some_and(|at| at + GRACE < committed) {
                    self.wrong = Some(format!("P7: {} was removed", reader.user));
                    return;
                }
                reader.at = seq;
                self.delivered += 1;
            }
        }
    }

    fn say(&mut self, from: usize, to: NodeId, say: Say) {
        // A node that has come back anew is another one.
        let Some(to) = self.index(to) else {
            return;
        };
        let bytes = self.rng.usize(50..2_000);
        self.nodes[from]
            .outbox(to, self.start, self.now)
            .tell(Item::Say(say), bytes);
    }

    fn effects(&mut self, at: usize, effects: impl IntoIterator<Item = Effect>) {
        let asks = self.nodes[at].handle(effects, &mut self.begun);
        for (owner, ask) in asks {
            if let Some(to) = self.index(owner) {
                let outbox = self.nodes[at].outbox(to, self.start, self.now);
                outbox.tell(Item::Ask(ask), 100);
            }
        }
    }

    fn send(&mut self) {
        let now = self.start + Duration::from_millis(self.now);
        let troubled = self.now < self.faults_until;
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                let mut batches = Vec::new();
                let outbox = self.nodes[from].outbox(to, self.start, self.now);
                while let Some(batch) = outbox.next(now) {
                    batches.push(batch);
                }
                for batch in batches {
                    let is_cut = self
                        .cut
                        .get(&(from, to))
                        .is_some_and(|until| self.now < *until);
                    if is_cut || (troubled && self.rng.u8(..100) == 0) {
                        continue;
                    }
                    let copies = if troubled && self.rng.u8(..100) == 0 {
                        2
                    } else {
                        1
                    };
                    for _ in 0..copies {
                        let slow = troubled && self.rng.u8(..50) == 0;
                        let later = self.rng.u64(1..if slow { 400 } else { 5 });
                        self.drawn += 1;
                        let at = (self.now + later, self.drawn);
                        self.bus.insert(at, (from, to, batch.clone()));
                    }
                }
            }
        }
    }

    fn arrive(&mut self) {
        while let Some(next) = self.bus.first_entry()
            && next.key().0 <= self.now
        {
            let (from, to, batch) = next.remove();
            let node = &mut self.nodes[to];
            let received = node.inboxes.entry(from).or_default().receive(&batch);
            if received == Received::Stale {
                continue;
            }
            // From a run of the sender that is over.
            if self.nodes[from].id != batch.from {
                continue;
            }
            let node = &mut self.nodes[to];
            node.heard.insert(from, self.now);
            if received == Received::BehindAGap {
                let effects = node.edge.resync(batch.from);
                self.effects(to, effects);
                let outbox = self.nodes[to].outbox(from, self.start, self.now);
                outbox.tell(Item::Missing, 1);
            }
            for item in batch.items {
                self.take(from, to, item);
            }
        }
    }

    fn take(&mut self, from: usize, to: usize, item: Item) {
        match item {
            Item::Say(say) => {
                let effects = self.nodes[to].edge.said(say);
                self.effects(to, effects);
            }
            Item::Missing => {
                let id = self.nodes[from].id;
                let effects = self.nodes[to].edge.resync(id);
                self.effects(to, effects);
            }
            Item::Ask(ask) => {
                let edge = self.nodes[from].id;
                let (Ask::Watch { chat: id, .. } | Ask::Leave(id)) = ask;
                let chat = &self.chats[&id];
                if chat.owner != to {
                    return self.say(to, edge, Say::NotMine(id));
                }
                let newest = chat.log.len() as Seq;
                let may_read = |user: &UserName| chat.members.contains(user);
                let watchers = &mut self.nodes[to].watchers;
                let says = watchers.watch(edge, ask, newest, newest - RING + 1, may_read);
                for say in says {
                    self.say(to, edge, say);
                }
            }
        }
    }
}

impl Node {
    fn new(id: NodeId, mutation: Option<Mutation>) -> Self {
        let mut edge = Edge::default();
        edge.mutation = mutation;
        Self {
            id,
            edge,
            watchers: Watchers::default(),
            outboxes: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            heard: BTreeMap::new(),
            feeds: BTreeMap::new(),
            readers: Vec::new(),
        }
    }

    fn outbox(&mut self, to: usize, start: Instant, now: Millis) -> &mut Outbox<Item> {
        let now = start + Duration::from_millis(now);
        let id = self.id;
        let outbox = self.outboxes.entry(to);
        outbox.or_insert_with(|| Outbox::new(id, 20_000, now))
    }

    /// What is left to be asked.
    fn handle(
        &mut self,
        effects: impl IntoIterator<Item = Effect>,
        begun: &mut usize,
    ) -> Vec<(NodeId, Ask)> {
        let mut asks = Vec::new();
        for effect in effects {
            match effect {
                Effect::Ask(owner, ask) => {
                    if let Ask::Leave(chat) = ask {
                        self.feeds.remove(&chat);
                    }
                    asks.push((owner, ask));
                }
                Effect::Append { chat, first, count } => {
                    let feed = self.feeds.entry(chat).or_default();
                    feed.entries.extend(first..first + count);
                }
                Effect::Begin { chat, newest } => {
                    *begun += 1;
                    let entries = Vec::new();
                    self.feeds.insert(
                        chat,
                        Feed {
                            begin: newest,
                            entries,
                        },
                    );
                }
                Effect::End { chat, user } => {
                    self.readers
                        .retain(|one| one.chat != chat || one.user != user);
                }
            }
        }
        asks
    }
}
