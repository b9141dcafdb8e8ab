//! The store in PostgreSQL. The app opens it, spawns its [`PostgresStore::purge`]
//! and hands it on as a [`Store`].
//!
//! Invariants:
//! 1. A batch is one transaction on its lane's own session, and like every change
//!    of a chat it sets its `synchronous_commit`, at least `on`, for itself; only
//!    an answer to COMMIT without a cancelled wait for a standby makes it `Ok` (P1).
//! 2. A lane that gave up a session with a batch under way writes nothing until
//!    that session's backend is gone, so no batch lies in wait behind another.
//! 3. Every read asks for the chat's row: a deleted chat is out of sight before
//!    its messages are removed.
//! 4. No call outlasts its deadline or its own bound, whatever the server does.
//! 5. Behind a pooler, nothing outlives a transaction: no setting, no prepared
//!    statement, no lock. A connection shows whether it is one (`connect`).
//! 6. As a node of a cluster, every transaction that writes a chat, but for the one
//!    that makes it, is refused once the node was declared gone: see `standing`.
//! 7. Every session writes when it is made; one that is found not to, or silent,
//!    is not used again, nor are those made before it.

mod activity;
mod cancel;
mod chats;
mod connect;
mod copy;
mod current;
mod dsn;
mod error;
mod lane;
mod migrate;
mod places;
mod pool;
mod purge;
mod reads;
mod registry;
mod servers;
mod session;
mod settings;
pub mod sql;
mod standing;
mod tls;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::{join, join_all, join4};
use tokio::sync::{Notify, watch};

use self::{
    connect::Connector,
    dsn::Dsn,
    lane::Lane,
    pool::{Answer, Params, Pool, Query},
};
use super::{Activity, ChatRecord, Lineage, NewChat, Page, Store, StoreResult, Walk};
use crate::{
    cluster::NodeId,
    domain::{ChatId, ClientChatId, Current, Row, Seq, Target, UserName},
    telemetry::chain,
};

pub use error::{ConnectError, OpenError};
pub use migrate::Inspection;
pub use registry::Registry;
pub use settings::{Settings, Spawner};

/// Readings at once for which there are connections before anybody reads.
const WARM_READERS: usize = 2;

pub struct PostgresStore {
    connector: Connector,
    lanes: Vec<Arc<Lane>>,
    pool: Pool,
    write_timeout: Duration,
    activity_epoch: Duration,
    purge_wake: Notify,
}

/// Which database `dsn` means, where and as whom, without the password.
///
/// # Errors
/// If it can't be read.
pub fn described(dsn: &str) -> Result<String, OpenError> {
    Dsn::parse(dsn).map(|dsn| dsn.to_string())
}

/// Brings the database up to date without opening the store.
///
/// # Errors
/// If the address is bad, the database does not answer, is newer than this
/// program, or refuses a migration.
pub async fn migrate(settings: &Settings) -> Result<(), OpenError> {
    migrate::run(&Connector::new(settings)?).await
}

/// The table of a cluster's nodes, of a database that nothing else is done with.
///
/// # Errors
/// What is in the way, in words.
pub async fn table_of_nodes(settings: &Settings) -> Result<crate::cluster::Table, String> {
    let connector = Connector::new(settings).map_err(|error| chain(&error).to_string())?;
    let table = Registry::new(connector).table().await;
    table.map_err(|error| chain(&error).to_string())
}

/// Looks at a database and changes nothing.
///
/// # Errors
/// If the address is bad or the database does not answer.
pub async fn inspect(settings: &Settings) -> Result<Inspection, OpenError> {
    migrate::inspect(&Connector::new(settings)?).await
}

