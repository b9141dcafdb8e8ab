//! The task that is a node: it takes in what the database, the bus and this node's
//! clients say, lets the pure cores decide, and does what they want done.
//!
//! All of it is one task, so that what a round has for another node goes out as one
//! batch. Nothing is waited for in a round: what takes time runs beside it, and comes
//! back as [`Done`].

mod asks;
mod done;
mod follow;
mod links;
mod moves;
mod own;
mod tables;
mod time;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::AHashMap;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

use self::{asks::Asks, done::Done, links::Peer, tables::Known, time::Times};
use super::{
    bus::{Bus, BusError, Incoming},
    edge::Edge,
    handle::{Cluster, Local, MAILBOX, State},
    news::Shared,
    nodes::Observer,
    ownership::Ownership,
    registry::Registry,
    table::Label,
    watchers::Watchers,
};
use crate::{
    domain::{ChatId, NodeId, Partition},
    feed::{Feed, History, RingBound, Tap, Wakes},
    proto::cluster as wire,
    shard::Shards,
    store::StoreError,
    telemetry::{CallSpan, Traces},
};

/// Between two looks at the time.
const TICK: Duration = Duration::from_millis(20);

/// Most that is taken from the mailbox in a round …
const TURN: usize = 1_024;

/// … and most batches of other nodes.
const BATCHES: usize = 256;

/// What a node is made of.
pub struct NodePlan {
    /// For people.
    pub name: String,
    /// Of this program.
    pub version: String,
    /// Where clients reach it, for people.
    pub address: String,
    /// Nodes of the same name are one cluster.
    pub cluster: String,
    /// How long a beat stands still before its node is declared gone.
    pub timeout: Duration,
    /// What each followed chat keeps for its readers.
    pub ring: RingBound,
    /// Bytes that the rings of followed chats may hold together, about.
    pub memory: usize,
    /// Posts that a stream may have under way.
    pub stream_posts: u32,
    /// How long calls and joins wait for another node.
    pub patience: Duration,
    /// For the beat alone: nothing is to hold it up.
    pub beats: Arc<dyn Registry>,
    /// For changes.
    pub registry: Arc<dyn Registry>,
    pub bus: Bus,
    pub shards: Shards,
    pub wakes: Arc<Wakes>,
    pub history: Arc<History>,
    /// What shards leave for the node.
    pub news: Shared,
    pub traces: Traces,
    /// The core that runs it.
    pub core: usize,
}

/// Why a node can't join its cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("cannot join the cluster: {0}")]
    Store(#[from] StoreError),
}

/// A node's state. See the module.
pub struct Node {
    id: NodeId,
    plan: NodePlan,
    state: Arc<State>,
    mailbox: mpsc::Receiver<Local>,
    incoming: Incoming,
    todo: FuturesUnordered<BoxFuture<'static, Done>>,
    times: Times,

    observer: Observer,
    ownership: Ownership,
    known: Known,
    /// Partitions that the shards have been told to answer for.
    here: BTreeSet<Partition>,
    /// Being fenced by this node.
    fencing: BTreeSet<NodeId>,
    claiming: bool,
    leaving: Option<oneshot::Sender<()>>,
    /// It is none of the cluster for now, and comes back under another id.
    rejoining: bool,

    peers: BTreeMap<NodeId, Peer>,
    resyncs: u64,

    /// What this node's clients want of others' chats.
    asks: Asks,
    ending: Option<oneshot::Sender<()>>,

    /// Chats of others that are read here.
    edge: Edge,
    feeds: AHashMap<ChatId, Followed>,
    /// Grows with each feed that is followed.
    follows: u64,
    watches: BTreeMap<(NodeId, ChatId), wire::Watch>,
    /// Feeds whose readers are to be woken at the end of the round.
    woken: Vec<Arc<Feed>>,

    /// Chats that live here and are read on other nodes.
    watchers: Watchers,
    /// Sampled posts of other nodes that are under way.
    spans: AHashMap<(NodeId, u64), CallSpan>,
    taps: AHashMap<ChatId, Tap>,
    tapped: BTreeSet<ChatId>,
}

/// A feed that follows a chat of another node.
pub(super) struct Followed {
    pub feed: Arc<Feed>,
    /// Tells what is said of it from what was said before it was followed.
    pub number: u64,
}

