use std::sync::Arc;

use ahash::AHashMap;
use tokio::sync::mpsc;

use super::{Landed, attempt::Attempt};
use crate::{
    domain::{Clock, Row},
    store::Store,
    telemetry::{SpanRef, Telemetry},
};

/// One shard's batch. A shard has at most one with its lane.
#[derive(Debug)]
pub struct Submission {
    /// Of one chat together, dense and ascending in seq.
    pub rows: Vec<Row>,
    /// Sampled sends among the rows; mostly none.
    pub sampled: Vec<SpanRef>,
    /// Has room for the answer.
    pub done: mpsc::Sender<LaneDone>,
}

/// What became of the rows of one [`Submission`], chat by chat in order of seq.
pub type LaneDone = Vec<Landed>;

#[derive(Debug, Clone, Copy)]
pub struct LaneSettings {
    /// Most rows in one commit.
    pub batch_rows: usize,
    /// Most bytes in one commit, about.
    pub batch_bytes: usize,
}

/// A writer lane: the receiving end of its shards' submissions.
#[derive(Debug)]
pub struct Lane {
    index: usize,
    settings: LaneSettings,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    submissions: mpsc::Receiver<Submission>,
}

impl Lane {
    /// A lane for `shards` shards, and the sender that they share. The queue
    /// has a place for each shard's one submission.
    pub fn new(
        index: usize,
        shards: usize,
        settings: LaneSettings,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> (Self, mpsc::Sender<Submission>) {
        let (sender, submissions) = mpsc::channel(shards.max(1));
        let lane = Self {
            index,
            settings,
            store,
            clock,
            telemetry,
            submissions,
        };
        (lane, sender)
    }

    /// Runs until every shard has let go of its sender.
    pub async fn run(mut self) {
        while let Some(first) = self.submissions.recv().await {
            let submissions = self.gather(first);
            self.commit(submissions).await;
        }
    }

    /// All that is queued, as far as one commit may hold it. A submission is
    /// never divided: each shard keeps to the same bounds.
    fn gather(&mut self, first: Submission) -> Vec<Submission> {
        let mut rows = first.rows.len();
        let mut bytes = weight(&first);
        let mut all = vec![first];
        while rows < self.settings.batch_rows
            && bytes < self.settings.batch_bytes
            && let Ok(next) = self.submissions.try_recv()
        {
            rows += next.rows.len();
            bytes += weight(&next);
            all.push(next);
        }
        all
    }

    async fn commit(&self, submissions: Vec<Submission>) {
        let Telemetry { metrics, traces } = &self.telemetry;
        let begun = self.clock.now();
        let count = submissions.len();
        let (store, clock) = (self.store.as_ref(), self.clock.as_ref());
        let attempt = Attempt::new(self.index, store, clock, metrics);
        let mut rows = Vec::with_capacity(submissions.iter().map(|one| one.rows.len()).sum());
        let mut answers = Vec::with_capacity(submissions.len());
        let mut owner = AHashMap::new();
        let mut sampled = Vec::new();
        let mut bytes = 0;
        for (at, submission) in submissions.into_iter().enumerate() {
            bytes += weight(&submission);
            sampled.extend(submission.sampled);
            for rows in submission.rows.chunk_by(|a, b| a.chat == b.chat) {
                owner.insert(rows[0].chat, at);
            }
            answers.push((submission.done, Vec::with_capacity(submission.rows.len())));
            rows.extend(submission.rows);
        }
        metrics.batch_begun(self.index, rows.len(), bytes);
        let span = traces.batch(&sampled);
        let total = rows.len();
        let (landed, attempts) = attempt.write(rows).await;
        if let Some(span) = span {
            span.end(self.index, total, attempts);
        }
        let stored = landed.iter().filter(|one| matches!(one, Landed::Stored(_)));
        metrics.batch_done(self.index, count, stored.count(), self.clock.now() - begun);
        for landed in landed {
            if let Some(at) = owner.get(&landed.chat()) {
                answers[*at].1.push(landed);
            }
        }
        for (answer, done) in answers {
            // A shard that is gone has nobody left to tell.
            _ = answer.try_send(done);
        }
    }
}

fn weight(submission: &Submission) -> usize {
    submission.rows.iter().map(Row::weight).sum()
}
