//! When things are to be sent, and how long they took from then: the intended
//! time counts, so a server that stalls is charged for all that it kept waiting.

mod ticks;

use std::{
    io,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use ticks::Ticks;

use crate::{
    Result,
    child::{Child, Usage},
    options::Common,
};

/// How often it is looked at most whether something is due. What is late by that
/// counts as late; to wake for each of tens of thousands a second would take a
/// third of the core, from the readers and from a store beside them.
const TICK: Duration = Duration::from_micros(100);

/// Intended times, evenly spaced.
pub struct Pace {
    next: Instant,
    interval: Duration,
    ticks: Ticks,
}

impl Pace {
    /// `rate` a second.
    pub fn new(rate: f64) -> io::Result<Self> {
        let interval = Duration::from_secs_f64(1.0 / rate);
        Ok(Self {
            next: Instant::now(),
            interval,
            ticks: Ticks::every(interval.max(TICK))?,
        })
    }

    /// The next intended time, if it has come.
    pub fn due(&mut self) -> Option<Instant> {
        let due = self.next;
        (due <= Instant::now()).then(|| {
            self.next += self.interval;
            due
        })
    }

    /// Waits until something may be due.
    pub async fn wait(&self) -> io::Result<()> {
        self.ticks.next().await
    }
}

/// Nanoseconds since the load began, as messages carry them.
pub fn stamp(at: Instant) -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    at.saturating_duration_since(*BEGUN).as_nanos() as u64
}

/// What the load's tasks count into.
pub struct Meter {
    pub done: AtomicU64,
    failed: AtomicU64,
    measuring: AtomicBool,
    times: Mutex<Histogram<u64>>,
}

/// What was counted while it was measured.
pub struct Measured {
    pub done: f64,
    pub failed: u64,
    pub seconds: f64,
    /// Of the server.
    pub cpu: f64,
    pub times: Histogram<u64>,
}

impl Measured {
    pub fn rate(&self) -> f64 {
        self.done / self.seconds
    }

    pub fn cpu_each(&self) -> f64 {
        self.cpu / self.done
    }

    /// In microseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        micros(&self.times, quantile)
    }
}

/// A quantile of times in nanoseconds, in microseconds.
pub fn micros(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1e3
}

const MAX_NANOS: u64 = 60_000_000_000;

impl Meter {
    pub fn new() -> Result<Self> {
        Ok(Self {
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            measuring: AtomicBool::new(false),
            times: Mutex::new(Histogram::new_with_max(MAX_NANOS, 3)?),
        })
    }

    pub fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn failures(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes times from now on.
    pub fn start(&self) {
        self.times().reset();
        self.measuring.store(true, Ordering::Relaxed);
    }

    /// Those that were taken.
    pub fn stop(&self) -> Histogram<u64> {
        self.measuring.store(false, Ordering::Relaxed);
        self.times().clone()
    }

    fn times(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that was intended at `stamp` is done.
    pub fn time(&self, stamped: u64) {
        self.time_until(stamped, Instant::now());
    }

    /// The same, done at a time that is known: looking takes as long as all the
    /// rest.
    pub fn time_until(&self, stamped: u64, at: Instant) {
        if self.measuring.load(Ordering::Relaxed) {
            let nanos = stamp(at).saturating_sub(stamped);
            self.times().saturating_record(nanos.max(1));
        }
    }

    /// Measures `child` while others keep it under load.
    pub async fn measure(&self, child: &Child, common: &Common) -> Result<Measured> {
        tokio::time::sleep(common.warmup()).await;
        self.start();
        let (begun, done) = (Instant::now(), self.count());
        let Usage { cpu, .. } = child.usage()?;
        tokio::time::sleep(common.window()).await;
        let times = self.stop();
        let usage = child.usage()?;
        Ok(Measured {
            done: (self.count() - done) as f64,
            failed: self.failures(),
            seconds: begun.elapsed().as_secs_f64(),
            cpu: usage.cpu - cpu,
            times,
        })
    }
}

/// What one load may take beyond the time that it is measured: whatever waits
/// for something that will not come ends then.
const LIMIT: Duration = Duration::from_secs(120);

/// Puts a load on, for a bounded time.
pub fn put_on<T>(common: &Common, load: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = LIMIT + common.warmup() + common.window();
    block_on(async {
        let ended = tokio::time::timeout(limit, load).await;
        ended.unwrap_or_else(|_| Err(format!("not done within {limit:?}").into()))
    })
}

/// A current-thread runtime: load and ceilings have one core each.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
