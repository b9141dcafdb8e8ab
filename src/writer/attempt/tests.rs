//! Batches through a store that fails in every way a store may.

mod takeovers;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use fastrand::Rng;
use futures_util::FutureExt as _;

use super::*;
use crate::{
    domain::{MessageId, Timestamp},
    store::{NewChat, memory::MemoryStore},
    testing::{Fault, Op, ScriptStore, TestClock, chat_id, for_seeds, key, row, user},
};

const REFUSED: &str = "the store refuses this";

/// What goes wrong, and what other writers do meanwhile.
struct Chaos {
    rng: Rng,
    memory: Arc<MemoryStore>,
    /// Commits whose answer was lost and which are still on their way.
    late: Vec<Vec<Row>>,
    /// Keys of ours, which another writer may store first.
    keys: Vec<(ChatId, Row)>,
    foreign: HashSet<MessageId>,
    /// Calls that may still fail: a store that never comes back shows nothing.
    faults: usize,
    /// An outcome that was lost has not been looked up yet.
    unknown: bool,
    seen: Seen,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    unavailable: usize,
    lost: usize,
    done_and_lost: usize,
    late: usize,
    foreign: usize,
    foreign_duplicates: usize,
    duplicates: usize,
    refused: usize,
    held: usize,
    stale: usize,
}

fn same_post(theirs: &Row, ours: &Row) -> bool {
    ours.client_message_id.is_some()
        && theirs.client_message_id == ours.client_message_id
        && theirs.from == ours.from
}

fn memory_append(memory: &MemoryStore, rows: Vec<Row>) -> bool {
    let done = memory.append(0, Arc::new(rows)).now_or_never();
    done.expect("memory does not wait").is_ok()
}

fn history(memory: &MemoryStore, chat: ChatId) -> Vec<Row> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let page = memory.page(chat, Page::After(0), usize::MAX, deadline);
    page.now_or_never().unwrap().unwrap()
}

impl Chaos {
    fn before(&mut self, op: &Op<'_>) -> Fault {
        let append = matches!(op, Op::Append(_));
        assert!(
            !(append && self.unknown),
            "P8: tried again before it was looked up"
        );
        let fault = self.fault(op);
        self.unknown = match fault {
            Fault::Lost | Fault::DoneAndLost => true,
            Fault::None => false,
            _ => self.unknown,
        };
        fault
    }

    fn fault(&mut self, op: &Op<'_>) -> Fault {
        if !self.late.is_empty() && self.rng.bool() {
            let rows = self.late.remove(0);
            if memory_append(&self.memory, rows) {
                self.seen.late += 1;
            }
        }
        if self.faults == 0 {
            return self.refuse(op);
        }
        self.faults -= 1;
        match op {
            Op::Append(rows) => {
                if self.rng.u8(..5) == 0 {
                    self.intrude();
                }
                match self.rng.u8(..10) {
                    0..2 => {
                        self.seen.unavailable += 1;
                        Fault::Unavailable
                    }
                    2 => {
                        self.seen.lost += 1;
                        Fault::Lost
                    }
                    3..5 if self.refuse(op) == Fault::None => {
                        self.seen.done_and_lost += 1;
                        Fault::DoneAndLost
                    }
                    5 if self.refuse(op) == Fault::None => {
                        self.late.push(rows.to_vec());
                        Fault::Lost
                    }
                    6 => {
                        self.end_late();
                        if self.rng.bool() {
                            self.seen.stale += 1;
                            return Fault::Stale;
                        }
                        self.seen.held += 1;
                        let chat = self.rng.choice(*rows).unwrap().chat;
                        Fault::Locked(self.rng.bool().then_some(chat))
                    }
                    _ => self.refuse(op),
                }
            }
            _ if self.rng.u8(..4) == 0 => Fault::Unavailable,
            _ => Fault::None,
        }
    }

    /// Whoever is held up has ended what was under way before.
    fn end_late(&mut self) {
        for rows in std::mem::take(&mut self.late) {
            if self.rng.bool() && memory_append(&self.memory, rows) {
                self.seen.late += 1;
            }
        }
    }

    fn refuse(&mut self, op: &Op<'_>) -> Fault {
        match op {
            Op::Append(rows) if rows.iter().any(|row| &*row.text == REFUSED) => Fault::Refused,
            _ => Fault::None,
        }
    }

