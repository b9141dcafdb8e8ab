use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Lines that one place in the code may log a second.
const LINES: u64 = 5;

/// How many lines a place in the code has logged in this second, and how many it
/// has left out since the last one. See `log_limited!`.
#[derive(Debug, Default)]
pub struct LineLimit {
    /// The second, and in the low byte the lines in it, one more than `LINES`
    /// at most.
    window: AtomicU64,
    left_out: AtomicU64,
}

impl LineLimit {
    pub const fn new() -> Self {
        Self {
            window: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether the line may be logged; how many were left out before it.
    pub fn pass(&self) -> Option<u64> {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        self.pass_at(START.elapsed().as_secs())
    }

    fn pass_at(&self, second: u64) -> Option<u64> {
        let count = |window: u64| match window >> 8 == second {
            true => (second << 8) | ((window & 0xff) + 1).min(LINES + 1),
            false => (second << 8) | 1,
        };
        let before = self
            .window
            .fetch_update(Relaxed, Relaxed, |w| Some(count(w)));
        let (Ok(before) | Err(before)) = before;
        if count(before) & 0xff <= LINES {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

/// A log line for a place that a flood of calls, messages or failures goes by:
/// five a second are logged, and the next one then says how many were
/// `left_out`. A level that is off costs what it always does, and counts nothing.
macro_rules! log_limited {
    ($level:ident, $($line:tt)+) => {{
        static LIMIT: $crate::telemetry::LineLimit = $crate::telemetry::LineLimit::new();
        if tracing::enabled!(tracing::Level::$level)
            && let Some(left_out) = LIMIT.pass()
        {
            let left_out = (left_out > 0).then_some(left_out);
            tracing::event!(tracing::Level::$level, left_out, $($line)+);
        }
    }};
}

pub(crate) use log_limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_few_lines_and_a_count() {
        let limit = LineLimit::new();
        let passed = |second, lines| -> Vec<u64> {
            let passed = (0..lines).filter_map(|_| limit.pass_at(second));
            passed.collect()
        };
        assert_eq!(passed(0, 3), [0; 3]);
        assert_eq!(passed(0, 1_000), [0; 2]);
        assert_eq!(passed(1, 1), [998]);
        assert_eq!(passed(1, 4), [0; 4]);
        assert!(passed(1, 7).is_empty());
        assert_eq!(passed(60, 2), [7, 0]);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let limit = LineLimit::new();
        let lines = || (0..10_000).filter_map(|n| limit.pass_at(n / 1_000));
        let told: u64 = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| lines().map(|left_out| left_out + 1).sum::<u64>()))
                .collect();
            tasks.into_iter().map(|task| task.join().unwrap()).sum()
        });
        assert_eq!(told + limit.left_out.load(Relaxed), 40_000);
    }
}
