//! The one thread that writes. It takes all that is queued into one
//! transaction; while that commits, the next batch queues up.

mod apply;
mod purge;

use std::{collections::VecDeque, mem, sync::Arc, time::Instant};

use crossbeam_channel::RecvTimeoutError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use self::apply::{Applied, apply};
use super::{
    Settings,
    activity::Activity,
    changes,
    error::{commit_error, store_error},
    files::Files,
    queue::Jobs,
};
use crate::{
    domain::{ChatId, Row, UserName},
    store::{NewChat, StoreError, StoreResult},
    telemetry::log_limited,
};

/// Rows of changes that one transaction takes: those whose messages go into the next
/// one wait for it. Several large changes at once go one by one.
const CHANGED_ROWS: usize = 1_024;

/// Changes that wait for that while messages behind them do not.
const HELD: usize = 256;

pub(super) struct Job {
    pub(super) change: Change,
    /// A new chat's id, or how many things have changed.
    pub(super) answer: oneshot::Sender<StoreResult<i64>>,
}

pub(super) enum Change {
    Append(Arc<Vec<Row>>),
    Create(NewChat),
    Delete(ChatId),
    AddMembers(ChatId, Vec<UserName>),
    RemoveMembers(ChatId, Vec<UserName>),
}

impl Change {
    fn rows(&self) -> &[Row] {
        match self {
            Self::Append(rows) => rows,
            _ => &[],
        }
    }

    /// Rows written, roughly, for the bound of a transaction.
    fn weight(&self) -> usize {
        match self {
            Self::Append(rows) => rows.len(),
            Self::Create(chat) => 1 + chat.members.len(),
            Self::Delete(_) => 2,
            Self::AddMembers(_, users) | Self::RemoveMembers(_, users) => users.len(),
        }
    }
}