    /// Another writer stores messages of its own, some of them retries of ours.
    fn intrude(&mut self) {
        let chat = chat_id(self.rng.i64(1..=3));
        for _ in 0..self.rng.usize(1..4) {
            let stored = history(&self.memory, chat);
            let at = stored.last().map_or(0, |row| row.created_at.0);
            let mut theirs = row(chat, stored.len() as Seq + 1, "eve", "foreign");
            theirs.created_at = Timestamp(at + self.rng.i64(0..200));
            let ours = self.rng.choice(&self.keys).cloned();
            if let Some((_, ours)) = ours.filter(|(of, _)| *of == chat)
                && self.rng.bool()
                && !stored.iter().any(|row| same_post(row, &ours))
            {
                theirs.from = ours.from;
                theirs.client_message_id = ours.client_message_id;
                if self.rng.u8(..4) > 0 {
                    theirs.text = ours.text;
                }
                self.seen.foreign_duplicates += 1;
            }
            self.foreign.insert(theirs.id);
            self.seen.foreign += 1;
            assert!(memory_append(&self.memory, vec![theirs]));
        }
    }
}

fn new_chats(memory: &MemoryStore) {
    for _ in 0..3 {
        let chat = NewChat {
            client_chat_id: None,
            created_by: user("bob"),
            created_at: Timestamp(0),
            members: vec![user("bob")],
        };
        memory.create_chat(chat).now_or_never().unwrap().unwrap();
    }
}

/// A batch of random rows behind what the chats hold.
fn batch(rng: &mut Rng, memory: &MemoryStore, number: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for chat in 1..=3 {
        let chat = chat_id(chat);
        let stored = history(memory, chat);
        let last = stored.last().map_or(Timestamp(0), |row| row.created_at);
        for at in 0..rng.usize(..6) {
            let text = if rng.u8(..8) == 0 { REFUSED } else { "ours" };
            let mut row = row(chat, (stored.len() + at) as Seq + 1, "bob", text);
            row.created_at = Timestamp(last.0 + 10);
            if rng.bool() {
                row.client_message_id = key(&format!("{number}-{at}"));
            }
            rows.push(row);
        }
    }
    rows
}

/// One batch after another through one troubled store.
async fn script(rng: &mut Rng) -> Seen {
    let memory = Arc::new(MemoryStore::new());
    new_chats(&memory);
    let chaos = Arc::new(Mutex::new(Chaos {
        rng: rng.fork(),
        memory: memory.clone(),
        late: Vec::new(),
        keys: Vec::new(),
        foreign: HashSet::new(),
        faults: 0,
        unknown: false,
        seen: Seen::default(),
    }));
    let scripted = chaos.clone();
    let store = ScriptStore::new(memory.clone(), move |op| {
        let fault = scripted.lock().unwrap().before(&op);
        Box::pin(std::future::ready(fault))
    });
    let clock = TestClock::default();
    let metrics = Metrics::new(1);
    for number in 0..rng.usize(1..4) {
        let rows = batch(rng, &memory, number);
        let known: Vec<usize> = (1..=3)
            .map(|chat| history(&memory, chat_id(chat)).len())
            .collect();
        {
            let mut chaos = chaos.lock().unwrap();
            let keyed = rows.iter().filter(|row| row.client_message_id.is_some());
            chaos.keys = keyed.map(|row| (row.chat, row.clone())).collect();
            chaos.faults = rng.usize(..20);
        }
        let attempt = Attempt::new(0, &store, &clock, &metrics);
        let (landed, _) = attempt.write(rows.clone(), false).await;
        // A commit that is late still may not change what was reported.
        let late = std::mem::take(&mut chaos.lock().unwrap().late);
        for rows in late {
            memory_append(&memory, rows);
        }
        check(&rows, &landed, &memory, &known, &mut chaos.lock().unwrap());
    }
    chaos.lock().unwrap().seen
}

