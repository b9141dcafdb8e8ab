//! The same on real threads: what a single thread cannot show is how the marks
//! and locks of feed, slot and wakes order themselves.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    task::Wake,
    thread::{self, Thread},
    time::{Duration, Instant},
};

use super::{world::memory, *};
use crate::{
    domain::Refusal,
    feed::{Entry, Pages, RingBound, Wakes},
    store::Store as _,
    telemetry::Metrics,
    testing::{TestClock, chat_id},
};

const MESSAGES: Seq = 20_000;
const READERS: usize = 6;
const CORES: usize = 2;
/// A lost wake-up shows as a reader that is not woken for this long.
const LOST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(5);

struct Unpark(Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// Polls until `done`; false if nothing woke it for too long.
fn drive(mut poll: impl FnMut(&mut Context<'_>) -> bool) -> bool {
    let flag = Arc::new(Unpark(thread::current(), AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut cx = Context::from_waker(&waker);
    let mut since = Instant::now();
    loop {
        if flag.1.swap(false, Ordering::SeqCst) {
            since = Instant::now();
            if poll(&mut cx) {
                return true;
            }
        } else if since.elapsed() > LOST {
            return false;
        } else {
            thread::park_timeout(LOST);
        }
    }
}

/// What a reader has seen so far, for all to see.
#[derive(Default)]
struct Progress {
    cursor: AtomicI64,
    answers: AtomicUsize,
}

fn watch(reader: Reader, seen: &Progress, stall: u32) -> bool {
    let mut watcher = Watcher::new(reader);
    let mut rng = Rng::with_seed(stall.into());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let _guard = runtime.enter();
    drive(|cx| {
        while let Poll::Ready(delivery) = watcher.reader.poll_next(cx) {
            match delivery {
                Delivery::Frames(frames) | Delivery::Long(frames, ..) => {
                    assert_eq!(watcher.read(frames, &BTreeSet::new()), 0)
                }
                Delivery::Answer(..) => _ = seen.answers.fetch_add(1, Ordering::Release),
                Delivery::End(_) => return true,
            }
            seen.cursor.store(watcher.cursor, Ordering::Release);
            if rng.u32(..1_000) < stall {
                thread::sleep(Duration::from_micros(rng.u64(..500)));
            }
        }
        false
    })
}

/// Waits until all readers are where they should be.
fn meet(seen: &[Progress], there: impl Fn(&Progress) -> bool) {
    let waited = Instant::now();
    while !seen.iter().all(&there) {
        assert!(waited.elapsed() < LOST, "a wake-up was lost (P4)");
        thread::yield_now();
    }
}

#[test]
fn p4_no_wake_up_is_lost_between_threads() {
    let memory = memory();
    let history = Arc::new(History {
        store: memory.clone(),
        clock: Arc::new(TestClock::default()),
        metrics: Metrics::new(1),
        pages: Pages::new(usize::MAX),
    });
    let bound = RingBound {
        messages: 16,
        bytes: 1 << 20,
    };
    let feed = Arc::new(Feed::new(chat_id(1), 0, bound, CORES));
    let wakes = Arc::new(Wakes::new(CORES));
    let seen: Arc<[Progress; READERS]> = Arc::default();
    let slots: Vec<_> = (0..READERS)
        .map(|_| Arc::new(Slot::new(user("carol"), 1)))
        .collect();
    let readers: Vec<_> = (0..READERS)
        .map(|at| {
            let slot = slots[at].clone();
            let reader = Reader::join(feed.clone(), slot, at % CORES, 0, history.clone());
            let (seen, stall) = (seen.clone(), [0, 0, 50][at % 3]);
            thread::spawn(move || watch(reader, &seen[at], stall))
        })
        .collect();
    for core in 1..CORES {
        let mut task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(wakes.clone().run(core));
        // Goes with the test's process.
        thread::spawn(move || drive(|cx| task.as_mut().poll(cx).is_ready()));
    }

    let mut rng = Rng::new();
    let (start, mut seq, mut met, mut answers) = (Instant::now(), 0, 0, 0);
    while seq < MESSAGES && start.elapsed() < LONGEST {
        let rows = (0..rng.i64(1..4)).map(|n| row(chat_id(1), seq + 1 + n, "alice", "x"));
        let rows: Vec<Row> = rows.collect();
        seq += rows.len() as Seq;
        let entries: Vec<Entry> = rows.iter().map(Entry::new).collect();
        now(memory.append(0, Arc::new(rows))).unwrap();
        feed.append(entries.into_iter());
        wakes.wake(0, std::iter::once(&feed));
        match rng.u8(..8) {
            // No later message covers up for a wake-up that this one lost.
            0..3 => {
                meet(&seen[..], |at| at.cursor.load(Ordering::Acquire) >= seq);
                met += 1;
            }
            // Nor a later answer for one of this.
            3..5 => {
                for slot in &slots {
                    assert!(
                        slot.poll_post(&mut Context::from_waker(Waker::noop()))
                            .is_ready()
                    );
                    (0..rng.u32(..500)).for_each(|_| std::hint::spin_loop());
                    slot.answer(None, Err(Refusal::Expired));
                }
                met += 1;
                answers += 1;
                meet(&seen[..], |at| {
                    at.answers.load(Ordering::Acquire) == answers
                });
            }
            5 => (0..rng.u32(..2_000)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
    println!("{seq} messages, {READERS} readers, met {met} times");
    feed.end(End::Deleted);
    wakes.wake(0, std::iter::once(&feed));
    for reader in readers {
        assert!(reader.join().unwrap(), "the end was not seen");
    }
}
