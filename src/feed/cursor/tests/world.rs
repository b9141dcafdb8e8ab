//! A chat with its readers, ring, history and cores, each step of which is drawn.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Wake,
    time::Duration,
};

use fastrand::Rng;
use prost::Message as _;
use tokio::sync::oneshot;

use super::super::*;
use crate::{
    domain::{ChatId, PREFIX_LEN, Refusal, Timestamp},
    feed::{Entry, Pages, RingBound, Wakes, history::RETRY_MAX},
    proto,
    store::{NewChat, Store as _, memory::MemoryStore},
    telemetry::Metrics,
    testing::{Fault, ScriptStore, TestClock, chat_id, key, row, user},
};

/// Says that its task is to be polled.
#[derive(Default)]
pub(super) struct Flag {
    raised: AtomicBool,
    times: AtomicUsize,
}

impl Flag {
    pub(super) fn raised() -> Arc<Self> {
        let raised = AtomicBool::new(true);
        let times = AtomicUsize::new(0);
        Arc::new(Self { raised, times })
    }

    pub(super) fn take(&self) -> bool {
        self.raised.swap(false, Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raised.store(true, Ordering::SeqCst);
        self.times.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) ring: usize,
    pub(super) history: usize,
    /// Readers that fell off the ring, and that came back to it.
    pub(super) to_history: usize,
    pub(super) to_ring: usize,
    pub(super) faults: usize,
    pub(super) answers: usize,
    pub(super) ends: usize,
    pub(super) stalls: usize,
    /// Messages that readers were led past.
    pub(super) holes: usize,
}

/// A reader and what it has been promised.
pub(super) struct Watcher {
    pub(super) reader: Reader,
    flag: Arc<Flag>,
    pub(super) cursor: Seq,
    from_history: Option<bool>,
    /// Answers to posts that are still to come.
    answers: usize,
    removed: bool,
    pub(super) ended: Option<End>,
}

type WakeTask = Pin<Box<dyn Future<Output = ()>>>;

pub(super) struct World {
    pub(super) chat: ChatId,
    pub(super) memory: Arc<MemoryStore>,
    pub(super) history: Arc<History>,
    /// Reads of history that wait to be let go.
    pub(super) asked: Arc<Mutex<Vec<oneshot::Sender<Fault>>>>,
    pub(super) feed: Arc<Feed>,
    pub(super) wakes: Arc<Wakes>,
    cores: Vec<(WakeTask, Arc<Flag>)>,
    pub(super) watchers: Vec<Watcher>,
    /// Committed and not in the ring yet.
    pub(super) unpublished: VecDeque<Row>,
    pub(super) committed: Seq,
    pub(super) published: Seq,
    /// The store loses messages in this world; which it has lost.
    loses: bool,
    pub(super) lost: BTreeSet<Seq>,
    pub(super) bound: RingBound,
    /// In the ring, but the cores have not been called yet.
    uncalled: bool,
    pub(super) end: Option<End>,
    pub(super) seen: Seen,
}

const PATIENCE: usize = 10_000;

/// Of a user with so many streams that each has a message at a time.
pub(super) fn crowded() -> Arc<Share> {
    let share = Share::default();
    for _ in 0..200 {
        assert!(share.enter(200).is_some());
    }
    share.hold(0, 1 << 30);
    Arc::new(share)
}

impl World {
    pub(super) fn new(rng: &mut Rng) -> Self {
        // Some are always short of it.
        let plenty = rng.usize(..2_000);
        Self::with_pages(rng, plenty)
    }

