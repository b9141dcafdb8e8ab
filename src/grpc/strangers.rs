//! Who has the places that there are for connections, and who gives one up when all are
//! taken and one more connection comes.
//!
//! A connection is a stranger until it has shown a token that was accepted. Keeping one
//! open costs a client next to nothing, and says nothing of whether it will ever be used.
//! So a stranger gives way first: the one that came first, of those from the address that
//! has most of them. It has some time to show a token, as long as its address has no
//! more strangers than the newcomer's.
//!
//! A connection that has shown a token is known, and counts among those of its user. If
//! no stranger can give way, the connection does that has been idle for longest, of the
//! user that has most of them. One with calls or streams under way never does. A user who
//! has fewer connections than the newcomer's address would have strangers is left alone,
//! and everybody keeps one.
//!
//! Two things keep somebody with one token from holding all places for ever. A known
//! connection that is idle once its token has expired is a stranger again. And
//! connections of a user beyond a quarter of all places stay strangers.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use futures_util::task::AtomicWaker;

use self::{
    crowd::Turn,
    lines::{Lines, Standing},
};
use crate::domain::{Origin, Timestamp, UserName};

mod crowd;
mod lines;

/// One owner's connections are known as far as they take this share of all places.
const SHARE: usize = 4;

/// An owner may have so many in any case.
const LEAST_SHARE: usize = 16;

/// The account of all connections, over all cores.
#[derive(Debug)]
pub struct Strangers {
    lines: Mutex<Lines>,
    /// Known connections that an owner may have.
    share: usize,
    began: Instant,
}

/// Whose a known connection is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    User(UserName),
    /// Where users are not told apart.
    Address(Origin),
}

/// A connection.
#[derive(Debug)]
pub struct Stranger {
    strangers: Arc<Strangers>,
    origin: Origin,
    number: u64,
    since: Instant,
    /// Changes with the lines, and is read and written while these are locked.
    standing: Mutex<Standing>,
    /// What `standing` says, for who has no time to wait.
    is_known: AtomicBool,
    /// When the last of its tokens expires, in microseconds of Unix time.
    expires: AtomicI64,
    /// Calls and streams under way.
    works: AtomicUsize,
    /// When the last of them ended, in milliseconds since the account began.
    used: AtomicU64,
    /// It was busy when it was looked at, and is to come back to its line.
    is_aside: AtomicBool,
    gives_way: AtomicBool,
    waker: AtomicWaker,
}

/// A call or a stream of a connection, until it is dropped.
#[derive(Debug)]
pub struct Work(Arc<Stranger>);

impl Strangers {
    /// For so many places.
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            lines: Mutex::default(),
            share: (places / SHARE).max(LEAST_SHARE),
            began: Instant::now(),
        })
    }

    pub fn enter(self: &Arc<Self>, origin: Origin, now: Instant) -> Arc<Stranger> {
        let mut lines = self.lines();
        let number = lines.next_number();
        let stranger = Arc::new(Stranger {
            strangers: self.clone(),
            origin,
            number,
            since: now,
            standing: Mutex::new(Standing::Strange),
            is_known: AtomicBool::new(false),
            expires: AtomicI64::new(i64::MIN),
            works: AtomicUsize::new(0),
            used: AtomicU64::new(self.millis(now)),
            is_aside: AtomicBool::new(false),
            gives_way: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        lines.enter(stranger.clone());
        stranger
    }

    /// Has a connection end for one that comes from `newcomer`, which may take its place
    /// at once. False if there is none that is to give way.
    pub fn make_way(&self, newcomer: Origin, now: Instant, wall: Timestamp) -> bool {
        let mut lines = self.lines();
        let Some(leaving) = lines.leaver(newcomer, now, wall) else {
            return false;
        };
        lines.remove(&leaving);
        drop(lines);
        leaving.gives_way.store(true, Ordering::Release);
        leaving.waker.wake();
        true
    }

    fn millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// It has shown a token that was accepted, and that expires then, if ever.
    pub fn is_known(self: &Arc<Self>, expires: Option<Timestamp>, owner: impl FnOnce() -> Owner) {
        let expires = expires.map_or(i64::MAX, |expires| expires.0);
        // Most calls are not the first: they only read what other cores read too.
        if self.expires.load(Ordering::Relaxed) < expires {
            self.expires.fetch_max(expires, Ordering::Relaxed);
        }
        if !self.is_known.load(Ordering::SeqCst) {
            self.become_known(owner());
        }
    }

    fn become_known(self: &Arc<Self>, owner: Owner) {
        let is_known = self
            .strangers
            .lines()
            .know(self, owner, self.strangers.share);
        if is_known {
            self.is_known.store(true, Ordering::SeqCst);
        }
    }

    /// A call or a stream begins that the connection is kept for, until its [`Self::end`].
    pub fn begin(&self) {
        self.works.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end(self: &Arc<Self>) {
        let now = self.strangers.millis(Instant::now());
        self.used.store(now, Ordering::SeqCst);
        let is_idle = self.works.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_idle && self.is_aside.load(Ordering::SeqCst) {
            self.come_back();
        }
    }

    /// Its connection has ended. False if it had given its place away.
    pub fn leave(&self) -> bool {
        self.strangers.lines().remove(self)
    }

    /// Ready once the connection is to end.
    pub fn poll_gives_way(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        match self.gives_way.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn is_busy(&self) -> bool {
        self.works.load(Ordering::SeqCst) > 0
    }

    /// True if it is busy: it is to leave its line, and comes back once it is idle.
    fn steps_aside(&self) -> bool {
        if !self.is_busy() {
            return false;
        }
        self.is_aside.store(true, Ordering::SeqCst);
        // Whoever has ended the last call meanwhile may not have seen that.
        let is_busy = self.is_busy();
        if !is_busy {
            self.is_aside.store(false, Ordering::SeqCst);
        }
        is_busy
    }

    fn come_back(self: &Arc<Self>) {
        let mut lines = self.strangers.lines();
        if self.is_aside.swap(false, Ordering::SeqCst) {
            lines.come_back(self);
        }
    }

    /// Its turn, by when it was used last.
    fn turn(&self) -> Turn {
        (self.used.load(Ordering::SeqCst), self.number)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    pub fn of(stranger: &Arc<Stranger>) -> Self {
        stranger.begin();
        Self(stranger.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests;
