//! Batches on their way to the lane and back.

use std::{sync::Arc, time::Duration};

use super::{Reply, Shard, adjust};
use crate::{
    domain::{ChatId, Refusal, Row},
    fault::{self, Fault},
    feed::{Feed, History, Item},
    shard::{
        active::Place,
        post::{Effect, Load},
    },
    telemetry::log_limited,
    writer::{Front, Landed, LaneDone, Submission},
};

/// How long chats wait that a lock was in the way of: each try holds up the lane for as
/// long as the store waits for a lock.
const DEFERRED: Duration = Duration::from_secs(1);

/// A chat of a batch that has landed.
struct Told {
    id: ChatId,
    /// Where its effects end among those of the batch.
    through: usize,
    /// The store does not have the chat any more.
    missing: bool,
    /// The store may not have its newest messages any more.
    lost: bool,
}

impl Shard {
    /// Gives the lane the next batch if it has none of this shard's; and one to
    /// go on with while the first is being written, if it is worth a commit. The
    /// two have no chat in common: one that is with the lane gives out nothing.
    pub(super) fn write(&mut self) {
        let worth = self.worth();
        if self.state.batches.is_empty() {
            self.submit();
        }
        // There may be thousands of chats to look at.
        if self.state.batches.len() == 1 && self.state.fresh >= worth {
            self.state.fresh = 0;
            if self.has_ready(worth) {
                self.submit();
            }
        }
    }

    /// Posts that are worth a commit of their own.
    fn worth(&self) -> usize {
        self.settings.batch.rows / 2
    }

    /// Whether so many posts could leave for the lane.
    fn has_ready(&self, posts: usize) -> bool {
        let mut ready = 0;
        self.state.listed.iter().any(|id| {
            if let Some(Place::Active(active)) = self.state.chats.get(id) {
                ready += active.chat.ready() * usize::from(!active.deferred);
            }
            ready >= posts
        })
    }

