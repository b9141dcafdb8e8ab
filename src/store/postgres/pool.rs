mod lease;
mod locks;

use std::{
    ops::Deref,
    pin::pin,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use bb8::{ManageConnection, RunError};
use futures_util::{TryStreamExt as _, future::try_join_all};
use tokio::{
    sync::Semaphore,
    time::{timeout, timeout_at},
};
use tokio_postgres::{
    Error, Row, Statement,
    types::{ToSql, Type},
};

use self::{lease::Lease, locks::Locks};
use super::{
    Settings,
    connect::Connector,
    error::{Closed, ConnectError, Stalled},
    session::Session,
    sql,
};
use crate::store::{StoreError, StoreResult};

pub(super) use self::lease::missing;

/// How long bb8 tries to connect before it starts over; it also bounds its pause
/// between two attempts, so that a database that is back is found soon.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Between two looks at whose server answers.
const WATCH: Duration = Duration::from_secs(1);

/// Between two connections that are given up so that a lane can have one.
const GIVE_WAY: Duration = Duration::from_millis(50);

/// The pool of connections for everything but messages on their way in.
#[derive(Debug)]
pub(super) struct Pool {
    inner: RwLock<Option<bb8::Pool<Readers>>>,
    connector: Connector,
    locks: Arc<Locks>,
    /// Places for reads that wait for a lock.
    blocked: Arc<Semaphore>,
}

/// What a pooled connection can be asked.
#[derive(Clone, Copy)]
pub(super) enum Query {
    PageAfter,
    PageBefore,
    MessagesAfter,
    MessagesBefore,
    Reactions,
    Targets,
    About,
    Chat,
    HasMember,
    ShareAChat,
    MadeBy,
    MadeAs,
    ChatsOf,
    ChatsAbove,
    LastSeqs,
    Strangers,
    CreateChat,
    AddMembers,
    RemoveMembers,
    DeleteChat,
}

const PAGE: &[Type] = &[Type::INT8, Type::INT8, Type::INT8];
const LISTED: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::INT8];

/// Each [`Query`], and the types of what it is asked with.
const STATEMENTS: [(&str, &[Type]); 20] = [
    (sql::PAGE_AFTER, PAGE),
    (sql::PAGE_BEFORE, PAGE),
    (sql::MESSAGES_AFTER, PAGE),
    (sql::MESSAGES_BEFORE, PAGE),
    (
        sql::REACTIONS,
        &[Type::INT8, Type::INT8, Type::INT8, Type::TEXT],
    ),
    (sql::TARGETS, &[Type::INT8, Type::INT8_ARRAY]),
    (sql::ABOUT, &[Type::INT8, Type::INT8_ARRAY]),
    (sql::CHAT, &[Type::INT8]),
    (sql::HAS_MEMBER, &[Type::INT8, Type::TEXT_ARRAY]),
    (sql::SHARE_A_CHAT, &[Type::TEXT, Type::TEXT]),
    (sql::MADE_BY, &[Type::TEXT, Type::INT8]),
    (sql::MADE_AS, &[Type::TEXT, Type::TEXT]),
    (sql::CHATS_OF, LISTED),
    (sql::CHATS_ABOVE, LISTED),
    (sql::LAST_SEQS, &[Type::INT8_ARRAY]),
    (sql::STRANGERS, &[Type::INT8_ARRAY, Type::TEXT_ARRAY]),
    (
        sql::CREATE_CHAT,
        &[Type::TEXT, Type::INT8, Type::TEXT_ARRAY, Type::TEXT],
    ),
    (sql::ADD_MEMBERS, &[Type::INT8, Type::TEXT_ARRAY]),
    (sql::REMOVE_MEMBERS, &[Type::INT8, Type::TEXT_ARRAY]),
    (sql::DELETE_CHAT, &[Type::INT8]),
];

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What a statement has answered.
pub(super) struct Answer {
    pub rows: Vec<Row>,
    /// Rows that it has changed or returned.
    pub count: u64,
}

impl Pool {
    pub async fn new(settings: &Settings, connector: Connector) -> Result<Self, ConnectError> {
        let pool = bb8::Pool::builder()
            .max_size(u32::try_from(settings.read_connections).unwrap_or(u32::MAX))
            .connection_timeout(ATTEMPT)
            .test_on_check_out(true)
            .build(Readers(connector.clone()))
            .await?;
        Ok(Self {
            inner: RwLock::new(Some(pool)),
            connector,
            locks: Arc::default(),
            blocked: Arc::new(Semaphore::new((settings.read_connections / 2).max(1))),
        })
    }

