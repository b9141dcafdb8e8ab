use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use slab::Slab;

use super::{
    erased::Erased,
    item::{About, Item},
    ring::{Read, Ring, RingBound, Takes},
    slot::{End, Slot},
    tap::Taps,
};
use crate::domain::{ChatId, Seq, UserName};

/// What a chat's owner and its readers share: the ring, and who is to be woken.
///
/// Only the owner appends and ends; readers look on from any core. The readers
/// are kept by core, so that a commit costs one wake-up a core, not one a
/// reader.
///
/// No wake-up is lost: a reader marks itself as waiting while it holds the
/// ring's lock and has found nothing; the owner appends under the same lock and
/// looks at the marks afterwards. A core that has been called and not begun looks
/// at them later still; "called" and the marks are therefore of one order
/// (`SeqCst`), in which a core takes back the one before it reads the others.
#[derive(Debug)]
pub struct Feed {
    chat: ChatId,
    state: Mutex<State>,
    cores: Box<[CoreReaders]>,
    readers: AtomicUsize,
    /// The number of the last deletion, so that a reader need not take the lock to see
    /// that there is none.
    erased: AtomicU64,
    pub(super) taps: Taps,
    /// Looked at under the lock of a core's readers: see [`Feed::follow`].
    left: RwLock<Option<OnLeave>>,
}

/// What is to be done when a stream has gone, with the name of its user.
#[derive(Clone)]
struct OnLeave(Arc<dyn Fn(&UserName) + Send + Sync>);

impl fmt::Debug for OnLeave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnLeave")
    }
}

#[derive(Debug)]
struct State {
    ring: Ring,
    erased: Erased,
    end: Option<End>,
}

#[derive(Debug, Default)]
struct CoreReaders {
    slots: Mutex<Slab<Arc<Slot>>>,
    /// The core has been told to wake its readers and has not begun yet.
    called: AtomicBool,
}

/// What a reader finds in the feed.
#[derive(Debug)]
pub(super) enum Look {
    Ring(Read),
    End(End),
}

impl Feed {
    pub fn new(chat: ChatId, last: Seq, bound: RingBound, cores: usize) -> Self {
        Self {
            chat,
            state: Mutex::new(State {
                ring: Ring::new(last, bound),
                erased: Erased::default(),
                end: None,
            }),
            cores: (0..cores).map(|_| CoreReaders::default()).collect(),
            readers: AtomicUsize::new(0),
            erased: AtomicU64::new(0),
            taps: Taps::default(),
            left: RwLock::default(),
        }
    }

    /// The users who read, and how many streams each has. From now on `act` is called for
    /// each of those streams, and for each that comes, when it has gone, unless its user
    /// was removed before ([`Feed::end_user`]); it must not block. It takes the place of
    /// whatever was called before.
    pub fn follow(
        &self,
        act: impl Fn(&UserName) + Send + Sync + 'static,
    ) -> BTreeMap<UserName, usize> {
        let mut users = BTreeMap::new();
        // With all locks held, each stream has either gone before or is counted.
        let cores: Vec<_> = self.cores.iter().map(|core| lock(&core.slots)).collect();
        let slots = cores.iter().flat_map(|slots| slots.iter());
        for (_, slot) in slots.filter(|(_, slot)| !slot.is_removed()) {
            *users.entry(slot.user().clone()).or_default() += 1;
        }
        let mut left = self.left.write().unwrap_or_else(PoisonError::into_inner);
        *left = Some(OnLeave(Arc::new(act)));
        drop(left);
        users
    }

    /// The users who read.
    pub fn users(&self) -> BTreeSet<UserName> {
        let mut users = BTreeSet::new();
        for core in &self.cores {
            let slots = lock(&core.slots);
            let reading = slots.iter().filter(|(_, slot)| !slot.is_removed());
            users.extend(reading.map(|(_, slot)| slot.user().clone()));
        }
        users
    }

