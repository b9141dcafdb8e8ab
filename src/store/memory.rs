//! A store without a disk, for tests and benchmarks (`--store memory`). It keeps
//! every rule of [`Store`] but survival.

mod chats;
mod entries;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;

use super::{Activity, ChatRecord, NewChat, Page, Store, StoreError, StoreResult, Walk};
use crate::domain::{ChatId, ClientChatId, Current, Row, Seq, Target, UserName};

#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    last_id: i64,
    chats: HashMap<ChatId, Chat>,
    /// The chats of a user, so that a list does not look at all chats.
    of_user: HashMap<UserName, Vec<ChatId>>,
    made_as: HashMap<(UserName, ClientChatId), ChatId>,
}

struct Chat {
    /// `last_seq` is not kept here but taken from `messages`.
    record: ChatRecord,
    messages: BTreeMap<Seq, Row>,
    /// What has happened to each message.
    about: BTreeMap<Seq, Vec<Seq>>,
}

impl Chat {
    fn last_seq(&self) -> Seq {
        self.messages.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    fn record(&self) -> ChatRecord {
        ChatRecord {
            last_seq: self.last_seq(),
            member_count: self.record.members.len(),
            ..self.record.clone()
        }
    }

    fn activity(&self) -> Activity {
        let newest = self.messages.last_key_value();
        Activity {
            at: newest.map_or(self.record.created_at, |(_, row)| row.created_at),
            chat: self.record.id,
        }
    }

    fn before(&self, seq: Seq, limit: usize) -> Vec<Row> {
        let newest = self.messages.range(..seq).rev().take(limit);
        let mut rows: Vec<_> = newest.map(|(_, row)| row.clone()).collect();
        rows.reverse();
        rows
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses a message, as a real store may by a failover or an operator's hand.
    #[cfg(any(test, feature = "testing"))]
    pub fn lose(&self, chat: ChatId, seq: Seq) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chat) = state.chats.get_mut(&chat) {
            chat.messages.remove(&seq);
        }
    }

