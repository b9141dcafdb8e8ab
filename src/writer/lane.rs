use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use tokio::sync::mpsc;

use super::{Landed, attempt::Attempt};
use crate::{
    domain::{ChatId, Clock, MessageId, Row, Seq, Timestamp},
    store::Store,
    telemetry::{SpanRef, Telemetry},
};

/// Batches that a shard may have with its lane: one being written, and one to go
/// on with.
pub const SHARD_BATCHES: usize = 2;

/// Most chats that are written apart from others. Further ones that a lock is in the way
/// of hold up others for as long as it takes to find them.
const SUSPECTS: usize = 10_000;

/// A chat as its shard knows it.
#[derive(Debug, Clone, Copy)]
pub struct Front {
    pub chat: ChatId,
    /// When the chat was made, which tells it from another one with its id: a server
    /// that has lost the chat gives the id again.
    pub made: Timestamp,
    /// The newest message, if there is one.
    pub newest: Option<(Seq, MessageId)>,
}

/// One shard's batch. No two that are with the lane have a chat in common.
#[derive(Debug)]
pub struct Submission {
    /// Of one chat together, dense and ascending in seq.
    pub rows: Vec<Row>,
    /// What the rows of each chat follow.
    pub fronts: Vec<Front>,
    /// The store's lineage that the shard's chats are known to agree with; `None`
    /// while there is doubt.
    pub lineage: Option<u64>,
    /// Sampled sends among the rows; mostly none.
    pub sampled: Vec<SpanRef>,
    /// Has room for the answer.
    pub done: mpsc::Sender<LaneDone>,
}

/// What became of the rows of one [`Submission`].
#[derive(Debug)]
pub struct LaneDone {
    /// Chat by chat in order of seq.
    pub landed: Vec<Landed>,
    /// The store's when the batch was begun: if it is another by now, what landed
    /// may be lost.
    pub lineage: u64,
}

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
    /// Chats that a lock was in the way of when they were last written. It may be so
    /// again, so they are written apart from others.
    suspects: AHashSet<ChatId>,
}