    pub(super) fn with_pages(rng: &mut Rng, plenty: usize) -> Self {
        let memory = memory();
        let asked: Arc<Mutex<Vec<oneshot::Sender<Fault>>>> = Arc::default();
        let queue = asked.clone();
        let store = ScriptStore::new(memory.clone(), move |_| {
            let (release, verdict) = oneshot::channel();
            queue.lock().unwrap().push(release);
            Box::pin(async { verdict.await.unwrap_or(Fault::Unavailable) })
        });
        let bound = RingBound {
            messages: rng.usize(1..6),
            bytes: rng.usize(1..2_000),
        };
        let wakes = Arc::new(Wakes::new(rng.usize(1..=3)));
        let cores = (0..wakes.cores()).map(|core| {
            let task: WakeTask = Box::pin(wakes.clone().run(core));
            (task, Flag::raised())
        });
        let mut world = Self {
            chat: chat_id(1),
            memory,
            history: Arc::new(History {
                store: Arc::new(store),
                clock: Arc::new(TestClock::default()),
                metrics: Metrics::new(1),
                pages: Pages::new(plenty),
            }),
            asked,
            feed: Arc::new(Feed::new(chat_id(1), 0, bound, wakes.cores())),
            cores: cores.collect(),
            wakes,
            watchers: Vec::new(),
            unpublished: VecDeque::new(),
            committed: 0,
            published: 0,
            loses: rng.u8(..3) == 0,
            lost: BTreeSet::new(),
            bound,
            uncalled: false,
            end: None,
            seen: Seen::default(),
        };
        world.commit(rng, 12);
        while world.publish_one() {}
        world.call();
        world
    }

    pub(super) fn commit(&mut self, rng: &mut Rng, most: usize) {
        if self.end.is_some() {
            return;
        }
        let mut rows = Vec::new();
        for _ in 0..rng.usize(..=most) {
            self.committed += 1;
            let text = "x".repeat(if rng.u8(..20) == 0 {
                9_000
            } else {
                rng.usize(1..200)
            });
            let mut row = row(
                self.chat,
                self.committed,
                ["alice", "bob"][rng.usize(..2)],
                &text,
            );
            row.client_message_id = key(["", "k"][rng.usize(..2)]);
            rows.push(row);
        }
        self.unpublished.extend(rows.iter().cloned());
        now(self.memory.append(0, Arc::new(rows))).unwrap();
    }

    pub(super) fn publish_one(&mut self) -> bool {
        let Some(row) = self.unpublished.pop_front() else {
            return false;
        };
        self.published = row.seq;
        self.feed.append(std::iter::once(Entry::new(&row)));
        self.uncalled = true;
        true
    }

    /// What the owner does at the end of a commit.
    pub(super) fn call(&mut self) {
        self.uncalled = false;
        self.wakes.wake(0, std::iter::once(&self.feed));
    }

    pub(super) fn join(&mut self, rng: &mut Rng) {
        if self.end.is_some() {
            return;
        }
        let slot = Arc::new(Slot::new(user(["alice", "carol"][rng.usize(..2)]), 100));
        let cursor = rng.i64(0..=self.published);
        let core = rng.usize(..self.wakes.cores());
        let history = self.history.clone();
        let mut reader = Reader::join(self.feed.clone(), slot, core, cursor, history);
        reader.pack(rng.bool());
        reader.share(rng.bool().then(crowded));
        self.watchers.push(Watcher::new(reader));
    }

    /// Lets one read of history go on.
    fn release(&mut self, fault: Fault, rng: &mut Rng) -> bool {
        let mut asked = self.asked.lock().unwrap();
        if asked.is_empty() {
            return false;
        }
        let at = rng.usize(..asked.len());
        self.seen.faults += usize::from(fault == Fault::Unavailable);
        // The reader may have gone.
        _ = asked.swap_remove(at).send(fault);
        true
    }

