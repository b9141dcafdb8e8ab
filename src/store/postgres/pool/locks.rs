use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::telemetry::log_limited;

/// How long a lock that was met is gone around.
const RECENT: Duration = Duration::from_secs(10);

/// Whether somebody has locked a table of late. A generic plan takes the locks of all
/// partitions, also of those that it does not read.
#[derive(Debug, Default)]
pub struct Locks(Mutex<Option<Instant>>);

impl Locks {
    pub fn met(&self) {
        log_limited!(
            WARN,
            "somebody has locked a table of the database: reads go around it"
        );
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub fn are_recent(&self) -> bool {
        let met = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.is_some_and(|met| met.elapsed() < RECENT)
    }
}
