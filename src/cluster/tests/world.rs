//! The simulation: nodes that crash, pause and lose their connections, over a database
//! that is away now and then. Who writes is made of the cores alone.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{
    Mutation,
    database::{Database, Refusal, Txn},
};
use crate::cluster::{
    BEAT, Effect, Given, NodeId, NodeRow, Observer, Ownership, Partition, PartitionRow, State,
    Verdict,
};

pub type Millis = u64;

const TIMEOUT: Duration = Duration::from_millis(2_500);
const BEAT_MILLIS: Millis = BEAT.as_millis() as Millis;

/// How long a server takes to notice that a client is gone.
const NOTICED: Millis = 5_000;

/// What a node has to do with a partition.
#[derive(Debug, Default)]
struct Local {
    newest: Option<usize>,
    /// The write under way.
    txn: Option<Txn>,
    /// One whose connection was lost: it may yet be committed.
    abandoned: Option<Txn>,
    quiescing: bool,
}

struct Node {
    id: NodeId,
    /// What was meant for an earlier run of it is nobody's.
    run: u32,
    is_up: bool,
    leaving: bool,
    on_bus: bool,
    paused: bool,
    /// What came while it was paused.
    inbox: Vec<Event>,
    cut_until: Millis,
    /// Until when it has a reason not to beat.
    trouble_until: Millis,
    observer: Observer,
    ownership: Ownership,
    locals: BTreeMap<Partition, Local>,
}

/// Where an event belongs: a node in one of its runs.
type Place = (usize, u32);

#[derive(Debug, Clone)]
enum Event {
    /// Something reaches the database, whatever has become of its sender.
    Asked(Place, Request),
    /// Something reaches a node, or it does something by itself.
    Told(Place, Told),
    Start(usize),
    Continue(usize),
    DatabaseIsBack,
    Abort(Txn),
    Fault,
}

#[derive(Debug, Clone)]
enum Request {
    Join(NodeId),
    Beat,
    Look,
    Declare(Verdict),
    Fence {
        node: NodeId,
        tries: u32,
        retire: bool,
    },
    Claim(Partition, i64),
    Give {
        partition: Partition,
        to: NodeId,
        epoch: i64,
        is_heard: bool,
    },
    Load(Partition),
    Step {
        partition: Partition,
        txn: Txn,
        seq: usize,
        step: usize,
        is_heard: bool,
    },
    Terminate(Partition, Txn),
}

#[derive(Debug, Clone)]
enum Told {
    Beat,
    Look,
    Table {
        nodes: Vec<NodeRow>,
        partitions: Vec<PartitionRow>,
        is_beat: bool,
    },
    Loaded(Partition, usize),
    Given(Partition, Given),
    Stepped {
        partition: Partition,
        txn: Txn,
        seq: usize,
        step: usize,
    },
    Refused(Partition, Txn, bool),
    Lost(Partition, Txn),
    Terminated(Partition, Txn),
    Write(Partition),
    Retired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Lock,
    Check,
    Rows,
    Commit,
}

pub struct World {
    pub rng: Rng,
    pub now: Millis,
    start: Instant,
    mutation: Option<Mutation>,
    queue: BTreeMap<(Millis, u64), Event>,
    drawn: u64,
    pub database: Database,
    away: bool,
    nodes: Vec<Node>,
    faults_until: Millis,
    pub wrong: Option<String>,
    pub declared: usize,
    pub moved: usize,
    /// When each partition was last written to.
    pub written: BTreeMap<Partition, Millis>,
    /// The longest time between two writes of a partition.
    pub longest: Millis,
}