fn check(
    rows: &[Row],
    landed: &[Landed],
    memory: &MemoryStore,
    known: &[usize],
    chaos: &mut Chaos,
) {
    let mut outcomes: HashMap<MessageId, usize> = HashMap::new();
    let mut reported: HashMap<ChatId, Vec<&Row>> = HashMap::new();
    let mut held: HashSet<ChatId> = HashSet::new();
    for one in landed {
        let is_held = matches!(one, Landed::Held(_));
        assert!(
            is_held || !held.contains(&one.chat()),
            "P2: behind a held one"
        );
        match one {
            Landed::Stored(row) => {
                *outcomes.entry(row.id).or_default() += 1;
                assert_ne!(&*row.text, REFUSED);
                reported.entry(row.chat).or_default().push(row);
            }
            Landed::Foreign(row) => {
                assert!(chaos.foreign.contains(&row.id), "not foreign: {row:?}");
                reported.entry(row.chat).or_default().push(row);
            }
            Landed::Duplicate {
                chat,
                id,
                seq,
                created_at,
            } => {
                chaos.seen.duplicates += 1;
                *outcomes.entry(*id).or_default() += 1;
                let ours = rows.iter().find(|row| row.id == *id).unwrap();
                let theirs = &history(memory, *chat)[*seq as usize - 1];
                assert!(
                    same_post(theirs, ours) && theirs.created_at == *created_at,
                    "P5"
                );
                assert_eq!(theirs.text, ours.text, "P5");
                assert!(reported[chat].iter().any(|row| row.seq == *seq));
            }
            Landed::Held(row) => {
                *outcomes.entry(row.id).or_default() += 1;
                let stored = history(memory, row.chat);
                assert!(stored.iter().all(|one| one.id != row.id), "P1: {row:?}");
                held.insert(row.chat);
            }
            Landed::Lost { .. } => panic!("the store has lost nothing: {one:?}"),
            Landed::Refused { id, .. } => {
                chaos.seen.refused += 1;
                *outcomes.entry(*id).or_default() += 1;
                let ours = rows.iter().find(|row| row.id == *id).unwrap();
                let is_id_of_another = |theirs: &Row| {
                    theirs.client_message_id == ours.client_message_id && theirs.text != ours.text
                };
                let clashes = ours.client_message_id.is_some()
                    && history(memory, ours.chat).iter().any(is_id_of_another);
                assert!(&*ours.text == REFUSED || clashes);
            }
            Landed::NoChat { .. } => panic!("no chat is deleted here"),
        }
    }
    assert_eq!(outcomes.len(), rows.len(), "every row has an outcome");
    assert!(outcomes.values().all(|times| *times == 1), "and only one");
    assert!(rows.iter().all(|row| outcomes.contains_key(&row.id)));
    for chat in 1..=3 {
        let stored = history(memory, chat_id(chat));
        for (row, seq) in stored.iter().zip(1..) {
            assert_eq!(row.seq, seq, "P2");
        }
        let in_time = |pair: &[Row]| pair[0].created_at <= pair[1].created_at;
        assert!(stored.windows(2).all(in_time), "time runs back");
        let reported = reported.remove(&chat_id(chat)).unwrap_or_default();
        let first = known[chat as usize - 1];
        for (row, stored) in reported.iter().zip(&stored[first..]) {
            assert_eq!(*row, stored, "P1: reported as it is stored");
        }
        assert!(first + reported.len() <= stored.len());
        let silent = &stored[first + reported.len()..];
        let theirs = |row: &Row| chaos.foreign.contains(&row.id);
        assert!(silent.iter().all(theirs), "ours, and not reported");
        let mut keys = HashSet::new();
        let keyed = stored.iter().filter(|row| row.client_message_id.is_some());
        for row in keyed {
            let new = keys.insert((row.from.clone(), row.client_message_id.clone()));
            assert!(new, "P5: {row:?} stored twice");
        }
    }
}

#[test]
fn p1_p2_p5_p8_batches_through_a_troubled_store() {
    let mut total = Seen::default();
    for_seeds(3_000, |rng| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let seen = runtime.block_on(async {
            let hour = Duration::from_secs(3_600);
            let script = tokio::time::timeout(hour, script(rng));
            script.await.expect("a batch never ended")
        });
        total.unavailable += seen.unavailable;
        total.lost += seen.lost;
        total.done_and_lost += seen.done_and_lost;
        total.late += seen.late;
        total.foreign += seen.foreign;
        total.foreign_duplicates += seen.foreign_duplicates;
        total.duplicates += seen.duplicates;
        total.refused += seen.refused;
        total.held += seen.held;
        total.stale += seen.stale;
    });
    println!("{total:?}");
    if std::env::var("CHAT_TEST_SEED").is_err() {
        assert!(total.unavailable > 100 && total.lost > 100 && total.done_and_lost > 100);
        assert!(total.late > 100 && total.foreign > 100 && total.refused > 100);
        assert!(total.held > 100 && total.stale > 100);
        assert!(total.foreign_duplicates > 100 && total.duplicates > 100);
    }
}

