//! What `/metrics` answers, made as often as it is worth: whoever asks for it in a
//! loop gets the same text for a moment, and leaves the thread to the probes.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::telemetry::{self, Format, Metrics};

/// So many texts are made anew in a moment; a text takes half a millisecond.
const MOST_TEXTS: usize = 32;
const MOMENT: Duration = Duration::from_millis(100);

/// The texts of the moment.
pub struct Scrape {
    metrics: Arc<Metrics>,
    recent: Mutex<Recent>,
}

struct Recent {
    since: Instant,
    made: usize,
    plain: Option<Bytes>,
    open: Option<Bytes>,
}

impl Scrape {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            recent: Mutex::new(Recent::new()),
        }
    }

    /// All metrics, as they are now or were at most a moment ago.
    ///
    /// # Errors
    /// As [`telemetry::text_of`].
    pub fn text(&self, format: Format) -> Result<Bytes, fmt::Error> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.since.elapsed() > MOMENT {
            *recent = Recent::new();
        }
        let many = recent.made >= MOST_TEXTS;
        let last = match format {
            Format::Plain => &mut recent.plain,
            Format::OpenMetrics => &mut recent.open,
        };
        if many && let Some(text) = last {
            return Ok(text.clone());
        }
        let text = Bytes::from(telemetry::text_of(&self.metrics, format)?);
        *last = Some(text.clone());
        recent.made += 1;
        Ok(text)
    }
}

impl Recent {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            made: 0,
            plain: None,
            open: None,
        }
    }
}
