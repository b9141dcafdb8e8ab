//! A place in a chat for another node, whose readers follow the chat there.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{item::Item, shared::Feed, slot::End};
use crate::domain::{Seq, UserName};

/// The taps of one feed.
#[derive(Debug, Default)]
pub(super) struct Taps {
    /// There is one at least. Looked at after each commit, so it is not behind the lock.
    some: AtomicBool,
    all: Mutex<Vec<Arc<Inner>>>,
}

/// Is called when there is something for a tap. Must not block.
pub struct Call(Box<dyn Fn() + Send + Sync>);

#[derive(Debug)]
struct Inner {
    /// It has found nothing and wants to be called.
    waiting: AtomicBool,
    removed: Mutex<Vec<UserName>>,
    call: Call,
}

/// Follows a feed like a reader, and like it holds nothing up: it is a place in the
/// chat. Unlike a reader it sees all that anybody may see, and never asks the store.
#[derive(Debug)]
pub struct Tap {
    feed: Arc<Feed>,
    cursor: Seq,
    inner: Arc<Inner>,
}

/// What a tap finds.
#[derive(Debug)]
pub enum Tapped {
    /// These follow what it has yielded before.
    Entries(Vec<Item>),
    /// What follows is in the store up to this message, where the tap goes on.
    Behind(Seq),
    /// These users read the chat no more.
    Removed(Vec<UserName>),
    Nothing,
    End(End),
}

impl Call {
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Box::new(call))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}

impl Tap {
    /// A place behind `cursor`. Once it has found nothing, `call` is called when there
    /// is something.
    pub fn new(feed: Arc<Feed>, cursor: Seq, call: Call) -> Self {
        let inner = Arc::new(Inner {
            waiting: AtomicBool::new(false),
            removed: Mutex::default(),
            call,
        });
        feed.followed(1);
        feed.taps.all().push(inner.clone());
        feed.taps.some.store(true, Ordering::SeqCst);
        Self {
            feed,
            cursor,
            inner,
        }
    }

    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The seq of the last message that it has yielded.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Who has been removed since the tap was made, or looked at last.
    pub fn removed(&mut self) -> Vec<UserName> {
        std::mem::take(&mut *self.inner.removed())
    }

    /// The next thing to do, with at most about so many bytes, or one message.
    pub fn next(&mut self, most: usize) -> Tapped {
        self.inner.waiting.store(true, Ordering::SeqCst);
        let removed = self.removed();
        if !removed.is_empty() {
            return Tapped::Removed(removed);
        }
        // Deleted or lost, it is not to be read on; a drain lets have what is there.
        let end = self.feed.ended();
        if let Some(end) = end.filter(|end| *end != End::Draining) {
            return Tapped::End(end);
        }
        match (self.feed.entries(self.cursor, most), end) {
            (None, _) => {
                self.cursor = self.feed.last();
                Tapped::Behind(self.cursor)
            }
            (Some(entries), Some(end)) if entries.is_empty() => Tapped::End(end),
            (Some(entries), None) if entries.is_empty() => Tapped::Nothing,
            (Some(entries), _) => {
                self.cursor += entries.len() as Seq;
                Tapped::Entries(entries)
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut all = self.feed.taps.all();
        all.retain(|one| !Arc::ptr_eq(one, &self.inner));
        self.feed.taps.some.store(!all.is_empty(), Ordering::SeqCst);
        drop(all);
        self.feed.followed(-1);
    }
}

impl Inner {
    fn removed(&self) -> std::sync::MutexGuard<'_, Vec<UserName>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if self.waiting.swap(false, Ordering::SeqCst) {
            (self.call.0)();
        }
    }
}

impl Taps {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Inner>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls those that wait: something was appended, or the feed has ended.
    pub fn wake(&self) {
        if self.some.load(Ordering::SeqCst) {
            self.all().iter().for_each(|one| one.wake());
        }
    }

