//! Answers that clients have asked for and not taken yet.
//!
//! HTTP/2 lets a client ask for thousands of pages on one connection and read none of
//! them. So a call whose answer may be large has room for it before the store is asked,
//! and keeps what it needs until the answer has gone into the socket. What a user has
//! open is bounded, so that nobody waits for those who don't read, and what all have
//! together is a part of `--memory` (P6).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{domain::UserName, telemetry::Metrics};

/// Room is counted in pieces of so many bytes.
const PIECE: usize = 1024;

/// Answers that are compressed at a time, each on a thread of its own.
const COMPRESSING: usize = 2;

/// What one user may have open, in pieces: five of the largest pages.
const OF_USER: u32 = 16 * 1024;

/// The room that all answers share.
#[derive(Debug)]
pub struct Untaken {
    all: Arc<Semaphore>,
    users: Mutex<HashMap<UserName, Arc<Semaphore>, ahash::RandomState>>,
    metrics: Arc<Metrics>,
    /// Turns of those that compress.
    pub compressing: Arc<Semaphore>,
}

/// The room of one answer, until it is dropped.
#[derive(Debug)]
pub struct Room {
    untaken: Arc<Untaken>,
    user: UserName,
    of_user: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
}

impl Untaken {
    /// For answers of so many bytes in all.
    pub fn new(bytes: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        // Whatever there is for all, one user may have its share.
        let all = (bytes / PIECE).clamp(OF_USER as usize, u32::MAX as usize);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            users: Mutex::default(),
            metrics,
            compressing: Arc::new(Semaphore::new(COMPRESSING)),
        })
    }

    /// Waits for room for an answer to `user` of so many bytes at most. The longest
    /// waits first.
    pub async fn room(self: &Arc<Self>, user: &UserName, bytes: usize) -> Room {
        let pieces = pieces(bytes).min(OF_USER);
        let users = self
            .users()
            .entry(user.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(OF_USER as usize)))
            .clone();
        // Whoever is gone before there is room has its place in the map given back.
        let mut room = Room {
            untaken: self.clone(),
            user: user.clone(),
            of_user: None,
            of_all: None,
        };
        // Neither is ever closed.
        room.of_user = users.acquire_many_owned(pieces).await.ok();
        room.of_all = self.all.clone().acquire_many_owned(pieces).await.ok();
        self.metrics.answer_held(0, room.bytes());
        room
    }

    fn users(&self) -> MutexGuard<'_, HashMap<UserName, Arc<Semaphore>, ahash::RandomState>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// The answer has only so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let before = self.bytes();
        for permit in [&mut self.of_user, &mut self.of_all].into_iter().flatten() {
            let spare = permit.num_permits().saturating_sub(pieces(bytes) as usize);
            drop(permit.split(spare));
        }
        self.untaken.metrics.answer_held(before, self.bytes());
    }

    fn bytes(&self) -> usize {
        self.of_all
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
            * PIECE
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.untaken.metrics.answer_held(self.bytes(), 0);
        self.of_all = None;
        self.of_user = None;
        let mut users = self.untaken.users();
        // Who waits for room holds it too.
        if users
            .get(&self.user)
            .is_some_and(|of_user| Arc::strong_count(of_user) == 1)
        {
            users.remove(&self.user);
        }
    }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    #[tokio::test]
    async fn p6_who_does_not_take_answers_waits_alone() {
        const MIB: usize = 1024 * 1024;
        let untaken = Untaken::new(40 * MIB, Metrics::new(1));
        let (alice, bob, eve) = (user("alice"), user("bob"), user("eve"));
        let mut first = untaken.room(&alice, 10 * MIB).await;
        let mut waits = Box::pin(untaken.room(&alice, 10 * MIB));
        assert!(waits.as_mut().now_or_never().is_none(), "16 MiB a user");
        let bobs = untaken.room(&bob, 16 * MIB).await;
        // An answer that is smaller gives the rest back.
        first.shrink(100);
        let second = waits.await;
        assert!(
            untaken.room(&eve, 16 * MIB).now_or_never().is_none(),
            "40 in all"
        );
        drop(bobs);
        let eves = untaken.room(&eve, 100 * MIB).await;
        drop((first, second, eves));
        assert!(untaken.users().is_empty());
        assert_eq!(untaken.all.available_permits(), 40 * 1024);
    }
}
