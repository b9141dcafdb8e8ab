use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::{
    history::{History, HistoryPage},
    packed::Packed,
    page::Page,
    ring::{Read, Takes},
    share::{Share, Unwritten, counted},
    shared::{Feed, Look},
    slot::{End, Note, PostAnswer, Slot},
};
use crate::{
    domain::{Row, Seq},
    fault::{self, Fault},
    telemetry::log_limited,
};

/// Messages that a reader behind the ring takes from history at a time, once it
/// has shown that it reads: it begins with fewer, and each page has room for
/// twice the last one's.
const PAGE: u32 = 256;
const FIRST_PAGE: u32 = 16;

/// … and most of their bytes that a reader keeps, beside one message: it may not
/// read on for a long time (P6).
const PAGE_BYTES: usize = 128 * 1024;

/// One stream's place in a chat: a seq, not a queue. It yields what is behind
/// it, from the ring if the ring has it and from history if not, and changes
/// between the two without gap or duplicate (P4): whatever a source gives, the
/// cursor only moves from n to n + 1. An entry that is no message it moves past without
/// a word, unless it takes them.
///
/// Dropping it ends the subscription.
pub struct Reader {
    /// The seq of the last message that was yielded.
    cursor: Seq,
    /// Messages yielded so far.
    delivered: u64,
    source: Source,
    /// Bytes of the page, as long as something of it is left.
    held: usize,
    /// Messages to ask history for: fewer than [`PAGE`] at first, and if they
    /// are large.
    page: u32,
    feed: Arc<Feed>,
    slot: Arc<Slot>,
    core: u32,
    key: usize,
    registered: Option<Waker>,
    takes: Takes,
    /// The number of the last deletion that what is read of history shows.
    erased: u64,
    history: Arc<History>,
    /// What many streams of one user hold together, if this is one of them.
    share: Option<Arc<Share>>,
    unwritten: Option<Arc<Unwritten>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("chat", &self.feed.chat())
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

enum Source {
    Ring,
    /// `None` if there is no such chat any more.
    Asked(Pin<Box<dyn Future<Output = Option<HistoryPage>> + Send>>),
    Page(Page),
}

/// What a stream is to do next.
#[derive(Debug)]
pub enum Delivery {
    /// Whole frames to be sent.
    Frames(Bytes),
    /// One frame, which the client takes in gzip as well; and what counts what is sent.
    Long(Bytes, Packed, Option<Arc<Unwritten>>),
    /// The answer to a post of this stream; and what counts what is sent.
    Answer(PostAnswer, Option<Arc<Unwritten>>),
    End(End),
}

impl Reader {
    /// A reader behind `cursor`, for a user who may read the chat; `core` is the one
    /// that will poll it. The first message it yields is the one behind `cursor`.
    pub fn join(
        feed: Arc<Feed>,
        slot: Arc<Slot>,
        core: usize,
        cursor: Seq,
        history: Arc<History>,
    ) -> Self {
        let key = feed.register(core, slot.clone());
        history.metrics.reader_joined();
        Self {
            cursor,
            delivered: 0,
            source: Source::Ring,
            held: 0,
            page: FIRST_PAGE,
            feed,
            slot,
            core: core as u32,
            key,
            registered: None,
            takes: Takes::default(),
            erased: 0,
            history,
            share: None,
            unwritten: None,
        }
    }

    /// Has the stream hold no more than its part of what many of its user may hold.
    pub fn share(&mut self, share: Option<Arc<Share>>) {
        self.share = share;
    }

    /// Whether long messages may come in gzip. Those of history come as they are.
    pub fn pack(&mut self, packs: bool) {
        self.takes.packs = packs;
    }

    /// Whether entries that are no messages are yielded too.
    pub fn take_entries(&mut self, entries: bool) {
        self.takes.entries = entries;
    }

