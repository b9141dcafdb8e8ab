//! Places for callers: what one user has under way does not keep others waiting.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ahash::AHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::domain::{ChatError, UserName};

/// Users are forgotten together once so many are known.
const MIN_SWEEP: usize = 1_024;

/// The users who have something under way. Each has so many places; what finds none
/// waits with its caller, in the order it came.
#[derive(Debug)]
pub struct Callers {
    /// Of one user.
    places: u32,
    known: Mutex<Known>,
}

/// Places of a user, until it is dropped.
pub type Places = OwnedSemaphorePermit;

#[derive(Debug, Default)]
struct Known {
    users: AHashMap<UserName, Weak<Semaphore>>,
    /// When there are so many, those who have gone are forgotten.
    sweep_at: usize,
}

impl Callers {
    pub fn new(places: u32) -> Self {
        Self {
            places,
            known: Mutex::default(),
        }
    }

    /// Waits for so many places of the user's; what takes more than there are has them
    /// all.
    pub async fn enter(&self, user: &UserName, places: u32) -> Option<Places> {
        let all = self.of(user);
        // Never closed.
        all.acquire_many_owned(places.min(self.places)).await.ok()
    }

    fn of(&self, user: &UserName) -> Arc<Semaphore> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = known.users.get(user).and_then(Weak::upgrade) {
            return places;
        }
        if known.users.len() >= known.sweep_at.max(MIN_SWEEP) {
            known.users.retain(|_, places| places.strong_count() > 0);
            known.sweep_at = 2 * known.users.len();
        }
        let places = Arc::new(Semaphore::new(self.places as usize));
        known.users.insert(user.clone(), Arc::downgrade(&places));
        places
    }
}

/// Where the answer to a command goes. Until then it holds places of its user's, with
/// the shard and as one who changes chats, also when the caller has gone away.
#[derive(Debug)]
pub(super) struct Answer<T> {
    to: oneshot::Sender<Result<T, ChatError>>,
    _places: [Option<Places>; 2],
}

impl<T> Answer<T> {
    pub fn new(places: [Option<Places>; 2]) -> (Self, oneshot::Receiver<Result<T, ChatError>>) {
        let (to, result) = oneshot::channel();
        let answer = Self {
            to,
            _places: places,
        };
        (answer, result)
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
        let callers = Callers::new(8);
        let mallory = user("mallory");
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(callers.enter(&mallory, 1).await);
        }
        let next = callers.enter(&mallory, 1);
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(callers.enter(&user("bob"), 100).await.is_some());
        held.pop();
        assert!(futures_util::poll!(&mut next).is_ready());
    }

    #[tokio::test]
    async fn p6_who_has_gone_is_forgotten() {
        let callers = Callers::new(8);
        let stays = callers.enter(&user("alice"), 1).await;
        for n in 0..10 * MIN_SWEEP {
            callers.enter(&user(&format!("user-{n}")), 1).await;
        }
        let known = callers.known.lock().unwrap();
        assert!(known.users.len() <= MIN_SWEEP, "{}", known.users.len());
        assert!(known.users.contains_key(&user("alice")));
        drop(stays);
    }
}
