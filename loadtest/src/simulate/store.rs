//! The store that the simulated server works with: the disk behind calls that
//! take their time, fail before they do anything, or lose their answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chat_service::{
    domain::{ChatId, ClientChatId, Current, Row, Seq, Target, UserName},
    store::{Activity, ChatRecord, Lineage, NewChat, Page, Store, StoreError, StoreResult, Walk},
};

use tokio::sync::watch;

use super::{
    mutation::Mutation,
    sim::{Sim, State, now, until},
    weather::{Fate, Outcome},
};

/// So long does a commit wait for a lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// A text that the store refuses begins so.
pub const REFUSED: &str = "refuse ";

/// One server's connection to the disk.
pub struct SimStore {
    sim: Sim,
    /// Lanes with a commit under way.
    busy: Arc<Mutex<BTreeSet<usize>>>,
    /// The lineage that each lane has met last.
    met: Mutex<BTreeMap<usize, u64>>,
    /// Commits of each lane that may come later than their callers were told.
    late: Mutex<BTreeMap<usize, Vec<u64>>>,
    /// At the start.
    lineage: u64,
    /// Most rows that a lane may commit at once.
    batch: usize,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimStore")
    }
}

/// A commit under way. If its caller dies, the commit may live.
struct Commit<'a> {
    store: &'a SimStore,
    lane: usize,
    ticket: Option<u64>,
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        lock(&self.store.busy).remove(&self.lane);
        let mut state = self.store.sim.state();
        if let Some(ticket) = self.ticket
            && state.rng.bool()
            && state.disk.revoke(ticket)
        {
            state.trace.note("commit dies with its caller");
        }
    }
}

impl SimStore {
    pub fn new(sim: Sim, batch: usize) -> Self {
        let lineage = sim.state().lineage.borrow().number;
        Self {
            sim,
            busy: Arc::default(),
            met: Mutex::default(),
            late: Mutex::default(),
            lineage,
            batch,
        }
    }

    /// A read: what it finds is of some moment within the call.
    async fn read<T>(
        &self,
        what: &str,
        deadline: Instant,
        read: impl FnOnce(&mut State) -> T,
    ) -> StoreResult<T> {
        let fate = self.fate(what);
        until((now() + fate.before).min(deadline)).await;
        if now() >= deadline || fate.outcome != Outcome::Done {
            self.sim.note(format!("{what}: unavailable"));
            return Err(unavailable());
        }
        let found = {
            let mut state = self.sim.state();
            state.settle();
            read(&mut state)
        };
        until((now() + fate.after).min(deadline)).await;
        if now() >= deadline {
            return Err(unavailable());
        }
        Ok(found)
    }

    /// A change of a chat or its members.
    /// A change by whoever knows the chat as of this lineage.
    async fn change_as_of<T>(
        &self,
        as_of: Option<u64>,
        what: &str,
        change: impl FnOnce(&mut State) -> T,
    ) -> StoreResult<T> {
        let fenced = |state: &mut State| {
            let told = !matches!(state.mutation, Some(Mutation::HidesTakeovers));
            let lineage = state.lineage.borrow().number;
            match told && as_of.is_some_and(|known| known != lineage) {
                true => Err(StoreError::Replaced),
                false => Ok(change(state)),
            }
        };
        self.change(what, fenced).await?
    }

    async fn change<T>(&self, what: &str, change: impl FnOnce(&mut State) -> T) -> StoreResult<T> {
        let fate = self.fate(what);
        until(now() + fate.before).await;
        let result = match fate.outcome {
            Outcome::Unavailable => Err(unavailable()),
            Outcome::Lost | Outcome::Late(_) => Err(unknown()),
            Outcome::Done | Outcome::DoneAndLost => {
                let mut state = self.sim.state();
                state.settle();
                let changed = change(&mut state);
                if fate.outcome == Outcome::Done {
                    Ok(changed)
                } else {
                    Err(unknown())
                }
            }
        };
        until(now() + fate.after).await;
        self.sim.note(format!("{what}: {:?}", fate.outcome));
        result
    }

    fn fate(&self, what: &str) -> Fate {
        let state = &mut *self.sim.state();
        let fate = state.weather.fate(&mut state.rng);
        state.trace.note(format!("{what} …"));
        fate
    }

    /// Whether the lane meets another server of the database than the last time.
    fn meets_another(&self, lane: usize) -> bool {
        let state = self.sim.state();
        let lineage = state.lineage.borrow().number;
        let met = lock(&self.met).insert(lane, lineage);
        let told = !matches!(
            state.mutation,
            Some(Mutation::HidesTakeovers | Mutation::TellsShardsOnly)
        );
        told && met.unwrap_or(self.lineage) != lineage
    }