pub(super) struct Writer {
    conn: Connection,
    jobs: Jobs<Job>,
    /// Changes that were too many for a transaction, in the order they came.
    held: VecDeque<Job>,
    settings: Settings,
    /// When the next purge step is due; `None` while no chat waits for it.
    purge_at: Option<Instant>,
    /// When the log is to be emptied.
    empty_log_at: Option<Instant>,
    /// It is noted that rows were removed by this server.
    has_purged: bool,
    activity: Activity,
    /// Frames in the log when the last checkpoint had been tried.
    checkpointed: i64,
    /// Given up last of all.
    files: Arc<Files>,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        files: Arc<Files>,
        jobs: Jobs<Job>,
        settings: Settings,
    ) -> rusqlite::Result<Self> {
        let purge_at = changes::has_deleted_chats(&conn)?.then(Instant::now);
        Ok(Self {
            activity: Activity::new(&conn)?,
            conn,
            jobs,
            held: VecDeque::new(),
            settings,
            purge_at,
            empty_log_at: None,
            has_purged: false,
            checkpointed: 0,
            files,
        })
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _abort = AbortOnPanic;
        while let Some(first) = self.next() {
            let batch = self.gather(first);
            self.write(batch);
            self.checkpoint_when_due();
            // With the queue never empty, this is its only turn.
            self.do_what_is_due();
        }
        self.roll_back();
        if let Err(error) = self.checkpoint("TRUNCATE") {
            // Nothing is lost: the next start reads the log.
            tracing::warn!(%error, "the last checkpoint failed");
        } else if let Err(error) = self.scrub() {
            tracing::warn!(%error, "texts of deleted chats may be left in the file");
        }
    }

    fn next(&mut self) -> Option<Job> {
        if let Some(job) = self.held.pop_front() {
            return Some(job);
        }
        loop {
            let due = [self.purge_at, self.empty_log_at, self.activity.due];
            let Some(at) = due.into_iter().flatten().min() else {
                return self.jobs.recv_at_rest().ok();
            };
            match self.jobs.recv_by(at) {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.do_what_is_due();
                    self.checkpoint_when_due();
                }
            }
        }
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.purge_at.is_some_and(|at| at <= now) {
            self.purge();
        }
        if self.empty_log_at.is_some_and(|at| at <= now) {
            self.empty_log();
        }
        if self.activity.due.is_some_and(|at| at <= now) {
            self.roll_back();
            self.activity.step(&self.conn);
        }
    }

    /// All that is queued, less changes beyond [`CHANGED_ROWS`]. Those that were held
    /// come first. Whatever is queued is under way at the same time, so that messages may
    /// overtake changes.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let mut batch = Batch::default();
        batch.take(first);
        for job in mem::take(&mut self.held) {
            self.held.extend(batch.take(job));
        }
        while batch.rows < self.settings.transaction_rows
            && self.held.len() < HELD
            && let Ok(job) = self.jobs.try_recv()
        {
            self.held.extend(batch.take(job));
        }
        batch.jobs
    }

    /// One transaction for all. If it is rolled back, one for each, so that a
    /// job fails for no fault but its own.
    pub(super) fn write(&mut self, batch: Vec<Job>) {
        let deletes = |job: &Job| matches!(job.change, Change::Delete(_));
        if self.purge_at.is_none() && batch.iter().any(deletes) {
            self.purge_at = Some(Instant::now());
        }
        match self.transact(&batch) {
            Ok(answers) => {
                for (job, answer) in batch.into_iter().zip(answers) {
                    // A caller that has gone away wants no answer.
                    let _ = job.answer.send(Ok(answer));
                }
            }
            Err(StoreError::OutcomeUnknown(error)) => {
                let words = error.to_string();
                for job in batch {
                    let unknown = StoreError::OutcomeUnknown(words.clone().into());
                    let _ = job.answer.send(Err(unknown));
                }
            }
            Err(error) if batch.len() == 1 => {
                if let Some(job) = batch.into_iter().next() {
                    let _ = job.answer.send(Err(error));
                }
            }
            Err(error) => {
                log_limited!(DEBUG, %error, jobs = batch.len(), "writing one by one");
                for job in batch {
                    let alone = self.transact(std::slice::from_ref(&job));
                    let answer = alone.map(|answers| answers.first().copied().unwrap_or(0));
                    let _ = job.answer.send(answer);
                }
            }
        }
    }

    fn transact(&mut self, batch: &[Job]) -> StoreResult<Vec<i64>> {
        let moved = self.files.check();
        moved.map_err(|moved| StoreError::Unavailable(moved.into()))?;
        self.roll_back();
        self.conn
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(store_error)?;
        let answers = apply(&self.conn, &self.activity, batch);
        let done = match answers {
            Ok(Applied {
                answers,
                named,
                erased,
            }) => match self.commit(erased) {
                // It may have gone into a file that was on its way elsewhere.
                Ok(()) => {
                    self.activity.keep(named);
                    let moved = self.files.check();
                    moved.map_err(|moved| StoreError::OutcomeUnknown(moved.into()))?;
                    return Ok(answers);
                }
                Err(error) => commit_error(error),
            },
            Err(error) => store_error(error),
        };
        self.roll_back();
        Err(done)
    }

    /// `erased`: with texts of deleted messages gone.
    fn commit(&mut self, erased: bool) -> rusqlite::Result<()> {
        if erased {
            self.has_erased();
        }
        self.conn.execute_batch("COMMIT")
    }

    /// Some errors have rolled back already. If this one fails, the next
    /// transaction tries it again.
    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            log_limited!(ERROR, %error, "cannot roll back");
        }
    }

    /// A passive checkpoint waits for nobody, but while any reader looks at the
    /// log, the log cannot begin anew. When it has grown to four times the size
    /// that is wanted, readers are waited for, as long as the busy timeout.
    fn checkpoint_when_due(&mut self) {
        let due = |writer: &mut Self| -> rusqlite::Result<()> {
            let frames = writer.checkpoint("NOOP")?;
            if frames < writer.checkpointed {
                writer.checkpointed = 0; // The log has begun anew.
            }
            let wanted = writer.settings.log_pages;
            if frames - writer.checkpointed >= wanted {
                let long = frames >= 4 * wanted;
                writer.checkpointed = frames;
                writer.checkpoint(if long { "RESTART" } else { "PASSIVE" })?;
            }
            Ok(())
        };
        if let Err(error) = due(self) {
            log_limited!(WARN, %error, "cannot checkpoint");
        }
    }

    /// Returns the number of frames in the log.
    fn checkpoint(&self, mode: &str) -> rusqlite::Result<i64> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        self.conn
            .prepare_cached(&sql)?
            .query_row([], |row| row.get("log"))
    }
}

/// What goes into one transaction.
#[derive(Default)]
struct Batch {
    jobs: Vec<Job>,
    rows: usize,
    /// Of these, such as are no messages.
    changed: usize,
    is_full: bool,
}

impl Batch {
    /// Gives a change back for which there is no room, and all that come behind it.
    fn take(&mut self, job: Job) -> Option<Job> {
        let rows = job.change.weight();
        if !matches!(job.change, Change::Append(_)) {
            self.is_full |= self.changed > 0 && self.changed + rows > CHANGED_ROWS;
            if self.is_full {
                return Some(job);
            }
            self.changed += rows;
        }
        self.rows += rows;
        self.jobs.push(job);
        None
    }
}

/// A server without its writer would take messages and lose them in silence.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the store's writer panicked");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{chat_id, user};

    #[test]
    fn p6_large_changes_go_one_by_one_and_messages_before_them() {
        let job = |change| Job {
            change,
            answer: oneshot::channel().0,
        };
        let add = |names| {
            let names = (0..names).map(|n| user(&n.to_string())).collect();
            job(Change::AddMembers(chat_id(1), names))
        };
        let append = || job(Change::Append(Arc::default()));
        let mut batch = Batch::default();
        assert!(
            batch.take(add(5_000)).is_none(),
            "the first goes in any case"
        );
        assert!(batch.take(append()).is_none());
        assert!(batch.take(add(1_000)).is_some());
        assert!(batch.take(append()).is_none());
        // The order of changes stays.
        assert!(batch.take(add(1)).is_some());
        let mut batch = Batch::default();
        for _ in 0..CHANGED_ROWS / 4 {
            assert!(batch.take(add(4)).is_none());
        }
        assert!(batch.take(add(1)).is_some());
    }
}