    pub fn chat(&self) -> ChatId {
        self.chat
    }

    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Acquire)
    }

    /// The seq of the oldest message that the ring has; of the next one to come, if
    /// it has none.
    pub fn first(&self) -> Seq {
        lock(&self.state).ring.first()
    }

    /// The seq of the newest message that the feed knows of.
    pub fn last(&self) -> Seq {
        lock(&self.state).ring.last()
    }

    /// Goes on behind the message `last`: what is before it, and what the ring has,
    /// readers find in history.
    pub fn begin(&self, last: Seq) {
        let mut state = lock(&self.state);
        state.ring.begin(last);
        // There may be deletions among what is passed over.
        state.erased.lose_track();
        self.tell_erased(&state);
    }

    /// What the ring has behind `after`, up to about so many bytes; `None` if it does
    /// not have the first of it.
    pub fn entries(&self, after: Seq, most: usize) -> Option<Vec<Item>> {
        let state = lock(&self.state);
        let found = state.ring.entries(after, most)?;
        Some(found.collect())
    }

    /// Whether it ended, and why.
    pub fn ended(&self) -> Option<End> {
        lock(&self.state).end
    }

    /// Forgets what the ring has, about; whoever needs it reads history.
    pub fn cut(&self) {
        lock(&self.state).ring.cut();
    }

    /// Bytes that the ring takes in memory, about.
    pub fn weight(&self) -> usize {
        let state = lock(&self.state);
        state.ring.weight() + state.erased.weight()
    }

    /// Appends the entries of a commit (P3), which follow the ring's last. Texts that are
    /// gone by them are so from now on.
    pub fn append(&self, items: impl Iterator<Item = impl Into<Item>>) {
        let mut deleted = Vec::new();
        let items = items.map(Into::into).inspect(|item: &Item| {
            if let About::Deletion(message) = item.about {
                deleted.push(message);
            }
        });
        let mut state = lock(&self.state);
        state.ring.append(items);
        for message in deleted {
            state.erase(message);
            self.tell_erased(&state);
        }
    }

    /// Gives the text of a message, and of its edits, to nobody any more (P12). The
    /// deletion itself may come later.
    pub fn erase(&self, message: Seq) {
        let mut state = lock(&self.state);
        state.erase(message);
        self.tell_erased(&state);
    }

    fn tell_erased(&self, state: &State) {
        self.erased.store(state.erased.number(), Ordering::Release);
    }

    /// The number of the last deletion.
    pub(super) fn erased(&self) -> u64 {
        self.erased.load(Ordering::Acquire)
    }

    /// What was deleted behind this number, `None` if that is not known, and the number
    /// of the last deletion.
    pub(super) fn erased_since(&self, number: u64) -> (Option<Vec<Seq>>, u64) {
        let state = lock(&self.state);
        (state.erased.since(number), state.erased.number())
    }

    /// Ends every stream; a wake-up has to follow. A drain lets a reader have
    /// what the ring still holds for it. Any other end comes before whatever a reader
    /// has not taken yet: its user may be let in no more where the chat goes on.
    pub fn end(&self, end: End) {
        lock(&self.state).end = Some(end);
        if end == End::Draining {
            return;
        }
        for core in &self.cores {
            let slots = lock(&core.slots);
            slots.iter().for_each(|(_, slot)| slot.note_end(end));
        }
    }

    /// What is there behind `after` for a reader who takes this; if nothing, the slot is
    /// marked as waiting.
    pub(super) fn look(&self, after: Seq, slot: &Slot, takes: Takes) -> Look {
        let mut state = lock(&self.state);
        let found = state.ring.read(after, slot.user(), takes);
        match (&state.end, found) {
            (Some(End::Draining), found @ (Read::Chunk(_) | Read::Passed(_))) => Look::Ring(found),
            (Some(end), _) => Look::End(*end),
            (None, found) => {
                if matches!(found, Read::CaughtUp) {
                    slot.wait();
                }
                Look::Ring(found)
            }
        }
    }

    /// The chat's end, if it has come; if not, the slot is marked as waiting.
    pub(super) fn end_or_wait(&self, slot: &Slot) -> Option<End> {
        let state = lock(&self.state);
        if state.end.is_none() {
            slot.wait();
        }
        state.end
    }

    pub(super) fn register(&self, core: usize, slot: Arc<Slot>) -> usize {
        self.readers.fetch_add(1, Ordering::AcqRel);
        lock(&self.cores[core].slots).insert(slot)
    }

    pub(super) fn leave(&self, core: usize, key: usize) {
        let mut slots = lock(&self.cores[core].slots);
        let slot = slots.remove(key);
        let left = self.left.read().unwrap_or_else(PoisonError::into_inner);
        let left = left.clone();
        drop(slots);
        self.readers.fetch_sub(1, Ordering::AcqRel);
        if let Some(OnLeave(act)) = left.filter(|_| !slot.is_removed()) {
            act(slot.user());
        }
    }

    /// Something follows the feed that is no stream.
    pub(super) fn followed(&self, by: isize) {
        match by > 0 {
            true => self.readers.fetch_add(1, Ordering::AcqRel),
            false => self.readers.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// Ends the streams of one user.
    pub fn end_user(&self, user: &UserName, end: End) {
        self.taps.removed(user);
        for core in &self.cores {
            let slots = lock(&core.slots);
            let theirs = slots.iter().filter(|(_, slot)| slot.user() == user);
            theirs.for_each(|(_, slot)| slot.remove(end));
        }
    }

    /// True if `core` has readers and has not been called yet: the caller is to
    /// see to it that the core runs [`Feed::wake`].
    pub(super) fn call(&self, core: usize) -> bool {
        let readers = &self.cores[core];
        !readers.called.load(Ordering::SeqCst)
            && !lock(&readers.slots).is_empty()
            && !readers.called.swap(true, Ordering::SeqCst)
    }

    /// Wakes the core's waiting readers.
    pub(super) fn wake(&self, core: usize) {
        let readers = &self.cores[core];
        readers.called.store(false, Ordering::SeqCst);
        lock(&readers.slots)
            .iter()
            .for_each(|(_, slot)| slot.wake());
    }
}

impl State {
    fn erase(&mut self, message: Seq) {
        self.ring.erase(message);
        self.erased.add(message);
    }
}

/// A panic while holding one of these locks leaves nothing half done that a
/// reader could see, so poisoning is not a reason to stop everyone else.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