impl World {
    pub fn new(
        mut rng: Rng,
        nodes: usize,
        faults_until: Millis,
        mutation: Option<Mutation>,
    ) -> Self {
        let partitions = Partition::all().take(12).map(|partition| PartitionRow {
            partition,
            owner: None,
            epoch: 0,
        });
        let database = Database {
            partitions: partitions.collect(),
            ..Database::default()
        };
        let node = |_| Node::new(NodeId(rng.i64(..)), mutation);
        let nodes: Vec<Node> = (0..nodes).map(node).collect();
        let mut world = Self {
            rng,
            now: 0,
            start: Instant::now(),
            mutation,
            queue: BTreeMap::new(),
            drawn: 0,
            database,
            away: false,
            nodes,
            faults_until,
            wrong: None,
            declared: 0,
            moved: 0,
            written: BTreeMap::new(),
            longest: 0,
        };
        for index in 0..world.nodes.len() {
            let later = world.rng.u64(..1_000);
            world.at(later, Event::Start(index));
        }
        if faults_until > 0 {
            world.at(3_000, Event::Fault);
        }
        world
    }

    /// Runs until then, or until something is wrong.
    pub fn run(&mut self, until: Millis) {
        while self.wrong.is_none()
            && let Some(next) = self.queue.first_entry()
            && next.key().0 <= until
        {
            let ((now, _), event) = next.remove_entry();
            self.now = now;
            self.handle(event);
        }
        self.now = self.now.max(until);
    }

    /// Has a node hand over what it owns, stop and come back.
    pub fn leave(&mut self, index: usize) {
        self.nodes[index].leaving = true;
        self.nodes[index].ownership.leave();
    }

    pub fn owned_by(&self, index: usize) -> Vec<Partition> {
        let owner = Some(self.nodes[index].id);
        let rows = self.database.partitions.iter();
        let rows = rows.filter(|row| row.owner == owner);
        rows.map(|row| row.partition).collect()
    }

    /// What is not as it should be once nothing has gone wrong for a while.
    pub fn unsettled(&self) -> Option<String> {
        let up = || self.nodes.iter().filter(|node| node.is_up);
        let able = || up().filter(|node| node.on_bus || !up().any(|node| node.on_bus));
        for row in &self.database.partitions {
            let rightful = row.partition.rightful(able().map(|node| node.id));
            if row.owner != rightful {
                return Some(format!("{row:?} should be {rightful:?}'s"));
            }
            let written = self.written.get(&row.partition);
            if written.is_none_or(|at| at + 2_000 < self.now) {
                return Some(format!(
                    "{:?} is not written to: {written:?}",
                    row.partition
                ));
            }
        }
        None
    }

    fn at(&mut self, later: Millis, event: Event) {
        self.drawn += 1;
        self.queue.insert((self.now + later, self.drawn), event);
    }

    fn place(&self, index: usize) -> Place {
        (index, self.nodes[index].run)
    }

    fn ask(&mut self, index: usize, request: Request) {
        let later = self.rng.u64(1..5);
        self.at(later, Event::Asked(self.place(index), request));
    }

    fn tell(&mut self, place: Place, later: Millis, told: Told) {
        self.at(later, Event::Told(place, told));
    }

