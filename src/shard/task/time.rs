//! What time brings: deadlines, idle chats, the end of a drain.

use std::{
    collections::VecDeque,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Shard, State, adjust, refuse_posts};
use crate::{
    domain::Refusal,
    feed::{End, Feed},
    runtime::trim_heap,
    shard::{
        active::Place,
        askers::Waiting,
        handle::Reply,
        post::{Load, Post},
    },
};

/// Deadlines are looked at no more often than this: each look goes over every
/// chat that holds posts.
const EXPIRY_STEP: Duration = Duration::from_millis(5);

/// After chats were let go: their memory goes back together, not one by one.
/// And once more after that, for what other threads have freed in between: only
/// the thread that allocated can give it back.
const TRIM_DELAY: Duration = Duration::from_secs(1);
const LAST_TRIM_DELAY: Duration = Duration::from_secs(2);

impl Shard {
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let idle = self.state.idle.first();
        let idle = idle.map(|touched| touched + self.settings.idle);
        let State {
            next_expiry,
            trim_at,
            last_trim_at,
            ..
        } = self.state;
        // A batch that is with the lane brings its own event.
        let held = self.state.deferred_until;
        let held = held.filter(|_| self.state.batches.is_empty());
        let timers = [idle, next_expiry, trim_at, last_trim_at, held];
        timers.into_iter().flatten().min()
    }

    /// A post has come that is to be answered by `deadline`.
    pub(super) fn expect_expiry(&mut self, deadline: Instant) {
        let last = self.state.last_expiry;
        let soonest = last.map_or(deadline, |last| deadline.max(last + EXPIRY_STEP));
        let next = self.state.next_expiry;
        self.state.next_expiry = Some(next.map_or(soonest, |next| next.min(soonest)));
    }

    /// Answers whoever waits past a deadline.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.state.next_expiry.is_none_or(|next| next > now) {
            return;
        }
        self.state.last_expiry = Some(now);
        let State {
            chats,
            strangers,
            load,
            waiting_posts,
            left_places,
            effects,
            next_expiry,
            ..
        } = &mut self.state;
        *next_expiry = None;
        let mut earliest = |deadline: Option<Instant>| {
            let deadline = deadline.map(|deadline| deadline.max(now + EXPIRY_STEP));
            *next_expiry = deadline.into_iter().chain(*next_expiry).min();
        };
        let is_late = |post: &Post<Reply>| post.deadline <= now;
        if waiting_posts.iter().any(|(_, post)| is_late(post)) {
            let all = std::mem::take(waiting_posts).into_iter();
            let (late, rest): (VecDeque<_>, _) = all.partition(|(_, post)| is_late(post));
            *waiting_posts = rest;
            *left_places += late.len();
            refuse_posts(late.into_iter().map(|(_, post)| post), &Refusal::Expired);
        }
        earliest(waiting_posts.iter().map(|(_, post)| post.deadline).min());
        for waiting in strangers.values_mut() {
            earliest(expire_waiting(waiting, now, load));
        }
        for place in chats.values_mut() {
            match place {
                Place::Loading(waiting) => {
                    earliest(expire_waiting(waiting, now, load));
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
    pub(super) fn let_go(&mut self, now: Instant) {
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
                self.remove(id);
                self.history.metrics.chat_let_go();
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
        self.trim(now, gone);
    }

    pub(super) fn trim(&mut self, now: Instant, gone: bool) {
        let State {
            trim_at,
            last_trim_at,
            ..
        } = &mut self.state;
        if gone {
            trim_at.get_or_insert(now + TRIM_DELAY);
            *last_trim_at = Some(now + LAST_TRIM_DELAY);
        }
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(trim_at) || due(last_trim_at) {
            trim_heap();
        }
    }

    /// A change that somebody asked for is with the store.
    fn is_changing(&self) -> bool {
        let asked = |place: &Place| matches!(place, Place::Active(active) if active.is_changing());
        !self.state.store_calls.is_empty() && self.state.chats.values().any(asked)
    }

    /// Ends the streams once all that was accepted has its answer.
    pub(super) fn finish_drain(&mut self) {
        if self.state.drained.is_empty() || self.state.load.posts > 0 || self.is_changing() {
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

pub(super) async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}

/// Answers those whose deadline has passed; the next deadline.
fn expire_waiting(waiting: &mut Waiting, now: Instant, load: &mut Load) -> Option<Instant> {
    let before = waiting.load();
    let late = waiting.posts.extract_if(.., |post| post.deadline <= now);
    refuse_posts(late, &Refusal::Expired);
    adjust(load, before, waiting.load());
    waiting.posts.iter().map(|post| post.deadline).min()
}
