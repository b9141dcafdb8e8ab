use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::AHashMap;

use super::Landed;
use crate::{
    domain::{ChatId, Clock, Row, Seq},
    store::{Page, Store, StoreError, StoreResult, retry_delays},
    telemetry::{Metrics, log_limited},
};

/// How long one look-up may take before it is tried again.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that a look-up reads at a time.
const LOOKUP_PAGE: usize = 1_000;

const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// One batch on its way into the store, whatever it takes: it is retried while
/// the store is away, looked up when an answer was lost, split around what the
/// store refuses, and renumbered behind another writer's messages.
pub(super) struct Attempt<'a> {
    lane: usize,
    store: &'a dyn Store,
    clock: &'a dyn Clock,
    metrics: &'a Metrics,
    /// How often the store was asked to commit.
    attempts: u32,
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
            todo: Vec::new(),
            landed: Vec::new(),
        }
    }

    /// Ends when every row has an outcome. Rows of a chat stand together, dense
    /// and ascending, and so do the outcomes. The number says how often the store
    /// was asked to commit.
    pub async fn write(mut self, rows: Vec<Row>) -> (Vec<Landed>, u32) {
        self.landed.reserve(rows.len());
        self.todo.push(rows);
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
        let error = loop {
            let begun = self.clock.now();
            let appended = self.store.append(self.lane, piece.clone()).await;
            self.attempts += 1;
            self.metrics.commit(self.clock.now() - begun);
            match appended {
                Ok(()) => return self.stored(piece),
                Err(StoreError::Unavailable(source)) => {
                    self.metrics.lane_retried();
                    log_limited!(WARN, lane = self.lane, rows = piece.len(), error = %source,
                        "store unavailable, batch waits");
                    tokio::time::sleep(delay()).await;
                }
                Err(StoreError::OutcomeUnknown(source)) => {
                    self.metrics.lane_unknown();
                    tracing::warn!(lane = self.lane, rows = piece.len(), error = %source,
                        "outcome of a commit unknown, looking it up");
                    if self.is_stored(&piece).await {
                        return self.stored(piece);
                    }
                    tokio::time::sleep(delay()).await;
                }
                Err(error @ (StoreError::Conflict | StoreError::Refused(_))) => break error,
            }
        };
        let piece = Arc::try_unwrap(piece).unwrap_or_else(|shared| (*shared).clone());
        match error {
            StoreError::Conflict => {
                self.metrics.lane_conflict();
                self.give_way(piece).await;
            }
            error => self.divide(piece, &error),
        }
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
                error = error as &dyn std::error::Error,
                "a stored message cannot be confirmed, looking it up again");
        }
        let for_good = matches!(confirmed, Ok(true));
        if !for_good {
            tokio::time::sleep(RETRY_MAX).await;
        }
        for_good
    }

    async fn is_there(&self, chat: ChatId) -> bool {
        let load = |deadline| self.store.load_chat(chat, 0, deadline);
        self.ask(chat, load).await.is_some()
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
                error = error as &dyn std::error::Error, "store refuses a message");
            self.landed.push(Landed::Refused {
                chat: row.chat,
                id: row.id,
            });
            renumber(self.todo.iter_mut().flatten(), row.chat, -1);
        }
    }

    /// Some seq of the piece is taken: by a late commit of our own, or by
    /// another writer, behind whose messages ours then go.
    async fn give_way(&mut self, piece: Vec<Row>) {
        if self.is_stored(&piece).await {
            return self.stored(Arc::new(piece));
        }
        let mut rest = Vec::with_capacity(piece.len());
        let mut explained = false;
        for rows in by_chat(piece) {
            let (chat, first) = (rows[0].chat, rows[0].seq);
            let foreign = self.behind(chat, first - 1).await;
            if foreign.is_empty() {
                rest.extend(rows);
                continue;
            }
            log_limited!(WARN, lane = self.lane, %chat, seq = first, theirs = foreign.len(),
                "another writer has used our seqs, renumbering behind it");
            rest.extend(self.make_way_for(foreign, rows));
            explained = true;
        }
        if explained {
            self.todo.push(rest);
        } else {
            self.leave_deleted(rest).await;
        }
    }

    /// What is in the way can't be seen, so a chat was deleted under us by another
    /// server. If none was, what conflicts is found like what is refused: trying
    /// again would hold up the lane's other chats for ever.
    async fn leave_deleted(&mut self, piece: Vec<Row>) {
        let before = piece.len();
        let mut rest = Vec::with_capacity(before);
        for rows in by_chat(piece) {
            let chat = rows[0].chat;
            if self.is_there(chat).await {
                rest.extend(rows);
            } else {
                self.lose(chat, rows);
            }
        }
        if rest.len() < before {
            self.todo.push(rest);
        } else {
            self.divide(rest, &StoreError::Conflict);
        }
    }

    /// Ends the messages of a chat that is gone, in later pieces as well.
    fn lose(&mut self, chat: ChatId, mut rows: Vec<Row>) {
        for later in self.todo.iter_mut().rev() {
            rows.extend(later.extract_if(.., |row| row.chat == chat));
        }
        log_limited!(WARN, lane = self.lane, %chat, rows = rows.len(),
            "the chat was deleted by another server, its messages are not stored");
        let lost = rows.into_iter();
        self.landed
            .extend(lost.map(|row| Landed::NoChat { chat, id: row.id }));
    }

    /// Reports the foreign messages, and moves ours behind them, in place and in
    /// time; less those that turn out to be the same post.
    fn make_way_for(&mut self, foreign: Vec<Row>, mut ours: Vec<Row>) -> Vec<Row> {
        let chat = ours[0].chat;
        let newest = foreign.iter().map(|row| row.created_at).max();
        let mut posts = AHashMap::new();
        for row in &foreign {
            if let Some(id) = &row.client_message_id {
                posts.entry((&row.from, id)).or_insert(row);
            }
        }
        let mut shift = foreign.len() as Seq;
        let mut duplicates = Vec::new();
        let mut keep = |row: &mut Row| {
            let post = row.client_message_id.as_ref().map(|id| (&row.from, id));
            if let Some(theirs) = post.and_then(|post| posts.get(&post)) {
                shift -= 1;
                duplicates.push(Landed::Duplicate {
                    chat,
                    id: row.id,
                    seq: theirs.seq,
                    created_at: theirs.created_at,
                });
                return false;
            }
            row.seq += shift;
            row.created_at = newest.map_or(row.created_at, |newest| newest.max(row.created_at));
            true
        };
        ours.retain_mut(&mut keep);
        for later in self.todo.iter_mut().rev() {
            later.retain_mut(|row| row.chat != chat || keep(row));
        }
        self.landed.extend(foreign.into_iter().map(Landed::Foreign));
        self.landed.extend(duplicates);
        ours
    }

    /// All messages of a chat behind `seq`.
    async fn behind(&self, chat: ChatId, seq: Seq) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let last = rows.last().map_or(seq, |row| row.seq);
            let page = self.page(chat, Page::After(last), LOOKUP_PAGE).await;
            let full = page.len() == LOOKUP_PAGE;
            rows.extend(page);
            if full {
                continue;
            }
            match rows.last() {
                Some(last) if !self.confirm(last).await => rows.clear(),
                _ => return rows,
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
                        error = &error as &dyn std::error::Error, "look-up failed, trying again");
                    tokio::time::sleep(delay()).await;
                }
            }
        }
    }
}

fn same(found: &Row, ours: &Row) -> bool {
    found.seq == ours.seq && found.id == ours.id
}

fn by_chat(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut chats: Vec<Vec<Row>> = Vec::new();
    for row in rows {
        match chats.last_mut() {
            Some(chat) if chat[0].chat == row.chat => chat.push(row),
            _ => chats.push(vec![row]),
        }
    }
    chats
}

fn renumber<'r>(rows: impl Iterator<Item = &'r mut Row>, chat: ChatId, shift: Seq) {
    rows.filter(|row| row.chat == chat)
        .for_each(|row| row.seq += shift);
}

#[cfg(test)]
mod tests;
