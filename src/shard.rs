//! The half of a chat that owns it: its seqs, its duplicate window, its members. Each
//! chat lives in one shard, which alone changes it; a shard is a task on one core.
//! The reading half is in `feed`.
//!
//! Called by `chats`, which knows in which shard a chat lives, through
//! [`ShardHandle`]; calls `feed`, `writer` and `store`.
//!
//! Invariants:
//! 1. Only a chat's shard gives out its seqs, and in order (P2).
//! 2. Readers and senders learn of a message after its commit (P1, P3).
//! 3. Every post and every command gets one answer, and its place is given back.
//! 4. A shard has at most two batches with its lane, and a chat is in one.
//! 5. Where there are several nodes, a shard changes chats of those partitions alone that
//!    it serves; what comes for others is sent on.
//! 6. Nobody outside sends to a mailbox: [`ShardHandle`] is the way.

mod active;
mod askers;
mod callers;
mod change;
mod chat;
mod elsewhere;
mod handle;
mod members;
mod post;
mod queue;
mod reads;
mod shards;
mod task;
mod window;

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::{Semaphore, mpsc};

pub use callers::{Callers, Places};
pub use chat::Chat;
pub use elsewhere::{Elsewhere, Watched};
pub use handle::{Asking, AskingNode, Reply, ShardHandle};
pub use post::{Effect, Load, Post, Room, Rules};
pub use shards::Shards;
pub use task::ShardSettings;

use crate::{
    feed::{History, Wakes},
    writer::{SHARD_BATCHES, Submission},
};
use task::{Shard, State};

/// Commands that may wait in a shard's mailbox, besides posts.
const COMMANDS: usize = 4_096;

/// … and of one user with the shard: the mailbox holds those of many.
const CALLS: u32 = 256;

/// So many more wait with their callers, which are bounded as calls under way and streams
/// are.
const WAITING: u32 = 1 << 24;

/// What one shard is made of.
pub struct ShardPlan {
    pub settings: ShardSettings,
    /// The core that runs it.
    pub core: usize,
    /// Its lane.
    pub lane: mpsc::Sender<Submission>,
    pub wakes: Arc<Wakes>,
    pub history: Arc<History>,
    /// Where there are several nodes: a shard then answers for no chat before it is told
    /// to. Without, it answers for all that come.
    pub elsewhere: Option<Arc<dyn Elsewhere>>,
}

/// A shard's life, to be spawned on its core.
pub type ShardTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes the shards and gives the task of each to `spawn`, with its core. The way to
/// each, in the order of the plans.
pub fn start(plans: Vec<ShardPlan>, mut spawn: impl FnMut(usize, ShardTask)) -> Vec<ShardHandle> {
    let mut handles = Vec::with_capacity(plans.len());
    for plan in plans {
        let (posts, post_mailbox) = mpsc::channel(plan.settings.mailbox);
        let places = Arc::new(Semaphore::new(plan.settings.mailbox));
        let (commands, command_mailbox) = mpsc::channel(COMMANDS);
        let (done_sender, done) = mpsc::channel(SHARD_BATCHES);
        let lineage = plan.history.store.lineage();
        let shard = Shard {
            settings: plan.settings,
            core: plan.core,
            wakes: plan.wakes,
            history: plan.history,
            posts: post_mailbox,
            places: places.clone(),
            commands: command_mailbox,
            lane: plan.lane,
            done,
            done_sender,
            state: State::new(
                lineage.as_ref().map(|lineage| *lineage.borrow()),
                plan.elsewhere,
            ),
            lineage,
        };
        spawn(plan.core, Box::pin(shard.run()));
        handles.push(ShardHandle {
            posts,
            places,
            commands,
            callers: Arc::new(Callers::new(CALLS, WAITING)),
        });
    }
    handles
}
