mod others;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Front, Landed};
use crate::{
    domain::{ChatId, Clock, Row, Seq, Timestamp},
    store::{Page, Store, StoreError, StoreResult, retry_delays},
    telemetry::{Metrics, chain, log_limited},
};

/// How long one look-up may take before it is tried again.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that a look-up reads at a time.
const LOOKUP_PAGE: usize = 1_000;

/// So often a batch whose conflict nothing explains is tried again as it is: what
/// was in the way may have gone with a failover.
const UNEXPLAINED: u32 = 3;

const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// One batch on its way into the store, whatever it takes: it is retried while
/// the store is away, looked up when an answer was lost, split around what the
/// store refuses, renumbered behind another writer's messages, and parted from what a
/// lock is in the way of. It is given back if this node may not write any more.
pub(super) struct Attempt<'a> {
    lane: usize,
    store: &'a dyn Store,
    clock: &'a dyn Clock,
    metrics: &'a Metrics,
    /// How often the store was asked to commit.
    attempts: u32,
    /// Conflicts that nothing explained.
    unexplained: u32,
    /// What the rows of each chat follow.
    fronts: Vec<Front>,
    /// What is still to be written; the next piece is the last element.
    todo: Vec<Vec<Row>>,
    landed: Vec<Landed>,
}

impl<'a> Attempt<'a> {
    pub fn new(
        lane: usize,
        store: &'a dyn Store,
        clock: &'a dyn Clock,
        metrics: &'a Metrics,
    ) -> Self {
        Self {
            lane,
            store,
            clock,
            metrics,
            attempts: 0,
            unexplained: 0,
            fronts: Vec::new(),
            todo: Vec::new(),
            landed: Vec::new(),
        }
    }

    /// Says what the rows follow.
    pub fn following(mut self, fronts: Vec<Front>) -> Self {
        self.fronts = fronts;
        self
    }

    /// These rows are written behind the others, and not in their transaction.
    pub fn then(mut self, rows: Vec<Row>) -> Self {
        self.todo.push(rows);
        self
    }

    /// Ends when every row has an outcome. Rows of a chat stand together, dense
    /// and ascending, and so do the outcomes. The number says how often the store
    /// was asked to commit. `doubtful` says that another server of the database may
    /// have taken over since the rows were numbered.
    pub async fn write(mut self, rows: Vec<Row>, doubtful: bool) -> (Vec<Landed>, u32) {
        self.landed.reserve(rows.len());
        self.todo.push(rows);
        if doubtful {
            self.leave_lost().await;
        }
        while let Some(piece) = self.todo.pop() {
            if !piece.is_empty() {
                self.write_piece(piece).await;
            }
        }
        (self.landed, self.attempts)
    }

    async fn write_piece(&mut self, piece: Vec<Row>) {
        let piece = Arc::new(piece);
        let mut delay = retry_delays(RETRY_MIN, RETRY_MAX);
        let mut was_unknown = false;
        let error = loop {
            let begun = self.clock.now();
            let appended = self.store.append(self.lane, piece.clone()).await;
            self.attempts += 1;
            self.metrics.commit(self.clock.now() - begun);
            match appended {
                Ok(()) => return self.stored(piece),
                Err(StoreError::Unavailable(source)) => {
                    self.metrics.lane_retried();
                    log_limited!(WARN, lane = self.lane, rows = piece.len(), error = %chain(&*source),
                        "store unavailable, batch waits");
                    tokio::time::sleep(delay()).await;
                }
                Err(StoreError::OutcomeUnknown(source)) => {
                    self.metrics.lane_unknown();
                    log_limited!(WARN, lane = self.lane, rows = piece.len(), error = %chain(&*source),
                        "outcome of a commit unknown, looking it up");
                    if self.is_stored(&piece).await {
                        return self.stored(piece);
                    }
                    was_unknown = true;
                    tokio::time::sleep(delay()).await;
                }
                // A commit from before may have come after it was looked up.
                Err(StoreError::Locked(_) | StoreError::Stale)
                    if was_unknown && self.is_stored(&piece).await =>
                {
                    return self.stored(piece);
                }
                Err(error) => break error,
            }
        };
        let piece = Arc::try_unwrap(piece).unwrap_or_else(|shared| (*shared).clone());
        match error {
            StoreError::Conflict => {
                self.metrics.lane_conflict();
                self.give_way(piece).await;
            }
            StoreError::Locked(chats) if chats.is_empty() => self.part(piece),
            StoreError::Locked(chats) => self.hold(piece, &chats),
            StoreError::Stale => {
                self.metrics.write_refused();
                self.give_back(piece);
            }
            StoreError::Replaced => {
                self.todo.push(piece);
                self.leave_lost().await;
            }
            error => self.divide(piece, &error),
        }
    }

    /// Finds the chats that a lock is in the way of by halving.
    fn part(&mut self, mut piece: Vec<Row>) {
        let half = piece[piece.len() / 2].chat;
        let other = piece.iter().position(|row| row.chat == half);
        let middle = match other {
            Some(0) | None => piece.iter().position(|row| row.chat != half),
            other => other,
        };
        match middle {
            Some(middle) => {
                let behind = piece.split_off(middle);
                self.todo.push(behind);
                self.todo.push(piece);
            }
            None => self.hold(piece, &[half]),
        }
    }