    /// Which of the rows' chats somebody has locked.
    fn locked(&self, rows: &[Row]) -> Vec<ChatId> {
        let state = self.sim.state();
        let chats = rows
            .chunk_by(|a, b| a.chat == b.chat)
            .map(|rows| rows[0].chat);
        chats.filter(|chat| state.locked.contains(chat)).collect()
    }

    /// Whoever is told so has ended what was under way before, or it has committed. Of
    /// half of the locks the store can't tell what they are in the way of.
    fn is_in_the_way(&self, lane: usize, mut chats: Vec<ChatId>) -> StoreError {
        let late = lock(&self.late).remove(&lane).unwrap_or_default();
        let state = &mut *self.sim.state();
        state.settle();
        for ticket in late {
            state.disk.revoke(ticket);
        }
        state.model.counts.locked += 1;
        state.trace.note(format!("locked: {chats:?}"));
        chats.retain(|chat| chat.get() % 2 == 0);
        StoreError::Locked(chats)
    }

    /// The shape that the trait promises to every store.
    fn check_batch(&self, lane: usize, rows: &[Row]) {
        if !lock(&self.busy).insert(lane) {
            let what = format!("lane {lane} has two commits under way");
            self.sim.broken("P2", what);
        }
        let mut chats = BTreeSet::new();
        for chat in rows.chunk_by(|a, b| a.chat == b.chat) {
            let dense = chat.windows(2).all(|two| two[0].seq + 1 == two[1].seq);
            let mut times = chat.windows(2).map(|two| two[0].created_at);
            let forward = times.all(|at| at <= chat[chat.len() - 1].created_at);
            if !chats.insert(chat[0].chat) || !dense || !forward {
                self.sim
                    .broken("P2", format!("a batch out of order: {rows:?}"));
            }
        }
        // A submission is never divided, so the last may go over by itself.
        if rows.is_empty() || rows.len() >= 2 * self.batch {
            self.sim
                .broken("P6", format!("a batch of {} rows", rows.len()));
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the weather".into())
}

fn unknown() -> StoreError {
    StoreError::OutcomeUnknown("the weather".into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for SimStore {
    async fn create_chat(&self, chat: NewChat) -> StoreResult<ChatId> {
        self.change("create", |state| state.disk.create(chat)).await
    }

    async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>> {
        let what = format!("load {chat}");
        self.read(&what, deadline, |state| {
            let short = state.mutated(Mutation::ShortTail);
            let found = state.disk.chat(chat)?;
            let mut rows = state.disk.page(chat, Page::Before(Seq::MAX), newest);
            if short {
                rows.drain(..rows.len().saturating_sub(1));
            }
            Some((found.record(), rows))
        })
        .await
    }

    async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool> {
        let what = format!("membership {chat}");
        self.read(&what, deadline, |state| {
            let found = state.disk.chat(chat);
            found.is_some_and(|chat| {
                let members = chat.record().members;
                members.iter().any(|user| users.contains(user))
            })
        })
        .await
    }

    async fn share_a_chat(
        &self,
        _user: &UserName,
        _other: &UserName,
        _deadline: Instant,
    ) -> StoreResult<bool> {
        // Nor for this.
        Err(unavailable())
    }

    async fn made_by(
        &self,
        _user: &UserName,
        _most: usize,
        _deadline: Instant,
    ) -> StoreResult<usize> {
        // The shards have no use for it.
        Err(unavailable())
    }

    async fn made_as(
        &self,
        _user: &UserName,
        _id: &ClientChatId,
        _deadline: Instant,
    ) -> StoreResult<Option<ChatId>> {
        // Nor for this.
        Err(unavailable())
    }

    async fn delete_chat(&self, chat: ChatId, as_of: Option<u64>) -> StoreResult<bool> {
        self.change_as_of(as_of, &format!("delete {chat}"), |state| {
            let found = state.disk.chat_mut(chat);
            found.is_some_and(|chat| !std::mem::replace(&mut chat.deleted, true))
        })
        .await
    }

    async fn add_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        let add = |state: &mut State| state.disk.add_members(chat, &users);
        self.change_as_of(as_of, &format!("add members {chat}"), add)
            .await
    }

    async fn remove_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        self.change_as_of(as_of, &format!("remove members {chat}"), |state| {
            if !state.mutated(Mutation::KeepsMembers) {
                state.disk.remove_members(chat, &users);
            }
        })
        .await
    }

    async fn chats_of(
        &self,
        _user: &UserName,
        _walk: Walk,
        _limit: usize,
        _names: usize,
        _deadline: Instant,
    ) -> StoreResult<Vec<(Activity, ChatRecord)>> {
        // The shards have no use for it.
        Err(unavailable())
    }

    async fn append(&self, lane: usize, rows: Arc<Vec<Row>>) -> StoreResult<()> {
        self.check_batch(lane, &rows);
        let first = &rows[0];
        let what = format!(
            "append {}:{} and {} more",
            first.chat,
            first.seq,
            rows.len() - 1
        );
        let fate = self.fate(&what);
        let refused = rows.iter().any(|row| row.text.starts_with(REFUSED));
        let mut commit = Commit {
            store: self,
            lane,
            ticket: None,
        };
        let at = now() + fate.before;
        if self.meets_another(lane) {
            until(at).await;
            return Err(StoreError::Replaced);
        }
        let locked = self.locked(&rows);
        if !locked.is_empty() {
            until(at + LOCK_TIMEOUT).await;
            return Err(self.is_in_the_way(lane, locked));
        }
        let lineage = self.sim.state().lineage.borrow().number;
        let (ack_only, ack_early) = {
            let mut state = self.sim.state();
            let mutated = (
                state.mutated(Mutation::AcksWithoutStoring),
                state.mutated(Mutation::AcksEarly),
            );
            let at = at + Duration::from_millis(u64::from(mutated.1) * 300);
            let at = match fate.outcome {
                Outcome::Done | Outcome::DoneAndLost => Some(at),
                Outcome::Late(by) => Some(at + by),
                Outcome::Unavailable | Outcome::Lost => None,
            };
            if let Some(at) = at.filter(|_| !refused && !mutated.0) {
                let ticket = state.disk.commit_at(at, rows.clone());
                if matches!(fate.outcome, Outcome::Late(_)) {
                    lock(&self.late).entry(lane).or_default().push(ticket);
                }
                commit.ticket = Some(ticket);
            }
            mutated
        };
        until(at).await;
        let result = {
            let mut state = self.sim.state();
            state.settle();
            let outcome = commit.ticket.take().map(|at| state.disk.outcome(at));
            let taken_over = state.lineage.borrow().number != lineage;
            match fate.outcome {
                // It was the old server's, which has said nothing.
                _ if taken_over => Err(unknown()),
                Outcome::Done if ack_only || ack_early => Ok(()),
                Outcome::Done => match outcome {
                    Some(Some(true)) => {
                        if state.mutated(Mutation::StoresTwice) {
                            state.store_again(&rows);
                        }
                        Ok(())
                    }
                    Some(_) => Err(StoreError::Conflict),
                    None => Err(StoreError::Refused("its text".into())),
                },
                Outcome::Unavailable => Err(unavailable()),
                Outcome::Lost | Outcome::DoneAndLost | Outcome::Late(_) => Err(unknown()),
            }
        };
        let told = match &result {
            Ok(()) => "stored".to_string(),
            Err(error) => error.to_string(),
        };
        self.sim.note(format!("{what}: {told}"));
        until(now() + fate.after).await;
        result
    }

    async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        if limit > 1_000 {
            self.sim.broken("P6", format!("a page of {limit} messages"));
        }
        let what = format!("page {chat} {page:?}");
        self.read(&what, deadline, |state| {
            let most = state.weather.page(&mut state.rng);
            let mut rows = state.disk.page(chat, page, limit.min(most));
            match state.mutation {
                Some(Mutation::PageWithHole) => rows.retain(|row| row.seq % 7 != 3),
                Some(Mutation::PageOfOthers) => {
                    let others = rows.iter_mut().filter(|row| row.seq % 7 == 3);
                    others.for_each(|row| row.text = "not what was stored".into());
                }
                _ => {}
            }
            rows
        })
        .await
    }

    async fn current(
        &self,
        _chat: ChatId,
        _viewer: &UserName,
        _page: Page,
        _limit: usize,
        _deadline: Instant,
    ) -> StoreResult<Vec<Current>> {
        // Nor for this.
        Err(unavailable())
    }

    /// Nobody here changes a message, so that each is as it was posted.
    async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>> {
        self.read(&format!("targets {chat}"), deadline, |state| {
            let chat = state.disk.chat(chat);
            let rows = seqs.iter().filter_map(|seq| chat?.row(*seq));
            let target = |row: &Row| Target {
                row: row.clone(),
                edits: 0,
                reactions: Vec::new(),
            };
            rows.map(target).collect()
        })
        .await
    }

    fn lineage(&self) -> Option<watch::Receiver<Lineage>> {
        let state = self.sim.state();
        let told = !matches!(
            state.mutation,
            Some(Mutation::HidesTakeovers | Mutation::TellsLanesOnly)
        );
        told.then(|| state.lineage.subscribe())
    }

    async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>> {
        self.read("last seqs", deadline, |state| {
            let last = |id: &ChatId| state.disk.chat(*id).map_or(0, |chat| chat.last_seq());
            chats.iter().map(last).collect()
        })
        .await
    }

    async fn ping(&self, deadline: Instant) -> StoreResult<()> {
        self.read("ping", deadline, |_| ()).await
    }

    async fn close(&self) {}
}
