//! Another server of the database has taken over, and may have less than was
//! acknowledged: what memory has of the chats is held against what the store has.
//! A chat that has lost messages leaves memory, and its streams end, so that its
//! clients go on from what is there.

use std::future::pending;

use tokio::sync::watch;

use super::Shard;
use crate::{
    domain::ChatId,
    fault::{self, Fault},
    feed::History,
    shard::{
        active::{Place, Trust},
        askers::Asked,
    },
    store::Lineage,
};

/// Ends when the store's lineage is another, or in doubt.
pub(super) async fn changed(lineage: &mut Option<watch::Receiver<Lineage>>) -> Lineage {
    if let Some(watch) = lineage
        && watch.changed().await.is_ok()
    {
        return *watch.borrow_and_update();
    }
    // The store is closed, or there is one server for good.
    pending().await
}

/// The store's lineage, if it is another or in doubt since it was last looked at.
pub(super) fn has_changed(lineage: &mut Option<watch::Receiver<Lineage>>) -> Option<Lineage> {
    let watch = lineage.as_mut()?;
    let changed = watch.has_changed().unwrap_or(false);
    changed.then(|| *watch.borrow_and_update())
}

impl Shard {
    /// Doubts every chat, until it has been read again, if another server answers.
    pub(super) fn meet(&mut self, lineage: Lineage) {
        let before = std::mem::replace(&mut self.state.lineage, lineage);
        if lineage.number != before.number {
            let mut ids: Vec<ChatId> = self.state.chats.keys().copied().collect();
            // So that it can be played again.
            ids.sort_unstable();
            ids.into_iter().for_each(|id| self.doubt(id));
        }
        self.agree();
    }

    /// What memory has is what the store has, as far as anybody knows.
    pub(super) fn is_sure(&self) -> bool {
        self.state.doubted.is_empty() && !self.state.lineage.in_doubt
    }

    /// Has the chat read again, since the store may have less of it.
    pub(super) fn doubt(&mut self, id: ChatId) {
        if fault::is_on(Fault::BelieveMemory) {
            return;
        }
        let next = match self.state.chats.get_mut(&id) {
            None => return,
            Some(Place::Loading(waiting)) => {
                waiting.doubted = !matches!(waiting.asked, Asked::NotYet);
                return;
            }
            Some(Place::Active(active)) => {
                self.state.doubted.insert(id);
                active.trust = Trust::Doubted;
                let History { store, clock, .. } = &*self.history;
                active.reload(store, clock)
            }
        };
        self.go_on(id, next);
    }

    /// The chat has been read again, or is on its way out, if there was doubt.
    pub(super) fn settle_doubt(&mut self, id: ChatId) {
        let doubted =
            |place: &Place| matches!(place, Place::Active(active) if active.trust != Trust::Sure);
        if !self.state.doubted.is_empty()
            && !self.state.chats.get(&id).is_some_and(doubted)
            && self.state.doubted.remove(&id)
        {
            self.agree();
        }
    }

    /// The store's lineage that the chats agree with, if there is no doubt.
    pub(super) fn agreed(&self) -> Option<u64> {
        self.state.doubted.is_empty().then_some(self.state.agreed)
    }

    /// With no doubt left, the shard's chats agree with the store as it is now.
    fn agree(&mut self) {
        if self.state.doubted.is_empty() {
            self.state.agreed = self.state.lineage.number;
        }
    }
}