    /// Puts a batch together.
    fn submit(&mut self) {
        let now = self.history.clock.now();
        self.state.deferred_until.take_if(|until| *until <= now);
        if self.state.listed.is_empty() {
            return;
        }
        let wall = self.history.clock.wall();
        let mut room = self.settings.batch;
        let mut rows = Vec::with_capacity(room.rows.min(self.state.load.posts));
        // Whoever had to be left out comes first the next time, before those
        // that filled this batch.
        let (mut left_out, mut again) = (Vec::new(), Vec::new());
        let (mut sampled, mut fronts) = (Vec::new(), Vec::new());
        let (mut ahead, mut wanting) = (None, Vec::new());
        for id in std::mem::take(&mut self.state.listed) {
            let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                continue;
            };
            let in_turn = room.is_left();
            active.deferred &= self.state.deferred_until.is_some();
            if active.deferred {
                again.push(id);
                continue;
            }
            let (before, newest) = (rows.len(), active.chat.newest());
            let load = active.chat.load();
            let effects = &mut self.state.effects;
            active
                .chat
                .take(&mut rows, &mut room, wall, &self.settings.rules, effects);
            adjust(&mut self.state.load, load, active.chat.load());
            if active.chat.wants_targets() {
                wanting.push(id);
            }
            if rows.len() > before {
                ahead = ahead.max(active.chat.time_ahead(wall));
                fronts.push(Front {
                    chat: id,
                    made: active.chat.made(),
                    newest,
                });
            }
            sampled.extend(active.chat.sampled());
            active.listed = active.chat.has_queued();
            match (active.listed, in_turn) {
                (true, true) => again.push(id),
                (true, false) => left_out.push(id),
                (false, _) => {}
            }
        }
        left_out.append(&mut again);
        self.state.listed = left_out;
        wanting.into_iter().for_each(|id| self.read_targets(id));
        self.answer_effects();
        if let Some(time) = ahead {
            let seconds = (time.0 - wall.0) / 1_000_000;
            log_limited!(
                WARN,
                seconds,
                "a chat's time is ahead of the clock: the clock was ahead when a message came"
            );
            self.history.metrics.ahead.saw(time.0);
        }
        if rows.is_empty() {
            return;
        }
        self.state.batches.push_back(Load {
            posts: rows.len(),
            bytes: rows.iter().map(Row::weight).sum(),
        });
        if fault::is_on(Fault::DeliverBeforeCommit) {
            self.deliver(&rows);
        }
        let submission = Submission {
            rows,
            fronts,
            lineage: self.agreed(),
            sampled,
            done: self.done_sender.clone(),
        };
        self.history.metrics.batch_submitted();
        // The lane has two places for each of its shards.
        let sent = self.lane.try_send(submission);
        debug_assert!(sent.is_ok(), "two batches a shard");
    }

    /// Takes in what became of a batch. The next one, if there is enough for it,
    /// goes out before all is told: the lane would have to wait for it.
    pub(super) fn landed(&mut self, done: LaneDone) {
        let landed = self.state.batches.pop_front().unwrap_or_default();
        self.state.fresh += landed.posts;
        let lineage = self
            .lineage
            .as_ref()
            .map_or(0, |lineage| lineage.borrow().number);
        let taken_over = done.lineage != lineage;
        let done = done.landed;
        let mut effects = Vec::with_capacity(2 * done.len());
        let mut told = Vec::new();
        let mut calm = true;
        let mut done = done.into_iter().peekable();
        while let Some(first) = done.peek() {
            let id = first.chat();
            let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                debug_assert!(false, "a chat with posts at the writer stays active");
                done.next();
                continue;
            };
            let before = active.chat.load();
            let (mut missing, mut lost, mut held) = (false, taken_over, false);
            while let Some(landed) = done.next_if(|landed| landed.chat() == id) {
                missing |= matches!(landed, Landed::NoChat { .. });
                lost |= matches!(landed, Landed::Lost { .. });
                held |= matches!(landed, Landed::Held(_));
                // Before anybody is told that it is deleted (P12).
                if let Landed::Stored(row) | Landed::Foreign(row) = &landed
                    && let Some(message) = row.deleted()
                {
                    active.feed.erase(message);
                }
                active.chat.landed(landed, &mut effects);
            }
            // What came back would go to the lane again, and the chat would be gone
            // when it lands.
            let is_over = held && active.is_ending();
            if is_over {
                active
                    .chat
                    .refuse_queued(Refusal::Unavailable, &mut effects);
            }
            adjust(&mut self.state.load, before, active.chat.load());
            if held && !is_over {
                active.deferred = true;
                if !std::mem::replace(&mut active.listed, true) {
                    self.state.listed.push(id);
                }
                let again = self.history.clock.now() + DEFERRED;
                self.state.deferred_until.get_or_insert(again);
            }
            calm &= !missing && !lost && active.change.is_none();
            let through = effects.len();
            told.push(Told {
                id,
                through,
                missing,
                lost,
            });
        }
        // A chat that is about to go is to have nothing with the lane.
        if calm && self.pending().posts >= self.worth() {
            self.write();
        }
        self.tell(told, effects);
    }

    /// Answers the senders of a batch, and wakes the readers.
    fn tell(&mut self, told: Vec<Told>, effects: Vec<Effect<Reply>>) {
        let mut feeds: Vec<Arc<Feed>> = Vec::with_capacity(told.len());
        let mut items = Vec::new();
        let mut effects = effects.into_iter().enumerate().peekable();
        for Told {
            id,
            through,
            missing,
            lost,
        } in told
        {
            while let Some((_, effect)) = effects.next_if(|(at, _)| *at < through) {
                match effect {
                    Effect::Answer(reply, result) => reply.send(result),
                    Effect::Publish(_) if fault::is_on(Fault::DeliverBeforeCommit) => {}
                    Effect::Publish(row) => items.push(Item::new(&row)),
                }
            }
            let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                items.clear();
                continue;
            };
            active.feed.append(items.drain(..));
            feeds.push(active.feed.clone());
            self.state.memory.hold(active);
            let History { store, clock, .. } = &*self.history;
            let next = if missing {
                active.reload(store, clock)
            } else {
                active.begin_deletion(store)
            };
            self.go_on(id, next);
            if lost {
                self.doubt(id);
            }
        }
        self.wakes.wake(self.core, feeds.iter());
    }

    /// [`Fault::DeliverBeforeCommit`].
    fn deliver(&self, rows: &[Row]) {
        for rows in rows.chunk_by(|a, b| a.chat == b.chat) {
            if let Some(Place::Active(active)) = self.state.chats.get(&rows[0].chat) {
                active.feed.append(rows.iter().map(Item::new));
                self.wakes.wake(self.core, std::iter::once(&active.feed));
            }
        }
    }
}
