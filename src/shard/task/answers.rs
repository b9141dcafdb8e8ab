//! What the store says: chats that are read, changes that are made.

use std::sync::Arc;

use super::{Shard, adjust};
use crate::{
    domain::{ChatId, Refusal, Row, Seq},
    feed::{End, Feed, History, Item},
    shard::{
        active::{Active, Place, Trust},
        change::Next,
        chat::Chat,
        reads::StoreAnswer,
    },
    store::ChatRecord,
    telemetry::log_limited,
};

impl Shard {
    pub(super) fn store_answered(&mut self, answer: StoreAnswer) {
        let (id, next) = match answer {
            StoreAnswer::Loaded(id, found) => match self.state.chats.get_mut(&id) {
                Some(Place::Active(active)) => {
                    // Reloading never gives up, so an error here is a refusal
                    // to read what was written: as good as gone.
                    (id, active.reloaded(found.ok().flatten(), &self.history))
                }
                _ => return self.loaded(id, found),
            },
            StoreAnswer::Changed(id, result) => match self.state.chats.get_mut(&id) {
                Some(Place::Active(active)) => {
                    let History { store, clock, .. } = &*self.history;
                    (id, active.changed(result, store, clock))
                }
                _ => return,
            },
            StoreAnswer::LookedUp(id, found) => return self.looked_up(id, found),
            StoreAnswer::Targets(id, number, found) => {
                return self.targets_read(id, number, found);
            }
        };
        self.go_on(id, next);
        self.take_new_members(id);
        self.take_waiting(id);
    }

    /// Goes on with the commands that waited for a change, until the next change.
    pub(super) fn take_waiting(&mut self, id: ChatId) {
        while let Some(Place::Active(active)) = self.state.chats.get_mut(&id)
            && active.change.is_none()
            && let Some(command) = active.waiting.pop()
        {
            self.state.waiting_calls -= command.calls();
            self.chat_command(id, command);
        }
    }

    pub(super) fn go_on(&mut self, id: ChatId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Call(call) => self.state.store_calls.push(call),
            Next::Gone(end) => {
                let Some(Place::Active(mut active)) = self.remove(id) else {
                    return;
                };
                self.history.metrics.chat_let_go();
                let before = active.chat.load();
                let effects = &mut self.state.effects;
                let refusal = match end {
                    End::Lost => Refusal::Lost,
                    _ => Refusal::NotMember,
                };
                active.chat.refuse_queued(refusal, effects);
                adjust(&mut self.state.load, before, active.chat.load());
                self.answer_effects();
                self.wakes.wake(self.core, std::iter::once(&active.feed));
                // They find no chat now, and are answered so.
                self.state.waiting_calls -= active.waiting.calls();
                for command in active.waiting {
                    self.chat_command(id, command);
                }
            }
        }
        self.settle_doubt(id);
    }

    /// The newest messages without a hole among them: the ring has none. Whoever
    /// reads what is before the hole is led past it on the way.
    fn dense_end<'r>(&self, chat: ChatId, newest: &'r [Row]) -> &'r [Row] {
        let is_hole = |pair: &[Row]| pair[0].seq + 1 != pair[1].seq;
        let Some(hole) = newest.windows(2).rposition(is_hole) else {
            return newest;
        };
        let (before, behind) = (newest[hole].seq, newest[hole + 1].seq);
        log_limited!(ERROR, %chat, from = before + 1, through = behind - 1,
            "messages are missing in the store");
        &newest[hole + 1..]
    }

    pub(super) fn activate(&mut self, record: ChatRecord, newest: &[Row]) {
        let id = record.id;
        let dense = self.dense_end(id, newest);
        let before = record.last_seq - dense.len() as Seq;
        let cores = self.wakes.cores();
        let items = dense.iter().map(Item::new);
        let feed = match self.adopted(id) {
            Some(feed) => {
                feed.begin(before);
                feed.append(items);
                Self::end_strangers(&feed, &record);
                self.wakes.wake(self.core, std::iter::once(&feed));
                feed
            }
            None => {
                let feed = Feed::new(id, before, self.settings.ring, cores);
                feed.append(items);
                Arc::new(feed)
            }
        };
        let by_id = self.state.partitions.is_some();
        let touched = self.history.clock.now();
        let mut active = Active {
            chat: Chat::new(record, newest, self.settings.ring.messages, by_id),
            feed,
            touched,
            listed: false,
            deferred: false,
            change: None,
            trust: Trust::Sure,
            waiting: Default::default(),
            held: 0,
            place: None,
            used: false,
        };
        self.state.memory.hold(&mut active);
        self.state.chats.insert(id, Place::Active(Box::new(active)));
        self.state.idle.push(touched, id);
        self.history.metrics.chat_activated();
    }
}
