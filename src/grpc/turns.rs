//! Turns for connections that have just begun to talk, so that a rush of them is
//! not felt by those that were there before.
//!
//! After a broken network all readers come back at once, and when a network
//! breaks thousands of connections end at once. A core's tasks run in the order
//! in which they were woken, so everybody else's next step would come behind all
//! of theirs: 20,000 streams that begin take 0.3 s of a core. So of all newcomers
//! one reads a round, and little; a round is once through whatever else there is
//! to do. The rush takes as long as before, and each of the others' steps waits
//! for one of theirs.

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

/// One core's turns.
#[derive(Debug, Default)]
pub struct Turns {
    /// A newcomer has had its turn in this round.
    taken: AtomicBool,
    /// Ends the round.
    round: AtomicWaker,
    /// Newcomers that wait for their turn, in the order in which they came. Each
    /// stands here once, so connections bound it.
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

impl Turns {
    pub fn newcomer(self: &Arc<Self>) -> Arc<Newcomer> {
        Arc::new(Newcomer {
            turns: self.clone(),
            waker: AtomicWaker::new(),
            queued: AtomicBool::new(false),
            left: AtomicUsize::new(NEWCOMER_BYTES),
        })
    }

    /// Begins round after round; to be spawned once on the core.
    pub async fn rounds(self: Arc<Self>) {
        loop {
            poll_fn(|cx| self.poll_taken(cx)).await;
            // Comes back behind everything that is ready now.
            tokio::task::yield_now().await;
            self.taken.store(false, Ordering::Relaxed);
            self.call_next();
        }
    }

    fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.round.register(cx.waker());
        match self.taken.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// If the turn is free, wakes the newcomer that has waited longest. It calls
    /// the next one when it has been polled, whatever came of it, or leaves.
    fn call_next(&self) {
        if self.taken.load(Ordering::Relaxed) {
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
    /// Returns when the connection may take its first step, which costs more than
    /// all before it.
    pub async fn first_turn(self: &Arc<Self>) {
        poll_fn(|cx| self.poll_turn(cx)).await;
        self.take_turn();
    }

    /// Ready when it may read [`SIP`] bytes.
    pub fn poll_turn(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.turns.taken.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.turns.queue().push_back(Arc::downgrade(self));
        }
        Poll::Pending
    }

    /// It has read so many bytes in its turn, none at the connection's end; false
    /// if it is no newcomer any more.
    pub fn has_read(&self, bytes: usize) -> bool {
        self.take_turn();
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        self.left.store(left, Ordering::Relaxed);
        left > 0
    }

    fn take_turn(&self) {
        self.turns.taken.store(true, Ordering::Relaxed);
        self.turns.round.wake();
    }

    /// Its connection has been polled. It may have been called and have had
    /// nothing to read, or no room to write.
    pub fn was_polled(&self) {
        if self.left.load(Ordering::Relaxed) > 0 {
            self.turns.call_next();
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // It may have been called and not have come.
        self.turns.call_next();
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

    #[tokio::test]
    async fn one_newcomer_reads_a_round() {
        let turns = Arc::new(Turns::default());
        let mut rounds = Box::pin(turns.clone().rounds());
        let mut round = async || {
            let next = tokio::task::yield_now();
            tokio::select! {
                biased;
                () = &mut rounds => {}
                () = next => {}
            }
        };
        let newcomers = [(); 3].map(|()| turns.newcomer());
        let [one, two, three] = &newcomers;
        assert!(is_ready(one) && one.has_read(1));
        assert!(!is_ready(one) && !is_ready(two) && !is_ready(three) && !is_ready(two));
        assert_eq!(turns.queue().len(), 3, "each stands in the queue once");
        round().await;
        round().await;
        // The first has been called, and has nothing to read.
        assert!(is_ready(one) && !one.queued.load(Ordering::Relaxed));
        one.was_polled();
        assert!(is_ready(two) && two.has_read(1));
        two.was_polled();
        assert_eq!(turns.queue().len(), 1, "the turn was taken");
    }

    #[test]
    fn who_leaves_passes_the_turn_on() {
        let turns = Arc::new(Turns::default());
        let (one, two, three) = (turns.newcomer(), turns.newcomer(), turns.newcomer());
        assert!(one.has_read(1));
        assert!(!is_ready(&two) && !is_ready(&three));
        drop(one);
        assert_eq!(turns.queue().len(), 2, "the turn was taken");
        turns.taken.store(false, Ordering::Relaxed);
        turns.call_next();
        drop(two);
        assert!(!three.queued.load(Ordering::Relaxed), "not called");
    }

    #[test]
    fn a_connection_is_a_newcomer_for_so_many_bytes() {
        let newcomer = Arc::new(Turns::default()).newcomer();
        assert!(newcomer.has_read(NEWCOMER_BYTES - 1));
        assert!(!newcomer.has_read(1));
    }
}