/// The row that is looked up goes with its chat, and those of other chats, which
/// were committed with it, are not written again.
#[tokio::test(start_paused = true)]
async fn p5_p8_a_lost_answer_and_a_chat_deleted_by_another_server() {
    let memory = Arc::new(MemoryStore::new());
    new_chats(&memory);
    let gone = chat_id(1);
    let (appends, deleting) = (AtomicUsize::new(0), memory.clone());
    let store = ScriptStore::new(memory.clone(), move |op| {
        let fault = match op {
            Op::Append(_) if appends.fetch_add(1, Ordering::Relaxed) == 0 => Fault::DoneAndLost,
            _ => Fault::None,
        };
        if matches!(op, Op::Page(_)) {
            let deleted = deleting.delete_chat(gone, None).now_or_never();
            deleted.expect("memory does not wait").unwrap();
        }
        Box::pin(std::future::ready(fault))
    });
    let rows: Vec<Row> = (1..=2)
        .map(|chat| row(chat_id(chat), 1, "bob", "ours"))
        .collect();
    let clock = TestClock::default();
    let metrics = Metrics::new(1);
    let attempt = Attempt::new(0, &store, &clock, &metrics);
    let (landed, attempts) = attempt.write(rows, false).await;
    assert_eq!(history(&memory, chat_id(2)).len(), 1, "{landed:?}");
    assert_eq!(attempts, 1);
    let stored = |one: &Landed| matches!(one, Landed::Stored(_));
    assert!(landed.len() == 2 && landed.iter().all(stored), "{landed:?}");
}

/// A chat that is deleted by another server, its rows not yet removed: their
/// seqs are taken, and nothing shows them.
#[tokio::test(start_paused = true)]
async fn p8_a_chat_deleted_by_another_server_holds_nobody_up() {
    let landed = conflict_unseen(true).await;
    let lost = landed
        .iter()
        .filter(|one| matches!(one, Landed::NoChat { .. }));
    assert_eq!((lost.count(), landed.len()), (3, 9));
}

/// The same without an explanation.
#[tokio::test(start_paused = true)]
async fn p8_a_conflict_with_rows_that_cannot_be_seen_holds_nobody_up() {
    let landed = conflict_unseen(false).await;
    let refused = landed
        .iter()
        .filter(|one| matches!(one, Landed::Refused { .. }));
    assert_eq!((refused.count(), landed.len()), (3, 9));
}

/// Three messages to each of three chats, of which the second conflicts with
/// what no page shows.
async fn conflict_unseen(deleted: bool) -> Vec<Landed> {
    let memory = Arc::new(MemoryStore::new());
    new_chats(&memory);
    let gone = chat_id(2);
    if deleted {
        memory.delete_chat(gone, None).await.unwrap();
    }
    let calls = AtomicUsize::new(0);
    let store = ScriptStore::new(memory.clone(), move |op| {
        let calls = calls.fetch_add(1, Ordering::Relaxed);
        assert!(calls < 1_000, "the batch never ends");
        let conflict = matches!(op, Op::Append(rows) if rows.iter().any(|row| row.chat == gone));
        let fault = match op {
            Op::Page(chat) if chat == gone => Fault::Short(0),
            _ if conflict => Fault::Conflict,
            _ => Fault::None,
        };
        Box::pin(std::future::ready(fault))
    });
    let rows: Vec<Row> = [1, 2, 3]
        .into_iter()
        .flat_map(|chat| (1..=3).map(move |seq| row(chat_id(chat), seq, "bob", "ours")))
        .collect();
    let clock = TestClock::default();
    let metrics = Metrics::new(1);
    let attempt = Attempt::new(0, &store, &clock, &metrics);
    let (landed, _) = attempt.write(rows, false).await;
    let out = |one: &&Landed| !matches!(one, Landed::Stored(_));
    assert!(landed.iter().filter(out).all(|one| one.chat() == gone));
    assert_eq!(history(&memory, chat_id(3)).len(), 3);
    landed
}
