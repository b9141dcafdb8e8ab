//! The last minutes, a sample a second: what the page of live plots shows.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{metrics::Metrics, sheet::Counts};

/// How far back the page reaches, in samples.
const KEPT: usize = 300;

/// The series of a sample, in its order. Latencies are in milliseconds.
const SERIES: [&str; 14] = [
    "t",
    "messages",
    "deliveries",
    "commit_p50",
    "commit_p99",
    "call_p50",
    "call_p99",
    "lane_depth",
    "mailbox",
    "batch",
    "readers",
    "chats",
    "lag_p50",
    "lag_p99",
];

/// One interval's figures, written as JSON once, however often they are asked for.
#[derive(Debug)]
struct Sample {
    /// Milliseconds since the Unix epoch.
    at: u64,
    told: [Box<str>; SERIES.len()],
}

#[derive(Debug, Default)]
struct Before {
    stored: u64,
    deliveries: u64,
    commit: Counts,
    call: Counts,
    rows: Counts,
    lag: Counts,
}

/// Takes samples and keeps the newest.
#[derive(Debug)]
pub struct Samples {
    metrics: Arc<Metrics>,
    kept: Mutex<VecDeque<Sample>>,
}

impl Samples {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            kept: Mutex::default(),
        }
    }

    /// Takes a sample a second, for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = self.totals();
        let mut since = Instant::now();
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = self.totals();
            let sample = self.sample(&before, &now, since.elapsed());
            before = now;
            since = Instant::now();
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(sample);
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
    }

    fn totals(&self) -> Before {
        let Metrics { sheet, places, .. } = &*self.metrics;
        Before {
            stored: sheet.total(places.stored),
            deliveries: sheet.total(places.deliveries),
            commit: sheet.histogram(places.commit_micros),
            call: self.metrics.unary_micros(),
            rows: sheet.histogram(places.batch_rows),
            lag: sheet.histogram(places.cursor_lag),
        }
    }

    fn sample(&self, before: &Before, now: &Before, took: Duration) -> Sample {
        let Metrics { sheet, places, .. } = &*self.metrics;
        let rate =
            |now: u64, before: u64| Some(now.wrapping_sub(before) as f64 / took.as_secs_f64());
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = at.unwrap_or_default().as_millis() as u64;
        let commit = now.commit.since(&before.commit);
        let call = now.call.since(&before.call);
        let lag = now.lag.since(&before.lag);
        let rows = now.rows.since(&before.rows);
        let ms = |of: &Counts, share| of.quantile(share).map(|micros| micros as f64 / 1_000.0);
        let whole = |value: u64| Some(value as f64);
        let values: [Option<f64>; SERIES.len()] = [
            whole(at),
            rate(now.stored, before.stored),
            rate(now.deliveries, before.deliveries),
            ms(&commit, 0.5),
            ms(&commit, 0.99),
            ms(&call, 0.5),
            ms(&call, 0.99),
            whole(sheet.total(places.lane_depth)),
            whole(self.metrics.depths().mailbox),
            (rows.count() > 0).then(|| rows.sum as f64 / rows.count() as f64),
            whole(sheet.total(places.readers)),
            whole(sheet.total(places.chats)),
            lag.quantile(0.5).and_then(whole),
            lag.quantile(0.99).and_then(whole),
        ];
        let told = values.map(|value| match value {
            Some(n) => ((n * 1_000.0).round() / 1_000.0).to_string().into(),
            None => "null".into(),
        });
        Sample { at, told }
    }

    /// The samples newer than `after` (milliseconds since the Unix epoch) as
    /// JSON, each series a list; what had no values is null.
    pub fn json(&self, after: u64) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || kept.iter().filter(|sample| sample.at > after);
        let mut out = String::from("{");
        for (at, name) in SERIES.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a string does not fail.
            _ = write!(out, "{comma}\"{name}\":[");
            for (n, sample) in new().enumerate() {
                out.push_str(if n == 0 { "" } else { "," });
                out.push_str(&sample.told[at]);
            }
            out.push(']');
        }
        out.push('}');
        out
    }
}
