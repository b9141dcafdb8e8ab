//! A circuit breaker: when most calls of late have failed, the next ones fail
//! at once for a while, which spares the callers the wait and the peer the load.
//!
//! Each asker has a breaker of its own. A call may fail because of what is asked: a
//! stranger's token may have the peer fetch a key from far away, or fall over. So whoever
//! has failures is not let through, and others are. When most of those who have shown a
//! good token before fail, and two of them at least, the peer is suspected to be away. One
//! user with two addresses can bring that about, so nobody is kept out for it: a probe with
//! a token of our own is to find out, and only if that fails the peer is taken to be away
//! for everybody, until a probe or a call is answered.
//!
//! The breaker does no I/O: it says when a probe is to be made, and is told how it went.
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
/// How long an asker's breaker stays open before it lets somebody try, and the least time
/// between two probes.
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
    /// A probe has failed: no call is made.
    is_open: bool,
    is_probing: bool,
    /// No probe is made before then.
    next_probe: Option<Instant>,
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

/// The leave, and the duty, to ask the peer with a token of our own. There is one at most;
/// dropped without success, another one is to be made.
#[derive(Debug)]
pub struct Probe(Arc<Breaker>);

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
        if lock(&self.all).is_open {
            return None;
        }
        let shared = self.askers.get_with(asker, Arc::default);
        let mut own = lock(&shared);
        if own.window.open.is_some_and(|until| now < until) {
            return None;
        }
        let decides = own.window.open.is_some();
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

    /// The probe that is to be made now, if there is any. To be asked for after each call
    /// that has failed or was not let through.
    pub fn probe(self: &Arc<Self>, now: Instant) -> Option<Probe> {
        let mut all = lock(&self.all);
        let is_due = all.next_probe.is_none_or(|due| due <= now);
        if all.is_probing || !is_due || !(all.is_open || all.is_suspected()) {
            return None;
        }
        all.is_probing = true;
        Some(Probe(self.clone()))
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
    /// Takes in how a call of the asker went.
    fn count(&mut self, asker: Asker, is_away: bool, now: Instant) {
        if self.is_open || !asker.is_known {
            return;
        }
        let is_over = |since| now.saturating_duration_since(since) > WINDOW;
        if self.since.is_none_or(is_over) {
            self.forget();
            self.since = Some(now);
        }
        if self.away.len() < VOICES || self.away.contains_key(&asker) {
            self.away.insert(asker, is_away);
        }
        self.calls += 1;
    }

    /// Whether so many found the peer away that it is worth a probe.
    fn is_suspected(&self) -> bool {
        self.calls >= LEAST_CALLS && {
            let failing = self.away.values().filter(|away| **away).count();
            failing >= 2 && 2 * failing > self.away.len()
        }
    }

    fn close(&mut self) {
        self.is_open = false;
        log_limited!(INFO, "the Auth Service answers again");
    }

    fn forget(&mut self) {
        (self.since, self.calls) = (None, 0);
        self.away.clear();
    }
}

impl Probe {
    /// How it went. If the peer is away, when the next one is to be made: after a pause.
    pub fn told(&self, is_there: bool, now: Instant) -> Option<Duration> {
        let mut all = lock(&self.0.all);
        all.forget();
        all.next_probe = Some(now + OPEN_FOR);
        match (all.is_open, is_there) {
            (true, true) => all.close(),
            (false, false) => {
                log_limited!(WARN, "the Auth Service is away, not asking it");
                all.is_open = true;
            }
            (true, false) => {}
            (false, true) => log_limited!(
                DEBUG,
                "the Auth Service is there, and does not answer what some ask"
            ),
        }
        (!is_there).then_some(OPEN_FOR)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        lock(&self.0.all).is_probing = false;
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
        // A call from before that is answered says what a probe would.
        if all.is_open && !failed {
            all.close();
        }
        all.count(self.asker, failed, now);
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

    /// Calls of many known askers that all find the peer away.
    fn voices(breaker: &Arc<Breaker>, now: Instant) {
        for last in 0..=255 {
            if let Some(permit) = breaker.permit(known(last), now) {
                permit.done(Outcome::Away, now);
            }
        }
    }

    #[test]
    fn p7_no_number_of_voices_keeps_others_out_while_probes_are_answered() {
        let mut now = Instant::now();
        let breaker = Breaker::new();
        let mut probes = 0;
        for _ in 0..100 {
            voices(&breaker, now);
            let probe = breaker.probe(now);
            if let Some(probe) = &probe {
                probes += 1;
                voices(&breaker, now);
                assert!(breaker.probe(now).is_none(), "one at a time");
                assert_eq!(probe.told(true, now), None);
            }
            drop(probe);
            assert!(breaker.permit(asker(1), now).is_some());
            let newcomer = Asker {
                from: None,
                ..known(1)
            };
            assert!(breaker.permit(newcomer, now).is_some());
            now += OPEN_FOR / 10;
        }
        assert!((5..=10).contains(&probes), "one a second at most: {probes}");
    }

    #[test]
    fn p8_a_probe_that_fails_opens_it_for_all_until_one_is_answered() {
        let mut now = Instant::now();
        let breaker = Breaker::new();
        assert!(breaker.probe(now).is_none(), "nobody suspects anything");
        // One who is known is not enough.
        while let Some(permit) = breaker.permit(known(1), now) {
            permit.done(Outcome::Away, now);
        }
        assert!(breaker.probe(now).is_none());
        let early = breaker.permit(asker(3), now).unwrap();
        voices(&breaker, now);
        assert!(breaker.permit(asker(4), now).is_some(), "only suspected");
        let probe = breaker.probe(now).unwrap();
        let is_closed = |now| breaker.permit(asker(4), now).is_some();
        for _ in 0..3 {
            assert_eq!(probe.told(false, now), Some(OPEN_FOR));
            assert!(!is_closed(now) && breaker.probe(now).is_none());
            now += OPEN_FOR;
            assert!(!is_closed(now), "for as long as no probe is answered");
        }
        // Who makes probes may be gone.
        drop(probe);
        let probe = breaker.probe(now).unwrap();
        assert_eq!(probe.told(true, now), None);
        assert!(is_closed(now));
        drop(probe);
        now += OPEN_FOR;
        assert!(breaker.probe(now).is_none(), "nor is anything left");
        voices(&breaker, now);
        let probe = breaker.probe(now).unwrap();
        probe.told(false, now);
        assert!(!is_closed(now));
        early.done(Outcome::Answered, now);
        assert!(is_closed(now), "somebody was answered");
    }
}