impl PostgresStore {
    /// Migrates the database and opens the store.
    ///
    /// # Errors
    /// As [`migrate`].
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        let connector = Connector::new(&settings)?;
        migrate::run(&connector).await?;
        let lane = |index| Arc::new(Lane::new(index, connector.clone(), &settings));
        let lanes = (0..settings.lanes.max(1)).map(lane).collect();
        Ok(Self {
            pool: Pool::new(&settings, connector.clone()).await?,
            connector,
            lanes,
            write_timeout: settings.write_timeout,
            activity_epoch: settings.activity_epoch,
            purge_wake: Notify::new(),
        })
    }

    /// From now on chats are written as this node of a cluster, which is in the database
    /// ([`Registry::join`]), or as none's. What is under way goes on as before. Once the
    /// node was declared gone, appends and changes of a chat answer
    /// [`StoreError::Stale`](super::StoreError::Stale), until the store stands as another.
    pub fn stand_as(&self, node: Option<NodeId>) {
        self.connector.standing.set(node);
    }

    /// The table of the cluster's nodes and partitions, on a session of its own.
    pub fn registry(&self) -> Registry {
        Registry::new(self.connector.clone())
    }

    /// Removes the messages of deleted chats in the background, writes when chats were
    /// active, gives up connections that lanes have no place for, and sees whether the
    /// server is still the same, until the store is closed. To be spawned once; any number of servers may be at
    /// it.
    pub async fn purge(&self) {
        let purge = purge::purge(&self.connector, &self.purge_wake);
        let activity = activity::keep(&self.connector, &self.lanes, self.activity_epoch);
        tokio::select! {
            _ = join4(purge, activity, self.pool.give_way(), self.pool.watch()) => {}
            () = self.connector.closed() => {}
        }
    }

    async fn write(
        &self,
        query: Query,
        params: Params<'_>,
        as_of: Option<u64>,
    ) -> StoreResult<Answer> {
        let deadline = Instant::now() + self.write_timeout;
        self.pool.write(deadline, query, params, as_of).await
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("lanes", &self.lanes.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn create_chat(&self, chat: NewChat) -> StoreResult<ChatId> {
        self.make(chat).await
    }

    async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>> {
        self.pool.load_chat(chat, newest, deadline).await
    }

    async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool> {
        self.pool.has_member(chat, users, deadline).await
    }

    async fn share_a_chat(
        &self,
        user: &UserName,
        other: &UserName,
        deadline: Instant,
    ) -> StoreResult<bool> {
        self.pool.share_a_chat(user, other, deadline).await
    }

    async fn made_by(&self, user: &UserName, most: usize, deadline: Instant) -> StoreResult<usize> {
        self.pool.made_by(user, most, deadline).await
    }

    async fn made_as(
        &self,
        user: &UserName,
        id: &ClientChatId,
        deadline: Instant,
    ) -> StoreResult<Option<ChatId>> {
        self.pool.made_as(user, id, deadline).await
    }

    async fn delete_chat(&self, chat: ChatId, as_of: Option<u64>) -> StoreResult<bool> {
        let deleted = self
            .write(Query::DeleteChat, &[&chat.get()], as_of)
            .await?
            .count
            > 0;
        if deleted {
            self.purge_wake.notify_one();
        }
        Ok(deleted)
    }

    async fn add_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        let users: Vec<&str> = users.iter().map(|u| &**u).collect();
        self.write(Query::AddMembers, &[&chat.get(), &users], as_of)
            .await?;
        Ok(())
    }

    async fn remove_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        let users: Vec<&str> = users.iter().map(|u| &**u).collect();
        self.write(Query::RemoveMembers, &[&chat.get(), &users], as_of)
            .await?;
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
        self.pool.chats_of(user, walk, limit, names, deadline).await
    }

    async fn append(&self, lane: usize, rows: Arc<Vec<Row>>) -> StoreResult<()> {
        self.lanes[lane % self.lanes.len()].append(&rows).await
    }

    async fn confirm(&self, lane: usize, row: &Row) -> StoreResult<bool> {
        self.lanes[lane % self.lanes.len()].confirm(row).await
    }

    async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        self.pool.page(chat, page, limit, deadline).await
    }

    async fn current(
        &self,
        chat: ChatId,
        viewer: &UserName,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Current>> {
        self.pool.current(chat, viewer, page, limit, deadline).await
    }

    async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>> {
        self.pool.targets(chat, seqs, deadline).await
    }

    async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>> {
        self.pool.last_seqs(chats, deadline).await
    }

    async fn strangers(
        &self,
        readers: &[(ChatId, UserName)],
        deadline: Instant,
    ) -> StoreResult<Vec<(ChatId, UserName)>> {
        self.pool.strangers(readers, deadline).await
    }

    fn lineage(&self) -> Option<watch::Receiver<Lineage>> {
        Some(self.connector.servers().watch())
    }

    async fn warm(&self, deadline: Instant) {
        let lanes = join_all(self.lanes.iter().map(|lane| lane.warm()));
        let reads = join_all((0..WARM_READERS).map(|_| self.pool.ping(deadline)));
        _ = tokio::time::timeout_at(deadline.into(), join(lanes, reads)).await;
    }

    async fn ping(&self, deadline: Instant) -> StoreResult<()> {
        self.pool.ping(deadline).await
    }

    async fn close(&self) {
        self.connector.close();
        self.pool.close();
        join_all(self.lanes.iter().map(|lane| lane.close())).await;
    }
}
