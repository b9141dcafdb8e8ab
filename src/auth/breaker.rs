//! A circuit breaker: when most calls of late have failed, the next ones fail
//! at once for a while, which spares the callers the wait and the peer the load.
//!
//! Each asker has a breaker of its own. A call may fail because of what is asked: a
//! stranger's token may have the peer fetch a key from far away, or fall over. So whoever
//! has failures is not let through, and others are. Only when most of those who have shown
//! a good token before fail, and two of them at least, the peer is taken to be away for
//! everybody.
//!
//! Of the crates for it, `failsafe` and `recloser` count consecutive failures
//! or a ring of calls and have no cancel-safe permit for an async call; the
//! rest would bring a tower stack for these few lines.

use std::{
    collections::HashMap,
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
/// Most askers of a window whose last call is known.
const VOICES: usize = 1_024;
/// Most askers that are told apart, and how long one is remembered that asks nothing.
const ASKERS: u64 = 100_000;
const REMEMBERED: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Breaker {
    all: Mutex<Voices>,
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

/// How the last calls went of those who have shown a good token before.
#[derive(Debug, Default)]
struct Voices {
    since: Option<Instant>,
    calls: u32,
    /// Whether each found the peer away.
    away: HashMap<Asker, bool, ahash::RandomState>,
    /// Until then no call is made, and from then on each asker may try.
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
    asker: Asker,
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
            asker,
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

impl Voices {
    /// Takes in how a call of the asker went. True if no more are to be made from now on.
    fn count(&mut self, asker: Asker, is_away: bool, now: Instant) -> bool {
        if self.open.is_some() {
            self.open = is_away.then_some(now + OPEN_FOR);
            return false;
        }
        if !asker.is_known {
            return false;
        }
        let is_over = |since| now.saturating_duration_since(since) > WINDOW;
        if self.since.is_none_or(is_over) {
            self.since = Some(now);
            self.calls = 0;
            self.away.clear();
        }
        if self.away.len() < VOICES || self.away.contains_key(&asker) {
            self.away.insert(asker, is_away);
        }
        self.calls += 1;
        let failing = self.away.values().filter(|away| **away).count();
        let opens = self.calls >= LEAST_CALLS && failing >= 2 && 2 * failing > self.away.len();
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
        let failed = outcome != Outcome::Answered;
        if lock(&self.own).window.count(failed, now) {
            log_limited!(
                WARN,
                "the Auth Service does not answer what somebody asks, not asking it for them"
            );
        }
        // It may be busy with what others ask.
        if outcome == Outcome::Late {
            return;
        }
        let mut all = lock(&self.breaker.all);
        let was_open = all.open.is_some();
        if all.count(self.asker, failed, now) {
            let (calls, askers) = (all.calls, all.away.len());
            tracing::warn!(calls, askers, "the Auth Service fails, not asking it");
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

    fn known(last: u8) -> Asker {
        Asker {
            is_known: true,
            ..asker(last)
        }
    }

    #[test]
    fn p7_who_has_failures_keeps_nobody_else_out() {
        let mut now = Instant::now();
        for bad in [Outcome::Late, Outcome::Away] {
            let breaker = Breaker::new();
            let done = |asker, outcome, now| {
                let permit = breaker.permit(asker, now);
                permit.map(|permit| permit.done(outcome, now)).is_some()
            };
            // However many strangers there are, and even one who is known.
            for last in 0..=20 {
                while done(asker(last), bad, now) {}
            }
            while done(known(21), bad, now) {}
            assert!(done(known(22), Outcome::Answered, now));
            assert!(done(asker(23), Outcome::Answered, now));
            assert!(
                !done(asker(1), Outcome::Answered, now),
                "still open for one"
            );
            now += OPEN_FOR;
            assert!(done(asker(1), Outcome::Answered, now));
        }
    }

    #[test]
    fn p8_an_outage_is_one_for_all_and_each_asker_may_try_then() {
        let mut now = Instant::now();
        let breaker = Breaker::new();
        let done = |asker, outcome, now| {
            let permit = breaker.permit(asker, now);
            permit.map(|permit| permit.done(outcome, now)).is_some()
        };
        let mut calls = 0;
        while done(known(1), Outcome::Away, now) && done(known(2), Outcome::Away, now) {
            calls += 2;
        }
        assert!(calls < 2 * LEAST_CALLS);
        assert!(!done(known(3), Outcome::Answered, now));
        assert!(!done(asker(4), Outcome::Answered, now));
        now += OPEN_FOR;
        let slow = breaker.permit(asker(4), now).unwrap();
        assert!(slow.decides());
        // Who succeeds opens the door for those who have not failed.
        assert!(done(known(3), Outcome::Answered, now));
        slow.done(Outcome::Late, now);
        let next = breaker.permit(known(5), now);
        assert!(next.is_some_and(|permit| !permit.decides()));
    }
}
