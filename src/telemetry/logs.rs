//! The log: on standard error, pretty on a terminal and JSON otherwise.
//!
//! A thread of its own writes it, so that whoever logs never waits for whoever
//! reads: a pipe that nobody empties costs lines, and they are counted.

use std::{
    io::{self, IsTerminal as _},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// Below `info` these say something about every frame and every syscall, which
/// drowns the lines that one turned the level up for.
const CHATTY: [&str; 7] = [
    "hyper",
    "hyper_util",
    "tonic",
    "tower",
    "rustls",
    "tokio_postgres",
    "mio",
];

/// Lines that may wait to be written; one more is dropped. A line has some 300
/// bytes.
const WAITING_LINES: usize = 8_192;

/// How long the end of the process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(1_500);

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    Pretty,
    Json,
}

/// Why the log could not be set up, or its level not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log level is not a valid filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log cannot be set up: {0}")]
    Init(#[from] tracing_subscriber::util::TryInitError),
    #[error("the log's level cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Changes what the running process logs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LogLevel(Option<reload::Handle<EnvFilter, Registry>>);

impl LogLevel {
    /// `level` is a level or a filter directive. Where this process has no log
    /// of its own, nothing happens.
    ///
    /// # Errors
    /// If the filter cannot be read.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        let filter = EnvFilter::try_new(directives(level))?;
        if let Some(handle) = &self.0 {
            handle.reload(filter)?;
        }
        Ok(())
    }
}

/// The log of this process. What still waits is written when it is dropped, unless
/// nobody reads it.
#[derive(Debug)]
pub struct Log {
    level: LogLevel,
    writer: Option<WorkerGuard>,
}

impl Log {
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let writer = self.writer.take();
        let (written, told) = mpsc::sync_channel(1);
        // It waits for the reader of the log, and may complain to one who does not
        // read either.
        let last = thread::Builder::new().spawn(move || {
            drop(writer);
            written.send(())
        });
        if last.is_ok() {
            _ = told.recv_timeout(LAST_LINES);
        }
    }
}

/// Lines that were not written because nobody read those before them.
pub(super) fn dropped_lines() -> u64 {
    DROPPED
        .get()
        .map_or(0, |counter| counter.dropped_lines() as u64)
}

/// Sends the log to standard error. `level` is a level or a filter directive.
///
/// # Errors
/// If the filter cannot be read, or there is a log already.
pub fn init_logs(level: &str, format: LogFormat) -> Result<Log, LogError> {
    let filter = EnvFilter::try_new(directives(level))?;
    let (filter, handle) = reload::Layer::new(filter);
    let pretty = match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let (stderr, writer) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(io::stderr());
    _ = DROPPED.set(stderr.error_counter());
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    let registry = tracing_subscriber::registry().with(filter);
    if pretty {
        let lines = lines.with_ansi(io::stderr().is_terminal());
        registry.with(lines).try_init()?;
    } else {
        registry.with(lines.json().flatten_event(true)).try_init()?;
    }
    Ok(Log {
        level: LogLevel(Some(handle)),
        writer: Some(writer),
    })
}

/// A plain level is meant for this service; who wants a library's lines as well
/// writes a filter. h2 has a warning for each connection that breaks its rules:
/// a client that means harm could fill the disk with them.
fn directives(level: &str) -> String {
    let own = match level {
        "debug" | "trace" => CHATTY
            .iter()
            .fold(level.to_owned(), |all, name| format!("{all},{name}=info")),
        "info" | "warn" => level.to_owned(),
        _ => return level.to_owned(),
    };
    own + ",h2=error,async_nats=off"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_level_is_narrowed() {
        assert_eq!(directives("warn"), "warn,h2=error,async_nats=off");
        assert_eq!(directives("error"), "error");
        assert_eq!(directives("h2=trace,info"), "h2=trace,info");
        let narrowed = directives("debug");
        assert!(narrowed.starts_with("debug,hyper=info"), "{narrowed}");
        assert!(EnvFilter::try_new(narrowed).is_ok());
    }
}
