//! What is done to the server and to what it stands on, and when: a schedule that
//! a seed gives again.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::world::StoreKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// kill -9, and a new start
    Kill,
    /// SIGTERM, and a new start
    Term,
    /// SIGSTOP, and SIGCONT later
    Stop,
    /// Connections to the server are reset
    Cut,
    /// Connections to the server are slow
    Delay,
    /// Connections to the server lose everything without a word
    HalfOpen,
    /// Many sends at once
    Flood,
    /// The wall clock is set forwards or back
    Clock,
    /// The Auth Service is gone
    Auth,
    /// The disk of the store is full
    Disk,
    /// PostgreSQL ends fast, and starts again
    DbFast,
    /// PostgreSQL ends at once, and recovers
    DbImmediate,
    /// SIGSTOP to all of PostgreSQL
    DbStop,
    /// PostgreSQL's synchronous standby ends, and comes back
    DbStandby,
    /// … and what waits for it meanwhile is cancelled
    DbCancel,
    /// … and after that PostgreSQL ends, and the standby takes over
    DbFailover,
    /// Nothing waits for PostgreSQL's standby, which ends; later it takes over, and
    /// lacks what has been stored since
    DbLose,
    /// Connections to PostgreSQL are reset
    DbCut,
    /// … are slow
    DbDelay,
    /// … lose everything without a word
    DbHalfOpen,
}

/// One fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Since the run began.
    pub at: Duration,
    pub fault: Fault,
    pub lasts: Duration,
}

impl Fault {
    /// Whether there is anything to do it to, and what is promised survives it.
    pub fn is_for(self, store: StoreKind) -> bool {
        match self {
            Self::Kill | Self::Term | Self::Disk => store != StoreKind::Memory,
            Self::DbFast
            | Self::DbImmediate
            | Self::DbStop
            | Self::DbStandby
            | Self::DbCancel
            | Self::DbFailover
            | Self::DbLose
            | Self::DbCut
            | Self::DbDelay
            | Self::DbHalfOpen => store == StoreKind::Postgres,
            _ => true,
        }
    }

    /// The server's process ends in it.
    pub fn restarts(self) -> bool {
        matches!(self, Self::Kill | Self::Term)
    }

    /// It takes a standby.
    pub fn replicates(self) -> bool {
        matches!(
            self,
            Self::DbStandby | Self::DbCancel | Self::DbFailover | Self::DbLose
        )
    }

    /// All that a store can have.
    pub fn all(store: StoreKind) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|fault| fault.is_for(store)).collect()
    }

    /// How long it lasts, in milliseconds, at most.
    fn longest(self) -> u64 {
        match self {
            Self::Kill | Self::Term | Self::Cut | Self::DbCut | Self::Flood | Self::Clock => 200,
            // Longer than a send's deadline, now and then.
            Self::Disk | Self::Auth | Self::DbStop | Self::DbFast | Self::DbImmediate => 2_500,
            Self::DbStandby | Self::DbCancel => 2_500,
            Self::DbLose => 1_000,
            _ => 1_500,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Faults one after the other, with a pause between them, as many as there is time
/// for.
pub fn schedule(seed: u64, faults: &[Fault], time: Duration) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    while let Some(&fault) = faults.choose(&mut random) {
        at += Duration::from_millis(random.random_range(100..1_000));
        let lasts = Duration::from_millis(random.random_range(10..fault.longest()));
        if at + lasts > time {
            break;
        }
        steps.push(Step { at, fault, lasts });
        at += lasts;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again() {
        let all = Fault::all(StoreKind::Postgres);
        let time = Duration::from_secs(60);
        let once = schedule(7, &all, time);
        assert_eq!(once, schedule(7, &all, time));
        assert_ne!(once, schedule(8, &all, time));
        assert!(once.len() > 20);
        for pair in once.windows(2) {
            assert!(pair[0].at + pair[0].lasts < pair[1].at);
        }
        for fault in &all {
            let many = schedule(7, &all, 10 * time);
            assert!(many.iter().any(|step| step.fault == *fault), "{fault}");
        }
    }

    #[test]
    fn no_faults_no_steps() {
        assert_eq!(schedule(7, &[], Duration::from_secs(60)), []);
    }
}