    /// A hint over the bus that the tables have changed.
    fn hint(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].on_bus && !self.is_lost() {
                let later = self.rng.u64(1..5);
                self.tell(self.place(index), later, Told::Look);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Asked(place, request) => self.asked(place, request),
            Event::Told(place, told) => {
                let node = &mut self.nodes[place.0];
                if node.run != place.1 || !node.is_up {
                } else if node.paused {
                    node.inbox.push(Event::Told(place, told));
                } else {
                    self.told(place.0, told);
                }
            }
            Event::Start(index) => {
                let id = NodeId(self.rng.i64(..));
                self.join(index, id);
                self.nodes[index].on_bus = true;
            }
            Event::Continue(index) => {
                let node = &mut self.nodes[index];
                node.paused = false;
                for event in std::mem::take(&mut node.inbox) {
                    // Its tasks go on in any order.
                    let later = match &event {
                        Event::Told(_, Told::Beat | Told::Look | Told::Table { .. }) => 300,
                        _ => 5,
                    };
                    let later = self.rng.u64(..later);
                    self.at(later, event);
                }
            }
            Event::DatabaseIsBack => self.away = false,
            Event::Abort(txn) => self.database.abort(txn),
            Event::Fault => self.fault(),
        }
    }

    fn join(&mut self, index: usize, id: NodeId) {
        let run = self.nodes[index].run + 1;
        let trouble_until = self.nodes[index].trouble_until.max(self.now + 3_000);
        self.nodes[index] = Node {
            run,
            is_up: true,
            trouble_until,
            on_bus: self.nodes[index].on_bus,
            cut_until: self.nodes[index].cut_until,
            ..Node::new(id, self.mutation)
        };
        self.ask(index, Request::Join(id));
        self.tell(self.place(index), 10, Told::Beat);
    }

    /// Ends a node's process; it does not come back by itself.
    pub fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.is_up = false;
        node.run += 1;
        node.paused = false;
        node.inbox.clear();
        node.trouble_until = Millis::MAX;
        let locals = std::mem::take(&mut node.locals);
        let open = locals
            .values()
            .flat_map(|local| [local.txn, local.abandoned]);
        for txn in open.flatten() {
            let later = self.rng.u64(..NOTICED);
            self.at(later, Event::Abort(txn));
        }
    }

    fn fault(&mut self) {
        if self.now >= self.faults_until {
            return;
        }
        let index = self.rng.usize(..self.nodes.len());
        match self.rng.u8(..10) {
            0..2 if self.nodes[index].is_up => {
                self.crash(index);
                let later = self.rng.u64(500..6_000);
                self.nodes[index].trouble_until = self.now + later;
                self.at(later, Event::Start(index));
            }
            2..5 if self.nodes[index].is_up && !self.nodes[index].paused => {
                let later = self.rng.u64(100..12_000);
                self.nodes[index].paused = true;
                self.trouble(index, later);
                self.at(later, Event::Continue(index));
            }
            5 if !self.away => {
                self.away = true;
                let later = self.rng.u64(100..20_000);
                self.at(later, Event::DatabaseIsBack);
            }
            6..8 => {
                let later = self.rng.u64(100..8_000);
                self.nodes[index].cut_until = self.now + later;
                self.trouble(index, later);
            }
            8 if self.nodes[index].is_up => self.leave(index),
            _ => self.nodes[index].on_bus = self.rng.bool(),
        }
        let later = self.rng.u64(300..4_000);
        if self.now + later < self.faults_until {
            self.at(later, Event::Fault);
        } else {
            for node in &mut self.nodes {
                node.on_bus = true;
            }
        }
    }

    fn trouble(&mut self, index: usize, later: Millis) {
        let node = &mut self.nodes[index];
        node.trouble_until = node.trouble_until.max(self.now + later);
    }

    /// Whether a connection is lost this time.
    fn is_lost(&mut self) -> bool {
        self.now < self.faults_until && self.rng.u8(..40) == 0
    }

    fn steps(&self) -> &'static [Step] {
        match self.mutation {
            Some(Mutation::NoFence) => &[Step::Rows, Step::Commit],
            Some(Mutation::ChecksBeforeTheLock) => {
                &[Step::Check, Step::Lock, Step::Rows, Step::Commit]
            }
            _ => &[Step::Lock, Step::Check, Step::Rows, Step::Commit],
        }
    }

    fn asked(&mut self, place: Place, request: Request) {
        let (index, id) = (place.0, self.nodes[place.0].id);
        let is_same = self.nodes[index].run == place.1;
        let answer = self.rng.u64(1..5);
        if self.away || self.nodes[index].cut_until > self.now {
            match request {
                Request::Step { partition, txn, .. } => {
                    self.tell(place, answer, Told::Lost(partition, txn));
                    if self.away {
                        self.database.abort(txn);
                    } else {
                        self.at(NOTICED, Event::Abort(txn));
                    }
                }
                Request::Give { partition, .. } => {
                    self.tell(place, answer, Told::Given(partition, Given::Unknown));
                }
                Request::Beat | Request::Look | Request::Declare(_) | Request::Claim(..) => {}
                again => self.at(200, Event::Asked(place, again)),
            }
            return;
        }
        match request {
            Request::Join(id) => {
                let row = NodeRow {
                    id,
                    beat: 0,
                    state: State::Up,
                    on_bus: true,
                };
                self.database.nodes.push(row);
            }
            Request::Beat | Request::Look if !is_same => {}
            Request::Beat | Request::Look => {
                let is_beat = matches!(request, Request::Beat);
                if is_beat {
                    let node = &self.nodes[index];
                    let state = if node.leaving {
                        State::Leaving
                    } else {
                        State::Up
                    };
                    self.database.beat(id, state, node.on_bus);
                }
                let is_slow = self.now < self.faults_until && self.rng.u8(..8) == 0;
                let answer = answer + if is_slow { self.rng.u64(..300) } else { 0 };
                let nodes = self.database.nodes.clone();
                let partitions = self.database.partitions.clone();
                self.tell(
                    place,
                    answer,
                    Told::Table {
                        nodes,
                        partitions,
                        is_beat,
                    },
                );
            }
            Request::Declare(verdict) => self.declare(verdict),
            Request::Fence {
                node,
                tries,
                retire,
            } => self.fence(place, node, tries, retire),
            Request::Claim(..) | Request::Give { .. } if !is_same && !self.is_late(&request) => {}
            Request::Claim(partition, epoch) => {
                self.database.claim(id, partition, epoch);
                self.tell(place, answer, Told::Look);
            }
            Request::Give {
                partition,
                to,
                epoch,
                is_heard,
            } => {
                let given = self.database.give(id, partition, to, epoch);
                self.moved += usize::from(given == Given::Done);
                if is_heard {
                    self.tell(place, answer, Told::Given(partition, given));
                }
                self.hint();
            }
            Request::Load(partition) => {
                let newest = self.database.newest(partition);
                self.tell(place, answer, Told::Loaded(partition, newest));
            }
            Request::Step {
                partition,
                txn,
                seq,
                step,
                is_heard,
            } => {
                self.step(place, partition, txn, seq, step, is_heard);
            }
            Request::Terminate(partition, txn) => {
                self.database.abort(txn);
                self.tell(place, answer, Told::Terminated(partition, txn));
            }
        }
    }

    /// Whether the answer has been given up, and the request comes all the same.
    fn is_late(&self, request: &Request) -> bool {
        matches!(
            request,
            Request::Give {
                is_heard: false,
                ..
            }
        )
    }

    fn declare(&mut self, verdict: Verdict) {
        if !self.database.declare(verdict) {
            return;
        }
        self.declared += 1;
        let node = self.nodes.iter().find(|node| node.id == verdict.node);
        if let Some(node) = node
            && node.trouble_until.saturating_add(1_500) < self.now
        {
            self.wrong = Some(format!("P8: {} was well and is declared gone", node.id));
        }
        self.hint();
    }

    fn fence(&mut self, place: Place, node: NodeId, tries: u32, retire: bool) {
        if self.mutation == Some(Mutation::TakesOverBeforeTheLock) {
            self.database.mark_fenced(node);
        } else if tries > 1 {
            self.database.end_holders(node);
        }
        if self.database.fence(node) {
            self.hint();
            if retire {
                self.tell(place, 2, Told::Retired);
            }
            return;
        }
        let again = Request::Fence {
            node,
            tries: tries + 1,
            retire,
        };
        self.at(50, Event::Asked(place, again));
    }

    fn step(
        &mut self,
        place: Place,
        partition: Partition,
        txn: Txn,
        seq: usize,
        step: usize,
        is_heard: bool,
    ) {
        let node = self.nodes[place.0].id;
        if step == 0 {
            // The node may have come back under another id meanwhile.
            match self.nodes[place.0].run == place.1 {
                true => self.database.begin(txn, node, partition, seq),
                false => return,
            }
        }
        let answer = self.rng.u64(1..5);
        let done = match self.steps()[step] {
            Step::Lock => match self.database.lock(txn) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    // It is asked for again and not begun again.
                    let again = Request::Step {
                        partition,
                        txn,
                        seq,
                        step,
                        is_heard,
                    };
                    return self.at(10, Event::Asked(place, again));
                }
                Err(refusal) => Err(refusal),
            },
            Step::Check => self.database.check(txn),
            Step::Rows => Ok(()),
            Step::Commit => self.database.commit(txn).map(|wrong| {
                let before = self.written.insert(partition, self.now);
                let took = before.map_or(0, |at| self.now - at);
                self.longest = self.longest.max(took);
                self.wrong = self.wrong.take().or(wrong);
            }),
        };
        if is_heard {
            let told = match done {
                Ok(()) => Told::Stepped {
                    partition,
                    txn,
                    seq,
                    step,
                },
                Err(refusal) => Told::Refused(partition, txn, refusal == Refusal::Stale),
            };
            self.tell(place, answer, told);
        }
    }

    fn told(&mut self, index: usize, told: Told) {
        match told {
            Told::Beat => {
                self.ask(index, Request::Beat);
                self.tell(self.place(index), BEAT_MILLIS, Told::Beat);
            }
            Told::Look => self.ask(index, Request::Look),
            Told::Table {
                nodes,
                partitions,
                is_beat,
            } => {
                let now = self.start + Duration::from_millis(self.now);
                let node = &mut self.nodes[index];
                if is_beat {
                    for verdict in node.observer.beat(&nodes, now) {
                        self.ask(index, Request::Declare(verdict));
                    }
                }
                let effects = self.nodes[index].ownership.table(&nodes, &partitions);
                for effect in effects {
                    self.effect(index, effect);
                }
            }
            Told::Loaded(partition, newest) => {
                if let Some(local) = self.nodes[index].locals.get_mut(&partition) {
                    local.newest = Some(newest);
                    self.tell(self.place(index), 0, Told::Write(partition));
                }
            }
            Told::Given(partition, given) => {
                if let Some(effect) = self.nodes[index].ownership.given(partition, given) {
                    self.effect(index, effect);
                }
                self.ask(index, Request::Look);
            }
            Told::Write(partition) => self.write(index, partition),
            Told::Stepped {
                partition,
                txn,
                seq,
                step,
            } => {
                let steps = self.steps().len();
                let Some(local) = self.nodes[index].locals.get_mut(&partition) else {
                    return;
                };
                if local.txn != Some(txn) {
                    return;
                }
                if step + 1 < steps {
                    return self.send(index, partition, txn, seq, step + 1);
                }
                (local.txn, local.newest) = (None, Some(seq));
                let later = self.rng.u64(1..40);
                self.tell(self.place(index), later, Told::Write(partition));
                self.look_whether_quiet(index, partition);
            }
            Told::Refused(partition, txn, is_stale) => {
                if let Some(local) = self.nodes[index].locals.get_mut(&partition)
                    && local.txn == Some(txn)
                {
                    (local.txn, local.newest) = (None, None);
                    if !is_stale {
                        self.ask(index, Request::Load(partition));
                    }
                    self.look_whether_quiet(index, partition);
                }
            }
            Told::Lost(partition, txn) => self.lost(index, partition, txn),
            Told::Terminated(partition, txn) => {
                if let Some(local) = self.nodes[index].locals.get_mut(&partition)
                    && local.abandoned == Some(txn)
                {
                    local.abandoned = None;
                    self.ask(index, Request::Load(partition));
                    self.look_whether_quiet(index, partition);
                }
            }
            Told::Retired => {
                self.crash(index);
                self.at(1_000, Event::Start(index));
            }
        }
    }

    fn effect(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Fence(node) => {
                let (tries, retire) = (0, false);
                self.ask(
                    index,
                    Request::Fence {
                        node,
                        tries,
                        retire,
                    },
                );
            }
            Effect::Claim { partition, epoch } => {
                self.ask(index, Request::Claim(partition, epoch));
            }
            Effect::Serve { partition, .. } => {
                self.nodes[index].locals.insert(partition, Local::default());
                self.ask(index, Request::Load(partition));
            }
            Effect::Quiesce(partition) => {
                if let Some(local) = self.nodes[index].locals.get_mut(&partition) {
                    local.quiescing = true;
                }
                self.look_whether_quiet(index, partition);
            }
            Effect::Give {
                partition,
                to,
                epoch,
            } => {
                let is_heard = self.now >= self.faults_until || self.rng.u8(..3) > 0;
                let request = Request::Give {
                    partition,
                    to,
                    epoch,
                    is_heard,
                };
                if is_heard {
                    return self.ask(index, request);
                }
                let later = self.rng.u64(..4_000);
                self.at(later, Event::Asked(self.place(index), request));
                self.tell(
                    self.place(index),
                    10,
                    Told::Given(partition, Given::Unknown),
                );
            }
            Effect::Resume(partition) => {
                if let Some(local) = self.nodes[index].locals.get_mut(&partition) {
                    local.quiescing = false;
                }
                self.tell(self.place(index), 0, Told::Write(partition));
            }
            Effect::Drop(partition) => {
                self.nodes[index].locals.remove(&partition);
            }
            Effect::Rejoin => {
                let id = NodeId(self.rng.i64(..));
                self.join(index, id);
            }
            Effect::Retire => {
                let node = self.nodes[index].id;
                let (tries, retire) = (0, true);
                self.ask(
                    index,
                    Request::Fence {
                        node,
                        tries,
                        retire,
                    },
                );
            }
        }
    }

    fn write(&mut self, index: usize, partition: Partition) {
        let Some(local) = self.nodes[index].locals.get_mut(&partition) else {
            return;
        };
        let is_busy = local.txn.is_some() || local.abandoned.is_some() || local.quiescing;
        let Some(newest) = local.newest.filter(|_| !is_busy) else {
            return;
        };
        self.drawn += 1;
        let txn = self.drawn;
        local.txn = Some(txn);
        self.send(index, partition, txn, newest + 1, 0);
    }

    /// Sends a step of a write; the connection may be lost behind it.
    fn send(&mut self, index: usize, partition: Partition, txn: Txn, seq: usize, step: usize) {
        let is_heard = !self.is_lost();
        let request = Request::Step {
            partition,
            txn,
            seq,
            step,
            is_heard,
        };
        if is_heard {
            return self.ask(index, request);
        }
        let later = self.rng.u64(..4_000);
        self.at(later, Event::Asked(self.place(index), request));
        self.at(NOTICED, Event::Abort(txn));
        self.tell(self.place(index), 10, Told::Lost(partition, txn));
    }

    fn lost(&mut self, index: usize, partition: Partition, txn: Txn) {
        let forgets = self.mutation == Some(Mutation::ForgetsSessions);
        let Some(local) = self.nodes[index].locals.get_mut(&partition) else {
            return;
        };
        if local.txn != Some(txn) {
            return;
        }
        (local.txn, local.newest) = (None, None);
        if forgets {
            self.ask(index, Request::Load(partition));
            self.look_whether_quiet(index, partition);
        } else {
            local.abandoned = Some(txn);
            self.ask(index, Request::Terminate(partition, txn));
        }
    }

    fn look_whether_quiet(&mut self, index: usize, partition: Partition) {
        let hurries = self.mutation == Some(Mutation::GivesWhatIsUnderWay);
        let node = &mut self.nodes[index];
        let Some(local) = node.locals.get(&partition) else {
            return;
        };
        let is_quiet = hurries || (local.txn.is_none() && local.abandoned.is_none());
        if local.quiescing
            && is_quiet
            && let Some(effect) = node.ownership.quiet(partition)
        {
            self.effect(index, effect);
        }
    }
}

impl Node {
    fn new(id: NodeId, mutation: Option<Mutation>) -> Self {
        let mut observer = Observer::new(id, TIMEOUT);
        if mutation == Some(Mutation::CountsOutages) {
            observer.late = Duration::MAX;
        }
        let mut ownership = Ownership::new(id);
        ownership.forgets_doubts = mutation == Some(Mutation::ForgetsDoubts);
        Self {
            id,
            run: 0,
            is_up: false,
            leaving: false,
            on_bus: true,
            paused: false,
            inbox: Vec::new(),
            cut_until: 0,
            trouble_until: 0,
            observer,
            ownership,
            locals: BTreeMap::new(),
        }
    }
}