    /// Asks on one connection, all at once. What a session answers that is of no
    /// use any more is asked again on another.
    pub async fn read<const N: usize>(
        &self,
        deadline: Instant,
        asked: [(Query, Params<'_>); N],
    ) -> StoreResult<[Vec<Row>; N]> {
        let mut lease = self.lease(deadline).await?;
        let mut answer = lease.read(&asked).await;
        if lease.is_worth_another() && !lease.is_blocked() {
            drop(lease);
            lease = self.lease(deadline).await?;
            answer = lease.read(&asked).await;
        }
        if !lease.is_blocked() {
            return answer;
        }
        drop(lease);
        // Who waits for a lock leaves half of the connections to others.
        let place = timeout_at(deadline.into(), self.blocked.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return answer;
        };
        let lease = self.lease(deadline).await?.waiting(place);
        lease.read(&asked).await
    }

    /// Changes something in a transaction of its own, of the lineage `as_of`. A
    /// session that has answered that it is of no use any more has changed nothing.
    pub async fn write(
        &self,
        deadline: Instant,
        query: Query,
        params: Params<'_>,
        as_of: Option<u64>,
    ) -> StoreResult<Answer> {
        let lease = self.lease(deadline).await?;
        let first = lease.write(query, params, as_of).await;
        if !lease.is_worth_another() || matches!(first, Ok(_) | Err(StoreError::OutcomeUnknown(_)))
        {
            return first;
        }
        drop(lease);
        self.lease(deadline)
            .await?
            .write(query, params, as_of)
            .await
    }

    /// Whether reads and changes would go through.
    pub async fn ping(&self, deadline: Instant) -> StoreResult<()> {
        let lease = self.lease(deadline).await?;
        let first = lease.ping().await;
        if !lease.is_worth_another() {
            return first;
        }
        drop(lease);
        self.lease(deadline).await?.ping().await
    }

    /// A connection, if there is one before the deadline.
    async fn lease(&self, deadline: Instant) -> StoreResult<Lease> {
        let pool = self.pool();
        let pool = pool.ok_or_else(|| StoreError::Unavailable(Closed.into()))?;
        let attempts = async {
            loop {
                match pool.get_owned().await {
                    Err(RunError::TimedOut) => {}
                    other => return other,
                }
            }
        };
        let conn = timeout_at(deadline.into(), attempts)
            .await
            .map_err(|_| match self.connector.last_failure() {
                Some(why) => StoreError::Unavailable(why.into()),
                None => StoreError::Unavailable(Stalled.into()),
            })?
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        let (connector, locks) = (self.connector.clone(), self.locks.clone());
        Ok(Lease::new(conn, deadline, connector, locks))
    }

    fn pool(&self) -> Option<bb8::Pool<Readers>> {
        let inner = self.inner.read().unwrap_or_else(|e| e.into_inner());
        inner.clone()
    }

    /// Gives up connections, for ever, while a lane finds that the server has no
    /// place for its own: reads share what is left, but nobody shares a lane.
    pub async fn give_way(&self) {
        loop {
            self.connector.places.wanted().await;
            let Some(pool) = self.pool() else { return };
            if let Ok(mut conn) = pool.get_owned().await {
                conn.settled = false;
            }
            tokio::time::sleep(GIVE_WAY).await;
        }
    }

    /// Asks whether the server answers, again and again, and behind a pooler whose it
    /// is: where nothing else is asked, nobody would notice that it is silent, or that
    /// the pooler goes on with another.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(WATCH).await;
            // What fails is logged by whoever needs it.
            _ = self.read(Instant::now() + ATTEMPT, []).await;
        }
    }

    pub fn close(&self) {
        *self.inner.write().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

#[derive(Debug)]
pub(super) struct Readers(Connector);

/// One pooled connection.
pub(super) struct Reader {
    session: Session,
    /// As [`STATEMENTS`] says; none behind a pooler, where each transaction may
    /// meet a session of the server that has not prepared them.
    statements: Vec<Statement>,
    settled: bool,
}

impl Reader {
    async fn ask(&self, query: Query, params: Params<'_>) -> Result<Answer, Error> {
        let session = &self.session;
        let rows = match self.statements.get(query as usize) {
            Some(statement) => {
                let params = params.iter().map(|param| *param as &dyn ToSql);
                session.query_raw(statement, params).await?
            }
            None => {
                let (text, types) = STATEMENTS[query as usize];
                let types = types.iter().cloned();
                let params = params.iter().map(|param| *param as &dyn ToSql);
                session.query_typed_raw(text, params.zip(types)).await?
            }
        };
        let mut stream = pin!(rows);
        let mut rows = Vec::new();
        while let Some(row) = stream.try_next().await? {
            rows.push(row);
        }
        let count = stream.rows_affected().unwrap_or(0);
        Ok(Answer { rows, count })
    }
}

impl Deref for Reader {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl ManageConnection for Readers {
    type Connection = Reader;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Reader, ConnectError> {
        // A lane has none yet.
        while self.0.places.are_wanted() {
            tokio::time::sleep(GIVE_WAY).await;
        }
        let session = self.0.connect(None, sql::SESSION).await?;
        let prepared = STATEMENTS.iter().filter(|_| session.is_direct);
        let preparing = prepared.map(|(sql, types)| session.prepare_typed(sql, types));
        let statements = timeout(ATTEMPT, try_join_all(preparing))
            .await
            .map_err(|_| ConnectError::TimedOut(ATTEMPT))??;
        Ok(Reader {
            session,
            statements,
            settled: true,
        })
    }

    /// Asks nothing of the server: a round trip before every read would double
    /// its latency. The driver has noticed if the connection is gone, and a
    /// session that was made before another one failed is replaced.
    async fn is_valid(&self, reader: &mut Reader) -> Result<(), ConnectError> {
        if self.has_broken(reader) {
            return Err(ConnectError::Gone);
        }
        Ok(())
    }

    fn has_broken(&self, reader: &mut Reader) -> bool {
        let doubtful = reader.session.doubts != self.0.doubts();
        !reader.settled || doubtful || reader.session.is_closed()
    }
}
