//! Places for callers: one user's calls and joins don't fill a shard's mailbox.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ahash::AHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::domain::{ChatError, UserName};

/// Commands that a shard may have of one user at a time; those behind them wait with
/// their callers, in the order they came. The mailbox holds those of many users.
const PLACES: usize = 256;

/// Users are forgotten together once so many are known.
const MIN_SWEEP: usize = 1_024;

/// The users who have commands with a shard.
#[derive(Debug, Default)]
pub(super) struct Callers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    places: AHashMap<UserName, Weak<Semaphore>>,
    /// When there are so many, those who have gone are forgotten.
    sweep_at: usize,
}

impl Callers {
    /// Waits for a place of the user's.
    pub async fn enter(&self, user: &UserName) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        self.places(user).acquire_owned().await.ok()
    }

    fn places(&self, user: &UserName) -> Arc<Semaphore> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.places.get(user).and_then(Weak::upgrade) {
            return places;
        }
        if known.places.len() >= known.sweep_at.max(MIN_SWEEP) {
            known.places.retain(|_, places| places.strong_count() > 0);
            known.sweep_at = 2 * known.places.len();
        }
        let places = Arc::new(Semaphore::new(PLACES));
        known.places.insert(user.clone(), Arc::downgrade(&places));
        places
    }
}

/// Where the answer to a command goes. Until then it holds a place of its user's,
/// also when the caller has gone away.
#[derive(Debug)]
pub(super) struct Answer<T> {
    to: oneshot::Sender<Result<T, ChatError>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<T> Answer<T> {
    pub fn new(
        place: Option<OwnedSemaphorePermit>,
    ) -> (Self, oneshot::Receiver<Result<T, ChatError>>) {
        let (to, result) = oneshot::channel();
        (Self { to, _place: place }, result)
    }

    pub fn send(self, result: Result<T, ChatError>) {
        // Whoever has gone away does not want it any more.
        _ = self.to.send(result);
    }

    /// The caller has gone away.
    pub fn is_closed(&self) -> bool {
        self.to.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::user;

    #[tokio::test]
    async fn p6_a_user_waits_behind_its_own_calls_only() {
        let callers = Callers::default();
        let mut held = Vec::new();
        for _ in 0..PLACES {
            held.push(callers.enter(&user("mallory")).await);
        }
        let mallory = user("mallory");
        let next = callers.enter(&mallory);
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(callers.enter(&user("bob")).await.is_some());
        held.pop();
        assert!(futures_util::poll!(&mut next).is_ready());
    }

    #[tokio::test]
    async fn p6_who_has_gone_is_forgotten() {
        let callers = Callers::default();
        let stays = callers.enter(&user("alice")).await;
        for n in 0..10 * MIN_SWEEP {
            callers.enter(&user(&format!("user-{n}"))).await;
        }
        let known = callers.0.lock().unwrap();
        assert!(known.places.len() <= MIN_SWEEP, "{}", known.places.len());
        assert!(known.places.contains_key(&user("alice")));
        drop(stays);
    }
}
