//! Messages that somebody wants to change, read from the store.

use super::{Shard, adjust};
use crate::{
    domain::{ChatId, Target},
    feed::History,
    shard::{active::Place, reads::targets},
    store::StoreResult,
    telemetry::{chain, log_limited},
};

impl Shard {
    /// Has the messages read that the chat wants to know.
    pub(super) fn read_targets(&mut self, id: ChatId) {
        let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
            return;
        };
        if let Some(asked) = active.chat.targets_to_read() {
            let History { store, clock, .. } = &*self.history;
            let (store, clock) = (store.clone(), clock.clone());
            let call = targets(id, asked, self.settings.patience, store, clock);
            self.state.store_calls.push(call);
        }
    }

    pub(super) fn targets_read(
        &mut self,
        id: ChatId,
        number: u64,
        found: StoreResult<Vec<Target>>,
    ) {
        if let Err(error) = &found {
            log_limited!(WARN, chat = %id, error = %chain(error), "messages to be changed not read");
        }
        let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
            return;
        };
        let before = active.chat.load();
        let effects = &mut self.state.effects;
        active.chat.targets_read(number, found.ok(), effects);
        adjust(&mut self.state.load, before, active.chat.load());
        if active.chat.has_queued() && !active.listed {
            active.listed = true;
            self.state.listed.push(id);
        }
        self.answer_effects();
        self.read_targets(id);
    }
}