impl Lane {
    /// A lane for `shards` shards, and the sender that they share. The queue
    /// has a place for each that the shards may have there.
    pub fn new(
        index: usize,
        shards: usize,
        settings: LaneSettings,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> (Self, mpsc::Sender<Submission>) {
        let (sender, submissions) = mpsc::channel(SHARD_BATCHES * shards.max(1));
        let lane = Self {
            index,
            settings,
            store,
            clock,
            telemetry,
            submissions,
            suspects: AHashSet::new(),
        };
        (lane, sender)
    }

    /// Runs until every shard has let go of its sender.
    pub async fn run(mut self) {
        let mut held = None;
        loop {
            let next = match held.take() {
                Some(next) => Some(next),
                None => self.submissions.recv().await,
            };
            let Some(first) = next else { return };
            let submissions;
            (submissions, held) = self.gather(first);
            self.commit(submissions).await;
        }
    }

    /// All that is queued, as far as it fits into one commit, and the one that did
    /// not fit. A submission is never divided: each shard keeps to the same bounds.
    fn gather(&mut self, first: Submission) -> (Vec<Submission>, Option<Submission>) {
        let mut rows = first.rows.len();
        let mut bytes = weight(&first);
        let mut all = vec![first];
        while let Ok(next) = self.submissions.try_recv() {
            rows += next.rows.len();
            bytes += weight(&next);
            if rows > self.settings.batch_rows || bytes > self.settings.batch_bytes {
                return (all, Some(next));
            }
            all.push(next);
        }
        (all, None)
    }

    async fn commit(&mut self, submissions: Vec<Submission>) {
        let Telemetry { metrics, traces } = &self.telemetry;
        let begun = self.clock.now();
        let count = submissions.len();
        let (store, clock) = (self.store.as_ref(), self.clock.as_ref());
        let lineage = store.lineage_number();
        let doubtful = submissions.iter().any(|one| one.lineage != Some(lineage));
        let attempt = Attempt::new(self.index, store, clock, metrics);
        let Merged {
            mut rows,
            fronts,
            sampled,
            answers,
        } = Merged::new(submissions);
        let total = rows.len();
        metrics.batch_begun(self.index, total, rows.iter().map(Row::weight).sum());
        let span = traces.batch(&sampled);
        let suspects = match self.suspects.is_empty() {
            true => Vec::new(),
            false => rows
                .extract_if(.., |row| self.suspects.contains(&row.chat))
                .collect(),
        };
        let attempt = attempt.following(fronts).then(suspects);
        let (landed, attempts) = attempt.write(rows, doubtful).await;
        suspect(&mut self.suspects, &landed);
        if let Some(span) = span {
            span.end(self.index, total, attempts);
        }
        let stored = landed.iter().filter(|one| matches!(one, Landed::Stored(_)));
        metrics.batch_done(self.index, count, stored.count(), self.clock.now() - begun);
        answers.give(landed, lineage);
    }
}

/// The submissions of one commit, put together.
struct Merged {
    rows: Vec<Row>,
    fronts: Vec<Front>,
    sampled: Vec<SpanRef>,
    answers: Answers,
}

/// To whom the outcomes go: to one, mostly, or to each those of its chats.
enum Answers {
    One(mpsc::Sender<LaneDone>),
    Several(Vec<mpsc::Sender<LaneDone>>, AHashMap<ChatId, usize>),
}

impl Merged {
    fn new(mut submissions: Vec<Submission>) -> Self {
        if submissions.len() == 1
            && let Some(one) = submissions.pop()
        {
            return Self {
                rows: one.rows,
                fronts: one.fronts,
                sampled: one.sampled,
                answers: Answers::One(one.done),
            };
        }
        let mut rows = Vec::with_capacity(submissions.iter().map(|one| one.rows.len()).sum());
        let mut fronts = Vec::new();
        let mut sampled = Vec::new();
        let mut shards = Vec::with_capacity(submissions.len());
        let mut owner = AHashMap::new();
        for submission in submissions {
            for rows in submission.rows.chunk_by(|a, b| a.chat == b.chat) {
                owner.insert(rows[0].chat, shards.len());
            }
            fronts.extend(submission.fronts);
            sampled.extend(submission.sampled);
            shards.push(submission.done);
            rows.extend(submission.rows);
        }
        Self {
            rows,
            fronts,
            sampled,
            answers: Answers::Several(shards, owner),
        }
    }
}

impl Answers {
    /// A shard that is gone has nobody left to tell.
    fn give(self, landed: Vec<Landed>, lineage: u64) {
        let done = |landed| LaneDone { landed, lineage };
        let (shards, owner) = match self {
            Self::One(shard) => return drop(shard.try_send(done(landed))),
            Self::Several(shards, owner) => (shards, owner),
        };
        let mut parts: Vec<Vec<Landed>> = shards.iter().map(|_| Vec::new()).collect();
        for landed in landed {
            if let Some(at) = owner.get(&landed.chat()) {
                parts[*at].push(landed);
            }
        }
        for (shard, part) in shards.into_iter().zip(parts) {
            _ = shard.try_send(done(part));
        }
    }
}

/// Takes in which chats a lock is in the way of by now.
fn suspect(suspects: &mut AHashSet<ChatId>, landed: &[Landed]) {
    for one in landed {
        match one {
            Landed::Held(row) if suspects.len() < SUSPECTS => {
                suspects.insert(row.chat);
            }
            Landed::Held(_) => {}
            _ if suspects.is_empty() => {}
            one => {
                suspects.remove(&one.chat());
            }
        }
    }
}

fn weight(submission: &Submission) -> usize {
    submission.rows.iter().map(Row::weight).sum()
}
