//! The embedded store: a SQLite file in WAL mode with `synchronous = FULL`, one
//! thread that writes and a few that read. Async callers reach the threads
//! through bounded queues and never block their runtime.
//!
//! Invariants:
//! 1. An answer to a write leaves after COMMIT has synced the log (P1).
//! 2. One process has the file, held by a lock on it. Once its path names another
//!    file, or none, nothing is read or acknowledged.
//! 3. A write that has been admitted is carried out, also when its caller goes
//!    away or the store is closed.
//! 4. Messages of a deleted chat are removed bit by bit, by the writer; every
//!    query asks whether the chat exists.
//! 5. What is made here only the server's own user can read.
//! 6. Once a deleted chat's messages are removed and the store is closed, no file of
//!    it has their texts, nor that of a message that was deleted.

mod activity;
mod changes;
mod current;
mod error;
mod files;
mod lists;
mod queries;
mod queue;
mod reader;
mod schema;
mod scrub;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::{Mutex, oneshot};

pub use files::{NoRoom, has_room};
pub use schema::{OpenError, is_open_to_others, look};

use self::{
    files::{Claim, Files},
    queue::{Queue, Thread},
    reader::{Read, read},
    writer::{Change, Job, Writer},
};
use super::{Activity, ChatRecord, NewChat, Page, Store, StoreError, StoreResult, Walk};
use crate::domain::{ChatId, ClientChatId, Current, Row, Seq, Target, UserName};

#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that read.
    pub readers: usize,
    /// Reads that may wait for a thread.
    pub read_queue: usize,
    /// Writes that may wait for the thread.
    pub write_queue: usize,
    /// How long a write waits for a place in the queue.
    pub write_wait: Duration,
    /// Rows at which a transaction takes no further jobs.
    pub transaction_rows: usize,
    /// Cache of each connection, in KiB.
    pub cache_kib: u32,
    /// Size of a page of a new database. Where chats interleave, an append
    /// writes up to a page of the index a row: 2 KiB cost more CPU; 8 KiB
    /// cost less in young databases, but are twice as much to write once each
    /// chat fills pages of its own.
    pub page_bytes: u32,
    /// How much of the file is read through a memory map.
    pub mmap_bytes: u32,
    /// Pages in the log at which it is carried over into the file.
    pub log_pages: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            readers: 2,
            read_queue: 1024,
            write_queue: 256,
            write_wait: Duration::from_secs(5),
            transaction_rows: 20_000,
            cache_kib: 64 * 1024,
            page_bytes: 4096,
            mmap_bytes: 256 * 1024 * 1024,
            log_pages: 32 * 1024,
        }
    }
}

pub struct SqliteStore {
    path: PathBuf,
    write_wait: Duration,
    writes: Queue<Job>,
    reads: Queue<Read>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    readers: Vec<Thread>,
    writer: Option<Thread>,
}

