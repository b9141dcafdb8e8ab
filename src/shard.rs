//! Chats at work. Each chat lives in one shard, which alone changes it; a shard
//! is a task on one core. Readers follow a chat from any core.
//!
//! Called by `grpc` through [`Shards`]; calls `writer` and `store`.
//!
//! Invariants:
//! 1. Only a chat's shard gives out its seqs, and in order (P2).
//! 2. Readers and senders learn of a message after its commit (P1, P3).
//! 3. A reader is a place in the chat, not a queue: a slow one holds nothing and
//!    nobody up (P4, P6).
//! 4. A shard has at most two batches with its lane, and a chat is in one.
//! 5. Nobody outside knows on which core a chat lives: [`Shards`] is the way.

mod active;
mod askers;
mod callers;
mod change;
mod chat;
mod cursor;
mod feed;
mod handle;
mod history;
mod members;
mod packed;
mod post;
mod queue;
mod reads;
mod ring;
mod share;
mod slot;
mod task;
mod wake;
mod window;

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::sync::{Semaphore, mpsc};

pub use callers::{Caller, Callers, Places, ShardError};
pub use chat::Chat;
pub use cursor::{Delivery, Reader};
pub use handle::Shards;
pub use history::{History, Pages};
pub use packed::Packed;
pub use post::{Effect, Load, Post, PostResult, Receipt, Refusal, Room};
pub use ring::{CHUNK_BYTES, Chunk, Entry, Read, Ring, RingBound};
pub use share::{Share, Unwritten};
pub use slot::{End, PostAnswer, Slot};
pub use task::ShardSettings;
pub use wake::Wakes;

use crate::writer::{SHARD_BATCHES, Submission};
use handle::ShardHandle;
use task::{Shard, State};

/// Commands that may wait in a shard's mailbox, besides posts.
const COMMANDS: usize = 4_096;

/// … and of one user with the shard: the mailbox holds those of many.
const CALLS: u32 = 256;

/// What one shard is made of.
pub struct ShardPlan {
    pub settings: ShardSettings,
    /// The core that runs it.
    pub core: usize,
    /// Its lane.
    pub lane: mpsc::Sender<Submission>,
    pub wakes: Arc<Wakes>,
    pub history: Arc<History>,
}

/// A shard's life, to be spawned on its core.
pub type ShardTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes the shards, and gives the task of each to `spawn` with its core.
pub fn start(plans: Vec<ShardPlan>, mut spawn: impl FnMut(usize, ShardTask)) -> Shards {
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
            state: State::new(lineage.as_ref().map(|lineage| *lineage.borrow())),
            lineage,
        };
        spawn(plan.core, Box::pin(shard.run()));
        handles.push(ShardHandle {
            posts,
            places,
            commands,
            callers: Arc::new(Callers::new(CALLS)),
        });
    }
    Shards::new(handles)
}
