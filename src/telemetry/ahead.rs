use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::SystemTime,
};

/// The newest time of a message that was ahead of the clock when it was given.
#[derive(Debug, Default)]
pub struct Ahead(AtomicI64);

impl Ahead {
    /// A message has a time, in microseconds since the Unix epoch, that is yet to come.
    pub fn saw(&self, time: i64) {
        self.0.fetch_max(time, Relaxed);
    }

    /// How far that is ahead of the clock by now, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_micros() as i64;
        let ahead = self.0.load(Relaxed).saturating_sub(now);
        ahead.max(0) as f64 / 1e6
    }
}