impl Node {
    /// Joins the cluster. The way to its chats, and the task.
    ///
    /// # Errors
    /// If the database or the bus does not let it.
    pub async fn join(plan: NodePlan) -> Result<(Cluster, Self), JoinError> {
        let id = draw();
        let incoming = plan.bus.listen(id).await?;
        plan.registry.join(&label(&plan, id)).await?;
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let state = Arc::new(State::new());
        let cluster = Cluster {
            state: state.clone(),
            mailbox: sender,
        };
        let now = plan.history.clock.now();
        let node = Self {
            id,
            state,
            mailbox,
            incoming,
            todo: FuturesUnordered::new(),
            times: Times::new(now),
            observer: Observer::new(id, plan.timeout),
            ownership: Ownership::new(id),
            known: Known::default(),
            here: BTreeSet::new(),
            fencing: BTreeSet::new(),
            claiming: false,
            leaving: None,
            rejoining: false,
            peers: BTreeMap::new(),
            resyncs: 0,
            asks: Asks::default(),
            ending: None,
            edge: Edge::default(),
            feeds: AHashMap::new(),
            follows: 0,
            watches: BTreeMap::new(),
            woken: Vec::new(),
            watchers: Watchers::default(),
            spans: AHashMap::new(),
            taps: AHashMap::new(),
            tapped: BTreeSet::new(),
            plan,
        };
        tracing::info!(node = %id, name = node.plan.name, "joined the cluster");
        Ok((cluster, node))
    }

    /// Runs until nobody can ask it for anything any more.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mail = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some(done) = self.todo.next() => self.done(done),
                Some(batch) = self.incoming.next() => self.receive(batch),
                () = self.plan.news.wait() => self.take_news(),
                count = self.mailbox.recv_many(&mut mail, TURN) => {
                    if count == 0 {
                        return;
                    }
                    // What has left a shard was posted before what is in the mailbox.
                    self.take_news();
                }
                _ = ticks.tick() => self.tick(),
            }
            // All that is ready on this core runs once, and what it leads to goes into the
            // same batches.
            tokio::task::yield_now().await;
            self.take_more(&mut mail);
            mail.drain(..).for_each(|local| self.local(local));
            self.end_round();
        }
    }

    /// Takes in what has come besides what began the round.
    fn take_more(&mut self, mail: &mut Vec<Local>) {
        for _ in 0..BATCHES {
            match self.incoming.next().now_or_never() {
                Some(Some(batch)) => self.receive(batch),
                _ => break,
            }
        }
        while mail.len() < TURN
            && let Ok(local) = self.mailbox.try_recv()
        {
            mail.push(local);
        }
        self.take_news();
    }

    fn now(&self) -> Instant {
        self.plan.history.clock.now()
    }

    fn local(&mut self, local: Local) {
        match local {
            Local::Post(chat, post) => self.ask_post(chat, post),
            Local::Call(chat, asked, answer) => self.ask_call(chat, asked, answer),
            Local::Join(chat, joining) => self.ask_join(chat, joining),
            Local::Leave(done) => {
                self.leaving = Some(done);
                self.ownership.leave();
                self.times.look = true;
                self.times.beat_now();
            }
            Local::Move(what, done) => self.move_chats(&what, done),
            Local::End(done) => self.ending = Some(done),
        }
    }

    fn take_news(&mut self) {
        let news = self.plan.news.take();
        for (chat, post) in news.moved {
            self.ask_moved(chat, post);
        }
        for (node, ask, result) in news.outcomes {
            self.answer_post(node, ask, result);
        }
        self.tapped.extend(news.tapped);
        for (chat, user, number) in news.left {
            self.reader_left(chat, &user, number);
        }
    }

    /// Sends what the round has led to, and wakes the readers.
    fn end_round(&mut self) {
        for chat in std::mem::take(&mut self.tapped) {
            self.pump(chat);
        }
        self.look_at_table();
        self.send_watches();
        self.flush();
        let woken = std::mem::take(&mut self.woken);
        if !woken.is_empty() {
            self.plan.wakes.wake(self.plan.core, woken.iter());
        }
    }
}

/// An id that no node ever had.
fn draw() -> NodeId {
    NodeId(fastrand::i64(1..))
}

/// What the node says of itself.
fn label(plan: &NodePlan, node: NodeId) -> Label {
    Label {
        node,
        name: plan.name.clone(),
        version: plan.version.clone(),
        address: plan.address.clone(),
    }
}
