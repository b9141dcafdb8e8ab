//! One shard with its lane, and a store that does as it is told.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::super::*;
use crate::{
    domain::{Caller, Draft, PostResult, Timestamp},
    feed::Pages,
    shard::{Rules, ShardHandle, ShardPlan, start},
    store::{NewChat, Store, memory::MemoryStore},
    testing::{Fault, Op, ScriptStore, TestClock, chat_id, key, user},
    writer::{Lane, LaneSettings},
};

/// What the store does at the next calls of each kind; `None` holds a call
/// until [`World::let_go`], and then does as `held` says.
#[derive(Default)]
pub struct Script {
    pub appends: Vec<Option<Fault>>,
    pub loads: Vec<Option<Fault>>,
    pub deletes: Vec<Option<Fault>>,
    pub members: Vec<Option<Fault>>,
    pub held: Option<Fault>,
    /// Rows of each append.
    pub sizes: Vec<usize>,
}

pub struct World {
    pub shard: ShardHandle,
    pub memory: Arc<MemoryStore>,
    pub script: Arc<Mutex<Script>>,
    pub held: Arc<tokio::sync::Notify>,
    pub loads: Arc<AtomicUsize>,
}

pub const CHAT: i64 = 1;

pub fn settings() -> ShardSettings {
    ShardSettings {
        memory: usize::MAX,
        mailbox: 64,
        pending: Load {
            posts: 8,
            bytes: 1 << 20,
        },
        batch: Room {
            rows: 100,
            bytes: 1 << 20,
        },
        ring: RingBound {
            messages: 4,
            bytes: 1 << 20,
        },
        idle: Duration::from_secs(60),
        patience: Duration::from_secs(10),
        max_members: 5,
        rules: Rules {
            edit_window: Duration::from_secs(60),
            max_reactions: 10,
        },
        stream_posts: 4,
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: ShardSettings) -> Self {
        Self::made(settings, None).await
    }

    /// A shard of one of several nodes: it answers for no chat before it is told to.
    pub async fn of_a_node(elsewhere: Arc<dyn Elsewhere>) -> Self {
        Self::made(settings(), Some(elsewhere)).await
    }

    async fn made(settings: ShardSettings, elsewhere: Option<Arc<dyn Elsewhere>>) -> Self {
        let memory = Arc::new(MemoryStore::new());
        let chat = NewChat {
            client_chat_id: None,
            created_by: user("alice"),
            created_at: Timestamp(0),
            members: vec![user("alice"), user("bob")],
        };
        memory.create_chat(chat).await.unwrap();
        let script: Arc<Mutex<Script>> = Arc::default();
        let held = Arc::new(tokio::sync::Notify::new());
        let loads = Arc::new(AtomicUsize::new(0));
        let (scripted, hold, counted) = (script.clone(), held.clone(), loads.clone());
        let store: Arc<dyn Store> = Arc::new(ScriptStore::new(memory.clone(), move |op| {
            let mut script = scripted.lock().unwrap();
            let faults = match op {
                Op::Append(rows) => {
                    script.sizes.push(rows.len());
                    &mut script.appends
                }
                Op::Load => {
                    counted.fetch_add(1, Ordering::Relaxed);
                    &mut script.loads
                }
                Op::Delete => &mut script.deletes,
                Op::Members => &mut script.members,
                Op::Page(_) | Op::Targets => return Box::pin(std::future::ready(Fault::None)),
            };
            let fault = if faults.is_empty() {
                Some(Fault::None)
            } else {
                faults.remove(0)
            };
            let (hold, scripted) = (hold.clone(), scripted.clone());
            Box::pin(async move {
                match fault {
                    Some(fault) => fault,
                    None => {
                        hold.notified().await;
                        let held = scripted.lock().unwrap().held.take();
                        held.unwrap_or(Fault::None)
                    }
                }
            })
        }));
        let clock: Arc<dyn crate::domain::Clock> = Arc::new(TestClock::default());
        let telemetry = crate::telemetry::Telemetry::quiet(1);
        let wakes = Arc::new(Wakes::new(1));
        let lane = LaneSettings {
            batch_rows: 100,
            batch_bytes: 1 << 20,
        };
        let (lane, sender) = {
            let (store, clock) = (store.clone(), clock.clone());
            Lane::new(0, 1, lane, store, clock, telemetry.clone())
        };
        let runtime = tokio::runtime::Handle::current();
        runtime.spawn(lane.run());
        runtime.spawn(wakes.clone().run(0));
        let plan = ShardPlan {
            settings,
            core: 0,
            lane: sender,
            wakes,
            history: Arc::new(History {
                store,
                clock,
                metrics: telemetry.metrics,
                pages: Pages::new(usize::MAX),
            }),
            elsewhere,
        };
        let mut shards = start(vec![plan], |_, task| drop(runtime.spawn(task)));
        let shard = shards.pop().unwrap();
        Self {
            shard,
            memory,
            script,
            held,
            loads,
        }
    }

    pub fn script(&self, write: impl FnOnce(&mut Script)) {
        write(&mut self.script.lock().unwrap());
    }

    pub fn let_go(&self) {
        self.held.notify_one();
    }

    pub fn post(&self, text: &str, wait: Duration) -> tokio::task::JoinHandle<PostResult> {
        self.post_with_key(text, "", wait)
    }

    pub fn post_with_key(
        &self,
        text: &str,
        id: &str,
        wait: Duration,
    ) -> tokio::task::JoinHandle<PostResult> {
        self.post_to(CHAT, text, id, wait)
    }

    pub fn post_to(
        &self,
        chat: i64,
        text: &str,
        id: &str,
        wait: Duration,
    ) -> tokio::task::JoinHandle<PostResult> {
        let shard = self.shard.clone();
        let draft = Draft::message(text, key(id));
        let deadline = tokio::time::Instant::now().into_std() + wait;
        tokio::runtime::Handle::current().spawn(async move {
            shard
                .post(chat_id(chat), user("bob"), draft, deadline, None)
                .await
        })
    }

    /// The drain waits for all that the shard's account still holds: it ends at
    /// once, or the account is wrong.
    pub async fn end(self) {
        let drain = async { self.shard.drain().await.await };
        let drain = tokio::time::timeout(SECOND, drain);
        drain.await.expect("nothing is left in the account");
    }

    pub fn alice(&self) -> Caller {
        Caller {
            user: user("alice"),
            admin: false,
        }
    }

    pub async fn stored(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let page = crate::store::Page::After(0);
        let rows = self.memory.page(chat_id(CHAT), page, 100, deadline).await;
        rows.unwrap()
            .iter()
            .map(|row| row.text.to_string())
            .collect()
    }

    pub async fn members(&self) -> Vec<String> {
        let (chat, _) = self.shard.get(chat_id(CHAT), self.alice()).await.unwrap();
        chat.members.iter().map(|user| user.to_string()).collect()
    }
}

pub const SECOND: Duration = Duration::from_secs(1);

/// Lets everything that can go on do so, without time going by.
pub async fn turn() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
