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

/// One interval's figures. Latencies are in microseconds.
#[derive(Debug, Clone, Default)]
struct Sample {
    /// Milliseconds since the Unix epoch.
    at: u64,
    messages: f64,
    deliveries: f64,
    commit: [Option<u64>; 2],
    call: [Option<u64>; 2],
    lane_depth: u64,
    mailbox: u64,
    batch: Option<f64>,
    readers: u64,
    chats: u64,
    lag: [Option<u64>; 2],
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
        let rate = |now: u64, before: u64| now.wrapping_sub(before) as f64 / took.as_secs_f64();
        let halves = |now: &Counts, before: &Counts| {
            let new = now.since(before);
            [new.quantile(0.5), new.quantile(0.99)]
        };
        let rows = now.rows.since(&before.rows);
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Sample {
            at: at.unwrap_or_default().as_millis() as u64,
            messages: rate(now.stored, before.stored),
            deliveries: rate(now.deliveries, before.deliveries),
            commit: halves(&now.commit, &before.commit),
            call: halves(&now.call, &before.call),
            lane_depth: sheet.total(places.lane_depth),
            mailbox: self.metrics.depths().mailbox,
            batch: (rows.count() > 0).then(|| rows.sum as f64 / rows.count() as f64),
            readers: sheet.total(places.readers),
            chats: sheet.total(places.chats),
            lag: halves(&now.lag, &before.lag),
        }
    }

    /// The samples newer than `after` (milliseconds since the Unix epoch) as
    /// JSON, each series a list; what had no values is null.
    pub fn json(&self, after: u64) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<Sample> = kept.iter().filter(|s| s.at > after).cloned().collect();
        drop(kept);
        let ms = |value: Option<u64>| value.map(|micros| micros as f64 / 1_000.0);
        let whole = |value: u64| Some(value as f64);
        type Pick<'a> = &'a dyn Fn(&Sample) -> Option<f64>;
        let series: [(&str, Pick<'_>); 14] = [
            ("t", &|s| whole(s.at)),
            ("messages", &|s| Some(s.messages)),
            ("deliveries", &|s| Some(s.deliveries)),
            ("commit_p50", &|s| ms(s.commit[0])),
            ("commit_p99", &|s| ms(s.commit[1])),
            ("call_p50", &|s| ms(s.call[0])),
            ("call_p99", &|s| ms(s.call[1])),
            ("lane_depth", &|s| whole(s.lane_depth)),
            ("mailbox", &|s| whole(s.mailbox)),
            ("batch", &|s| s.batch),
            ("readers", &|s| whole(s.readers)),
            ("chats", &|s| whole(s.chats)),
            ("lag_p50", &|s| s.lag[0].and_then(whole)),
            ("lag_p99", &|s| s.lag[1].and_then(whole)),
        ];
        let mut out = String::from("{");
        for (at, (name, pick)) in series.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a string does not fail.
            _ = write!(out, "{comma}\"{name}\":[");
            for (at, sample) in new.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                _ = match pick(sample) {
                    Some(n) => write!(out, "{comma}{}", (n * 1_000.0).round() / 1_000.0),
                    None => write!(out, "{comma}null"),
                };
            }
            out.push(']');
        }
        out.push('}');
        out
    }
}