    /// The user reads the chat no more.
    pub fn removed(&self, user: &UserName) {
        if self.some.load(Ordering::SeqCst) {
            for one in self.all().iter() {
                one.removed().push(user.clone());
                one.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::{
        feed::{Entry, RingBound},
        testing::{chat_id, row, user},
    };

    const BOUND: RingBound = RingBound {
        messages: 4,
        bytes: 1 << 20,
    };

    fn feed(last: Seq) -> Arc<Feed> {
        Arc::new(Feed::new(chat_id(1), last, BOUND, 1))
    }

    fn append(feed: &Feed, seqs: std::ops::RangeInclusive<Seq>) {
        let entries = seqs.map(|seq| Entry::new(&row(chat_id(1), seq, "alice", "hello")));
        feed.append(entries);
        feed.taps.wake();
    }

    fn tap(feed: &Arc<Feed>, cursor: Seq) -> (Tap, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let call = Call::new(move || _ = counted.fetch_add(1, Ordering::Relaxed));
        (Tap::new(feed.clone(), cursor, call), calls)
    }

    fn count(tapped: Tapped) -> usize {
        match tapped {
            Tapped::Entries(entries) => entries.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tap_yields_what_is_appended_and_is_called_once() {
        let feed = feed(7);
        let (mut tap, calls) = tap(&feed, 7);
        assert!(matches!(tap.next(1 << 20), Tapped::Nothing));
        append(&feed, 8..=9);
        append(&feed, 10..=10);
        assert_eq!(calls.load(Ordering::Relaxed), 1, "it has not looked yet");
        assert_eq!(count(tap.next(1 << 20)), 3);
        assert_eq!(tap.cursor(), 10);
        assert!(matches!(tap.next(1 << 20), Tapped::Nothing));
        // At least one, however little there is room for.
        append(&feed, 11..=12);
        assert_eq!(count(tap.next(1)), 1);
        assert_eq!(count(tap.next(1)), 1);
    }

    #[test]
    fn a_tap_that_falls_behind_goes_on_at_the_end() {
        let feed = feed(0);
        let (mut tap, _) = tap(&feed, 0);
        append(&feed, 1..=4);
        append(&feed, 5..=8);
        assert!(matches!(tap.next(1 << 20), Tapped::Behind(8)));
        append(&feed, 9..=9);
        assert_eq!(count(tap.next(1 << 20)), 1);
        feed.begin(20);
        assert!(matches!(tap.next(1 << 20), Tapped::Behind(20)));
    }

    #[test]
    fn p7_a_tap_hears_of_a_removal_before_what_follows_it() {
        let feed = feed(0);
        let (mut tap, calls) = tap(&feed, 0);
        assert!(matches!(tap.next(1 << 20), Tapped::Nothing));
        feed.end_user(&user("bob"), End::Removed);
        append(&feed, 1..=1);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        match tap.next(1 << 20) {
            Tapped::Removed(users) => assert_eq!(users, [user("bob")]),
            other => panic!("{other:?}"),
        }
        assert_eq!(count(tap.next(1 << 20)), 1);
        // Whoever makes a tap asks who may read, and whom it missed meanwhile.
        feed.end_user(&user("cyd"), End::Removed);
        assert_eq!(tap.removed(), [user("cyd")]);
        assert!(tap.removed().is_empty());
        feed.end(End::Deleted);
        assert!(matches!(tap.next(1 << 20), Tapped::End(End::Deleted)));
    }

    #[test]
    fn a_tap_counts_as_a_reader_as_long_as_it_is_there() {
        let feed = feed(0);
        let (first, _) = tap(&feed, 0);
        let (second, calls) = tap(&feed, 0);
        assert_eq!(feed.readers(), 2);
        drop((first, second));
        assert_eq!(feed.readers(), 0);
        append(&feed, 1..=1);
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }

    /// Whoever counts a user's streams has been told that the user reads no more, and may
    /// count new ones since.
    #[test]
    fn p4_a_stream_whose_user_was_removed_goes_without_a_word() {
        let feed = feed(0);
        let slot = |name| Arc::new(crate::feed::Slot::new(user(name), 1));
        let (bob, cyd) = (slot("bob"), slot("cyd"));
        let keys = [feed.register(0, bob), feed.register(0, cyd)];
        let gone = Arc::new(Mutex::new(Vec::new()));
        let told = gone.clone();
        let readers = feed.follow(move |one| told.lock().unwrap().push(one.clone()));
        assert_eq!(readers.len(), 2);
        feed.end_user(&user("bob"), End::Removed);
        assert_eq!(feed.users(), [user("cyd")].into());
        keys.into_iter().for_each(|key| feed.leave(0, key));
        assert_eq!(*gone.lock().unwrap(), [user("cyd")]);
        assert_eq!(feed.readers(), 0);
    }
}
