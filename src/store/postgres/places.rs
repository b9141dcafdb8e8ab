use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Who goes without a session while the server has no place for more: a lane's
/// is asked for here, and readers give theirs up.
#[derive(Debug, Default)]
pub(super) struct Places {
    lanes: AtomicUsize,
    asked: Notify,
}

/// A lane without a session, until this is dropped.
#[derive(Debug)]
pub(super) struct Wanted(Arc<Places>);

impl Places {
    pub fn want(self: &Arc<Self>) -> Wanted {
        self.lanes.fetch_add(1, Ordering::AcqRel);
        self.asked.notify_one();
        Wanted(Arc::clone(self))
    }

    pub fn are_wanted(&self) -> bool {
        self.lanes.load(Ordering::Acquire) > 0
    }

    /// Ends once a lane has no place.
    pub async fn wanted(&self) {
        while !self.are_wanted() {
            self.asked.notified().await;
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.lanes.fetch_sub(1, Ordering::AcqRel);
    }
}
