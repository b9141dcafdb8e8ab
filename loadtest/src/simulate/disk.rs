//! What the database has committed. It survives every crash of the server.
//!
//! A commit is put in with the time at which it takes effect, and stays put in
//! when its caller dies: so it can land late, also after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use chat_service::{
    domain::{ChatId, Row, Seq, UserName},
    store::{ChatRecord, NewChat, Page},
};

#[derive(Default)]
pub struct Disk {
    last_id: i64,
    last_ticket: u64,
    pub chats: BTreeMap<ChatId, DiskChat>,
    pending: BTreeMap<(Instant, u64), Arc<Vec<Row>>>,
    /// Commits that somebody waits for, and whether they took effect.
    outcomes: BTreeMap<u64, bool>,
    /// The commits, each with its rows from the last to the first.
    log: Vec<Vec<(ChatId, Seq)>>,
    /// What has been committed since [`Disk::take_news`] was last asked.
    news: Vec<Row>,
    /// A fault of the simulation itself: rows go over others.
    pub overwrites: bool,
}

pub struct DiskChat {
    record: ChatRecord,
    /// Dense from 1.
    rows: Vec<Row>,
    pub deleted: bool,
    /// Put there by another server.
    pub foreign: BTreeSet<Seq>,
}

impl DiskChat {
    pub fn last_seq(&self) -> Seq {
        self.rows.len() as Seq
    }

    pub fn members(&self) -> &[UserName] {
        &self.record.members
    }

    pub fn row(&self, seq: Seq) -> Option<&Row> {
        self.rows.get(usize::try_from(seq - 1).ok()?)
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn record(&self) -> ChatRecord {
        ChatRecord {
            last_seq: self.last_seq(),
            member_count: self.record.members.len(),
            ..self.record.clone()
        }
    }

    /// Loses its newest messages: a fault of the simulation itself.
    pub fn forget(&mut self, rows: usize) {
        let keep = self.rows.len().saturating_sub(rows);
        self.rows.truncate(keep);
    }
}

impl Disk {
    pub fn create(&mut self, chat: NewChat) -> ChatId {
        self.last_id += 1;
        let id = ChatId::new(self.last_id).expect("greater than 0");
        let record = ChatRecord {
            id,
            created_by: chat.created_by,
            created_at: chat.created_at,
            member_count: chat.members.len(),
            members: chat.members,
            last_seq: 0,
        };
        let chat = DiskChat {
            record,
            rows: Vec::new(),
            deleted: false,
            foreign: BTreeSet::new(),
        };
        self.chats.insert(id, chat);
        id
    }

    /// All chats that there were.
    pub fn ids(&self) -> impl Iterator<Item = ChatId> {
        self.chats.keys().copied()
    }

    /// The chat, unless it is deleted.
    pub fn chat(&self, id: ChatId) -> Option<&DiskChat> {
        self.chats.get(&id).filter(|chat| !chat.deleted)
    }

    pub fn chat_mut(&mut self, id: ChatId) -> Option<&mut DiskChat> {
        self.chats.get_mut(&id).filter(|chat| !chat.deleted)
    }

    pub fn add_members(&mut self, id: ChatId, users: &[UserName]) {
        if let Some(chat) = self.chat_mut(id) {
            for user in users {
                if !chat.record.members.contains(user) {
                    chat.record.members.push(user.clone());
                }
            }
        }
    }

    pub fn remove_members(&mut self, id: ChatId, users: &[UserName]) {
        if let Some(chat) = self.chat_mut(id) {
            chat.record.members.retain(|user| !users.contains(user));
        }
    }

    pub fn page(&self, id: ChatId, page: Page, limit: usize) -> Vec<Row> {
        let rows = self.chat(id).map_or(&[][..], DiskChat::rows);
        match page {
            Page::After(seq) => {
                let first = (seq.max(0) as usize).min(rows.len());
                rows[first..].iter().take(limit).cloned().collect()
            }
            Page::Before(seq) => {
                let end = (seq.max(1) as usize - 1).min(rows.len());
                rows[end.saturating_sub(limit)..end].to_vec()
            }
        }
    }

    /// Has the rows committed at a time, all or none.
    pub fn commit_at(&mut self, at: Instant, rows: Arc<Vec<Row>>) -> u64 {
        self.last_ticket += 1;
        self.pending.insert((at, self.last_ticket), rows);
        self.last_ticket
    }

    /// Takes back what has not happened yet. False if it has.
    pub fn revoke(&mut self, ticket: u64) -> bool {
        let before = self.pending.len();
        self.pending.retain(|(_, at), _| *at != ticket);
        self.pending.len() < before
    }

    /// Loses the newest commits, and all that has not happened yet.
    pub fn take_over(&mut self, commits: usize) -> Vec<Row> {
        self.pending.clear();
        let mut lost = Vec::new();
        let keep = self.log.len().saturating_sub(commits);
        for (id, seq) in self.log.drain(keep..).rev().flatten() {
            let chat = self.chats.get_mut(&id);
            if let Some(chat) = chat.filter(|chat| chat.last_seq() == seq) {
                lost.extend(chat.rows.pop());
                chat.foreign.remove(&seq);
            }
        }
        lost
    }

    /// Whether a commit took effect, once it has been tried.
    pub fn outcome(&mut self, ticket: u64) -> Option<bool> {
        self.outcomes.remove(&ticket)
    }

    /// Lets happen what was to happen by now.
    pub fn settle(&mut self, now: Instant) {
        while let Some(first) = self.pending.first_entry()
            && first.key().0 <= now
        {
            let ((_, ticket), rows) = first.remove_entry();
            let done = self.commit(&rows, false);
            self.outcomes.insert(ticket, done);
        }
    }

    /// Commits, unless a seq is taken.
    pub fn commit(&mut self, rows: &[Row], foreign: bool) -> bool {
        let taken = |row: &Row| {
            let chat = self.chats.get(&row.chat);
            chat.is_some_and(|chat| row.seq <= chat.last_seq())
        };
        if !self.overwrites && rows.iter().any(taken) {
            return false;
        }
        for row in rows {
            // What a chat that is gone still gets goes where its messages went.
            let Some(chat) = self.chats.get_mut(&row.chat) else {
                continue;
            };
            match (row.seq - 1) as usize {
                at if at < chat.rows.len() => chat.rows[at] = row.clone(),
                _ => chat.rows.push(row.clone()),
            }
            if foreign {
                chat.foreign.insert(row.seq);
            }
            self.news.push(row.clone());
        }
        let rows = rows.iter().rev().map(|row| (row.chat, row.seq));
        self.log.push(rows.collect());
        true
    }

    pub fn take_news(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.news)
    }
}
