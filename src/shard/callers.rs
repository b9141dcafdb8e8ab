//! Places for callers: what one user has under way does not keep others waiting.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ahash::AHashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::domain::{ChatError, UserName};

/// Users are forgotten together once so many are known.
const MIN_SWEEP: usize = 1_024;

/// The users who have something under way. Each has so many places; what finds none
/// waits with its caller, in the order it came, and only so much waits of one user.
#[derive(Debug)]
pub struct Callers {
    /// Of one user.
    places: u32,
    /// What may wait for them besides, in places.
    waiting: u32,
    known: Mutex<Known>,
}

/// Places of a user, until it is dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "dropped with it")]
pub struct Places {
    queue: OwnedSemaphorePermit,
    places: OwnedSemaphorePermit,
    of_user: Arc<OfUser>,
}

/// What one user has.
#[derive(Debug)]
struct OfUser {
    /// Has room for those that have places and those that wait for them.
    queue: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Known {
    users: AHashMap<UserName, Weak<OfUser>>,
    /// When there are so many, those who have gone are forgotten.
    sweep_at: usize,
}

impl Callers {
    pub fn new(places: u32, waiting: u32) -> Self {
        Self {
            places,
            waiting,
            known: Mutex::default(),
        }
    }

    /// Waits for so many places of the user's; what takes more than there are has them
    /// all.
    ///
    /// # Errors
    /// If too much of the user's waits already.
    pub async fn enter(&self, user: &UserName, places: u32) -> Result<Places, ChatError> {
        let of_user = self.of(user);
        let places = places.min(self.places);
        let queue = of_user.queue.clone().try_acquire_many_owned(places);
        let queue = queue.map_err(|_| ChatError::Busy {
            queue: "calls of one user",
        })?;
        // Never closed.
        let places = of_user.places.clone().acquire_many_owned(places).await;
        let places = places.map_err(|_| ChatError::Draining)?;
        Ok(Places {
            queue,
            places,
            of_user,
        })
    }

    fn of(&self, user: &UserName) -> Arc<OfUser> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_user) = known.users.get(user).and_then(Weak::upgrade) {
            return of_user;
        }
        if known.users.len() >= known.sweep_at.max(MIN_SWEEP) {
            known.users.retain(|_, of_user| of_user.strong_count() > 0);
            known.sweep_at = 2 * known.users.len();
        }
        let room = |places: u32| Arc::new(Semaphore::new(places as usize));
        let of_user = Arc::new(OfUser {
            queue: room(self.places.saturating_add(self.waiting)),
            places: room(self.places),
        });
        known.users.insert(user.clone(), Arc::downgrade(&of_user));
        of_user
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
        let callers = Callers::new(8, 8);
        let mallory = user("mallory");
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(callers.enter(&mallory, 1).await.unwrap());
        }
        let next = callers.enter(&mallory, 1);
        tokio::pin!(next);
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(callers.enter(&user("bob"), 100).await.is_ok());
        // Of those that wait there are not too many either.
        let mut last = Box::pin(callers.enter(&mallory, 7));
        assert!(futures_util::poll!(&mut last).is_pending());
        let busy = callers.enter(&mallory, 1).await;
        assert!(matches!(busy, Err(ChatError::Busy { .. })), "{busy:?}");
        drop(last);
        held.pop();
        assert!(futures_util::poll!(&mut next).is_ready());
    }

    #[tokio::test]
    async fn p6_who_has_gone_is_forgotten() {
        let callers = Callers::new(8, 8);
        let stays = callers.enter(&user("alice"), 1).await;
        for n in 0..10 * MIN_SWEEP {
            drop(callers.enter(&user(&format!("user-{n}")), 1).await);
        }
        let known = callers.known.lock().unwrap();
        assert!(known.users.len() <= MIN_SWEEP, "{}", known.users.len());
        assert!(known.users.contains_key(&user("alice")));
        drop(stays);
    }
}
