//! What readers find in the store, and the account of what they hold of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    domain::{ChatId, Clock, Row, Seq},
    store::{Page, Store, retry_delays},
    telemetry::{Metrics, chain, log_limited},
};

/// How long one read of history may take before it is tried again.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const RETRY_MIN: Duration = Duration::from_millis(20);
pub(super) const RETRY_MAX: Duration = Duration::from_secs(2);

/// So often, and not at once, the store has to say that it does not have a message
/// before a reader is led past it: where it has later ones of the chat, and where
/// it has none.
pub(super) const LOOKS_AT_HOLE: u32 = 3;
pub(super) const LOOKS_AT_END: u32 = 6;

/// Where readers find what the ring no longer has, and what counts them.
pub struct History {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// What reading and the owner's own work count.
    pub metrics: Arc<Metrics>,
    pub pages: Pages,
}

/// What history has behind a cursor.
pub(super) struct HistoryPage {
    pub rows: Vec<Row>,
    /// The first seq that is there; of those before it the store has nothing.
    pub first: Seq,
}

/// The account of the pages that readers hold.
#[derive(Debug)]
pub struct Pages {
    held: AtomicUsize,
    plenty: usize,
}

impl Pages {
    /// Readers may hold so many bytes before each is given one message at a time.
    pub fn new(plenty: usize) -> Self {
        Self {
            held: AtomicUsize::new(0),
            plenty,
        }
    }
}

impl History {
    /// Messages that a reader may ask for which would have `page` of them.
    pub(super) fn room(&self, page: u32) -> u32 {
        match self.pages.held.load(Ordering::Relaxed) > self.pages.plenty {
            true => 1,
            false => page,
        }
    }

    /// A reader's page has so many bytes now, where it had `before`.
    pub(super) fn hold(&self, before: usize, now: usize) {
        if before != now {
            self.pages.held.fetch_add(now, Ordering::Relaxed);
            self.pages.held.fetch_sub(before, Ordering::Relaxed);
            self.metrics.page_held(before, now);
        }
    }

    /// At most `rows` messages behind `after`, up to the ring's `newest`: history may
    /// have more, committed a moment ago, that the ring has yet to get. A
    /// client that resumed behind that would be told that it is ahead of the chat.
    /// `None` if there is no such chat any more.
    pub(super) async fn read(
        self: Arc<Self>,
        chat: ChatId,
        after: Seq,
        newest: Seq,
        rows: usize,
    ) -> Option<HistoryPage> {
        // A store that is away is no reason to end a stream (P8).
        let mut delay = retry_delays(RETRY_MIN, RETRY_MAX);
        let mut looks = 0;
        loop {
            let deadline = self.clock.now() + PAGE_TIMEOUT;
            let page = Page::After(after);
            let lineage = self.store.lineage_number();
            match self.store.page(chat, page, rows, deadline).await {
                // Another server has taken over, and may have another chat by this id.
                Ok(_) if self.store.lineage_number() != lineage => {}
                Ok(mut rows) => {
                    rows.retain(|row| row.seq <= newest);
                    let first = rows.first().map_or(newest + 1, |row| row.seq);
                    looks += 1;
                    let enough = match rows.is_empty() {
                        true => LOOKS_AT_END,
                        false => LOOKS_AT_HOLE,
                    };
                    let enough = looks >= enough;
                    if enough && rows.is_empty() && self.is_gone(chat).await {
                        return None;
                    }
                    if enough || first == after + 1 {
                        return Some(HistoryPage { rows, first });
                    }
                    log_limited!(DEBUG, %chat, after, "history has no next message yet");
                }
                Err(error) => {
                    log_limited!(WARN, %chat, after, error = %chain(&error), "history not read, trying again")
                }
            }
            tokio::time::sleep(delay()).await;
        }
    }

    /// Whether the store says that it does not have the chat: a page alone does not
    /// tell one without these messages from one that is deleted.
    async fn is_gone(&self, chat: ChatId) -> bool {
        let mut delay = retry_delays(RETRY_MIN, RETRY_MAX);
        loop {
            let deadline = self.clock.now() + PAGE_TIMEOUT;
            match self.store.load_chat(chat, 0, deadline).await {
                Ok(found) => return found.is_none(),
                Err(_) => tokio::time::sleep(delay()).await,
            }
        }
    }
}
