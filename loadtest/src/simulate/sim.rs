//! What all parts of a simulation share, and how they get at it.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chat_service::{
    domain::{ChatId, Clock, MessageId, Row, Timestamp},
    store::Lineage,
};
use fastrand::Rng;
use tokio::sync::{oneshot, watch};

use super::{
    disk::Disk,
    executor::{Life, Orders},
    model::{Broken, Kept, Model},
    mutation::Mutation,
    plan::Plan,
    server::Server,
    trace::Trace,
    weather::Weather,
};

#[derive(Clone)]
pub struct Sim(Arc<Mutex<State>>);

pub struct State {
    pub plan: Plan,
    pub rng: Rng,
    pub trace: Trace,
    pub disk: Disk,
    pub model: Model,
    pub weather: Weather,
    /// Chats whose messages are where somebody holds a lock.
    pub locked: BTreeSet<ChatId>,
    pub orders: Orders,
    /// `None` while it is down.
    pub server: Option<Server>,
    pub mutation: Option<Mutation>,
    /// Nobody begins anything, nothing fails: all is to come to rest.
    pub calm: bool,
    /// Of the database's servers.
    pub lineage: watch::Sender<Lineage>,
    /// How far the wall clock is off, in microseconds.
    pub wall: i64,
    over: bool,
}

/// The time of the core and of the store.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub async fn until(time: Instant) {
    if time > now() {
        tokio::time::sleep_until(time.into()).await;
    }
}

pub async fn sleep(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

impl State {
    /// Lets the disk do what is due, and the model see it.
    pub fn settle(&mut self) {
        self.disk.settle(now());
        for row in self.disk.take_news() {
            self.trace.note(format!("commits {}", brief(&row)));
            let found = self.model.committed(&row, &self.disk);
            self.check(found);
        }
    }

    /// Ends the simulation if a promise is broken. The first one counts.
    pub fn check(&mut self, found: Kept) {
        if let Err(broken) = found
            && self.model.broken.is_none()
        {
            self.trace.note(format!("BROKEN {broken}"));
            self.model.broken = Some(broken);
            self.over = true;
        }
    }

    /// Whether a fault of the simulation itself is to show now.
    pub fn mutated(&mut self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation) && self.rng.u8(..8) == 0
    }

    /// Stores a batch once more, behind itself.
    pub fn store_again(&mut self, rows: &[Row]) {
        for row in rows {
            let chat = self.disk.chat(row.chat);
            let again = Row {
                seq: chat.map_or(0, |chat| chat.last_seq()) + 1,
                id: MessageId(self.rng.i64(..)),
                ..row.clone()
            };
            self.disk.commit(&[again], false);
        }
        self.settle();
    }
}

impl Sim {
    pub fn new(plan: Plan, rng: Rng, mutation: Option<Mutation>, loud: bool) -> Self {
        let mut disk = Disk::default();
        disk.overwrites = mutation == Some(Mutation::Overwrites);
        Self(Arc::new(Mutex::new(State {
            model: Model::new(plan.shard.ring.messages),
            plan,
            rng,
            trace: Trace::new(loud),
            disk,
            weather: Weather::Fine,
            locked: BTreeSet::new(),
            orders: Orders::default(),
            server: None,
            mutation,
            calm: false,
            lineage: watch::Sender::default(),
            wall: 0,
            over: false,
        })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, line: impl AsRef<str>) {
        self.state().trace.note(line);
    }

    pub fn broken(&self, promise: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.state().check(Err(Broken { promise, what }));
    }

    pub fn is_over(&self) -> bool {
        self.state().over
    }

    pub fn end(&self) {
        self.state().over = true;
    }

    pub fn server(&self) -> Option<Server> {
        self.state().server.clone()
    }

    /// Somebody was told something: the model looks at it, and at the disk as it
    /// is at this moment.
    pub fn told(&self, what: &str, check: impl FnOnce(&mut Model, &Disk) -> Kept) {
        let state = &mut *self.state();
        state.settle();
        state.trace.note(what);
        let kept = check(&mut state.model, &state.disk);
        state.check(kept);
    }

    /// What the seed says.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.state().rng)
    }

    pub fn one_in(&self, times: u32) -> bool {
        self.draw(|rng| rng.u32(..times)) == 0
    }

    pub async fn nap(&self, millis: std::ops::Range<u64>) {
        let millis = self.draw(|rng| rng.u64(millis));
        sleep(millis).await;
    }

    /// Whoever reads in fits and starts reads on now.
    pub fn is_quiet(&self) -> bool {
        let state = self.state();
        state.calm || state.model.draining
    }

    /// Waits while all is to come to rest.
    pub async fn while_calm(&self) {
        while self.state().calm {
            sleep(500).await;
        }
    }

    pub fn random_chat(&self) -> ChatId {
        let state = &mut *self.state();
        let chats: Vec<ChatId> = state.model.chats().collect();
        state.rng.choice(chats).expect("there are chats")
    }

    pub fn spawn(
        &self,
        life: Life,
        name: String,
        job: impl Future<Output = ()> + Send + 'static,
    ) -> u64 {
        self.state().orders.spawn(life, name, Box::pin(job))
    }

    pub fn cancel(&self, task: u64) {
        self.state().orders.cancel(task);
    }

    /// Has a call made by a task of the server; `None` if the server is gone
    /// before the answer, or the caller has lost patience.
    pub async fn call<T: Send + 'static>(
        &self,
        name: String,
        patience: Duration,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let task = self.spawn(Life::Server, name, async move {
            _ = answer.send(call.await);
        });
        match tokio::time::timeout(patience, answered).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                self.cancel(task);
                None
            }
        }
    }
}

/// The core's clock: tokio's time, which goes on when all wait, and a wall clock
/// that is set forth and back.
pub struct SimClock(pub Sim);

impl std::fmt::Debug for SimClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimClock")
    }
}

impl Clock for SimClock {
    fn now(&self) -> Instant {
        now()
    }

    fn wall(&self) -> Timestamp {
        let state = self.0.state();
        let since = i64::try_from(state.trace.at().as_micros()).unwrap_or(i64::MAX);
        Timestamp(1_700_000_000_000_000 + since + state.wall)
    }
}

pub fn brief(row: &Row) -> String {
    let id = row.client_message_id.as_deref().unwrap_or("-");
    let text = head(&row.text);
    format!("{}:{} {} {text:?} {id}", row.chat, row.seq, &*row.from)
}

/// Enough of a text to know it by.
pub fn head(text: &str) -> &str {
    text.get(..20).unwrap_or(text)
}
