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
//!
//! A connection that has not shown a token stays a newcomer for as long as that
//! lasts: thousands of them could each say a little now and then. They wait in a
//! line of their own, which gets every other turn, so that users who have sent
//! little do not wait behind them. Those that linger, a few turns after their
//! connection was opened, get one turn in two milliseconds among them, so that
//! they do not take the processor from others. In each line the addresses take
//! turns, so that nobody who comes waits behind all that one address has opened.

use std::{
    future::{pending, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use self::queue::Queue;
use crate::{auth::Asker, domain::Origin};

mod queue;

/// Bytes that a newcomer reads at a time: what begins half a dozen streams.
const SIP: usize = 512;
/// The same while it opens the connection: a client's first words in TLS come in
/// one piece of up to two kilobytes.
const FIRST_SIP: usize = 4 * 1024;

/// A connection is a newcomer until it has sent so many bytes, at least.
const NEWCOMER_BYTES: usize = 64 * 1024;

/// Turns in which a stranger reads once its connection is open, until it lingers.
/// A client's opening words and its first call come in two or three.
const STRANGER_TURNS: u8 = 4;
/// One core's turns.
#[derive(Debug, Default)]
pub struct Turns {
    /// A newcomer has had its turn in this round.
    taken: AtomicBool,
    /// One has been called, and nobody else is to come first.
    calling: AtomicBool,
    /// Somebody has begun to wait in the line of those that linger.
    lingering: AtomicBool,
    /// Ends the round.
    round: AtomicWaker,
    /// Newcomers that wait for their turn. Each stands here once, so connections
    /// bound it.
    queue: Mutex<Queue>,
}

/// A connection that has not sent much yet, or shown no token.
#[derive(Debug)]
pub struct Newcomer {
    turns: Arc<Turns>,
    origin: Origin,
    waker: AtomicWaker,
    queued: AtomicBool,
    called: AtomicBool,
    /// It has shown a token that was accepted.
    known: AtomicBool,
    /// The connection is open, and talks.
    begun: AtomicBool,
    /// Bytes until it has sent enough.
    left: AtomicUsize,
    /// Turns until it lingers, as long as it is not known.
    turns_left: AtomicU8,
}

impl Turns {
    pub fn newcomer(self: &Arc<Self>, origin: Origin) -> Arc<Newcomer> {
        Arc::new(Newcomer {
            turns: self.clone(),
            origin,
            waker: AtomicWaker::new(),
            queued: AtomicBool::new(false),
            called: AtomicBool::new(false),
            known: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            left: AtomicUsize::new(NEWCOMER_BYTES),
            turns_left: AtomicU8::new(STRANGER_TURNS),
        })
    }

    /// Begins round after round; to be spawned once on the core.
    pub async fn rounds(self: Arc<Self>) {
        loop {
            let due = self.queue().lingering_due();
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                // Comes back behind everything that is ready now.
                () = poll_fn(|cx| self.poll_begun(cx)) => tokio::task::yield_now().await,
                () = due => {}
            }
            self.taken.store(false, Ordering::Relaxed);
            self.call_next();
        }
    }

    /// Ready when a turn has been taken, or there is a time to wait for.
    fn poll_begun(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.round.register(cx.waker());
        let lingering = self.lingering.load(Ordering::Relaxed);
        match self.taken.load(Ordering::Relaxed) || lingering {
            true => {
                self.lingering.store(false, Ordering::Relaxed);
                Poll::Ready(())
            }
            false => Poll::Pending,
        }
    }

    /// If the turn is free, wakes the newcomer whose turn it is. It calls the next
    /// one when it has been polled, whatever came of it, or leaves.
    fn call_next(&self) {
        if self.taken.load(Ordering::Relaxed) || self.calling.load(Ordering::Relaxed) {
            return;
        }
        loop {
            // Its drop comes here again.
            let Some(next) = self.queue().pop(Instant::now()) else {
                return;
            };
            // It may have become known since, and stand in another line.
            if let Some(next) = next.upgrade()
                && next.queued.swap(false, Ordering::Relaxed)
            {
                next.called.store(true, Ordering::Relaxed);
                self.calling.store(true, Ordering::Relaxed);
                return next.waker.wake();
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newcomer {
    /// Ready when it may read, and how many bytes.
    pub fn poll_turn(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<usize> {
        let turns = &self.turns;
        let called = self.called.load(Ordering::Relaxed);
        let free = called || !turns.calling.load(Ordering::Relaxed) && self.may_come();
        if free && !turns.taken.load(Ordering::Relaxed) {
            return Poll::Ready(match self.begun.load(Ordering::Relaxed) {
                true => SIP,
                false => FIRST_SIP,
            });
        }
        self.waker.register(cx.waker());
        if !self.queued.swap(true, Ordering::Relaxed) {
            turns.queue().push(self);
            if self.lingers() {
                turns.lingering.store(true, Ordering::Relaxed);
                turns.round.wake();
            }
        }
        Poll::Pending
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    fn lingers(&self) -> bool {
        let has_had_its_turns = self.turns_left.load(Ordering::Relaxed) == 0;
        has_had_its_turns && !self.known.load(Ordering::Relaxed)
    }

    /// It need not be called, if nobody else is.
    fn may_come(&self) -> bool {
        !self.lingers() || self.turns.queue().may_linger(Instant::now())
    }

    /// Ready when the connection may do anything at all: it has shown a token, or
    /// has its turn. Thousands that each say a few bytes would be felt by the
    /// steps alone that these take through HTTP/2.
    pub fn poll_stranger(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.known.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => self.poll_turn(cx).map(|_| ()),
        }
    }

    /// It has read so many bytes in its turn, none at the connection's end; false
    /// if it is no newcomer any more.
    pub fn has_read(&self, bytes: usize) -> bool {
        self.turns.taken.store(true, Ordering::Relaxed);
        self.answer_call();
        self.turns.round.wake();
        let strange = !self.known.load(Ordering::Relaxed) && self.begun.load(Ordering::Relaxed);
        // Who leaves is not kept from it.
        if strange && bytes > 0 {
            self.count_turn();
        }
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        self.left.store(left, Ordering::Relaxed);
        left > 0 || !self.known.load(Ordering::Relaxed)
    }

    /// A stranger has read.
    fn count_turn(&self) {
        match self.turns_left.load(Ordering::Relaxed) {
            0 => self.turns.queue().lingered = Some(Instant::now()),
            left => self.turns_left.store(left - 1, Ordering::Relaxed),
        }
    }

    /// True if it had been called.
    fn answer_call(&self) -> bool {
        let called = self.called.load(Ordering::Relaxed);
        if called {
            self.called.store(false, Ordering::Relaxed);
            self.turns.calling.store(false, Ordering::Relaxed);
        }
        called
    }

    /// Whose questions are told apart from those of others.
    pub fn asker(&self) -> Asker {
        Asker {
            from: Some(self.origin),
            is_known: self.known.load(Ordering::Relaxed),
        }
    }

    /// The connection is open: its next steps are calls.
    pub fn has_begun(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// It has shown a token that was accepted.
    pub fn is_known(&self) {
        // Most calls are not the first: a load leaves the line to other cores.
        if !self.known.load(Ordering::Relaxed) {
            self.known.store(true, Ordering::Relaxed);
            // It does not go on waiting among the strangers.
            self.queued.store(false, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    /// Its connection has been polled. It may have been called and have had
    /// nothing to read, or no room to write.
    pub fn was_polled(&self) {
        if self.answer_call() {
            self.turns.call_next();
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // It may have been called and not have come.
        self.was_polled();
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, task::Waker, time::Duration};

    use tokio::task::JoinSet;

    use super::*;

    fn is_ready(newcomer: &Arc<Newcomer>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        newcomer.poll_turn(&mut cx).is_ready()
    }

    fn from(n: u8) -> Origin {
        IpAddr::from([192, 0, 2, n]).into()
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
        let newcomers = [(); 3].map(|()| turns.newcomer(from(1)));
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
        let (one, two, three) = (
            turns.newcomer(from(1)),
            turns.newcomer(from(1)),
            turns.newcomer(from(1)),
        );
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
    fn a_connection_is_a_newcomer_for_so_many_bytes_and_until_it_is_known() {
        let newcomer = Arc::new(Turns::default()).newcomer(from(1));
        assert!(newcomer.has_read(NEWCOMER_BYTES) && newcomer.has_read(1));
        newcomer.is_known();
        assert!(!newcomer.has_read(1));
        let newcomer = Arc::new(Turns::default()).newcomer(from(1));
        newcomer.is_known();
        assert!(newcomer.has_read(NEWCOMER_BYTES - 1));
        assert!(!newcomer.has_read(1));
    }

    /// Whose turns they are, one after the other, as letters.
    fn order(turns: &Arc<Turns>, newcomers: &[(char, Arc<Newcomer>)]) -> String {
        turns.taken.store(true, Ordering::Relaxed);
        for (_, newcomer) in newcomers {
            assert!(!is_ready(newcomer));
        }
        let called = std::iter::from_fn(|| turns.queue().pop(Instant::now()));
        let called = called.map(|next| {
            let next = next.upgrade().unwrap();
            let (letter, _) = newcomers
                .iter()
                .find(|(_, newcomer)| Arc::ptr_eq(newcomer, &next))
                .unwrap();
            *letter
        });
        called.collect()
    }

    #[test]
    fn p6_no_address_and_no_stranger_keeps_others_waiting() {
        let turns = Arc::new(Turns::default());
        let mut newcomers = Vec::new();
        for (letters, address) in [("aaaaaa", 1), ("b", 2), ("cc", 3)] {
            newcomers.extend(letters.chars().map(|l| (l, turns.newcomer(from(address)))));
        }
        assert_eq!(order(&turns, &newcomers), "abcacaaaa");
        assert_eq!(turns.queue().origins(), 0, "nothing is kept");

        let turns = Arc::new(Turns::default());
        let mut newcomers: Vec<_> = (0..5).map(|_| ('s', turns.newcomer(from(1)))).collect();
        newcomers.extend((0..3).map(|_| ('k', turns.newcomer(from(1)))));
        let known = newcomers.iter().filter(|(letter, _)| *letter == 'k');
        known.for_each(|(_, newcomer)| newcomer.is_known());
        assert_eq!(order(&turns, &newcomers), "sksksk".to_owned() + "ss");
    }

    #[test]
    fn who_becomes_known_is_not_called_among_the_strangers() {
        let turns = Arc::new(Turns::default());
        let (one, two) = (turns.newcomer(from(1)), turns.newcomer(from(1)));
        turns.taken.store(true, Ordering::Relaxed);
        assert!(!is_ready(&one) && !is_ready(&two));
        one.is_known();
        turns.taken.store(false, Ordering::Relaxed);
        turns.call_next();
        assert!(!one.called.load(Ordering::Relaxed), "nobody would wake it");
        assert!(two.called.load(Ordering::Relaxed));
    }

    /// Strangers that have had their turns read so often, however many they are;
    /// one that shows a token is rid of that.
    #[tokio::test(start_paused = true)]
    async fn p6_strangers_that_linger_share_few_turns() {
        let turns = Arc::new(Turns::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(turns.clone().rounds());
        let reads = Arc::new(AtomicUsize::new(0));
        let newcomers: Vec<_> = (0..100).map(|n| turns.newcomer(from(n))).collect();
        for newcomer in &newcomers {
            newcomer.has_begun();
            let (newcomer, reads) = (newcomer.clone(), reads.clone());
            tasks.spawn(async move {
                loop {
                    poll_fn(|cx| newcomer.poll_turn(cx)).await;
                    reads.fetch_add(1, Ordering::Relaxed);
                    newcomer.has_read(1);
                    tokio::task::yield_now().await;
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (first, lingering) = (100 * usize::from(STRANGER_TURNS), 500);
        let read = reads.load(Ordering::Relaxed);
        assert!(
            (first + lingering - 10..=first + lingering).contains(&read),
            "{read}"
        );
        let known = turns.newcomer(from(200));
        known.has_begun();
        let read_on = async |times| {
            let since = Instant::now();
            for _ in 0..times {
                poll_fn(|cx| known.poll_turn(cx)).await;
                known.has_read(1);
            }
            since.elapsed()
        };
        let lingered = read_on(10).await;
        assert!(lingered > Duration::from_secs(1), "{lingered:?}");
        known.is_known();
        let took = read_on(1_000).await;
        assert!(took < Duration::from_millis(10), "{took:?}");
    }
}