    /// Polls a reader that has been woken, until it has nothing or stalls.
    pub(super) fn poll(&mut self, at: usize, most: usize) {
        let watcher = &mut self.watchers[at];
        if watcher.ended.is_some() || !watcher.flag.take() {
            return;
        }
        let waker = Waker::from(watcher.flag.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..most {
            match watcher.reader.poll_next(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Delivery::Frames(frames) | Delivery::Long(frames, ..)) => {
                    let history = matches!(watcher.reader.source, Source::Page(_));
                    let before = watcher.cursor;
                    let holes = watcher.read(frames, &self.lost);
                    self.seen.holes += holes;
                    match (watcher.from_history.replace(history), history) {
                        (Some(false), true) => self.seen.to_history += 1,
                        (Some(true), false) => self.seen.to_ring += 1,
                        _ => {}
                    }
                    if history {
                        self.seen.history += 1;
                    } else {
                        self.seen.ring += 1;
                        let first = before + holes as Seq;
                        assert!(first + self.bound.messages as Seq >= self.published);
                    }
                    assert!(watcher.cursor <= self.committed, "P3");
                    // It could not resume there, as the chat does not know so far.
                    assert!(watcher.cursor <= self.published, "P4");
                }
                Poll::Ready(Delivery::Answer(..)) => {
                    self.seen.answers += 1;
                    watcher.answers = watcher.answers.checked_sub(1).expect("one of ours");
                }
                Poll::Ready(Delivery::End(end)) => {
                    self.seen.ends += 1;
                    assert!(watcher.removed && end == End::Removed || self.end == Some(end));
                    assert_eq!(watcher.answers, 0, "its answers come before the end");
                    watcher.ended = Some(end);
                    return;
                }
            }
        }
        // It was not told to wait, so it comes back of its own accord.
        self.seen.stalls += 1;
        watcher.flag.raised.store(true, Ordering::SeqCst);
    }

    fn poll_core(&mut self, core: usize) {
        let (task, flag) = &mut self.cores[core];
        if flag.take() {
            let waker = Waker::from(flag.clone());
            assert!(
                task.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
    }

    pub(super) async fn step(&mut self, rng: &mut Rng) {
        match rng.u8(..32) {
            0..4 => self.commit(rng, 3),
            4..10 => _ = self.publish_one(),
            10..13 => self.call(),
            13 if self.watchers.len() < 6 => self.join(rng),
            14..17 => self.poll_core(rng.usize(..self.cores.len())),
            17..25 if !self.watchers.is_empty() => {
                self.poll(rng.usize(..self.watchers.len()), rng.usize(1..4));
            }
            25 => _ = self.release(Fault::Unavailable, rng),
            26 => _ = self.release(Fault::Short(rng.usize(..3)), rng),
            27..29 => _ = self.release(Fault::None, rng),
            29 => tokio::time::advance(Duration::from_millis(rng.u64(..3_000))).await,
            30 if !self.watchers.is_empty() => self.disturb(rng),
            31 if rng.u8(..4) == 0 => self.settle(rng).await,
            31 if self.loses => self.lose(rng),
            _ => {}
        }
    }

    /// The store loses some messages in a row, of those that all have been told of.
    fn lose(&mut self, rng: &mut Rng) {
        let first = rng.i64(1..=self.published.max(1));
        for seq in first..=self.published.min(first + rng.i64(0..4)) {
            self.memory.lose(self.chat, seq);
            self.lost.insert(seq);
        }
    }

    /// Something happens to one reader alone.
    fn disturb(&mut self, rng: &mut Rng) {
        let at = rng.usize(..self.watchers.len());
        let watcher = &mut self.watchers[at];
        match rng.u8(..8) {
            0 => drop(self.watchers.swap_remove(at)),
            1 => {
                let user = watcher.reader.slot().user().clone();
                self.feed.end_user(&user, End::Removed);
                let theirs = |w: &&mut Watcher| *w.reader.slot().user() == user;
                self.watchers
                    .iter_mut()
                    .filter(theirs)
                    .for_each(|w| w.removed = true);
            }
            _ if watcher.removed => {}
            _ => {
                watcher.answers += 1;
                let slot = watcher.reader.slot();
                let mut cx = Context::from_waker(Waker::noop());
                assert!(slot.poll_post(&mut cx).is_ready());
                slot.answer(None, Err(Refusal::Expired));
            }
        }
    }

    /// Everything that has been set going comes to rest; nothing is polled that
    /// was not woken. Then every reader must have all that there is.
    pub(super) async fn settle(&mut self, rng: &mut Rng) {
        while self.publish_one() {}
        if self.uncalled {
            self.call();
        }
        self.rest(rng, true).await;
        for watcher in self.watchers.iter().filter(|w| w.ended.is_none()) {
            assert!(!watcher.removed, "its end was not seen");
            assert!(self.end.is_none(), "{watcher:?}: the end was not seen");
            assert_eq!(watcher.cursor, self.committed, "a wake-up was lost (P4)");
            assert_eq!(watcher.answers, 0, "an answer was not seen");
        }
    }

    pub(super) async fn rest(&mut self, rng: &mut Rng, store_answers: bool) {
        for _ in 0..PATIENCE {
            (0..self.cores.len()).for_each(|core| self.poll_core(core));
            (0..self.watchers.len()).for_each(|at| self.poll(at, 100));
            let released = store_answers && self.release(Fault::None, rng);
            let live = |w: &Watcher| w.ended.is_none() && w.flag.raised.load(Ordering::SeqCst);
            let busy = self.watchers.iter().any(live)
                || self
                    .cores
                    .iter()
                    .any(|(_, flag)| flag.raised.load(Ordering::SeqCst));
            if released || busy {
                continue;
            }
            // Whoever waits before it asks again.
            tokio::time::advance(RETRY_MAX * 2).await;
            let busy = self.watchers.iter().any(live);
            if !busy && (!store_answers || self.asked.lock().unwrap().is_empty()) {
                return;
            }
        }
        panic!("no rest");
    }

    pub(super) async fn finish(&mut self, rng: &mut Rng) {
        self.settle(rng).await;
        if rng.bool() {
            return;
        }
        // Some fall behind once more, and then all streams end.
        self.commit(rng, 12);
        while self.publish_one() {}
        if rng.bool() {
            self.call();
            (0..self.watchers.len()).for_each(|at| self.poll(at, 1));
        }
        let draining = rng.bool();
        let end = if draining {
            End::Draining
        } else {
            End::Deleted
        };
        if !draining {
            now(self.memory.delete_chat(self.chat, None)).unwrap();
        }
        // A drain lets a reader have what the ring holds for it.
        let in_ring = |w: &Watcher| {
            let found = self.feed.look(w.cursor, w.reader.slot(), Takes::default());
            let behind = matches!(found, Look::Ring(Read::Behind { .. }));
            draining && !behind && !w.removed && matches!(w.reader.source, Source::Ring)
        };
        let entitled: Vec<bool> = self.watchers.iter().map(in_ring).collect();
        self.end = Some(end);
        self.feed.end(end);
        self.call();
        // The store may be away: streams end all the same.
        let store_answers = rng.bool();
        self.rest(rng, store_answers).await;
        for (watcher, entitled) in self.watchers.iter().zip(entitled) {
            assert!(watcher.ended.is_some(), "{watcher:?} did not see {end:?}");
            assert!(!entitled || watcher.cursor >= self.published, "P9");
        }
    }
}

impl Watcher {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            cursor: reader.cursor,
            reader,
            flag: Flag::raised(),
            from_history: None,
            answers: 0,
            removed: false,
            ended: None,
        }
    }

