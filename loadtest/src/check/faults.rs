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
    /// A node does not reach PostgreSQL: its connections are refused
    DbAway,
    /// Nodes are stopped by SIGTERM and started again, one after the other
    Roll,
    /// NATS is killed, and starts again
    NatsKill,
    /// SIGSTOP to NATS
    NatsStop,
    /// A node's connection to NATS is reset
    NatsCut,
    /// … is slow
    NatsDelay,
    /// … loses everything without a word
    NatsHalfOpen,
    /// A node does not reach NATS: its connections are refused
    NatsAway,
    /// A node reaches neither NATS nor PostgreSQL: its connections are refused
    Apart,
    /// … lose everything without a word
    ApartHalfOpen,
    /// All the time, nodes are drained and partitions are shared again
    Moves,
}

/// One fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Since the run began.
    pub at: Duration,
    pub fault: Fault,
    pub lasts: Duration,
    /// The node it is done to, if it is one that is done to a node.
    pub node: usize,
}

impl Fault {
    /// Whether there is anything to do it to, and what is promised survives it.
    pub fn is_for(self, store: StoreKind, nodes: usize) -> bool {
        match self {
            Self::DbAway
            | Self::Roll
            | Self::NatsKill
            | Self::NatsStop
            | Self::NatsCut
            | Self::NatsDelay
            | Self::NatsHalfOpen
            | Self::NatsAway
            | Self::Apart
            | Self::ApartHalfOpen
            | Self::Moves => nodes > 1,
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
        matches!(self, Self::Kill | Self::Term | Self::Roll)
    }

    /// It is done to one of several nodes.
    pub fn is_of_a_node(self) -> bool {
        matches!(
            self,
            Self::Kill
                | Self::Term
                | Self::Stop
                | Self::Cut
                | Self::Delay
                | Self::HalfOpen
                | Self::Clock
                | Self::DbCut
                | Self::DbDelay
                | Self::DbHalfOpen
                | Self::DbAway
                | Self::NatsCut
                | Self::NatsDelay
                | Self::NatsHalfOpen
                | Self::NatsAway
                | Self::Apart
                | Self::ApartHalfOpen
        )
    }

    /// It takes a standby.
    pub fn replicates(self) -> bool {
        matches!(
            self,
            Self::DbStandby | Self::DbCancel | Self::DbFailover | Self::DbLose
        )
    }

    /// All that so many nodes over such a store can have.
    pub fn all(store: StoreKind, nodes: usize) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|fault| fault.is_for(store, nodes)).collect()
    }

    /// How long it lasts, in milliseconds, at most.
    fn longest(self, nodes: usize) -> u64 {
        match self {
            // Nodes have to be missed before others take over what they had, which takes
            // some seconds; and a machine may stand still for longer than that.
            Self::Stop if nodes > 1 => 30_000,
            Self::Kill | Self::Term | Self::HalfOpen | Self::DbHalfOpen if nodes > 1 => 6_000,
            Self::DbAway | Self::Apart | Self::ApartHalfOpen => 8_000,
            Self::NatsKill | Self::NatsStop | Self::NatsAway | Self::NatsHalfOpen => 6_000,
            Self::NatsDelay | Self::Roll => 4_000,
            Self::NatsCut => 200,
            Self::Kill | Self::Term | Self::Cut | Self::DbCut | Self::Flood | Self::Clock => 200,
            // Longer than a send's deadline, now and then.
            Self::Disk | Self::Auth | Self::DbStop | Self::DbFast | Self::DbImmediate => 2_500,
            Self::DbStandby | Self::DbCancel => 2_500,
            Self::DbLose => 1_000,
            _ => 1_500,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}: {}", self.at, self.fault)?;
        if self.fault.is_of_a_node() {
            write!(f, " of node{}", self.node)?;
        }
        write!(f, " for {:?}", self.lasts)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Faults one after the other, with a pause between them, as many as there is time
/// for. What goes on all the time is not among them.
pub fn schedule(seed: u64, faults: &[Fault], time: Duration, nodes: usize) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed);
    let faults = faults.iter().filter(|fault| **fault != Fault::Moves);
    let faults: Vec<Fault> = faults.copied().collect();
    let half = time.as_millis() as u64 / 2;
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    while let Some(&fault) = faults.choose(&mut random) {
        at += Duration::from_millis(random.random_range(100..1_000));
        let mut longest = fault.longest(nodes);
        let mut node = 0;
        // With one server, a seed is to give the same schedule as ever.
        if nodes > 1 {
            longest = longest.min(half.max(100));
            node = random.random_range(0..nodes);
        }
        let lasts = Duration::from_millis(random.random_range(10..longest));
        if at + lasts > time {
            break;
        }
        steps.push(Step {
            at,
            fault,
            lasts,
            node,
        });
        at += lasts;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again() {
        for nodes in [1, 3] {
            let all = Fault::all(StoreKind::Postgres, nodes);
            let time = Duration::from_secs(120);
            let once = schedule(7, &all, time, nodes);
            assert_eq!(once, schedule(7, &all, time, nodes));
            assert_ne!(once, schedule(8, &all, time, nodes));
            assert!(once.len() > 20);
            for pair in once.windows(2) {
                assert!(pair[0].at + pair[0].lasts < pair[1].at);
            }
            let many = schedule(7, &all, 10 * time, nodes);
            for fault in all.iter().filter(|fault| **fault != Fault::Moves) {
                assert!(many.iter().any(|step| step.fault == *fault), "{fault}");
            }
            for node in 0..nodes {
                assert!(many.iter().any(|step| step.node == node), "node {node}");
            }
        }
    }

    #[test]
    fn what_a_seed_gives_one_server_does_not_change() {
        let faults = [Fault::Kill, Fault::DbStop, Fault::HalfOpen];
        let steps = schedule(7, &faults, Duration::from_secs(4), 1);
        assert!(steps.iter().all(|step| step.node == 0));
        let steps: Vec<_> = steps
            .iter()
            .map(|step| (step.at.as_millis(), step.fault))
            .collect();
        let known = [
            (228, Fault::DbStop),
            (977, Fault::Kill),
            (1_674, Fault::HalfOpen),
            (3_003, Fault::Kill),
            (3_604, Fault::DbStop),
        ];
        assert_eq!(steps, known);
    }

    #[test]
    fn no_faults_no_steps() {
        for faults in [&[][..], &[Fault::Moves]] {
            assert_eq!(schedule(7, faults, Duration::from_secs(60), 3), []);
        }
    }
}
