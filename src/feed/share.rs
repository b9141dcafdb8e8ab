//! What one user's streams hold together of what their clients have not read.
//!
//! HTTP/2 keeps as much for each stream as `--stream-buffer` says, and behind that its
//! reader has a page of history. That is little for a stream, and much for the thousands
//! that one user may open and not read. So the streams that a user opens beyond [`FEW`]
//! share [`OF_USER`]: what HTTP/2 has of them is counted until it is written, and a stream
//! is given the less ahead the more there are. Where all is used up, a stream is given a
//! message once the last one is written: none is lost, no other user waits (P4, P6).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::history::History;

/// In bytes; besides this each stream may have two messages: one with HTTP/2, and one
/// that comes behind it.
const OF_USER: usize = 16 * 1024 * 1024;

/// Of so many streams nothing is counted: most users have no more, and what they are
/// sent is not to cost more.
const FEW: usize = 128;

/// One user's streams.
#[derive(Debug, Default)]
pub struct Share {
    streams: AtomicUsize,
    held: AtomicUsize,
}

impl Share {
    /// One more stream, unless there are so many; [`Self::leave`] is its end. True: it is
    /// one of those that share.
    pub fn enter(&self, most: usize) -> Option<bool> {
        let more = |streams: usize| (streams < most).then_some(streams + 1);
        let (set, get) = (Ordering::AcqRel, Ordering::Acquire);
        let before = self.streams.fetch_update(set, get, more).ok()?;
        Some(before >= FEW)
    }

    /// True if it was the last one.
    pub fn leave(&self) -> bool {
        self.streams.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// What a stream may hold, once with HTTP/2 and once as a page of history. 0: a
    /// message at a time.
    pub(super) fn of_stream(&self) -> usize {
        let streams = self.streams.load(Ordering::Relaxed).max(1);
        match self.held.load(Ordering::Relaxed) >= OF_USER {
            true => 0,
            false => OF_USER / 2 / streams,
        }
    }

    /// A stream holds so many bytes now, where it had `before`.
    pub(super) fn hold(&self, before: usize, now: usize) {
        self.held.fetch_add(now, Ordering::Relaxed);
        self.held.fetch_sub(before, Ordering::Relaxed);
    }
}

/// What HTTP/2 has of one stream and has not written yet.
pub struct Unwritten {
    bytes: AtomicUsize,
    reader: AtomicWaker,
    share: Arc<Share>,
    history: Arc<History>,
}

impl Unwritten {
    pub(super) fn new(share: Arc<Share>, history: Arc<History>) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
            share,
            history,
        })
    }

    /// Counts these until they are written, or the stream is gone.
    fn count(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.hold(0, bytes.len());
        Bytes::from_owner(Counted(bytes, self.clone()))
    }

    /// Whether the stream has to wait; then it is woken.
    pub(super) fn is_too_much(&self, waker: &Waker) -> bool {
        let is = || {
            let bytes = self.bytes.load(Ordering::Acquire);
            bytes > 0 && bytes >= self.share.of_stream()
        };
        is() && {
            self.reader.register(waker);
            is()
        }
    }

    fn hold(&self, before: usize, now: usize) {
        self.share.hold(before, now);
        self.history.hold(before, now);
    }
}

impl fmt::Debug for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unwritten").field(&self.bytes).finish()
    }
}

/// The same, if there is something that counts them.
pub fn counted(counts: Option<Arc<Unwritten>>, bytes: Bytes) -> Bytes {
    match counts {
        Some(unwritten) => unwritten.count(bytes),
        None => bytes,
    }
}

struct Counted(Bytes, Arc<Unwritten>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(bytes, unwritten) = self;
        unwritten.hold(bytes.len(), 0);
        unwritten.bytes.fetch_sub(bytes.len(), Ordering::Release);
        unwritten.reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p6_the_streams_of_a_user_with_many_share_what_they_hold() {
        let share = Share::default();
        for _ in 0..FEW {
            assert_eq!(share.enter(usize::MAX), Some(false), "a few need not share");
        }
        assert_eq!(share.enter(FEW + 1), Some(true));
        assert_eq!(share.enter(FEW + 1), None);
        share.hold(0, OF_USER);
        assert_eq!(share.of_stream(), 0, "used up");
        share.hold(OF_USER, OF_USER - 1);
        assert_eq!(share.of_stream(), OF_USER / 2 / (FEW + 1));
        for _ in 0..FEW {
            assert!(!share.leave());
        }
        assert!(share.leave());
    }
}