    /// How many messages it was led past; all of them are lost.
    pub(super) fn read(&mut self, mut frames: Bytes, lost: &BTreeSet<Seq>) -> usize {
        let mut holes = 0;
        while !frames.is_empty() {
            let length = u32::from_be_bytes(frames[1..PREFIX_LEN].try_into().unwrap());
            let frame = frames.split_to(PREFIX_LEN + length as usize);
            let message = proto::Message::decode(&frame[PREFIX_LEN..]).unwrap();
            let mut passed = self.cursor + 1..message.seq;
            holes += passed.clone().count();
            assert!(message.seq > self.cursor, "P4");
            assert!(passed.all(|seq| lost.contains(&seq)), "P4");
            self.cursor = message.seq;
            let own = message.from == **self.reader.slot().user();
            assert!(own || message.client_message_id.is_empty(), "P7");
        }
        holes
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = self.flag.times.load(Ordering::SeqCst);
        write!(f, "{:?}, woken {times} times", self.reader)
    }
}

/// A store with one chat, of alice alone.
pub(super) fn memory() -> Arc<MemoryStore> {
    let memory = Arc::new(MemoryStore::new());
    let chat = NewChat {
        client_chat_id: None,
        created_by: user("alice"),
        created_at: Timestamp(0),
        members: vec![user("alice")],
    };
    now(memory.create_chat(chat)).unwrap();
    memory
}

/// Of a future that does not wait.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("memory does not wait")
}