    /// Messages that were yielded so far.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// What the posting half of the same stream needs.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// The next thing to do. After [`Delivery::End`] it must not be asked again.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Delivery> {
        self.register(cx.waker());
        loop {
            // It is woken when something is written. Before that its client could be told
            // of nothing, not even of an end.
            if let Some(unwritten) = &self.unwritten
                && unwritten.is_too_much(cx.waker())
            {
                return Poll::Pending;
            }
            if self.slot.has_note() {
                match self.slot.take_note() {
                    Some(Note::Answer(answer)) => {
                        return Poll::Ready(Delivery::Answer(answer, self.counts()));
                    }
                    Some(Note::End(end)) => return Poll::Ready(Delivery::End(end)),
                    None => {}
                }
            }
            match &mut self.source {
                Source::Ring => match self.feed.look(self.cursor, &self.slot, self.takes) {
                    Look::Ring(Read::Chunk(chunk)) => {
                        debug_assert!(chunk.through > self.cursor, "P4");
                        let count = (chunk.through - self.cursor) as u64;
                        let lag = (chunk.newest - self.cursor) as u64;
                        self.history.metrics.delivered(count, lag);
                        self.delivered += count;
                        self.cursor = chunk.through;
                        let counts = self.counts();
                        return Poll::Ready(match chunk.packed {
                            Some(packed) => Delivery::Long(chunk.bytes, packed, counts),
                            None => Delivery::Frames(counted(counts, chunk.bytes)),
                        });
                    }
                    Look::Ring(Read::Passed(through)) => self.cursor = through,
                    Look::Ring(Read::Behind { newest }) => {
                        let lag = (newest - self.cursor) as u64;
                        self.history.metrics.history_read(lag);
                        if fault::is_on(Fault::GapAtHandover) {
                            self.cursor += 1;
                        }
                        self.source = self.ask_history(newest);
                    }
                    Look::End(end) => return Poll::Ready(Delivery::End(end)),
                    // A note may have come between the look at the inbox and
                    // the mark that this reader waits.
                    Look::Ring(Read::CaughtUp) if self.slot.has_note() => {}
                    Look::Ring(Read::CaughtUp) => return Poll::Pending,
                },
                Source::Asked(page) => match page.as_mut().poll(cx) {
                    // Another server has deleted it.
                    Poll::Ready(None) => return Poll::Ready(Delivery::End(End::Deleted)),
                    Poll::Ready(Some(page)) => {
                        self.pass_to(page.first);
                        self.source = self.open_page(&page.rows);
                    }
                    Poll::Pending => match self.feed.end_or_wait(&self.slot) {
                        Some(end) => return Poll::Ready(Delivery::End(end)),
                        None if self.slot.has_note() => {}
                        None => return Poll::Pending,
                    },
                },
                Source::Page(_) if self.feed.erased() != self.erased => self.erase(),
                Source::Page(page) => match page.take(most_of(self.share.as_ref())) {
                    Some(taken) => {
                        let count = taken.count as u64;
                        self.cursor = taken.through;
                        self.delivered += count;
                        self.history.metrics.delivered_from_history(count);
                        let counts = self.counts();
                        return Poll::Ready(Delivery::Frames(counted(counts, taken.bytes)));
                    }
                    None => {
                        self.cursor = page.through;
                        self.source = Source::Ring;
                        self.hold(0);
                    }
                },
            }
        }
    }

    /// Some messages were deleted since the page was asked for, which may be in it (P12).
    fn erase(&mut self) {
        let (deleted, number) = self.feed.erased_since(self.erased);
        self.erased = number;
        let bytes = match (&mut self.source, deleted) {
            (Source::Page(page), Some(deleted)) => {
                page.erase(&deleted);
                page.bytes()
            }
            // Nobody knows which: it is read again.
            _ => {
                self.source = Source::Ring;
                0
            }
        };
        self.hold(bytes);
    }

    /// Accounts for a page of so many bytes.
    fn hold(&mut self, bytes: usize) {
        self.history.hold(self.held, bytes);
        if let Some(share) = &self.share {
            share.hold(self.held, bytes);
        }
        self.held = bytes;
    }

    /// What counts that which HTTP/2 gets, if this is one of many streams.
    fn counts(&mut self) -> Option<Arc<Unwritten>> {
        let share = self.share.as_ref()?;
        let new = || Unwritten::new(share.clone(), self.history.clone());
        Some(self.unwritten.get_or_insert_with(new).clone())
    }

    fn register(&mut self, waker: &Waker) {
        if !self.registered.as_ref().is_some_and(|w| w.will_wake(waker)) {
            self.slot.register(waker);
            self.registered = Some(waker.clone());
        }
    }

    fn ask_history(&mut self, newest: Seq) -> Source {
        self.erased = self.feed.erased();
        let page = match most_of(self.share.as_ref()) {
            0 => 1,
            _ => self.history.room(self.page),
        };
        let rows = (newest - self.cursor).min(page.into()) as usize;
        let asked = self
            .history
            .clone()
            .read(self.feed.chat(), self.cursor, newest, rows);
        Source::Asked(Box::pin(asked))
    }

    /// Leads the reader past messages that the store has lost, as far as the ring
    /// does not have them: a hole in a chat must not keep what is behind it from
    /// anybody.
    fn pass_to(&mut self, first: Seq) {
        let first = first.min(self.feed.first().max(self.cursor + 1));
        let missing = first - self.cursor - 1;
        if missing > 0 {
            let (chat, from, through) = (self.feed.chat(), self.cursor + 1, first - 1);
            self.history.metrics.messages_missing(missing as u64);
            log_limited!(ERROR, %chat, from, through,
                "messages are missing in the store, a reader is led past them");
            self.cursor = first - 1;
        }
    }

    /// Takes from a page what continues this cursor without a hole, as far as
    /// there is room. The next page is as large as this one had room for, or
    /// twice that.
    fn open_page(&mut self, rows: &[Row]) -> Source {
        let most = most_of(self.share.as_ref()).min(PAGE_BYTES);
        let viewer = self.slot.user();
        let page = Page::new(self.cursor, rows, viewer, self.takes.entries, most);
        self.page = match (page.through - self.cursor) as usize {
            all if all == rows.len() => (2 * self.page).min(PAGE),
            some => some.max(1) as u32,
        };
        self.hold(page.bytes());
        Source::Page(page)
    }
}

/// Bytes that a stream may hold with HTTP/2, and as a page.
fn most_of(share: Option<&Arc<Share>>) -> usize {
    share.map_or(usize::MAX, |share| share.of_stream())
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hold(0);
        self.feed.leave(self.core as usize, self.key);
        self.history.metrics.reader_left();
    }
}

#[cfg(test)]
mod tests;
