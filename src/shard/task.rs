mod answers;
mod asking;
mod batches;
mod commands;
mod memory;
mod moving;
mod takeover;
mod targets;
mod time;

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use ahash::{AHashMap, AHashSet};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::{memory::Memory, moving::Leaving, time::sleep_until};
use super::{
    active::{IdleList, Place},
    askers::{Askers, Waiting},
    elsewhere::{Elsewhere, Partitions},
    handle::{Command, Reply},
    post::{Effect, Load, Post, Room, Rules},
    reads::StoreCall,
};
use crate::{
    domain::{ChatId, Refusal},
    feed::{History, RingBound, Wakes},
    store::Lineage,
    writer::{LaneDone, Submission},
};

/// Most posts and commands that are taken from a mailbox at a time, so that
/// the other events get their turn.
const TURN: usize = 1_024;

/// Most calls that wait for chats to be loaded or changed, a shard. Joins do not
/// count: after a restart they all come at once, and to chats that are still to be
/// loaded. A stream that waits holds little more than it will once it reads, and
/// connections and streams have bounds of their own.
const MAX_WAITING_CALLS: usize = 16_384;

/// Bounds and times of a shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardSettings {
    /// Posts that may wait in the mailbox.
    pub mailbox: usize,
    /// Posts, and their bytes, that may be held between acceptance and commit.
    pub pending: Load,
    /// Rows and bytes in one batch.
    pub batch: Room,
    /// What each active chat keeps for its readers. The number of messages is
    /// also the duplicate window.
    pub ring: RingBound,
    /// Bytes that the chats may hold, with the posts between acceptance and commit.
    pub memory: usize,
    /// A chat without readers and posts is let go after this time.
    pub idle: Duration,
    /// How long a call waits for a chat that the store cannot give.
    pub patience: Duration,
    pub max_members: usize,
    pub rules: Rules,
    /// Posts that a stream may have under way.
    pub stream_posts: u32,
}

/// A shard: the owner of its chats, a task on one core.
pub(super) struct Shard {
    pub settings: ShardSettings,
    pub core: usize,
    pub wakes: Arc<Wakes>,
    pub history: Arc<History>,
    pub posts: mpsc::Receiver<(ChatId, Post<Reply>)>,
    /// One is given back for each post that is accepted or refused.
    pub places: Arc<Semaphore>,
    pub commands: mpsc::Receiver<Command>,
    pub lane: mpsc::Sender<Submission>,
    pub done: mpsc::Receiver<LaneDone>,
    pub done_sender: mpsc::Sender<LaneDone>,
    /// Of the store, if it may change.
    pub lineage: Option<watch::Receiver<Lineage>>,
    pub state: State,
}

#[derive(Default)]
pub(super) struct State {
    chats: AHashMap<ChatId, Place>,
    /// Those who ask for an active chat and are no members of it.
    strangers: AHashMap<ChatId, Waiting>,
    askers: Askers,
    /// Chats with posts to write, oldest first.
    listed: Vec<ChatId>,
    idle: IdleList,
    memory: Memory,
    store_calls: FuturesUnordered<StoreCall>,
    load: Load,
    /// Posts that there is no room for yet, oldest first. They still have their
    /// places, which bounds them.
    waiting_posts: VecDeque<(ChatId, Post<Reply>)>,
    /// Places to give back.
    left_places: usize,
    waiting_calls: usize,
    /// What the batches that are with the lane are of `load`, oldest first.
    batches: VecDeque<Load>,
    /// The store's lineage that all active chats are known to agree with, but for
    /// those that there is doubt about.
    agreed: u64,
    /// The store's, as it is known here.
    lineage: Lineage,
    doubted: AHashSet<ChatId>,
    /// Where there are several nodes.
    partitions: Option<Partitions>,
    leaving: Vec<Leaving>,
    /// Posts that were accepted, or whose chat came back from the lane, since a
    /// second batch was last thought of.
    fresh: usize,
    /// When chats that a lock was in the way of are to be tried again, if there are any.
    deferred_until: Option<Instant>,
    /// When deadlines are to be looked at, and when that was done last.
    next_expiry: Option<Instant>,
    last_expiry: Option<Instant>,
    /// When freed memory is to go back to the operating system.
    trim_at: Option<Instant>,
    last_trim_at: Option<Instant>,
    draining: bool,
    drained: Vec<oneshot::Sender<()>>,
    effects: Vec<Effect<Reply>>,
}

impl State {
    /// Of a shard that has no chats yet, with the store's lineage.
    pub fn new(lineage: Option<Lineage>, elsewhere: Option<Arc<dyn Elsewhere>>) -> Self {
        let lineage = lineage.unwrap_or_default();
        Self {
            partitions: elsewhere.map(Partitions::new),
            agreed: lineage.number,
            lineage,
            ..Self::default()
        }
    }
}

/// What a shard has just taken from its mailboxes.
#[derive(Default)]
struct Mail {
    commands: Vec<Command>,
    posts: Vec<(ChatId, Post<Reply>)>,
}

impl Mail {
    /// Takes what there is in the mailboxes. Ready with false once every handle is
    /// gone.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        commands: &mut mpsc::Receiver<Command>,
        posts: &mut mpsc::Receiver<(ChatId, Post<Reply>)>,
    ) -> Poll<bool> {
        let commands = commands.poll_recv_many(cx, &mut self.commands, TURN);
        let posts = posts.poll_recv_many(cx, &mut self.posts, TURN);
        match (commands, posts) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            both => Poll::Ready(both.0 != Poll::Ready(0) && both.1 != Poll::Ready(0)),
        }
    }
}

