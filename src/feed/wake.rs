use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::shared::Feed;
use crate::fault::{self, Fault};

/// Carries wake-ups from the core that appends to the cores of the readers: one notification a
/// core and commit, however many chats and readers it concerns. A feed stands in
/// a core's list once at most, so the list is bounded by the active chats.
#[derive(Debug)]
pub struct Wakes {
    cores: Box<[CoreWakes]>,
}

#[derive(Debug, Default)]
struct CoreWakes {
    feeds: Mutex<Vec<Arc<Feed>>>,
    notify: Notify,
}

impl Wakes {
    pub fn new(cores: usize) -> Self {
        Self {
            cores: (0..cores).map(|_| CoreWakes::default()).collect(),
        }
    }

    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Wakes the readers of these feeds, those on `here` at once.
    pub fn wake<'a>(&self, here: usize, feeds: impl Iterator<Item = &'a Arc<Feed>> + Clone) {
        if fault::strikes(Fault::LoseAWake) {
            return;
        }
        feeds.clone().for_each(|feed| feed.taps.wake());
        for (core, wakes) in self.cores.iter().enumerate() {
            let mut called = feeds.clone().filter(|feed| feed.call(core)).peekable();
            if core == here {
                called.for_each(|feed| feed.wake(core));
            } else if called.peek().is_some() {
                wakes.feeds().extend(called.cloned());
                wakes.notify.notify_one();
            }
        }
    }

    /// Runs on each core, for as long as the core does.
    pub async fn run(self: Arc<Self>, core: usize) {
        let wakes = &self.cores[core];
        loop {
            wakes.notify.notified().await;
            let feeds = std::mem::take(&mut *wakes.feeds());
            feeds.iter().for_each(|feed| feed.wake(core));
        }
    }
}

impl CoreWakes {
    fn feeds(&self) -> MutexGuard<'_, Vec<Arc<Feed>>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
