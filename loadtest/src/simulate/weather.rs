//! How the store behaves from one second to the next.

use std::time::Duration;

use fastrand::Rng;

/// What becomes of one call.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    /// Before it takes effect, if it does.
    pub before: Duration,
    /// From then to the answer.
    pub after: Duration,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Nothing is done.
    Unavailable,
    /// Nothing is done, and nobody knows.
    Lost,
    /// Done, and nobody knows.
    DoneAndLost,
    /// Done so much later than its caller is told that it is not known.
    Late(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fine,
    /// One call in a few fails, in every way.
    Rough,
    /// All succeed, and take up to seconds.
    Slow,
    /// All fail at once.
    Down,
    /// Nothing is answered for seconds, and most calls fail then.
    Stuck,
}

impl Weather {
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..12) {
            0..4 => Self::Fine,
            4..8 => Self::Rough,
            8 | 9 => Self::Slow,
            10 => Self::Down,
            _ => Self::Stuck,
        }
    }

    pub fn fate(self, rng: &mut Rng) -> Fate {
        let most = match self {
            Self::Fine => 4,
            Self::Rough => 30,
            Self::Slow => 1_500,
            Self::Down => 2,
            Self::Stuck => 7_000,
        };
        // Mostly far below, so that calls overtake each other.
        let mut time = || {
            let most = if rng.u8(..4) == 0 { most } else { most / 8 + 1 };
            Duration::from_millis(rng.u64(..=most))
        };
        let (before, after) = (time(), time());
        let failing = match self {
            Self::Fine | Self::Slow => 0,
            Self::Rough => 30,
            Self::Down => 100,
            Self::Stuck => 70,
        };
        let outcome = match rng.u8(..4) {
            _ if rng.u8(..100) >= failing => Outcome::Done,
            _ if self == Self::Down => Outcome::Unavailable,
            0 => Outcome::Unavailable,
            1 => Outcome::Lost,
            2 => Outcome::DoneAndLost,
            _ => Outcome::Late(Duration::from_millis(rng.u64(1..2_000))),
        };
        Fate {
            before,
            after,
            outcome,
        }
    }

    /// Most messages that a page holds.
    pub fn page(self, rng: &mut Rng) -> usize {
        match self {
            Self::Rough => rng.usize(1..=8),
            _ => usize::MAX,
        }
    }
}
