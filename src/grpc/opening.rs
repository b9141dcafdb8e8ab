//! Calls that have come so far as their headers.
//!
//! Headers cost a client next to nothing, and what they open may never come: so a call
//! has its place among those that are answered (`--max-inflight`) only once its request
//! is there. Most requests come with their headers. The others are counted here while
//! they wait, of a connection, of a user and in all, and so are calls whose caller
//! somebody has to be asked about. The bytes that have come of such requests are counted
//! in [`super::begun`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    begun::{Sender, Sends, Terms},
    gate::take,
    limit::Limit,
    peer::Peer,
    status::Problem,
};
use crate::{auth::Identity, domain::UserName};

/// Of one connection. A client that has a thousand large requests under way waits for
/// the first of them.
const MOST_A_CONNECTION: usize = 1_024;

/// In all there may be as many as calls that are answered, and so many at least: 2 KiB
/// each.
const LEAST: usize = 4_096;

/// A user may have this share of all.
const SHARE: usize = 8;

const RETRY: Duration = Duration::from_millis(100);

/// Counts them, over all connections.
#[derive(Debug)]
pub struct Opening {
    most: usize,
    all: AtomicUsize,
    users: Mutex<HashMap<UserName, usize, ahash::RandomState>>,
}

/// Whose request it is.
#[derive(Debug, Clone)]
pub struct Caller {
    pub peer: Arc<Peer>,
    /// None: that is not known, or not yet.
    pub identity: Option<Arc<Identity>>,
}

/// A caller whose request is to be whole by then.
#[derive(Debug, Clone, Copy)]
pub struct Due<'a>(pub &'a Caller, pub Instant);

impl Sends for Due<'_> {
    fn terms(&self) -> Terms<'_> {
        let Self(Caller { peer, identity }, until) = self;
        Terms {
            begun: &peer.gate.begun,
            sender: match identity {
                Some(identity) => Sender::User(&identity.user),
                None => Sender::Stranger(peer.newcomer.origin()),
            },
            waiting: &peer.short_of_room,
            until: *until,
        }
    }
}

/// One call that waits, until it is dropped.
#[derive(Debug)]
pub struct Waiting(Caller);

impl Opening {
    /// `inflight` calls are answered at a time.
    pub fn new(inflight: usize) -> Self {
        Self {
            most: inflight.max(LEAST),
            all: AtomicUsize::new(0),
            users: Mutex::default(),
        }
    }

    fn take(&self, caller: &Caller) -> bool {
        if !take(&caller.peer.waiting, MOST_A_CONNECTION) {
            return false;
        }
        if !take(&self.all, self.most) {
            caller.peer.waiting.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        let Some(identity) = &caller.identity else {
            return true;
        };
        let mut users = self.users();
        let of_user = users.entry(identity.user.clone()).or_default();
        if *of_user < self.most / SHARE {
            *of_user += 1;
            return true;
        }
        drop(users);
        self.give_back(&caller.peer);
        false
    }

    fn give_back(&self, peer: &Peer) {
        self.all.fetch_sub(1, Ordering::AcqRel);
        peer.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    fn users(&self) -> MutexGuard<'_, HashMap<UserName, usize, ahash::RandomState>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    pub fn new(peer: &Arc<Peer>, identity: Option<&Arc<Identity>>) -> Self {
        Self {
            peer: peer.clone(),
            identity: identity.cloned(),
        }
    }

    /// Room to wait.
    ///
    /// # Errors
    /// If too many do: of this connection, of this user, or in all.
    pub fn wait(self) -> Result<Waiting, Problem> {
        let gate = &self.peer.gate;
        match gate.opening.take(&self) {
            true => Ok(Waiting(self)),
            false => Err(gate.refuse(Limit::Inflight, RETRY)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Caller { peer, identity } = &self.0;
        let opening = &peer.gate.opening;
        opening.give_back(peer);
        if let Some(identity) = identity {
            let mut users = opening.users();
            if let Some(of_user) = users.get_mut(&identity.user) {
                *of_user -= 1;
                if *of_user == 0 {
                    users.remove(&identity.user);
                }
            }
        }
    }
}
