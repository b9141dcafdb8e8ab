//! Connections that have shown no token that was accepted. Keeping one open costs a
//! client next to nothing, and says nothing of whether it will ever be used: where there
//! is no place for one more, one of these gives way, of those from the address that has
//! most of them the one that came first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;

use crate::domain::Origin;

/// So long a connection may take to show a token before it gives way: a handshake over a
/// slow network, and a question to an Auth Service.
const GRACE: Duration = Duration::from_secs(2);

/// All of them, over all cores.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    /// In the order in which they came.
    of: HashMap<Origin, BTreeMap<u64, Arc<Stranger>>, ahash::RandomState>,
    /// How many each has.
    sizes: BTreeSet<(usize, Origin)>,
}

/// A connection, as long as nobody knows whose it is.
#[derive(Debug)]
pub struct Stranger {
    origin: Origin,
    number: u64,
    since: Instant,
    is_known: AtomicBool,
    gives_way: AtomicBool,
    waker: AtomicWaker,
}

impl Strangers {
    pub fn enter(&self, origin: Origin, now: Instant) -> Arc<Stranger> {
        let mut lines = self.lines();
        let number = lines.next;
        lines.next += 1;
        let stranger = Arc::new(Stranger {
            origin,
            number,
            since: now,
            is_known: AtomicBool::new(false),
            gives_way: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        lines.change(origin, |line| {
            line.insert(number, stranger.clone());
        });
        stranger
    }

    /// It has shown a token that was accepted.
    pub fn is_known(&self, stranger: &Stranger) {
        // Most calls are not the first.
        if !stranger.is_known.load(Ordering::Relaxed) && self.remove(stranger) {
            stranger.is_known.store(true, Ordering::Relaxed);
        }
    }

    /// Its connection has ended. False if it had given its place away.
    pub fn leave(&self, stranger: &Stranger) -> bool {
        self.remove(stranger) || stranger.is_known.load(Ordering::Relaxed)
    }

    /// Has one of them end, whose place may be taken at once. False if there is none
    /// that has had its time.
    pub fn make_way(&self, now: Instant) -> bool {
        let mut lines = self.lines();
        let Some((_, origin)) = lines.sizes.last().copied() else {
            return false;
        };
        let first = lines
            .of
            .get(&origin)
            .and_then(|line| line.first_key_value());
        let Some((number, stranger)) = first.map(|(number, one)| (*number, one.clone())) else {
            return false;
        };
        if now.duration_since(stranger.since) < GRACE {
            return false;
        }
        lines.change(origin, |line| {
            line.remove(&number);
        });
        drop(lines);
        stranger.gives_way.store(true, Ordering::Release);
        stranger.waker.wake();
        true
    }

    fn remove(&self, stranger: &Stranger) -> bool {
        let mut removed = false;
        self.lines().change(stranger.origin, |line| {
            removed = line.remove(&stranger.number).is_some();
        });
        removed
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn change(&mut self, origin: Origin, change: impl FnOnce(&mut BTreeMap<u64, Arc<Stranger>>)) {
        let line = self.of.entry(origin).or_default();
        let before = line.len();
        change(line);
        let after = line.len();
        if after == 0 {
            self.of.remove(&origin);
        }
        if before != after {
            self.sizes.remove(&(before, origin));
            if after > 0 {
                self.sizes.insert((after, origin));
            }
        }
    }
}

impl Stranger {
    /// Ready once the connection is to end.
    pub fn poll_gives_way(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_known.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.waker.register(cx.waker());
        match self.gives_way.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn origin(last: u8) -> Origin {
        std::net::IpAddr::from(Ipv4Addr::new(10, 0, 0, last)).into()
    }

    #[test]
    fn p6_the_first_of_the_address_with_most_gives_way() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        let enter = |last| strangers.enter(origin(last), now);
        let alone = enter(1);
        let many = [enter(2), enter(2), enter(2)];
        let user = enter(2);
        strangers.is_known(&user);
        assert!(!strangers.make_way(now), "each has its time");
        let later = now + GRACE;
        let gone = |one: &Stranger| one.gives_way.load(Ordering::Relaxed);
        for n in 0..3 {
            assert!(strangers.make_way(later));
            let given: Vec<bool> = many.iter().map(|one| gone(one)).collect();
            // The last two addresses have one each.
            let expected: Vec<bool> = (0..3).map(|m| m <= n).collect();
            assert_eq!(given, expected);
        }
        assert!(!gone(&alone) && !gone(&user));
        assert!(!strangers.leave(&many[0]), "its place is somebody else's");
        assert!(strangers.leave(&user));
        assert!(strangers.make_way(later) && gone(&alone));
        assert!(!strangers.make_way(later), "there is nobody left");
        assert!(strangers.lines().of.is_empty() && strangers.lines().sizes.is_empty());
    }
}
