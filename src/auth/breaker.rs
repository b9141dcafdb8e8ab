//! A circuit breaker: when most calls of late have failed, the next ones fail
//! at once for a while, which spares the callers the wait and the peer the load.
//!
//! A peer that can't be reached is so for everybody. One that is late may be so because of
//! what it is asked: a stranger's token may have it fetch a key from far away. So whoever
//! has had no answer in time is not let through, and others are.
//!
//! Of the crates for it, `failsafe` and `recloser` count consecutive failures
//! or a ring of calls and have no cancel-safe permit for an async call; the
//! rest would bring a tower stack for these few lines.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moka::sync::Cache;

use super::Asker;
use crate::telemetry::log_limited;

/// Calls are counted in windows of this length.
const WINDOW: Duration = Duration::from_secs(5);
/// Below this number of calls in a window a failure says little.
const LEAST_CALLS: u32 = 10;
/// How long the breaker stays open before it lets somebody try.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// Most askers that are told apart, and how long one is remembered that asks nothing.
const ASKERS: u64 = 100_000;
const REMEMBERED: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Breaker {
    all: Mutex<Window>,
    askers: Cache<Asker, Arc<Mutex<Own>>, ahash::RandomState>,
}

/// How calls went of late.
#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    calls: u32,
    failures: u32,
    /// Until then no call is made, and from then on one that tries.
    open: Option<Instant>,
}

/// One asker's.
#[derive(Debug, Default)]
struct Own {
    window: Window,
    /// A call of the asker is under way that decides.
    trying: bool,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer has answered, whatever it said.
    Answered,
    /// It has not, nor anybody else, in the time that a call has.
    Late,
    /// It can't be reached, or says that it can't serve.
    Away,
}

/// The leave to make one call, which is to be told how that went. Dropped
/// without, nothing is counted.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    own: Arc<Mutex<Own>>,
    decides: bool,
}

impl Breaker {
    pub fn new() -> Arc<Self> {
        let askers = Cache::builder()
            .max_capacity(ASKERS)
            .time_to_idle(REMEMBERED)
            .build_with_hasher(ahash::RandomState::new());
        Arc::new(Self {
            all: Mutex::default(),
            askers,
        })
    }

    /// Whether a call may be made.
    pub fn permit(self: &Arc<Self>, asker: Asker, now: Instant) -> Option<Permit> {
        let open = lock(&self.all).open;
        let shared = self.askers.get_with(asker, Arc::default);
        let mut own = lock(&shared);
        if [open, own.window.open]
            .into_iter()
            .flatten()
            .any(|until| now < until)
        {
            return None;
        }
        let decides = open.is_some() || own.window.open.is_some();
        if decides && std::mem::replace(&mut own.trying, true) {
            return None;
        }
        drop(own);
        Some(Permit {
            breaker: self.clone(),
            own: shared,
            decides,
        })
    }
}

impl Window {
    /// Takes in a call. True if no more are to be made from now on.
    fn count(&mut self, failed: bool, now: Instant) -> bool {
        if self.open.is_some() {
            self.open = failed.then_some(now + OPEN_FOR);
            return false;
        }
        let is_over = |since| now.saturating_duration_since(since) > WINDOW;
        if self.since.is_none_or(is_over) {
            (self.since, self.calls, self.failures) = (Some(now), 0, 0);
        }
        self.calls += 1;
        self.failures += u32::from(failed);
        let opens = self.calls >= LEAST_CALLS && self.failures * 2 > self.calls;
        if opens {
            (self.since, self.open) = (None, Some(now + OPEN_FOR));
        }
        opens
    }
}

impl Permit {
    /// Whether it says if others are let through.
    pub fn decides(&self) -> bool {
        self.decides
    }

    /// How the call went.
    pub fn done(self, outcome: Outcome, now: Instant) {
        let is_late = outcome == Outcome::Late;
        if outcome != Outcome::Away && lock(&self.own).window.count(is_late, now) {
            log_limited!(
                WARN,
                "the Auth Service does not answer in time what somebody asks, not asking it for them"
            );
        }
        if is_late {
            return;
        }
        let mut all = lock(&self.breaker.all);
        let was_open = all.open.is_some();
        let opens = all.count(outcome == Outcome::Away, now);
        if opens {
            let (calls, failures) = (all.calls, all.failures);
            tracing::warn!(calls, failures, "the Auth Service fails, not asking it");
        } else if was_open && all.open.is_none() {
            tracing::info!("the Auth Service answers again");
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.decides {
            lock(&self.own).trying = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn asker(last: u8) -> Asker {
        Asker {
            from: Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()),
            is_known: false,
        }
    }

    #[test]
    fn it_opens_on_most_of_enough_calls_and_closes_on_one_that_goes_well() {
        for bad in [Outcome::Away, Outcome::Late] {
            let mut now = Instant::now();
            let breaker = Breaker::new();
            let permit = |now| breaker.permit(asker(1), now);
            for _ in 1..LEAST_CALLS {
                permit(now).unwrap().done(bad, now);
            }
            // A window later the failures of before do not count.
            now += WINDOW * 2;
            for n in 0..LEAST_CALLS {
                let outcome = if n % 2 == 0 { bad } else { Outcome::Answered };
                permit(now).unwrap().done(outcome, now);
            }
            permit(now).unwrap().done(bad, now);
            assert!(permit(now).is_none(), "6 of 11 have failed");

            now += OPEN_FOR;
            let trial = permit(now).unwrap();
            assert!(permit(now).is_none(), "one tries at a time");
            drop(trial);
            permit(now).unwrap().done(bad, now);
            assert!(permit(now).is_none());
            now += OPEN_FOR;
            permit(now).unwrap().done(Outcome::Answered, now);
            assert!(permit(now).is_some_and(|permit| !permit.decides()));
        }
    }

    #[test]
    fn p7_who_gets_late_answers_keeps_nobody_else_out() {
        let mut now = Instant::now();
        let breaker = Breaker::new();
        let done = |last, outcome, now| {
            let permit = breaker.permit(asker(last), now);
            permit.map(|permit| permit.done(outcome, now)).is_some()
        };
        while done(1, Outcome::Late, now) {}
        assert!(done(2, Outcome::Answered, now));
        assert!(!done(1, Outcome::Answered, now), "it is still open for one");
        // An outage is one for all; then each asker may try, and who succeeds opens
        // the door for those who have not been late.
        while done(2, Outcome::Away, now) {}
        assert!(!done(3, Outcome::Answered, now));
        now += OPEN_FOR;
        let slow = breaker.permit(asker(1), now).unwrap();
        assert!(slow.decides());
        assert!(done(3, Outcome::Answered, now));
        slow.done(Outcome::Late, now);
        assert!(
            breaker
                .permit(asker(2), now)
                .is_some_and(|permit| !permit.decides())
        );
        assert!(!done(1, Outcome::Answered, now));
    }
}
