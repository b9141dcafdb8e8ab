//! How long COPY and COMMIT take at a rate, each with the rows that have become
//! due since the last one: what every durable message waits for.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use chat_service::domain::ChatId;
use clap::Args;
use hdrhistogram::Histogram;

use super::append::{Source, copy::Copier};
use crate::{
    Result,
    child::{myself, output},
    options::Common,
    pace::{Pace, block_on},
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

/// What a child prints that has measured itself, times in microseconds.
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
    output(command, common)?.parse()
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
            times.record(started.elapsed().as_nanos() as u64)?;
            for due in due.drain(..) {
                row_times.record(due.elapsed().as_nanos() as u64)?;
            }
            written += rows.len();
        }
        copier.close().await?;
        let micros =
            |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Commits {
            p50: micros(&times, 0.5),
            p99: micros(&times, 0.99),
            max: micros(&times, 1.0),
            row_p99: micros(&row_times, 0.99),
            rows: written as f64 / times.len() as f64,
        })
    })?;
    println!("{commits}");
    Ok(())
}

impl fmt::Display for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p99,
            max,
            row_p99,
            rows,
        } = self;
        write!(f, "{p50} {p99} {max} {row_p99} {rows}")
    }
}

impl FromStr for Commits {
    type Err = Box<dyn std::error::Error>;

    fn from_str(printed: &str) -> Result<Self> {
        let figures: Result<Vec<f64>, _> = printed.split_whitespace().map(str::parse).collect();
        let [p50, p99, max, row_p99, rows] = figures?[..] else {
            return Err("no figures".into());
        };
        Ok(Self {
            p50,
            p99,
            max,
            row_p99,
            rows,
        })
    }
}