    /// No method leaves the state half changed when it panics, so a poisoned
    /// lock is taken.
    fn state(&self) -> StoreResult<MutexGuard<'_, State>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("the store is closed".into()));
        }
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn state_by(&self, deadline: Instant) -> StoreResult<MutexGuard<'_, State>> {
        if Instant::now() >= deadline {
            return Err(StoreError::Unavailable("the deadline has passed".into()));
        }
        self.state()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create_chat(&self, chat: NewChat) -> StoreResult<ChatId> {
        self.state()?.make(chat)
    }

    async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>> {
        let state = self.state_by(deadline)?;
        let chat = state.chats.get(&chat);
        Ok(chat.map(|chat| (chat.record(), chat.before(Seq::MAX, newest))))
    }

    async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool> {
        let state = self.state_by(deadline)?;
        let members = state.chats.get(&chat).map(|chat| &chat.record.members);
        Ok(members.is_some_and(|members| members.iter().any(|user| users.contains(user))))
    }

    async fn share_a_chat(
        &self,
        user: &UserName,
        other: &UserName,
        deadline: Instant,
    ) -> StoreResult<bool> {
        let state = self.state_by(deadline)?;
        let of = |user| state.of_user.get(user).map_or(&[][..], Vec::as_slice);
        let own = of(user);
        Ok(of(other).iter().any(|chat| own.contains(chat)))
    }

    async fn made_by(&self, user: &UserName, most: usize, deadline: Instant) -> StoreResult<usize> {
        let state = self.state_by(deadline)?;
        let made = state
            .chats
            .values()
            .filter(|chat| chat.record.created_by == *user);
        Ok(made.take(most).count())
    }

    async fn made_as(
        &self,
        user: &UserName,
        id: &ClientChatId,
        deadline: Instant,
    ) -> StoreResult<Option<ChatId>> {
        let state = self.state_by(deadline)?;
        Ok(state.made_as.get(&(user.clone(), id.clone())).copied())
    }

    async fn delete_chat(&self, chat: ChatId, _as_of: Option<u64>) -> StoreResult<bool> {
        let mut state = self.state()?;
        let Some(gone) = state.chats.remove(&chat) else {
            return Ok(false);
        };
        state.forget(gone);
        Ok(true)
    }

    async fn add_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        _as_of: Option<u64>,
    ) -> StoreResult<()> {
        let state = &mut *self.state()?;
        if let Some(found) = state.chats.get_mut(&chat) {
            for user in users {
                if !found.record.members.contains(&user) {
                    state.of_user.entry(user.clone()).or_default().push(chat);
                    found.record.members.push(user);
                }
            }
        }
        Ok(())
    }

    async fn remove_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        _as_of: Option<u64>,
    ) -> StoreResult<()> {
        let mut state = self.state()?;
        if let Some(found) = state.chats.get_mut(&chat) {
            found
                .record
                .members
                .retain(|member| !users.contains(member));
            for user in &users {
                state.leave(user, chat);
            }
        }
        Ok(())
    }

    async fn chats_of(
        &self,
        user: &UserName,
        walk: Walk,
        limit: usize,
        names: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<(Activity, ChatRecord)>> {
        let state = self.state_by(deadline)?;
        let ids = state.of_user.get(user).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<(Activity, &Chat)> = ids
            .iter()
            .filter_map(|id| state.chats.get(id))
            .map(|chat| (chat.activity(), chat))
            .filter(|(activity, _)| match walk {
                Walk::Down(behind) => behind.is_none_or(|behind| *activity < behind),
                Walk::Up(above) => *activity > above,
            })
            .collect();
        found.sort_unstable_by_key(|(activity, _)| *activity);
        if matches!(walk, Walk::Down(_)) {
            found.reverse();
        }
        found.truncate(limit);
        let listed = found.into_iter().map(|(at, chat)| {
            let mut record = chat.record();
            record.members.truncate(names);
            (at, record)
        });
        Ok(listed.collect())
    }

    async fn append(&self, _lane: usize, rows: Arc<Vec<Row>>) -> StoreResult<()> {
        let mut state = self.state()?;
        let taken = |row: &Row| {
            let chat = state.chats.get(&row.chat);
            chat.is_some_and(|chat| chat.messages.contains_key(&row.seq))
        };
        if rows.iter().any(taken) {
            return Err(StoreError::Conflict);
        }
        for row in rows.iter() {
            // What a deleted chat still gets goes where its messages went.
            if let Some(chat) = state.chats.get_mut(&row.chat) {
                chat.insert(row.clone());
            }
        }
        Ok(())
    }

    async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        let state = self.state_by(deadline)?;
        let Some(chat) = state.chats.get(&chat) else {
            return Ok(Vec::new());
        };
        Ok(match page {
            Page::After(Seq::MAX) => Vec::new(),
            Page::After(seq) => {
                let oldest = chat.messages.range(seq + 1..).take(limit);
                oldest.map(|(_, row)| row.clone()).collect()
            }
            Page::Before(seq) => chat.before(seq, limit),
        })
    }

    async fn current(
        &self,
        chat: ChatId,
        viewer: &UserName,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Current>> {
        let state = self.state_by(deadline)?;
        let Some(chat) = state.chats.get(&chat) else {
            return Ok(Vec::new());
        };
        Ok(chat.current(viewer, page, limit))
    }

    async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>> {
        let state = self.state_by(deadline)?;
        let Some(chat) = state.chats.get(&chat) else {
            return Ok(Vec::new());
        };
        Ok(seqs.iter().filter_map(|seq| chat.target(*seq)).collect())
    }

    async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>> {
        let state = self.state_by(deadline)?;
        let last_seq = |id| state.chats.get(id).map_or(0, Chat::last_seq);
        Ok(chats.iter().map(last_seq).collect())
    }

    async fn ping(&self, deadline: Instant) -> StoreResult<()> {
        self.state_by(deadline).map(drop)
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

impl State {
    fn leave(&mut self, user: &UserName, chat: ChatId) {
        if let Some(chats) = self.of_user.get_mut(user) {
            chats.retain(|id| *id != chat);
            if chats.is_empty() {
                self.of_user.remove(user);
            }
        }
    }
}
