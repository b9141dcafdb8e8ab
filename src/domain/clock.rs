use std::{fmt, time::Instant};

use super::Timestamp;

/// The seam through which the core learns the time, so that tests can set it.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// For deadlines and waiting: never runs back.
    fn now(&self) -> Instant;

    /// For `created_at`: may be set, forwards or back.
    fn wall(&self) -> Timestamp;
}
