use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::AHashMap;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};

use super::{
    active::{Active, IdleList, Place, Waiting, refuse, refuse_missing},
    change::{Change, Next, StoreAnswer, StoreCall, load},
    chat::Chat,
    cursor::{History, Reader},
    feed::Feed,
    handle::{ChatCommand, Command, Reply, ShardError},
    post::{Effect, Load, Post, Refusal, Room},
    ring::{Entry, RingBound},
    slot::{End, Slot},
    wake::Wakes,
};
use crate::{
    domain::{ChatId, Row, Seq, UserName},
    store::{ChatRecord, StoreResult},
    writer::{Landed, LaneDone, Submission},
};

/// Most posts and commands that are taken from a mailbox at a time, so that
/// the other events get their turn.
const TURN: usize = 1_024;

/// Most commands that wait for chats to be loaded or changed, a shard.
const MAX_WAITING_COMMANDS: usize = 16_384;

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
    /// A chat without readers and posts is let go after this time.
    pub idle: Duration,
    /// How long a call waits for a chat that the store cannot give.
    pub patience: Duration,
    pub max_members: usize,
    /// Posts that a stream may have under way.
    pub stream_posts: usize,
}

/// A shard: the owner of its chats, a task on one core.
pub(super) struct Shard {
    pub settings: ShardSettings,
    pub core: usize,
    pub wakes: Arc<Wakes>,
    pub history: History,
    pub posts: mpsc::Receiver<(ChatId, Post<Reply>)>,
    pub commands: mpsc::Receiver<Command>,
    pub lane: mpsc::Sender<Submission>,
    pub done: mpsc::Receiver<LaneDone>,
    pub done_sender: mpsc::Sender<LaneDone>,
    pub state: State,
}

#[derive(Default)]
pub(super) struct State {
    chats: AHashMap<ChatId, Place>,
    /// Chats with posts to write, oldest first.
    listed: Vec<ChatId>,
    idle: IdleList,
    store_calls: FuturesUnordered<StoreCall>,
    load: Load,
    waiting_commands: usize,
    /// A batch is with the lane.
    writing: bool,
    /// No post's deadline is before this.
    next_expiry: Option<Instant>,
    draining: bool,
    drained: Vec<oneshot::Sender<()>>,
    effects: Vec<Effect<Reply>>,
}

