//! The server's memory and open files over time, and whether they grow.

use std::{fmt, fs, time::Instant};

use crate::child::usage;

/// How much a server may grow, by the line through what is behind the first
/// third: of its memory, and beside that, in bytes; and in open files.
const GROWTH: f64 = 0.1;
const BYTES: f64 = 8e6;
const FILES: f64 = 16.0;

const HOUR: f64 = 3_600.0;

#[derive(Debug, Clone, Copy)]
pub struct Sample {
    at: Instant,
    rss: f64,
    files: f64,
}

/// What a soak shows.
#[derive(Debug, Clone, Copy)]
pub struct Slopes {
    /// Seconds that the line is through.
    pub seconds: f64,
    pub rss_mean: f64,
    /// Bytes an hour.
    pub rss: f64,
    /// Open files an hour.
    pub files: f64,
}

impl Sample {
    /// None of a process that is gone.
    pub fn take(pid: u32) -> Option<Self> {
        Some(Self {
            at: Instant::now(),
            rss: usage(pid).ok()?.rss,
            files: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as f64,
        })
    }
}

impl Slopes {
    /// Of one process' samples; `None` if they are too few for a line.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let samples = samples.get(samples.len() / 3..)?;
        let first = samples.first()?;
        let seconds = |sample: &Sample| (sample.at - first.at).as_secs_f64();
        let line = |value: fn(&Sample) -> f64| {
            slope(
                samples
                    .iter()
                    .map(|sample| (seconds(sample), value(sample))),
            )
        };
        let rss = samples.iter().map(|sample| sample.rss);
        Some(Self {
            seconds: seconds(samples.last()?),
            rss_mean: rss.sum::<f64>() / samples.len() as f64,
            rss: line(|sample| sample.rss)? * HOUR,
            files: line(|sample| sample.files)? * HOUR,
        })
    }

    /// Whether it grew more while it was looked at than noise explains.
    pub fn grows(&self) -> bool {
        let hours = self.seconds / HOUR;
        self.rss * hours > GROWTH * self.rss_mean + BYTES || self.files * hours > FILES
    }
}

impl fmt::Display for Slopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "over the last {:.0} s: memory {:.1} MB, {:+.2} MB an hour; open files {:+.2} an hour",
            self.seconds,
            self.rss_mean / 1e6,
            self.rss / 1e6,
            self.files
        )
    }
}

/// By least squares; `None` for fewer than two different times.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let count = points.clone().count() as f64;
    let (x, y) = points
        .clone()
        .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let (over, under) = points.fold((0.0, 0.0), |(over, under), point| {
        let dx = point.0 - x;
        (over + dx * (point.1 - y), under + dx * dx)
    });
    (under > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// An hour of samples, one a minute.
    fn samples(rss: impl Fn(f64) -> f64, files: impl Fn(f64) -> f64) -> Vec<Sample> {
        let begun = Instant::now();
        let sample = |minute: u32| Sample {
            at: begun + Duration::from_secs(60 * u64::from(minute)),
            rss: rss(f64::from(minute)),
            files: files(f64::from(minute)),
        };
        (0..=60).map(sample).collect()
    }

    #[test]
    fn a_line_is_found_and_judged() {
        let flat = |_| 50e6;
        let grows = Slopes::of(&samples(|minute| 50e6 + 1e6 * minute, |_| 40.0)).unwrap();
        assert!((grows.rss - 60e6).abs() < 1.0, "{grows}");
        assert!(grows.grows());
        let files = Slopes::of(&samples(flat, |minute| 40.0 + minute)).unwrap();
        assert!((files.files - 60.0).abs() < 1e-6, "{files}");
        assert!(files.grows());
        // It warms up, and then there is noise.
        let warm = |minute: f64| if minute < 20.0 { 10e6 } else { 50e6 };
        let noise = |minute: f64| warm(minute) + if minute % 2.0 == 0.0 { 1e6 } else { 0.0 };
        let steady = Slopes::of(&samples(noise, |_| 40.0)).unwrap();
        assert!(!steady.grows(), "{steady}");
    }

    #[test]
    fn one_sample_makes_no_line() {
        assert!(Slopes::of(&samples(|_| 1.0, |_| 1.0)[..1]).is_none());
        assert!(Slopes::of(&[]).is_none());
    }
}
