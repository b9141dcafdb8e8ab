//! How long COPY and COMMIT take at a rate, each with the rows that have become
//! due since the last one: what every durable message waits for.

use std::time::{Duration, Instant};

use chat_service::domain::ChatId;
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::append::{Source, copy::Copier};
use crate::{
    Result,
    child::{myself, output, tell},
    options::Common,
    pace::{Pace, block_on, micros},
    posts,
};

#[derive(Args, Clone)]
pub struct Options {
    #[arg(long)]
    store: String,
    #[arg(long)]
    text: usize,
    /// Rows a second
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    seconds: f64,
}

/// What a child tells that has measured itself, times in microseconds.
#[derive(Serialize, Deserialize)]
pub struct Commits {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// From when a row was to be sent to the end of its commit: who comes while a
    /// commit runs waits for that one too.
    pub row_p99: f64,
    /// Of one commit, on average.
    pub rows: f64,
}

/// Commits on the server's core, of texts of this length.
pub fn measure(common: &Common, text: usize, rate: f64) -> Result<Commits> {
    let mut command = myself("ceiling-commit")?;
    command
        .args(["--store", &common.store])
        .args(["--text", &text.to_string()])
        .args(["--rate", &rate.to_string()])
        .args(["--seconds", &common.seconds.to_string()]);
    output(command, common)
}

pub fn run(options: &Options) -> Result<()> {
    let commits = block_on(async {
        let mut copier = Copier::open(&options.store).await?;
        let text = posts::text(Instant::now(), options.text);
        let mut source = Source::new(vec![ChatId::new(1)?], &text, 1)?;
        let mut pace = Pace::new(options.rate)?;
        let mut due = Vec::new();
        let mut times = Histogram::<u64>::new(3)?;
        let mut row_times = Histogram::<u64>::new(3)?;
        let mut written = 0;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs_f64(options.seconds) {
            due.extend(std::iter::from_fn(|| pace.due()));
            if due.is_empty() {
                pace.wait().await?;
                continue;
            }
            let rows = source.take(due.len());
            let started = Instant::now();
            copier.commit(&rows).await?;
            let done = Instant::now();
            times.record((done - started).as_nanos() as u64)?;
            for due in due.drain(..) {
                row_times.record((done - due).as_nanos() as u64)?;
            }
            written += rows.len();
        }
        copier.close().await?;
        Ok(Commits {
            p50: micros(&times, 0.5),
            p99: micros(&times, 0.99),
            max: micros(&times, 1.0),
            row_p99: micros(&row_times, 0.99),
            rows: written as f64 / times.len() as f64,
        })
    })?;
    tell(&commits)
}
