//! What the process tells the people who run it: its log, its metrics, its
//! traces. Every room may call this one; it calls none.
//!
//! Invariants:
//! 1. A log line's message is lower case and has no values in it; values are
//!    fields. No line has a message's text or a token.
//! 2. The names of metrics stand in `names.rs` and nowhere else. A number is kept
//!    where it is added to; nothing is looked up by name on a message's way.
//! 3. Without an exporter, or for a call that is not sampled, tracing costs a
//!    look at two words; trouble with the exporter is counted and goes no further.

mod ahead;
mod chain;
mod cluster;
mod exposition;
mod lanes;
mod limit;
mod logs;
mod method;
mod metrics;
pub mod names;
mod process;
mod request;
mod samples;
mod sheet;
mod traceparent;
mod traces;

use std::sync::Arc;

pub use chain::{Chain, chain};
pub use exposition::{Format, text_of};
pub use limit::LineLimit;
pub(crate) use limit::log_limited;
pub use logs::{Log, LogError, LogFormat, LogLevel, init_logs};
pub use method::Method;
pub use metrics::{AuthOutcome, Depths, Metrics};
pub use request::RequestId;
pub use samples::Samples;
pub use traceparent::{SpanRef, TRACEPARENT};
pub use traces::{BatchSpan, CallSpan, TraceError, Traces};

/// What the rooms are handed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry {
    pub metrics: Arc<Metrics>,
    pub traces: Traces,
}

impl Telemetry {
    /// Counts, and traces nothing. For a server with so many writer lanes.
    pub fn quiet(lanes: usize) -> Self {
        Self {
            metrics: Metrics::new(lanes),
            traces: Traces::default(),
        }
    }
}
