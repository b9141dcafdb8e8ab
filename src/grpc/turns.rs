//! Turns for connections that have just begun to talk, so that a rush of them is
//! not felt by those that were there before.
//!
//! After a broken network all readers come back at once. A core's tasks run in
//! the order in which they were woken, so everybody else's next step would come
//! behind all of theirs: 20,000 streams that begin take 0.3 s of a core. So a
//! newcomer reads little at a time, and only while few calls of newcomers wait
//! for their own first step. The rush takes as long as before, and each of the
//! others' steps waits for a handful of theirs.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

/// Bytes that a newcomer reads at a time: what begins half a dozen streams.
pub const SIP: usize = 512;

/// A connection is a newcomer until it has sent so many bytes.
const NEWCOMER_BYTES: usize = 64 * 1024;

/// Newcomers read while fewer of their calls than this wait for their first
/// step.
const WAITING_CALLS: usize = 8;

/// One core's turns.
#[derive(Debug, Default)]
pub struct Turns {
    /// Calls of newcomers that wait for their first step.
    waiting_calls: AtomicUsize,
    /// Newcomers that wait for their turn to read, in the order in which they
    /// came. Each stands here once, so connections bound it.
    queue: Mutex<VecDeque<Weak<Newcomer>>>,
}

/// A connection that has not sent much yet.
#[derive(Debug)]
pub struct Newcomer {
    turns: Arc<Turns>,
    waker: AtomicWaker,
    queued: AtomicBool,
    /// Bytes until it is none any more.
    left: AtomicUsize,
}

/// A call of a newcomer that waits for its first step.
#[derive(Debug)]
pub struct WaitingCall(Arc<Turns>);

impl Turns {
    pub fn newcomer(self: &Arc<Self>) -> Arc<Newcomer> {
        Arc::new(Newcomer {
            turns: self.clone(),
            waker: AtomicWaker::new(),
            queued: AtomicBool::new(false),
            left: AtomicUsize::new(NEWCOMER_BYTES),
        })
    }

    fn is_open(&self) -> bool {
        self.waiting_calls.load(Ordering::Relaxed) < WAITING_CALLS
    }

    /// If newcomers may read, wakes the one that has waited longest. It calls the
    /// next one when it has been polled, whatever came of it, or leaves.
    fn call_next(&self) {
        if !self.is_open() {
            return;
        }
        while let Some(next) = self.queue().pop_front() {
            if let Some(next) = next.upgrade() {
                next.queued.store(false, Ordering::Relaxed);
                return next.waker.wake();
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Weak<Newcomer>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// Returns when the connection may take its first step as HTTP/2, which costs
    /// more than all before it: where ten thousand are opened at once, a few a
    /// turn.
    pub async fn first_turn(self: &Arc<Self>) {
        poll_fn(|cx| self.poll_turn(cx)).await;
        let _place = self.call();
        tokio::task::yield_now().await;
    }

    /// Ready when it may read [`SIP`] bytes.
    pub fn poll_turn(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.turns.is_open() {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.turns.queue().push_back(Arc::downgrade(self));
        }
        Poll::Pending
    }

    /// Its connection has been polled, and the calls that it read are known. It
    /// may have been called and have had nothing to read, or no room to write.
    pub fn was_polled(&self) {
        if self.is_new() {
            self.turns.call_next();
        }
    }

    fn is_new(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    /// It has read so many bytes; false if it is no newcomer any more.
    pub fn has_read(&self, bytes: usize) -> bool {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        self.left.store(left, Ordering::Relaxed);
        left > 0
    }

    /// A call has been read, and is to take its first step; None if the
    /// connection is no newcomer any more.
    pub fn call(&self) -> Option<WaitingCall> {
        if !self.is_new() {
            return None;
        }
        self.turns.waiting_calls.fetch_add(1, Ordering::Relaxed);
        Some(WaitingCall(self.turns.clone()))
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // It may have been called and not have come.
        self.turns.call_next();
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.0.waiting_calls.fetch_sub(1, Ordering::Relaxed);
        self.0.call_next();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_ready(newcomer: &Arc<Newcomer>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        newcomer.poll_turn(&mut cx).is_ready()
    }

    #[test]
    fn newcomers_read_while_few_of_their_calls_wait() {
        let turns = Arc::new(Turns::default());
        let (one, two) = (turns.newcomer(), turns.newcomer());
        let calls: Vec<_> = (0..WAITING_CALLS).map(|_| one.call().unwrap()).collect();
        assert!(!is_ready(&one) && !is_ready(&two) && !is_ready(&one));
        assert_eq!(turns.queue().len(), 2, "each stands in the queue once");
        drop(calls);
        // The calls have called one of them, and that calls the other.
        assert!(is_ready(&one));
        one.was_polled();
        assert!(turns.queue().is_empty());
    }

    #[test]
    fn who_leaves_passes_the_turn_on() {
        let turns = Arc::new(Turns::default());
        let (one, two, three) = (turns.newcomer(), turns.newcomer(), turns.newcomer());
        let calls: Vec<_> = (0..WAITING_CALLS).map(|_| one.call().unwrap()).collect();
        assert!(!is_ready(&one) && !is_ready(&two) && !is_ready(&three));
        // The last call's end calls `two`, the first in the queue but one.
        drop(one);
        drop(calls);
        drop(two);
        assert!(!three.queued.load(Ordering::Relaxed), "not called");
    }

    #[test]
    fn a_connection_is_a_newcomer_for_so_many_bytes() {
        let turns = Arc::new(Turns::default());
        let newcomer = turns.newcomer();
        assert!(newcomer.has_read(NEWCOMER_BYTES - 1));
        assert!(newcomer.call().is_some());
        assert!(!newcomer.has_read(1));
        assert!(newcomer.call().is_none());
        assert_eq!(turns.waiting_calls.load(Ordering::Relaxed), 0);
    }
}