impl SqliteStore {
    /// Opens the file and starts the threads, which end when the store is
    /// dropped. Blocks, so it belongs to the start of a process.
    ///
    /// # Errors
    /// If the file cannot be made, written or understood, or is in use.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, OpenError> {
        let claim = Arc::new(Claim::take(path)?);
        let opened = schema::open(path, &settings).map_err(|error| claim.explain(error))?;
        let files = Arc::new(Files::watch(Arc::clone(&claim))?);
        let no_thread = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let (writes, jobs) = queue::bounded(settings.write_queue);
        let writer = Writer::new(opened.writer, Arc::clone(&files), jobs, settings.clone());
        let writer = writer.map_err(|source| OpenError::Sqlite {
            path: path.to_owned(),
            source,
        })?;
        let (reads, jobs) = queue::bounded(settings.read_queue);
        let mut readers = Vec::new();
        for conn in opened.readers {
            let (files, jobs) = (Arc::clone(&files), jobs.clone());
            let thread = Thread::spawn("sqlite-reader", || reader::run(files, conn, jobs));
            readers.push(thread.map_err(no_thread)?);
        }
        let writer = Thread::spawn("sqlite-writer", || writer.run()).map_err(no_thread)?;
        Ok(Self {
            path: path.to_owned(),
            write_wait: settings.write_wait,
            writes,
            reads,
            threads: Mutex::new(Threads {
                readers,
                writer: Some(writer),
            }),
        })
    }

    async fn write(&self, change: Change) -> StoreResult<i64> {
        let (answer, answered) = oneshot::channel();
        let job = Job { change, answer };
        let deadline = Instant::now() + self.write_wait;
        self.writes.send(job, deadline).await?;
        answered.await.unwrap_or_else(|_| {
            let gone = "the writer gave no answer";
            Err(StoreError::OutcomeUnknown(gone.into()))
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("SqliteStore");
        f.field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create_chat(&self, chat: NewChat) -> StoreResult<ChatId> {
        let id = self.write(Change::Create(chat)).await?;
        ChatId::new(id).map_err(|e| StoreError::Refused(e.into()))
    }

    async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>> {
        read(&self.reads, deadline, move |conn| {
            queries::load_chat(conn, chat, newest)
        })
        .await
    }

    async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool> {
        let users = users.to_vec();
        read(&self.reads, deadline, move |conn| {
            queries::has_member(conn, chat, &users)
        })
        .await
    }

    async fn share_a_chat(
        &self,
        user: &UserName,
        other: &UserName,
        deadline: Instant,
    ) -> StoreResult<bool> {
        let (user, other) = (user.clone(), other.clone());
        read(&self.reads, deadline, move |conn| {
            queries::share_a_chat(conn, &user, &other)
        })
        .await
    }

    async fn made_by(&self, user: &UserName, most: usize, deadline: Instant) -> StoreResult<usize> {
        let user = user.clone();
        read(&self.reads, deadline, move |conn| {
            queries::made_by(conn, &user, most)
        })
        .await
    }

    async fn made_as(
        &self,
        user: &UserName,
        id: &ClientChatId,
        deadline: Instant,
    ) -> StoreResult<Option<ChatId>> {
        let (user, id) = (user.clone(), id.clone());
        read(&self.reads, deadline, move |conn| {
            queries::made_as(conn, &user, &id)
        })
        .await
    }

    async fn delete_chat(&self, chat: ChatId, _as_of: Option<u64>) -> StoreResult<bool> {
        Ok(self.write(Change::Delete(chat)).await? > 0)
    }

    async fn add_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        _as_of: Option<u64>,
    ) -> StoreResult<()> {
        self.write(Change::AddMembers(chat, users)).await.map(drop)
    }

    async fn remove_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        _as_of: Option<u64>,
    ) -> StoreResult<()> {
        let change = Change::RemoveMembers(chat, users);
        self.write(change).await.map(drop)
    }

    async fn chats_of(
        &self,
        user: &UserName,
        walk: Walk,
        limit: usize,
        names: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<(Activity, ChatRecord)>> {
        let user = user.clone();
        read(&self.reads, deadline, move |conn| {
            lists::chats_of(conn, &user, walk, limit, names)
        })
        .await
    }

    /// The writer merges what the lanes have queued, so it need not know them.
    async fn append(&self, _lane: usize, rows: Arc<Vec<Row>>) -> StoreResult<()> {
        self.write(Change::Append(rows)).await.map(drop)
    }

    async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        read(&self.reads, deadline, move |conn| {
            queries::page(conn, chat, page, limit)
        })
        .await
    }

    async fn current(
        &self,
        chat: ChatId,
        viewer: &UserName,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Current>> {
        let viewer = viewer.clone();
        read(&self.reads, deadline, move |conn| {
            current::current(conn, chat, &viewer, page, limit)
        })
        .await
    }

    async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>> {
        let seqs = seqs.to_vec();
        read(&self.reads, deadline, move |conn| {
            current::targets(conn, chat, &seqs)
        })
        .await
    }

    async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>> {
        let chats = chats.to_vec();
        read(&self.reads, deadline, move |conn| {
            queries::last_seqs(conn, &chats)
        })
        .await
    }

    async fn ping(&self, deadline: Instant) -> StoreResult<()> {
        read(&self.reads, deadline, queries::ping).await?;
        let room = files::has_room(&self.path);
        room.map_err(|why| StoreError::Unavailable(why.into()))
    }

    async fn close(&self) {
        self.reads.close();
        self.writes.close();
        let mut threads = self.threads.lock().await;
        for reader in threads.readers.drain(..) {
            reader.join().await;
        }
        if let Some(writer) = threads.writer.take() {
            writer.join().await;
        }
    }
}
