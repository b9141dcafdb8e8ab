//! Numbers that many threads add to and one scrape in a while reads.
//!
//! Each thread writes to a column of its own, with a plain load and store: no
//! locked instruction and no cache line that two cores fight over. Threads
//! beyond the columns share the last one, with an atomic addition.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Columns: one a thread for the first threads of the process, and a shared one.
const COLUMNS: usize = 17;
const SHARED: usize = COLUMNS - 1;

/// Histogram buckets: four an octave, from 1 to 2^[`OCTAVES`].
pub(super) const OCTAVES: u32 = 26;
pub(super) const BUCKETS: usize = 4 * (OCTAVES as usize - 1);
/// The buckets, what is beyond them, and the sum.
const HISTOGRAM: usize = BUCKETS + 2;

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static COLUMN: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn column() -> usize {
    // While a thread ends there is no local storage: the shared column does.
    COLUMN
        .try_with(|column| {
            if column.get() == usize::MAX {
                column.set(NEXT_THREAD.fetch_add(1, Relaxed).min(SHARED));
            }
            column.get()
        })
        .unwrap_or(SHARED)
}

/// The place of a number that only grows, or of a sum of differences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum(u32);

/// The place of a histogram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Histogram(u32);

/// Gives out places.
#[derive(Debug, Default)]
pub(super) struct Layout(u32);

impl Layout {
    pub fn counter(&mut self) -> Sum {
        self.0 += 1;
        Sum(self.0 - 1)
    }

    pub fn histogram(&mut self) -> Histogram {
        self.0 += HISTOGRAM as u32;
        Histogram(self.0 - HISTOGRAM as u32)
    }
}

/// All the numbers.
#[derive(Debug)]
pub(super) struct Sheet {
    columns: Box<[Column]>,
}

/// Aligned, so that no two threads' columns meet in a cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Column(Box<[AtomicU64]>);

impl Sheet {
    pub fn new(layout: &Layout) -> Self {
        // A line of slack at the end keeps the heap's neighbours apart.
        let len = layout.0 as usize + 16;
        let column = || Column((0..len).map(|_| AtomicU64::new(0)).collect());
        Self {
            columns: (0..COLUMNS).map(|_| column()).collect(),
        }
    }

    pub fn add(&self, at: Sum, n: u64) {
        let column = column();
        add(&self.columns[column].0[at.0 as usize], n, column == SHARED);
    }

    /// Undoes an [`Sheet::add`], on whatever thread: the sum wraps around.
    pub fn sub(&self, at: Sum, n: u64) {
        self.add(at, n.wrapping_neg());
    }

    pub fn observe(&self, at: Histogram, value: u64) {
        let column = column();
        let cells = &self.columns[column].0[at.0 as usize..][..HISTOGRAM];
        add(&cells[bucket(value)], 1, column == SHARED);
        add(&cells[BUCKETS + 1], value, column == SHARED);
    }

    pub fn total(&self, at: Sum) -> u64 {
        self.sum(at.0 as usize)
    }

    pub fn histogram(&self, at: Histogram) -> Counts {
        let start = at.0 as usize;
        Counts {
            buckets: (start..=start + BUCKETS).map(|at| self.sum(at)).collect(),
            sum: self.sum(start + BUCKETS + 1),
        }
    }

    fn sum(&self, at: usize) -> u64 {
        let cells = self.columns.iter().map(|column| column.0[at].load(Relaxed));
        cells.fold(0, u64::wrapping_add)
    }
}

fn add(cell: &AtomicU64, n: u64, shared: bool) {
    if shared {
        cell.fetch_add(n, Relaxed);
    } else {
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

/// The bucket of a value: bucket `i` holds what is at most [`upper`]`(i)`.
fn bucket(value: u64) -> usize {
    let below = value.saturating_sub(1);
    if below < 4 {
        return below as usize;
    }
    let octave = below.ilog2();
    let quarter = (below >> (octave - 2)) & 3;
    (((octave - 1) * 4 + quarter as u32) as usize).min(BUCKETS)
}

fn upper(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64 + 1;
    }
    let (octave, quarter) = (bucket / 4 + 1, bucket % 4);
    (5 + quarter as u64) << (octave - 2)
}

/// A histogram at one moment, or between two.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// The last one is for what is beyond the others.
    pub buckets: Vec<u64>,
    pub sum: u64,
}

impl Counts {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn merge(&mut self, other: &Self) {
        self.buckets.resize(BUCKETS + 1, 0);
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    pub fn since(&self, before: &Self) -> Self {
        let earlier = before.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(earlier);
        Self {
            buckets: buckets
                .map(|(now, then)| now.saturating_sub(then))
                .collect(),
            sum: self.sum.wrapping_sub(before.sum),
        }
    }

    /// The bound of the bucket that holds this share of the values; `None`
    /// without values.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|n| {
            seen += n;
            seen >= rank
        });
        found.filter(|_| count > 0).map(upper)
    }

    /// How many values lie in each octave from `2^first` on; the last number is
    /// for what is beyond.
    pub fn octaves(&self, first: u32) -> Vec<(Option<u64>, u64)> {
        let mut octaves: Vec<(Option<u64>, u64)> =
            (first..=OCTAVES).map(|k| (Some(1 << k), 0)).collect();
        octaves.push((None, 0));
        for (at, n) in self.buckets.iter().enumerate() {
            let into = octaves.iter().position(|(bound, _)| {
                bound.is_none_or(|bound| at < BUCKETS && upper(at) <= bound)
            });
            if let Some(into) = into {
                octaves[into].1 += n;
            }
        }
        octaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_can_hold_it() {
        for value in (0..5_000).chain([1 << 20, (1 << 20) + 1, 1 << OCTAVES]) {
            let at = bucket(value);
            assert!(value <= upper(at), "{value}");
            assert!(at == 0 || value > upper(at - 1), "{value}");
        }
        assert_eq!(bucket((1 << OCTAVES) + 1), BUCKETS);
        assert_eq!(bucket(u64::MAX), BUCKETS);
    }

    #[test]
    fn nothing_is_lost_among_threads() {
        let mut layout = Layout::default();
        let (counter, histogram) = (layout.counter(), layout.histogram());
        let sheet = Sheet::new(&layout);
        std::thread::scope(|scope| {
            for _ in 0..2 * COLUMNS {
                scope.spawn(|| {
                    for value in 0..1_000 {
                        sheet.add(counter, 3);
                        sheet.sub(counter, 1);
                        sheet.observe(histogram, value);
                    }
                });
            }
        });
        let threads = 2 * COLUMNS as u64;
        assert_eq!(sheet.total(counter), threads * 2_000);
        let counts = sheet.histogram(histogram);
        assert_eq!(counts.count(), threads * 1_000);
        assert_eq!(counts.sum, threads * 499_500);
        assert_eq!(counts.quantile(0.5), Some(512));
        let octaves = counts.octaves(4);
        assert_eq!(octaves[0], (Some(16), threads * 17));
        let all: u64 = octaves.iter().map(|(_, n)| n).sum();
        assert_eq!(all, threads * 1_000);
    }
}
