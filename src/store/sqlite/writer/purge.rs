//! What becomes of deleted chats, and of the texts of deleted messages: rows are removed bit by bit, then the log
//! that had them is emptied, and at the stop the file is scrubbed.

use std::time::{Duration, Instant};

use super::{super::changes, Writer};
use crate::telemetry::log_limited;

/// Rows a purge step removes: some milliseconds.
const PURGE_ROWS: usize = 500;

/// A purge step that took `t` is followed by `PURGE_PAUSE * t` for others.
const PURGE_PAUSE: u32 = 4;

/// The log keeps what was written, until it is emptied: so long after a purge at
/// most, unless a reader never pauses.
const EMPTY_LOG: Duration = Duration::from_secs(60);

/// After a failed purge step: a full disk is not full for milliseconds.
const PURGE_RETRY: Duration = Duration::from_secs(1);

impl Writer {
    pub(super) fn purge(&mut self) {
        let start = Instant::now();
        self.note_to_scrub();
        let step = || -> rusqlite::Result<bool> {
            self.roll_back();
            let tx = self.conn.unchecked_transaction()?;
            let more = changes::purge_step(&tx, PURGE_ROWS)?;
            tx.commit()?;
            Ok(more)
        };
        let pause = match step() {
            Ok(true) => start.elapsed() * PURGE_PAUSE,
            Ok(false) => {
                self.purge_at = None;
                self.empty_log_at
                    .get_or_insert_with(|| Instant::now() + EMPTY_LOG);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot remove a deleted chat's rows, trying again");
                PURGE_RETRY
            }
        };
        self.purge_at = Some(Instant::now() + pause);
    }

    /// Texts of deleted messages were erased: neither the log nor the file is to keep them.
    pub(super) fn has_erased(&mut self) {
        self.note_to_scrub();
        self.empty_log_at
            .get_or_insert_with(|| Instant::now() + EMPTY_LOG);
    }

    fn note_to_scrub(&mut self) {
        if !self.has_purged {
            match self.files.note_to_scrub(0) {
                Ok(()) => self.has_purged = true,
                Err(error) => {
                    log_limited!(WARN, %error, "cannot note that the file is to be scrubbed");
                }
            }
        }
    }

    /// Has nothing left in the log's file, if no reader is in the way; else it is
    /// tried again later.
    pub(super) fn empty_log(&mut self) {
        self.roll_back();
        let emptied = self
            .conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                row.get::<_, i64>("busy")
            });
        self.empty_log_at = match emptied {
            Ok(0) => {
                self.checkpointed = 0;
                None
            }
            Ok(_) => Some(Instant::now() + EMPTY_LOG),
            Err(error) => {
                log_limited!(WARN, %error, "cannot empty the log");
                Some(Instant::now() + EMPTY_LOG)
            }
        };
    }

    /// With the log empty and the right to write, the file is this thread's alone.
    pub(super) fn scrub(&self) -> Result<(), Box<dyn std::error::Error>> {
        let Some(from) = self.files.to_scrub() else {
            return Ok(());
        };
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let page_bytes: u32 = self
            .conn
            .query_row("PRAGMA page_size", [], |row| row.get(0))?;
        self.files.check()?;
        let left = self.files.scrub(page_bytes as usize, from)?;
        match left {
            None => self.files.scrubbed()?,
            Some(page) => {
                self.files.note_to_scrub(page)?;
                tracing::info!(
                    page,
                    "the file is scrubbed from this page on at the next stop"
                );
            }
        }
        self.conn.execute_batch("ROLLBACK")?;
        Ok(())
    }
}