    /// Gives back what cannot be written before a lock is gone.
    fn hold(&mut self, mut piece: Vec<Row>, chats: &[ChatId]) {
        self.metrics.lane_retried();
        log_limited!(
            WARN,
            lane = self.lane,
            chats = chats.len(),
            "somebody holds a lock in the database, the chats that it is in the way of wait"
        );
        let is_held = |row: &mut Row| chats.contains(&row.chat);
        let mut held: Vec<Row> = piece.extract_if(.., is_held).collect();
        for later in self.todo.iter_mut().rev() {
            held.extend(later.extract_if(.., is_held));
        }
        // One that is in nobody's way would be tried for ever.
        debug_assert!(!held.is_empty(), "some of the piece's chats are in the way");
        self.landed.extend(held.into_iter().map(Landed::Held));
        self.todo.push(piece);
    }

    /// Gives everything back that is still to be written: another node may own the chats
    /// by now.
    fn give_back(&mut self, piece: Vec<Row>) {
        self.metrics.lane_retried();
        log_limited!(
            WARN,
            lane = self.lane,
            rows = piece.len(),
            "this node is not one of the cluster any more, its messages wait"
        );
        let later = self.todo.drain(..).rev().flatten();
        let held = piece.into_iter().chain(later);
        self.landed.extend(held.map(Landed::Held));
    }

    fn stored(&mut self, piece: Arc<Vec<Row>>) {
        let rows = Arc::try_unwrap(piece).unwrap_or_else(|shared| (*shared).clone());
        self.landed.extend(rows.into_iter().map(Landed::Stored));
    }

    /// Whether this very piece is in the store. A commit is all or nothing, so one
    /// row speaks for its piece; but not that of a chat which another server has
    /// deleted since: no page shows it.
    async fn is_stored(&self, piece: &[Row]) -> bool {
        'again: loop {
            for rows in piece.chunk_by(|a, b| a.chat == b.chat) {
                let (chat, at) = (rows[0].chat, Page::After(rows[0].seq - 1));
                if let Some(found) = self.page(chat, at, 1).await.first() {
                    if same(found, &rows[0]) && !self.confirm(found).await {
                        continue 'again;
                    }
                    return same(found, &rows[0]);
                }
                if self.is_there(chat).await {
                    return false;
                }
            }
            return false;
        }
    }

    /// Whether a row that a look-up has found is there for good: what is visible
    /// may still be lost with the server. False if it should be looked up again.
    async fn confirm(&self, row: &Row) -> bool {
        let confirmed = self.store.confirm(self.lane, row).await;
        if let Err(error) = &confirmed {
            log_limited!(WARN, lane = self.lane, chat = %row.chat, seq = row.seq,
                error = %chain(error),
                "a stored message cannot be confirmed, looking it up again");
        }
        let for_good = matches!(confirmed, Ok(true));
        if !for_good {
            tokio::time::sleep(RETRY_MAX).await;
        }
        for_good
    }

    async fn is_there(&self, chat: ChatId) -> bool {
        self.made(chat).await.is_some()
    }

    /// Whether the chat is there, and not another one that has been given its id.
    async fn is_same(&self, front: &Front) -> bool {
        self.made(front.chat).await == Some(front.made)
    }

    /// When the chat was made, if it is there.
    async fn made(&self, chat: ChatId) -> Option<Timestamp> {
        let load = |deadline| self.store.load_chat(chat, 0, deadline);
        let found = self.ask(chat, load).await;
        found.map(|(record, _)| record.created_at)
    }

    /// Finds what the store refuses by halving. A message that is refused
    /// leaves no hole: those behind it in its chat move up.
    fn divide(&mut self, mut piece: Vec<Row>, error: &StoreError) {
        if piece.len() > 1 {
            let behind = piece.split_off(piece.len() / 2);
            self.todo.push(behind);
            self.todo.push(piece);
            return;
        }
        for row in piece {
            log_limited!(WARN, lane = self.lane, chat = %row.chat, seq = row.seq,
                error = %chain(error), "store refuses a message");
            self.landed.push(Landed::Refused {
                chat: row.chat,
                id: row.id,
            });
            let later = self.todo.iter_mut().flatten();
            for other in later.filter(|other| other.chat == row.chat) {
                other.seq -= 1;
                other.number -= Seq::from(row.is_message());
            }
        }
    }

    async fn page(&self, chat: ChatId, page: Page, limit: usize) -> Vec<Row> {
        let page = |deadline| self.store.page(chat, page, limit, deadline);
        self.ask(chat, page).await
    }

    /// Asks until the store answers: what follows must not be guessed.
    async fn ask<T, F>(&self, chat: ChatId, question: impl Fn(Instant) -> F) -> T
    where
        F: Future<Output = StoreResult<T>>,
    {
        let mut delay = retry_delays(RETRY_MIN, RETRY_MAX);
        loop {
            match question(self.clock.now() + LOOKUP_TIMEOUT).await {
                Ok(answer) => return answer,
                Err(error) => {
                    log_limited!(WARN, lane = self.lane, %chat,
                        error = %chain(&error), "look-up failed, trying again");
                    tokio::time::sleep(delay()).await;
                }
            }
        }
    }
}

fn same(found: &Row, ours: &Row) -> bool {
    found.seq == ours.seq && found.id == ours.id
}

#[cfg(test)]
mod tests;
