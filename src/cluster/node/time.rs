//! What time brings: beats, looks at the table, deadlines, and a look at the store for
//! what can't be heard of.

use std::time::{Duration, Instant};

use super::{Done, Node};
use crate::{
    cluster::nodes::BEAT,
    domain::{ChatId, Partition, UserName},
    feed::{End, Feed},
    telemetry::{chain, log_limited},
};

/// So long an owner is not heard before what it owns is looked for in the store.
const DEAF: Duration = Duration::from_millis(700);

/// Between two such looks, and between looks at whatever may have been forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// Chats that are looked for at a time.
const LOOKS: usize = 4_096;

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// When things are due.
#[derive(Debug)]
pub(in crate::cluster) struct Times {
    next_beat: Instant,
    beating: bool,
    reading: bool,
    /// The table has changed, or may have.
    pub look: bool,
    next_soon: Instant,
    next_sweep: Instant,
    looking: bool,
    /// Where the next look at the store begins.
    looked: Option<ChatId>,
}

impl Times {
    pub fn new(now: Instant) -> Self {
        Self {
            next_beat: now,
            beating: false,
            reading: false,
            look: true,
            next_soon: now,
            next_sweep: now + SWEEP,
            looking: false,
            looked: None,
        }
    }

    pub fn beat_now(&mut self) {
        if let Some(earlier) = self.next_beat.checked_sub(BEAT) {
            self.next_beat = earlier;
        }
    }

    /// Has the table looked at, but not more often than beats are.
    pub fn look_soon(&mut self, now: Instant) {
        if self.next_soon <= now {
            self.next_soon = now + BEAT / 4;
            self.look = true;
        }
    }

    pub fn read_ended(&mut self, is_beat: bool) {
        match is_beat {
            true => self.beating = false,
            false => self.reading = false,
        }
    }
}

impl Node {
    pub(super) fn tick(&mut self) {
        let now = self.now();
        if !self.rejoining {
            self.beat(now);
        }
        self.send_all_unsent(now);
        self.watch_again();
        self.expire_asks(now);
        self.end_streams();
        if self.times.next_sweep <= now {
            self.times.next_sweep = now + SWEEP;
            self.sweep_asks();
            let effects = self.edge.ask_unanswered();
            self.follow_on(effects);
            self.keep_to_memory();
            self.let_go_unread();
            self.look_in_store();
            self.show_status();
        }
    }

    /// Watches what was given up, wherever it is by now.
    fn watch_again(&mut self) {
        let (known, me) = (&self.known, self.id);
        let owner = |chat| known.owner(Partition::of(chat)).filter(|one| *one != me);
        let effects = self.edge.ask_again(owner);
        self.follow_on(effects);
    }

    fn beat(&mut self, now: Instant) {
        if self.times.next_beat <= now && !self.times.beating {
            self.times.beating = true;
            self.times.next_beat = now + BEAT;
            let (registry, id) = (self.plan.beats.clone(), self.id);
            let lineage = self.plan.history.store.lineage_number();
            let (leaving, on_bus) = (self.leaving.is_some(), self.plan.bus.is_up());
            self.run_beside(async move {
                Done::Table(id, lineage, registry.beat(id, leaving, on_bus).await, true)
            });
        }
    }

    /// Looks at the table, if it has changed and is not being read.
    pub(super) fn look_at_table(&mut self) {
        if self.times.look && !self.times.reading && !self.rejoining {
            self.times.look = false;
            self.times.reading = true;
            let (registry, id) = (self.plan.registry.clone(), self.id);
            let lineage = self.plan.history.store.lineage_number();
            self.run_beside(async move { Done::Table(id, lineage, registry.table().await, false) });
        }
    }

    /// Lets go of feeds that nobody reads: those whose users were removed have told nobody.
    fn let_go_unread(&mut self) {
        let edge = &self.edge;
        let is_read =
            |chat: &ChatId, feed: &Feed| edge.owner(*chat).is_some() || feed.readers() > 0;
        self.feeds.retain(|chat, one| is_read(chat, &one.feed));
    }

    /// Cuts the rings of followed chats if they hold too much: their readers find the
    /// rest in the store.
    fn keep_to_memory(&mut self) {
        let weights = self.feeds.values().map(|one| one.feed.weight());
        if weights.sum::<usize>() > self.plan.memory {
            self.feeds.values().for_each(|one| one.feed.cut());
        }
    }

    /// Looks in the store for what is new in chats whose owner can't be heard or has not
    /// answered, and for who may still read them.
    fn look_in_store(&mut self) {
        if self.times.looking {
            return;
        }
        let from = self.times.looked.take();
        let unanswered: std::collections::BTreeSet<ChatId> = self.edge.unanswered().collect();
        let is_deaf = |chat: &ChatId| {
            let owner = self.edge.owner(*chat);
            unanswered.contains(chat) || owner.is_none_or(|owner| !self.hears(owner, DEAF))
        };
        let mut deaf: Vec<ChatId> = self.feeds.keys().copied().filter(is_deaf).collect();
        if deaf.is_empty() {
            return;
        }
        deaf.sort_unstable();
        let begin = deaf.partition_point(|chat| from.is_some_and(|from| *chat <= from));
        deaf.rotate_left(begin);
        if deaf.len() > LOOKS {
            deaf.truncate(LOOKS);
            self.times.looked = deaf.last().copied();
        }
        self.plan.history.metrics.chats_looked_for(deaf.len());
        let readers: Vec<(ChatId, UserName)> = deaf
            .iter()
            .flat_map(|chat| self.edge.users(*chat).map(|user| (*chat, user.clone())))
            .collect();
        self.times.looking = true;
        let (store, clock) = (
            self.plan.history.store.clone(),
            self.plan.history.clock.clone(),
        );
        self.run_beside(async move {
            let deadline = clock.now() + PATIENCE;
            // Who was removed before a message is found to be, and gets none of them.
            let found = async {
                let newest = store.last_seqs(&deaf, deadline).await?;
                let strangers = store.strangers(&readers, deadline).await?;
                crate::store::StoreResult::Ok((newest, strangers))
            };
            Done::Looked(match found.await {
                Err(error) => {
                    log_limited!(WARN, error = %chain(&error), "what is new in chats of other nodes can't be looked for");
                    Vec::new()
                }
                Ok((newest, strangers)) => {
                    let chats = deaf.into_iter().zip(newest);
                    let look = |(chat, newest)| {
                        let theirs = strangers.iter().filter(|(of, _)| *of == chat);
                        let users = theirs.map(|(_, user)| user.clone()).collect();
                        (chat, newest, users)
                    };
                    chats.map(look).collect()
                }
            })
        });
    }

    pub(super) fn looking_ended(&mut self) {
        self.times.looking = false;
    }

    /// In a drain, once all that this node's clients wait for is answered.
    fn end_streams(&mut self) {
        if self.ending.is_none() || !self.asks.is_empty() {
            return;
        }
        for one in self.feeds.values() {
            one.feed.end(End::Draining);
            self.woken.push(one.feed.clone());
        }
        if let Some(ended) = self.ending.take() {
            _ = ended.send(());
        }
    }
}