impl Shard {
    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        let mut mail = Mail::default();
        loop {
            let timer = self.next_timer();
            // No source holds up those below it for long: the first two bring only
            // what the last two have led to, and those are looked at together. A
            // fixed order can be played again.
            tokio::select! {
                biased;
                Some(done) = self.done.recv() => self.landed(done),
                Some(answer) = self.state.store_calls.next() => self.store_answered(answer),
                open = poll_fn(|cx| mail.poll(cx, &mut self.commands, &mut self.posts)) => {
                    if !open {
                        return;
                    }
                    self.take_in(&mut mail);
                }
                lineage = takeover::changed(&mut self.lineage) => self.meet(lineage),
                () = sleep_until(timer) => {}
            }
            let now = self.history.clock.now();
            self.expire(now);
            self.let_go(now);
            self.admit(now);
            self.keep_to_budget(now);
            if !self.state.leaving.is_empty() {
                self.finish_leaving();
            }
            if self.state.batches.is_empty() && !self.state.listed.is_empty() {
                self.wait_a_round(&mut mail).await;
            }
            self.write();
            self.finish_drain();
        }
    }

    fn take_in(&mut self, mail: &mut Mail) {
        // What is asked after another server has taken over is not answered by what was
        // known before.
        if let Some(lineage) = takeover::has_changed(&mut self.lineage) {
            self.meet(lineage);
        }
        mail.commands
            .drain(..)
            .for_each(|command| self.command(command));
        let now = self.history.clock.now();
        mail.posts
            .drain(..)
            .for_each(|(chat, post)| self.arrived(chat, post, now));
    }

    /// Lets all that is ready on this core run once before a batch leaves, and
    /// takes in what it posts: a commit costs about the same whatever is in it.
    /// Where nothing else is ready, this takes no time.
    async fn wait_a_round(&mut self, mail: &mut Mail) {
        tokio::task::yield_now().await;
        poll_fn(|cx| {
            // What is pending comes with the next batch.
            _ = mail.poll(cx, &mut self.commands, &mut self.posts);
            Poll::Ready(())
        })
        .await;
        self.take_in(mail);
        self.admit(self.history.clock.now());
    }

    /// What is held and not with the lane.
    fn pending(&self) -> Load {
        let mut pending = self.state.load;
        for batch in &self.state.batches {
            adjust(&mut pending, *batch, Load::default());
        }
        pending
    }

    /// The batches under way do not count, as they have their own bound. A post is
    /// not held against what there is doubt about: a message that is lost is no
    /// duplicate.
    fn has_room(&self) -> bool {
        let (pending, bound) = (self.pending(), self.settings.pending);
        self.is_sure() && pending.posts < bound.posts && pending.bytes < bound.bytes
    }

    // Posts.

    fn arrived(&mut self, id: ChatId, post: Post<Reply>, now: Instant) {
        if self.state.waiting_posts.is_empty() && self.has_room() {
            self.state.left_places += 1;
            self.post(id, post, now);
        } else {
            // It is still to be answered by its deadline (P8).
            self.expect_expiry(post.deadline);
            self.state.waiting_posts.push_back((id, post));
        }
    }

    /// Takes in the posts that there is room for, or refuses all in a drain.
    fn admit(&mut self, now: Instant) {
        while !self.state.waiting_posts.is_empty() && (self.has_room() || self.state.draining) {
            let Some((id, post)) = self.state.waiting_posts.pop_front() else {
                break;
            };
            self.state.left_places += 1;
            self.post(id, post, now);
        }
        if self.state.left_places > 0 {
            self.places.add_permits(self.state.left_places);
            self.state.left_places = 0;
        }
    }

    fn post(&mut self, id: ChatId, post: Post<Reply>, now: Instant) {
        if let Some(partitions) = &self.state.partitions
            && !partitions.serves(id)
        {
            return partitions.elsewhere.moved(id, post);
        }
        if self.state.draining {
            return post.reply.send(Err(Refusal::Draining));
        }
        self.expect_expiry(post.deadline);
        match self.state.chats.get(&id) {
            Some(Place::Active(active)) if active.knows(post.asker()) => {
                self.accept(id, post, now);
            }
            _ => self.ask_post(id, post),
        }
    }

    fn accept(&mut self, id: ChatId, post: Post<Reply>, now: Instant) {
        let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
            return post.reply.send(Err(Refusal::Unavailable));
        };
        if active.is_ending() {
            return post.reply.send(Err(Refusal::Unavailable));
        }
        active.touched = now;
        self.state.fresh += 1;
        let before = active.chat.load();
        active.chat.accept(post, &mut self.state.effects);
        adjust(&mut self.state.load, before, active.chat.load());
        if active.chat.has_queued() && !active.listed {
            active.listed = true;
            self.state.listed.push(id);
        }
        if active.chat.wants_targets() {
            self.read_targets(id);
        }
        self.answer_effects();
    }

    fn answer_effects(&mut self) {
        for effect in self.state.effects.drain(..) {
            if let Effect::Answer(reply, result) = effect {
                reply.send(result);
            }
        }
    }
}

fn refuse_posts(posts: impl IntoIterator<Item = Post<Reply>>, refusal: &Refusal) {
    for post in posts {
        post.reply.send(Err(refusal.clone()));
    }
}

fn adjust(total: &mut Load, before: Load, after: Load) {
    total.posts = total.posts + after.posts - before.posts;
    total.bytes = total.bytes + after.bytes - before.bytes;
}

#[cfg(test)]
mod tests;
