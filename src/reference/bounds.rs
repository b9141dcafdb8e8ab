use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::Origin;

/// Passwords that are checked at a time; each takes 19 MiB and some 20 ms.
const CHECKS: usize = 4;
/// Logins that wait for a check: of one address, and of all.
const WAITING: usize = 32;
const ALL_WAITING: usize = 1_024;
/// Longest wait for a check.
const PATIENCE: Duration = Duration::from_secs(5);
/// Logins that one address may try, for each that it may try for one name: behind
/// an address there may be many people, and one who tries many names.
const NAMES_AN_ADDRESS: u32 = 10;
/// Counts that are kept before those of long ago are let go.
const KEPT: usize = 10_000;

/// How many passwords may be tried, and in which order they are checked. Addresses
/// are told apart and names are not: a stranger can use up what the stranger's own
/// address may try, and nobody else's.
pub struct Bounds {
    names: DefaultKeyedRateLimiter<(Origin, String)>,
    addresses: DefaultKeyedRateLimiter<Origin>,
    /// Of the addresses and of the names.
    swept: [Swept; 2],
    checks: Arc<Semaphore>,
    lines: Arc<Lines>,
}

/// How many counts there may be before those of long ago are let go: twice as many as
/// there were afterwards, so that not every login looks at all of them.
#[derive(Default)]
struct Swept(AtomicUsize);

impl Swept {
    fn sweep<K: Hash + Eq + Clone>(&self, counts: &DefaultKeyedRateLimiter<K>) {
        if counts.len() > self.0.load(Ordering::Relaxed).max(KEPT) {
            counts.retain_recent();
            self.0.store(2 * counts.len(), Ordering::Relaxed);
        }
    }
}

type Lines = Mutex<HashMap<Origin, Line, ahash::RandomState>>;

/// The logins of one address, of which one is checked at a time.
struct Line {
    turn: Arc<Semaphore>,
    logins: usize,
}

/// The right to check a password, until it is dropped.
pub struct Turn {
    _check: OwnedSemaphorePermit,
    _first: OwnedSemaphorePermit,
    _waiting: Waiting,
}

struct Waiting {
    lines: Arc<Lines>,
    origin: Origin,
}

/// It was tried too often; so long it takes until there is room again.
#[derive(Debug, PartialEq, Eq)]
pub struct Over(pub Duration);

impl Bounds {
    /// `logins` are tried a minute for one name from one address.
    pub fn new(logins: u32) -> Self {
        let quota = |logins| Quota::per_minute(NonZeroU32::new(logins).unwrap_or(NonZeroU32::MIN));
        Self {
            names: RateLimiter::keyed(quota(logins)),
            addresses: RateLimiter::keyed(quota(logins.saturating_mul(NAMES_AN_ADDRESS))),
            swept: Default::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            lines: Arc::default(),
        }
    }

    /// Waits for the turn of a login.
    ///
    /// # Errors
    /// If the address has tried too often, or has too many waiting, or it takes
    /// longer than 5 s.
    pub async fn turn(&self, address: IpAddr, name: &str) -> Result<Turn, Over> {
        let origin = Origin::from(address);
        let waiting = self.wait(origin)?;
        self.may_try(origin, name)?;
        let soon = Over(Duration::from_secs(1));
        let turn = async {
            let first = waiting.1.acquire_owned().await.ok()?;
            // First come, first served, among addresses: each has one here at most.
            let check = self.checks.clone().acquire_owned().await.ok()?;
            Some((first, check))
        };
        match tokio::time::timeout(PATIENCE, turn).await {
            Ok(Some((first, check))) => Ok(Turn {
                _check: check,
                _first: first,
                _waiting: waiting.0,
            }),
            _ => Err(soon),
        }
    }

    fn wait(&self, origin: Origin) -> Result<(Waiting, Arc<Semaphore>), Over> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = lines.len() >= ALL_WAITING && !lines.contains_key(&origin);
        let line = lines.entry(origin).or_insert_with(|| Line {
            turn: Arc::new(Semaphore::new(1)),
            logins: 0,
        });
        if is_full || line.logins >= WAITING {
            if line.logins == 0 {
                lines.remove(&origin);
            }
            return Err(Over(Duration::from_secs(1)));
        }
        line.logins += 1;
        let turn = line.turn.clone();
        let lines = self.lines.clone();
        Ok((Waiting { lines, origin }, turn))
    }

    fn may_try(&self, origin: Origin, name: &str) -> Result<(), Over> {
        let now = DefaultClock::default().now();
        let over = |over: NotUntil<_>| Over(over.wait_time_from(now));
        self.swept[0].sweep(&self.addresses);
        self.addresses.check_key(&origin).map_err(over)?;
        // A name is kept only if its address may try it.
        self.swept[1].sweep(&self.names);
        self.names
            .check_key(&(origin, name.to_owned()))
            .map_err(over)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(&self.origin) {
            line.logins -= 1;
            if line.logins == 0 {
                lines.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn an_address_uses_up_its_own_tries_and_no_other() {
        let bounds = Bounds::new(2);
        for _ in 0..2 {
            bounds.turn(address(1), "bob").await.ok().unwrap();
        }
        let Over(wait) = bounds.turn(address(1), "bob").await.err().unwrap();
        assert!(
            wait > Duration::from_secs(1) && wait <= Duration::from_secs(30),
            "{wait:?}"
        );
        bounds.turn(address(2), "bob").await.ok().unwrap();
        assert_eq!(bounds.names.len(), 2);
        // Many names from one address have a bound too.
        let mut tried = 3;
        while bounds.turn(address(1), &tried.to_string()).await.is_ok() {
            tried += 1;
            assert!(tried < 100, "there is no bound");
        }
        assert_eq!(tried, 2 * NAMES_AN_ADDRESS);
        assert_eq!(bounds.names.len(), 2 * NAMES_AN_ADDRESS as usize - 1);
    }

    #[tokio::test]
    async fn a_full_line_refuses_its_own_address_alone() {
        let bounds = Bounds::new(100);
        let origin = Origin::from(address(1));
        let wait = || bounds.wait(origin).ok();
        let waiting: Vec<_> = (0..WAITING).map(|_| wait().unwrap()).collect();
        assert!(wait().is_none());
        bounds.turn(address(2), "bob").await.ok().unwrap();
        drop(waiting);
        assert!(bounds.lines.lock().unwrap().is_empty());
    }
}
