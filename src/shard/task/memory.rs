//! What a shard's chats hold in memory, kept to the shard's part of the budget.
//!
//! Over it, rings are cut, those first that were used longest ago: a chat stands in
//! a line from when its ring first holds something, and whoever comes to the front
//! and has been used since it came into line goes to the end once more. That is the
//! clock of page replacement (Corbató, 1968), and costs a flag a use. Readers of a
//! chat that is cut are fed from the store. If the rings are not enough, chats that
//! nobody uses leave memory before their time.

use std::{collections::VecDeque, time::Instant};

use ahash::AHashMap;

use super::{Shard, State};
use crate::{
    domain::ChatId,
    shard::active::{Active, Place},
};

/// Most chats that are let go before their time at once: each may have thousands of
/// parts to free.
const MOST_AT_ONCE: usize = 256;

/// The account of one shard.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Bytes that all chats hold, about.
    held: usize,
    /// What the metrics have been told of that.
    told: usize,
    line: Line,
}

/// Chats whose rings hold something, each with the number of its place.
#[derive(Debug, Default)]
struct Line {
    places: VecDeque<(u64, ChatId)>,
    last: u64,
    /// Places, at most, whose chats have left memory.
    left: usize,
}

impl Line {
    /// The number of a new place at the end.
    fn enter(&mut self, id: ChatId) -> u64 {
        self.last += 1;
        self.places.push_back((self.last, id));
        self.last
    }

    /// A chat that stands in the line has left memory. Its place goes with those of
    /// others, once they are many.
    fn leave(&mut self, stands: impl Fn(u64, ChatId) -> bool) {
        self.left += 1;
        if self.left > self.places.len() / 2 {
            self.places.retain(|(place, id)| stands(*place, *id));
            self.left = 0;
        }
    }
}

impl Memory {
    /// The chat has been used, and may hold more now.
    pub fn hold(&mut self, active: &mut Active) {
        self.weigh(active);
        active.used = true;
        let enter = || self.line.enter(active.chat.id());
        active.place.get_or_insert_with(enter);
    }

    /// Accounts for what the chat holds now.
    fn weigh(&mut self, active: &mut Active) {
        let held = active.weight();
        self.held = self.held + held - active.held;
        active.held = held;
    }
}

impl Shard {
    /// Takes a chat out of memory.
    pub(super) fn remove(&mut self, id: ChatId) -> Option<Place> {
        let place = self.state.chats.remove(&id);
        if let Some(Place::Active(active)) = &place {
            let State { memory, chats, .. } = &mut self.state;
            memory.held -= active.held;
            if active.place.is_some() {
                memory.line.leave(|place, id| stands(chats, place, id));
            }
        }
        place
    }

    fn is_over_budget(&self) -> bool {
        self.state.memory.held + self.state.load.bytes > self.settings.memory
    }

    pub(super) fn keep_to_budget(&mut self, now: Instant) {
        if self.is_over_budget() {
            let cut = self.cut_rings();
            self.history.metrics.rings_cut(cut);
            let gone = self.let_go_early(now);
            self.trim(now, cut > 0 || gone);
        }
        let Self { state, history, .. } = self;
        let memory = &mut state.memory;
        if memory.held != memory.told {
            history.metrics.memory_held(memory.told, memory.held);
            memory.told = memory.held;
        }
    }

    /// How many.
    fn cut_rings(&mut self) -> u64 {
        let mut cut = 0;
        let mut spared = self.state.memory.line.places.len();
        while self.is_over_budget()
            && let Some((place, id)) = self.state.memory.line.places.pop_front()
        {
            let memory = &mut self.state.memory;
            let active = match self.state.chats.get_mut(&id) {
                Some(Place::Active(active)) if active.place == Some(place) => active,
                _ => continue,
            };
            if std::mem::take(&mut active.used) && spared > 0 {
                spared -= 1;
                memory.line.places.push_back((place, id));
                continue;
            }
            active.place = None;
            active.feed.cut();
            memory.weigh(active);
            cut += 1;
        }
        cut
    }

    /// Whether some have gone.
    fn let_go_early(&mut self, now: Instant) -> bool {
        let mut gone = false;
        for _ in 0..MOST_AT_ONCE.min(self.state.idle.len()) {
            if !self.is_over_budget() {
                break;
            }
            let Some(id) = self.state.idle.pop_before(now) else {
                break;
            };
            match self.state.chats.get(&id) {
                Some(Place::Active(active)) if active.is_idle() => {
                    self.remove(id);
                    self.history.metrics.chat_let_go();
                    gone = true;
                }
                Some(Place::Active(_)) => self.state.idle.push(now, id),
                _ => {}
            }
        }
        gone
    }
}

/// Whether this place in the line is a chat's that is in memory.
fn stands(chats: &AHashMap<ChatId, Place>, place: u64, id: ChatId) -> bool {
    matches!(chats.get(&id), Some(Place::Active(active)) if active.place == Some(place))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::chat_id;

    /// Without a single cut, since the budget is large.
    #[test]
    fn p6_chats_that_come_and_go_leave_no_places_behind() {
        let mut line = Line::default();
        let mut places: HashMap<ChatId, u64> = HashMap::new();
        for n in 0..100_000 {
            let id = chat_id(1 + n % 100);
            if places.remove(&id).is_some() {
                line.leave(|place, id| places.get(&id) == Some(&place));
            }
            places.insert(id, line.enter(id));
            assert!(
                line.places.len() <= 2 * places.len() + 2,
                "{}",
                line.places.len()
            );
        }
        let mut ids: Vec<ChatId> = line.places.iter().map(|(_, id)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), places.len(), "nobody is left out");
    }
}
