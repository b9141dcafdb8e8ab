//! The text of `/metrics`.

use std::{collections::HashSet, fmt, sync::Arc, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use super::{
    logs,
    metrics::Metrics,
    names::{self, AUTH_OUTCOMES, CODES, Kind, METHODS, REASONS},
    process,
    sheet::Counts,
};

/// In which of the two text formats metrics are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own, version 0.0.4.
    Plain,
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` header likes better (RFC 9110, 12.5.1): the plain one
    /// if it names neither.
    pub fn wanted(accept: &str) -> Self {
        let weight = |name: &str| {
            let ranges = accept
                .split(',')
                .map(|range| range.split(';').map(str::trim));
            let weights = ranges.filter_map(|mut range| {
                let is_this = range.next()?.eq_ignore_ascii_case(name);
                let weight = range.find_map(|part| part.strip_prefix("q="));
                is_this.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
            });
            weights.fold(0.0_f32, f32::max)
        };
        match weight("application/openmetrics-text") > weight("text/plain") {
            true => Self::OpenMetrics,
            false => Self::Plain,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

type Labels<'a> = &'a [(&'a str, &'a str)];
type NoExemplar<'a> = Option<&'a Exemplar<Vec<(String, String)>, f64>>;

/// Below 16 µs a histogram of seconds has one bucket, below 1 the others.
const FIRST_MICROS: u32 = 4;

/// All metrics in one of the formats.
///
/// # Errors
/// If a metric's description is not one that the format can hold.
pub fn text_of(metrics: &Arc<Metrics>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics.clone()));
    let mut out = String::with_capacity(64 * 1024);
    text::encode(&mut out, &registry)?;
    Ok(match format {
        Format::OpenMetrics => out,
        Format::Plain => plain(&out),
    })
}

/// In the plain format a counter is described by the name that its samples have, and
/// nothing marks the end.
fn plain(open: &str) -> String {
    let counters = names::ALL.iter().filter(|one| one.kind == Kind::Counter);
    let counters: HashSet<&str> = counters.map(|one| one.name).collect();
    let mut out = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|head| Some((head, line.strip_prefix(head)?.split_once(' ')?)));
        match described {
            Some((head, (name, rest))) if counters.contains(name) => {
                out.extend([head, name, "_total ", rest]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let process = process::figures();
        let depths = self.depths();
        let (sheet, p) = (&self.sheet, &self.places);
        for metric in names::ALL {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let out = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            let seconds = |place| Shown::Micros(sheet.histogram(place));
            let numbers = |place| Shown::Numbers(sheet.histogram(place));
            let count = |place| Shown::Count(sheet.total(place));
            let gauge = |place| Shown::Gauge(sheet.total(place) as f64);
            let one = match *metric {
                names::CALLS => {
                    calls(self, out)?;
                    continue;
                }
                names::CALL_SECONDS => {
                    call_seconds(self, out)?;
                    continue;
                }
                names::REFUSALS => {
                    counters(out, "reason", &REASONS, |at| sheet.total(p.refusals[at]))?;
                    continue;
                }
                names::AUTH => {
                    counters(out, "outcome", &AUTH_OUTCOMES, |at| sheet.total(p.auth[at]))?;
                    continue;
                }
                names::DELIVERIES => count(p.deliveries),
                names::READERS => gauge(p.readers),
                names::KEYS_UNUSABLE => count(p.keys_unusable),
                names::CLOCK_AHEAD => Shown::Gauge(self.ahead.seconds()),
                names::LOG_LINES_DROPPED => Shown::Count(logs::dropped_lines()),
                names::RESUMES => count(p.resumes),
                names::CHATS_ACTIVE => gauge(p.chats),
                names::MEMORY_BUDGET => gauge(p.memory_budget),
                names::MEMORY_HELD => gauge(p.memory_held),
                names::PAGES_HELD => gauge(p.pages_held),
                names::ANSWERS_HELD => gauge(p.answers_held),
                names::REQUESTS_HELD => gauge(p.requests_held),
                names::RINGS_CUT => count(p.rings_cut),
                names::MAILBOX_DEPTH => Shown::Gauge(depths.mailbox as f64),
                names::LANE_DEPTH => gauge(p.lane_depth),
                names::STORED => count(p.stored),
                names::BATCH_ROWS => numbers(p.batch_rows),
                names::BATCH_BYTES => numbers(p.batch_bytes),
                names::BATCH_SECONDS => seconds(p.batch_micros),
                names::COMMIT_SECONDS => seconds(p.commit_micros),
                names::LANE_RETRIES => count(p.lane_retries),
                names::LANE_CONFLICTS => count(p.lane_conflicts),
                names::LANE_UNKNOWN => count(p.lane_unknown),
                names::LANE_CONNECTS => Shown::Count(depths.lane_connects),
                names::RING_READS => count(p.ring_reads),
                names::HISTORY_READS => count(p.history_reads),
                names::MESSAGES_MISSING => count(p.messages_missing),
                names::MESSAGES_LOST => count(p.messages_lost),
                names::CURSOR_LAG => numbers(p.cursor_lag),
                names::FAILED_EXPORTS => count(p.failed_exports),
                names::PARTITIONS => gauge(p.cluster.partitions),
                names::WITHOUT_OWNER => gauge(p.cluster.without_owner),
                names::WITHOUT_OWNER_SECONDS => {
                    Shown::Seconds(sheet.total(p.cluster.without_owner_micros) as f64 / 1e6)
                }
                names::HANDOVERS => count(p.cluster.handovers),
                names::TAKEOVERS => count(p.cluster.takeovers),
                names::DECLARED_GONE => count(p.cluster.declared),
                names::REJOINS => count(p.cluster.rejoins),
                names::WRITES_REFUSED => count(p.cluster.writes_refused),
                names::BATCHES_SENT => count(p.cluster.batches_sent),
                names::BYTES_SENT => count(p.cluster.bytes_sent),
                names::BATCHES_RECEIVED => count(p.cluster.batches_received),
                names::RESYNCS => count(p.cluster.resyncs),
                names::ASKS => gauge(p.cluster.waiting),
                names::OWNER_SECONDS => seconds(p.cluster.owner_micros),
                names::LOOKS => count(p.cluster.looks),
                names::CPU_SECONDS => Shown::Seconds(process.cpu_seconds),
                names::RESIDENT => Shown::Gauge(process.resident_bytes as f64),
                names::OPEN_FDS => Shown::Gauge(process.open_fds as f64),
                names::START_TIME => {
                    let since = self.started.duration_since(SystemTime::UNIX_EPOCH);
                    Shown::Gauge(since.unwrap_or_default().as_secs_f64())
                }
                _ => continue,
            };
            one.encode(out)?;
        }
        Ok(())
    }
}

enum Shown {
    Count(u64),
    Seconds(f64),
    Gauge(f64),
    /// A histogram of microseconds, shown in seconds.
    Micros(Counts),
    Numbers(Counts),
}

impl Shown {
    fn encode(self, mut out: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => out.encode_counter(&n, NoExemplar::None),
            Self::Seconds(n) => out.encode_counter(&n, NoExemplar::None),
            Self::Gauge(n) => out.encode_gauge(&n),
            Self::Micros(counts) => histogram(out, &counts, FIRST_MICROS, 1e-6),
            Self::Numbers(counts) => histogram(out, &counts, 0, 1.0),
        }
    }
}

fn histogram(mut out: MetricEncoder<'_>, counts: &Counts, first: u32, unit: f64) -> fmt::Result {
    let buckets = counts.octaves(first).into_iter();
    // The encoder writes +Inf for the largest number.
    let bound = |bound: Option<u64>| bound.map_or(f64::MAX, |bound| bound as f64 * unit);
    let buckets: Vec<(f64, u64)> = buckets.map(|(b, n)| (bound(b), n)).collect();
    let sum = counts.sum as f64 * unit;
    out.encode_histogram::<Vec<(String, String)>>(sum, counts.count(), &buckets, None)
}

fn counters(
    mut out: MetricEncoder<'_>,
    label: &str,
    values: &[&str],
    total: impl Fn(usize) -> u64,
) -> fmt::Result {
    for (at, value) in values.iter().enumerate() {
        let labels: Labels<'_> = &[(label, value)];
        out.encode_family(&labels)?
            .encode_counter(&total(at), NoExemplar::None)?;
    }
    Ok(())
}

/// A method's codes that have never been are left out, but for success.
fn calls(metrics: &Metrics, mut out: MetricEncoder<'_>) -> fmt::Result {
    for (method, codes) in METHODS.iter().zip(&metrics.places.calls) {
        for (code, place) in CODES.iter().zip(codes) {
            let total = metrics.sheet.total(*place);
            if total > 0 || *code == CODES[0] {
                let labels: Labels<'_> = &[("method", method), ("code", code)];
                out.encode_family(&labels)?
                    .encode_counter(&total, NoExemplar::None)?;
            }
        }
    }
    Ok(())
}

fn call_seconds(metrics: &Metrics, mut out: MetricEncoder<'_>) -> fmt::Result {
    for (method, place) in METHODS.iter().zip(metrics.places.call_micros) {
        let labels: Labels<'_> = &[("method", method)];
        let counts = metrics.sheet.histogram(place);
        histogram(out.encode_family(&labels)?, &counts, FIRST_MICROS, 1e-6)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Method;

    #[test]
    fn every_metric_is_in_the_text() {
        let metrics = Metrics::new(1);
        metrics.call(Method::of("SendMessage"), 0, Duration::from_micros(300));
        metrics.call(Method::of("Get"), 7, Duration::from_secs(100));
        metrics.delivered(3, 2);
        let text = text_of(&metrics, Format::OpenMetrics).unwrap();
        for metric in names::ALL {
            let line = format!("# TYPE {} ", metric.name);
            assert!(text.contains(&line), "{line}");
        }
        for line in [
            "chat_calls_total{method=\"SendMessage\",code=\"OK\"} 1\n",
            "chat_calls_total{method=\"Get\",code=\"PERMISSION_DENIED\"} 1\n",
            "chat_call_duration_seconds_bucket{le=\"0.000256\",method=\"SendMessage\"} 0\n",
            "chat_call_duration_seconds_bucket{le=\"0.000512\",method=\"SendMessage\"} 1\n",
            "chat_call_duration_seconds_bucket{le=\"+Inf\",method=\"Get\"} 1\n",
            "chat_deliveries_total 3\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));

        let plain = text_of(&metrics, Format::Plain).unwrap();
        let samples = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let names = lines.filter_map(|line| line.rsplit_once(' '));
            names.map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(samples(&plain), samples(&text));
        assert!(!plain.contains("# EOF") && plain.ends_with('\n'));
        // A sample belongs to what was described last, by its name.
        let mut described = None;
        for line in plain.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                described = rest.split_once(' ');
                continue;
            }
            if let Some(name) = line.split([' ', '{']).next().filter(|name| *name != "#") {
                let (family, kind) = described.unwrap();
                let part = name.strip_prefix(family);
                let fits = match kind {
                    "histogram" => ["_bucket", "_sum", "_count"].contains(&part.unwrap_or("")),
                    _ => part == Some(""),
                };
                assert!(fits, "{line} of {family}");
            }
        }
    }

    #[test]
    fn the_format_is_the_one_that_is_liked_better() {
        use Format::{OpenMetrics, Plain};
        for (accept, format) in [
            ("", Plain),
            ("*/*", Plain),
            ("text/plain", Plain),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text;q=0", Plain),
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "text/plain;version=0.0.4;q=0.6, application/openmetrics-text; q=0.5",
                Plain,
            ),
        ] {
            assert_eq!(Format::wanted(accept), format, "{accept}");
        }
    }
}