impl Shard {
    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        let mut posts = Vec::new();
        let mut commands = Vec::new();
        loop {
            let timer = self.next_timer();
            let room = self.has_room();
            tokio::select! {
                Some(done) = self.done.recv() => self.landed(done),
                Some(answer) = self.state.store_calls.next() => self.store_answered(answer),
                count = self.commands.recv_many(&mut commands, TURN) => {
                    if count == 0 {
                        return;
                    }
                    commands.drain(..).for_each(|command| self.command(command));
                }
                count = self.posts.recv_many(&mut posts, TURN), if room => {
                    if count == 0 {
                        return;
                    }
                    posts.drain(..).for_each(|(chat, post)| self.post(chat, post));
                }
                () = sleep_until(timer) => {}
            }
            let now = self.history.clock.now();
            self.expire(now);
            self.let_go(now);
            self.write();
            self.finish_drain();
        }
    }

    fn has_room(&self) -> bool {
        let (load, bound) = (self.state.load, self.settings.pending);
        load.posts < bound.posts && load.bytes < bound.bytes
    }

    fn next_timer(&self) -> Option<Instant> {
        let idle = self.state.idle.first();
        let idle = idle.map(|touched| touched + self.settings.idle);
        idle.into_iter().chain(self.state.next_expiry).min()
    }

    // Posts.

    fn post(&mut self, id: ChatId, post: Post<Reply>) {
        if self.state.draining {
            return post.reply.send(Err(Refusal::Draining));
        }
        let deadline = post.deadline;
        let next = self.state.next_expiry;
        self.state.next_expiry = Some(next.map_or(deadline, |next| next.min(deadline)));
        match self.place(id) {
            Place::Loading(waiting) => {
                waiting.posts.push(post);
                self.state.load.posts += 1;
            }
            Place::Active(_) => self.accept(id, post),
        }
    }

    fn accept(&mut self, id: ChatId, post: Post<Reply>) {
        let now = self.history.clock.now();
        let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
            return post.reply.send(Err(Refusal::Unavailable));
        };
        if active.is_ending() {
            return post.reply.send(Err(Refusal::Unavailable));
        }
        active.touched = now;
        let before = active.chat.load();
        active.chat.accept(post, &mut self.state.effects);
        adjust(&mut self.state.load, before, active.chat.load());
        if active.chat.has_queued() && !active.listed {
            active.listed = true;
            self.state.listed.push(id);
        }
        self.answer_effects();
    }

    /// Gives the lane the next batch, if it has none of this shard's.
    fn write(&mut self) {
        if self.state.writing || self.state.listed.is_empty() {
            return;
        }
        let wall = self.history.clock.wall();
        let mut room = self.settings.batch;
        let mut rows = Vec::with_capacity(room.rows.min(self.state.load.posts));
        let mut left = Vec::new();
        for id in std::mem::take(&mut self.state.listed) {
            let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                continue;
            };
            let before = active.chat.load();
            active
                .chat
                .take(&mut rows, &mut room, wall, &mut self.state.effects);
            adjust(&mut self.state.load, before, active.chat.load());
            active.listed = active.chat.has_queued();
            if active.listed {
                left.push(id);
            }
        }
        self.state.listed = left;
        self.answer_effects();
        if rows.is_empty() {
            return;
        }
        let done = self.done_sender.clone();
        // The lane has a place for one batch of each of its shards.
        self.state.writing = self.lane.try_send(Submission { rows, done }).is_ok();
        debug_assert!(self.state.writing, "one batch a shard");
    }

    fn landed(&mut self, done: LaneDone) {
        self.state.writing = false;
        let mut feeds: Vec<Arc<Feed>> = Vec::new();
        let mut entries = Vec::new();
        let mut done = done.into_iter().peekable();
        while let Some(first) = done.peek() {
            let id = first.chat();
            let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                debug_assert!(false, "a chat with posts at the writer stays active");
                done.next();
                continue;
            };
            let before = active.chat.load();
            let mut missing = false;
            while let Some(landed) = done.next_if(|landed| landed.chat() == id) {
                missing |= matches!(landed, Landed::NoChat { .. });
                active.chat.landed(landed, &mut self.state.effects);
            }
            adjust(&mut self.state.load, before, active.chat.load());
            for effect in self.state.effects.drain(..) {
                match effect {
                    Effect::Answer(reply, result) => reply.send(result),
                    Effect::Publish(row) => entries.push(Entry::new(&row)),
                }
            }
            active.feed.append(entries.drain(..));
            feeds.push(active.feed.clone());
            let History { store, clock } = &self.history;
            let next = if missing {
                active.reload(store, clock)
            } else {
                active.begin_deletion(store)
            };
            self.go_on(id, next);
        }
        self.wakes.wake(self.core, feeds.iter());
    }

    /// Answers a chat's posts that have not left for the writer.
    fn refuse_queued(&mut self, id: ChatId, refusal: Refusal) {
        let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
            return;
        };
        let before = active.chat.load();
        active.chat.refuse_queued(refusal, &mut self.state.effects);
        adjust(&mut self.state.load, before, active.chat.load());
        self.answer_effects();
    }

    fn answer_effects(&mut self) {
        for effect in self.state.effects.drain(..) {
            if let Effect::Answer(reply, result) = effect {
                reply.send(result);
            }
        }
    }

    // Commands.

    fn command(&mut self, command: Command) {
        match command {
            Command::Chat(_, command) if self.state.draining => {
                refuse(command, |_| ShardError::Draining);
            }
            Command::Chat(id, command) => self.chat_command(id, command),
            Command::Drain(drained) => {
                self.state.draining = true;
                self.state.drained.push(drained);
            }
        }
    }

    fn chat_command(&mut self, id: ChatId, command: ChatCommand) {
        let now = self.history.clock.now();
        let full = self.state.waiting_commands >= MAX_WAITING_COMMANDS;
        let active = match self.place(id) {
            Place::Active(active) => active,
            Place::Loading(_) if full => return refuse_busy(command),
            Place::Loading(waiting) => {
                waiting.commands.push(command);
                self.state.waiting_commands += 1;
                return;
            }
        };
        active.touched = now;
        match command {
            ChatCommand::Get { caller, answer } => {
                let seen = active.check_may_see(&caller);
                _ = answer.send(seen.map(|()| active.chat.record()));
            }
            ChatCommand::Join {
                user,
                after_seq,
                core,
                answer,
            } if !active.is_ending() => {
                let (settings, history) = (self.settings, self.history.clone());
                let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                    return;
                };
                let joined = join(active, user, after_seq, core, settings, history);
                _ = answer.send(joined);
            }
            command if active.change.is_some() => {
                if full {
                    return refuse_busy(command);
                }
                active.waiting.push_back(command);
                self.state.waiting_commands += 1;
            }
            command => {
                let max = self.settings.max_members;
                let store = self.history.store.clone();
                let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                    return;
                };
                let next = active.begin(command, max, &store);
                if active.is_ending() {
                    self.refuse_queued(id, Refusal::Unavailable);
                }
                self.go_on(id, next);
            }
        }
    }

    // What the store says.

    fn store_answered(&mut self, answer: StoreAnswer) {
        let (id, next) = match answer {
            StoreAnswer::Loaded(id, found) => match self.state.chats.get_mut(&id) {
                Some(Place::Active(active)) => {
                    // Reloading never gives up, so an error here is a refusal
                    // to read what was written: as good as gone.
                    let record = found.ok().flatten().map(|(record, _)| record);
                    (id, active.reloaded(record))
                }
                _ => return self.loaded(id, found),
            },
            StoreAnswer::Changed(id, result) => match self.state.chats.get_mut(&id) {
                Some(Place::Active(active)) => {
                    let History { store, clock } = &self.history;
                    (id, active.changed(result, store, clock))
                }
                _ => return,
            },
        };
        self.go_on(id, next);
        self.take_waiting(id);
    }

    /// Goes on with the commands that waited for a change, until the next change.
    fn take_waiting(&mut self, id: ChatId) {
        while let Some(Place::Active(active)) = self.state.chats.get_mut(&id)
            && active.change.is_none()
            && let Some(command) = active.waiting.pop_front()
        {
            self.state.waiting_commands -= 1;
            self.chat_command(id, command);
        }
    }

    fn go_on(&mut self, id: ChatId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Call(call) => self.state.store_calls.push(call),
            Next::Gone => {
                self.refuse_queued(id, Refusal::NotMember);
                if let Some(Place::Active(active)) = self.state.chats.get_mut(&id)
                    && active.chat.has_in_flight()
                {
                    // The writer's answer is to find it here.
                    active.change = Some(Change::Gone);
                    return;
                }
                let Some(Place::Active(active)) = self.state.chats.remove(&id) else {
                    return;
                };
                self.wakes.wake(self.core, std::iter::once(&active.feed));
                // They find no chat now, and are answered so.
                self.state.waiting_commands -= active.waiting.len();
                for command in active.waiting {
                    self.chat_command(id, command);
                }
            }
        }
    }

    /// The chat's place, which begins to load if it had none.
    fn place(&mut self, id: ChatId) -> &mut Place {
        self.state.chats.entry(id).or_insert_with(|| {
            let History { store, clock } = self.history.clone();
            let patience = Some(self.settings.patience);
            let newest = self.settings.ring.messages;
            let call = load(id, newest, patience, store, clock);
            self.state.store_calls.push(call);
            Place::Loading(Waiting::default())
        })
    }

    fn loaded(&mut self, id: ChatId, found: StoreResult<Option<(ChatRecord, Vec<Row>)>>) {
        let Some(Place::Loading(waiting)) = self.state.chats.remove(&id) else {
            return;
        };
        self.state.load.posts -= waiting.posts.len();
        self.state.waiting_commands -= waiting.commands.len();
        match found {
            Ok(Some((record, newest))) => {
                self.activate(record, &newest);
                for command in waiting.commands {
                    self.chat_command(id, command);
                }
                for post in waiting.posts {
                    self.accept(id, post);
                }
            }
            Ok(None) => {
                waiting.commands.into_iter().for_each(refuse_missing);
                refuse_posts(waiting.posts, &Refusal::NotMember);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(chat = %id, error, "chat could not be loaded");
                for command in waiting.commands {
                    refuse(command, |_| ShardError::Unavailable);
                }
                refuse_posts(waiting.posts, &Refusal::Unavailable);
            }
        }
    }

    fn activate(&mut self, record: ChatRecord, newest: &[Row]) {
        let id = record.id;
        let before = record.last_seq - newest.len() as Seq;
        let cores = self.wakes.cores();
        let feed = Feed::new(id, before, self.settings.ring, cores);
        feed.append(newest.iter().map(Entry::new));
        let touched = self.history.clock.now();
        let active = Active {
            chat: Chat::new(record, newest, self.settings.ring.messages),
            feed: Arc::new(feed),
            touched,
            listed: false,
            change: None,
            waiting: Default::default(),
        };
        self.state.chats.insert(id, Place::Active(Box::new(active)));
        self.state.idle.push(touched, id);
    }

    // Time.

    /// Answers whoever waits past a deadline.
    fn expire(&mut self, now: Instant) {
        if self.state.next_expiry.is_none_or(|next| next > now) {
            return;
        }
        let State {
            chats,
            load,
            effects,
            next_expiry,
            ..
        } = &mut self.state;
        *next_expiry = None;
        let mut earliest = |deadline: Option<Instant>| {
            *next_expiry = deadline.into_iter().chain(*next_expiry).min();
        };
        for place in chats.values_mut() {
            match place {
                Place::Loading(waiting) => {
                    let (late, rest): (Vec<_>, _) = std::mem::take(&mut waiting.posts)
                        .into_iter()
                        .partition(|post| post.deadline <= now);
                    load.posts -= late.len();
                    refuse_posts(late, &Refusal::Expired);
                    earliest(rest.iter().map(|post| post.deadline).min());
                    waiting.posts = rest;
                }
                Place::Active(active) if active.chat.load() != Load::default() => {
                    let before = active.chat.load();
                    active.chat.expire(now, effects);
                    adjust(load, before, active.chat.load());
                    earliest(active.chat.earliest_deadline());
                }
                Place::Active(_) => {}
            }
        }
        self.answer_effects();
    }

    /// Lets go of chats that nobody has used for a while.
    fn let_go(&mut self, now: Instant) {
        let idle = self.settings.idle;
        let Some(before) = now.checked_sub(idle) else {
            return;
        };
        let mut gone = false;
        while let Some(id) = self.state.idle.pop_before(before) {
            let Some(Place::Active(active)) = self.state.chats.get(&id) else {
                continue;
            };
            if active.touched <= before && active.is_idle() {
                self.state.chats.remove(&id);
                gone = true;
            } else {
                // In use: it has to be idle for the whole time from now on.
                let seen = active.touched.max(before + Duration::from_nanos(1));
                let again = if active.is_idle() { seen } else { now };
                self.state.idle.push(again, id);
            }
        }
        if gone && self.state.chats.len() < self.state.chats.capacity() / 4 {
            self.state.chats.shrink_to_fit();
        }
    }

    /// Ends the streams once all that was accepted has its answer.
    fn finish_drain(&mut self) {
        if self.state.drained.is_empty() || self.state.load.posts > 0 {
            return;
        }
        let places = self.state.chats.values();
        let feeds: Vec<&Arc<Feed>> = places
            .filter_map(|place| match place {
                Place::Active(active) => Some(&active.feed),
                Place::Loading(_) => None,
            })
            .collect();
        feeds.iter().for_each(|feed| feed.end(End::Draining));
        self.wakes.wake(self.core, feeds.into_iter());
        for drained in self.state.drained.drain(..) {
            _ = drained.send(());
        }
    }
}

fn join(
    active: &Active,
    user: UserName,
    after_seq: Option<Seq>,
    core: usize,
    settings: ShardSettings,
    history: History,
) -> Result<Reader, ShardError> {
    if !active.chat.members().contains(&user) {
        return Err(ShardError::NotMember);
    }
    let last_seq = active.chat.last_seq();
    let cursor = after_seq.unwrap_or(last_seq);
    if cursor > last_seq {
        return Err(ShardError::AheadOfChat { last_seq });
    }
    let slot = Arc::new(Slot::new(user, settings.stream_posts));
    let feed = active.feed.clone();
    Ok(Reader::join(feed, slot, core, cursor, history))
}

fn refuse_busy(command: ChatCommand) {
    let queue = "commands on a chat";
    refuse(command, |_| ShardError::Busy { queue });
}

fn refuse_posts(posts: Vec<Post<Reply>>, refusal: &Refusal) {
    for post in posts {
        post.reply.send(Err(refusal.clone()));
    }
}

fn adjust(total: &mut Load, before: Load, after: Load) {
    total.posts = total.posts + after.posts - before.posts;
    total.bytes = total.bytes + after.bytes - before.bytes;
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}
