//! A circuit breaker: when most calls of late have failed, the next ones fail
//! at once for a while, which spares the callers the wait and the peer the load.
//!
//! Of the crates for it, `failsafe` and `recloser` count consecutive failures
//! or a ring of calls and have no cancel-safe permit for an async call; the
//! rest would bring a tower stack for these few lines.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Calls are counted in windows of this length.
const WINDOW: Duration = Duration::from_secs(5);
/// Below this number of calls in a window a failure says little.
const LEAST_CALLS: u32 = 10;
/// How long the breaker stays open before it lets one call try.
const OPEN_FOR: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Breaker(Mutex<State>);

#[derive(Debug)]
enum State {
    Closed {
        since: Instant,
        calls: u32,
        failures: u32,
    },
    /// `trying`: one call is under way that decides.
    Open { until: Instant, trying: bool },
}

/// The leave to make one call, which is to be told how that went. Dropped
/// without, nothing is counted.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    decides: bool,
}

impl Breaker {
    pub fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(closed(now))))
    }

    /// Whether a call may be made.
    pub fn permit(self: &Arc<Self>, now: Instant) -> Option<Permit> {
        let mut state = self.state();
        let decides = match &mut *state {
            State::Closed { .. } => false,
            State::Open { until, trying } => {
                if *trying || now < *until {
                    return None;
                }
                *trying = true;
                true
            }
        };
        Some(Permit {
            breaker: self.clone(),
            decides,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed(since: Instant) -> State {
    State::Closed {
        since,
        calls: 0,
        failures: 0,
    }
}

impl Permit {
    /// Whether it alone says if others are let through.
    pub fn decides(&self) -> bool {
        self.decides
    }

    /// How the call went.
    pub fn done(mut self, failed: bool, now: Instant) {
        let mut state = self.breaker.state();
        if self.decides {
            self.decides = false;
            if failed {
                *state = open(now);
            } else {
                tracing::info!("the Auth Service answers again");
                *state = closed(now);
            }
            return;
        }
        let State::Closed {
            since,
            calls,
            failures,
        } = &mut *state
        else {
            return;
        };
        if now.saturating_duration_since(*since) > WINDOW {
            (*since, *calls, *failures) = (now, 0, 0);
        }
        *calls += 1;
        *failures += u32::from(failed);
        if *calls >= LEAST_CALLS && *failures * 2 > *calls {
            let (calls, failures) = (*calls, *failures);
            tracing::warn!(calls, failures, "the Auth Service fails, not asking it");
            *state = open(now);
        }
    }
}

fn open(now: Instant) -> State {
    State::Open {
        until: now + OPEN_FOR,
        trying: false,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.decides
            && let State::Open { trying, .. } = &mut *self.breaker.state()
        {
            *trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_on_most_of_enough_calls_and_closes_on_one_that_goes_well() {
        let mut now = Instant::now();
        let breaker = Breaker::new(now);
        for _ in 1..LEAST_CALLS {
            breaker.permit(now).unwrap().done(true, now);
        }
        // A window later the failures of before do not count.
        now += WINDOW * 2;
        for n in 0..LEAST_CALLS {
            breaker.permit(now).unwrap().done(n % 2 == 0, now);
        }
        breaker.permit(now).unwrap().done(true, now);
        assert!(breaker.permit(now).is_none(), "6 of 11 have failed");

        now += OPEN_FOR;
        let trial = breaker.permit(now).unwrap();
        assert!(breaker.permit(now).is_none(), "one tries at a time");
        drop(trial);
        breaker.permit(now).unwrap().done(true, now);
        assert!(breaker.permit(now).is_none());
        now += OPEN_FOR;
        breaker.permit(now).unwrap().done(false, now);
        assert!(breaker.permit(now).is_some());
    }
}
