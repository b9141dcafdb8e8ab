//! What shards and writer lanes count.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::metrics::{Metrics, micros};

impl Metrics {
    /// A shard gave its lane a batch.
    pub fn batch_submitted(&self) {
        self.sheet.add(self.places.lane_depth, 1);
    }

    /// A lane took up that many batches as one.
    pub fn batch_begun(&self, lane: usize, rows: usize, bytes: usize) {
        self.sheet.observe(self.places.batch_rows, rows as u64);
        self.sheet.observe(self.places.batch_bytes, bytes as u64);
        if let Some(begun) = self.lanes.get(lane) {
            begun.store(micros(self.epoch.elapsed()).max(1), Relaxed);
        }
    }

    /// `submissions` batches of shards have their outcome; `stored` messages of
    /// theirs are committed.
    pub fn batch_done(&self, lane: usize, submissions: usize, stored: usize, took: Duration) {
        self.sheet.observe(self.places.batch_micros, micros(took));
        self.sheet.add(self.places.stored, stored as u64);
        self.sheet.sub(self.places.lane_depth, submissions as u64);
        if let Some(begun) = self.lanes.get(lane) {
            begun.store(0, Relaxed);
        }
    }

    pub fn commit(&self, took: Duration) {
        self.sheet.observe(self.places.commit_micros, micros(took));
    }

    pub fn lane_retried(&self) {
        self.sheet.add(self.places.lane_retries, 1);
    }

    pub fn lane_conflict(&self) {
        self.sheet.add(self.places.lane_conflicts, 1);
    }

    pub fn lane_unknown(&self) {
        self.sheet.add(self.places.lane_unknown, 1);
    }

    /// The longest that a batch has been with a lane, and the lane.
    pub fn slowest_lane(&self) -> Option<(usize, Duration)> {
        let now = micros(self.epoch.elapsed());
        let busy = self.lanes.iter().enumerate().filter_map(|(lane, begun)| {
            let begun = begun.load(Relaxed);
            (begun > 0).then(|| (lane, Duration::from_micros(now.saturating_sub(begun))))
        });
        busy.max_by_key(|(_, since)| *since)
    }
}
