use std::{
    ops::Deref,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bb8::{ManageConnection, PooledConnection, RunError};
use futures_util::future::{join3, try_join_all};
use tokio::time::{timeout, timeout_at};
use tokio_postgres::{Row, Statement, types::ToSql};

use super::{
    Settings,
    connect::{Connector, Session},
    error::{Closed, ConnectError, Stalled, WaitGivenUp, is_answer, unchanged, written},
    sql,
};
use crate::store::{StoreError, StoreResult};

/// How long bb8 tries to connect before it starts over; it also bounds its pause
/// between two attempts, so that a database that is back is found soon.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How long a cancelled query has to end before its connection is given up.
const SETTLE: Duration = Duration::from_secs(1);

/// The pool of connections for everything but messages on their way in.
#[derive(Debug)]
pub(super) struct Pool {
    inner: RwLock<Option<bb8::Pool<Readers>>>,
    connector: Connector,
}

/// What a pooled connection has prepared.
#[derive(Clone, Copy)]
pub(super) enum Query {
    PageAfter,
    PageBefore,
    Chat,
    ChatsOf,
    LastSeqs,
    CreateChat,
    AddMembers,
    RemoveMembers,
    DeleteChat,
}

const STATEMENTS: [&str; 9] = [
    sql::PAGE_AFTER,
    sql::PAGE_BEFORE,
    sql::CHAT,
    sql::CHATS_OF,
    sql::LAST_SEQS,
    sql::CREATE_CHAT,
    sql::ADD_MEMBERS,
    sql::REMOVE_MEMBERS,
    sql::DELETE_CHAT,
];

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
        })
    }

    /// A connection, if there is one before the deadline.
    pub async fn lease(&self, deadline: Instant) -> StoreResult<Lease> {
        let pool = {
            let inner = self.inner.read().unwrap_or_else(|e| e.into_inner());
            inner.clone()
        };
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
            .map_err(|_| StoreError::Unavailable(Stalled.into()))?
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        Ok(Lease {
            conn: Some(conn),
            deadline,
            under_way: AtomicUsize::new(0),
            connector: self.connector.clone(),
        })
    }

    pub fn close(&self) {
        *self.inner.write().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

/// A connection until the caller's deadline.
///
/// The deadline is kept on this side, and a query that misses it is cancelled:
/// to SET a statement timeout per query would cost every query a statement for
/// the sake of the few that are late.
pub(super) struct Lease {
    conn: Option<PooledConnection<'static, Readers>>,
    deadline: Instant,
    under_way: AtomicUsize,
    connector: Connector,
}

impl Lease {
    pub async fn read(
        &self,
        query: Query,
        params: &[&(dyn ToSql + Sync)],
    ) -> StoreResult<Vec<Row>> {
        match self.run(query, params).await {
            Ok(rows) => rows.map_err(unchanged),
            Err(stalled) => Err(StoreError::Unavailable(stalled.into())),
        }
    }

    pub async fn write(
        &self,
        query: Query,
        params: &[&(dyn ToSql + Sync)],
    ) -> StoreResult<Vec<Row>> {
        let reader = self.reader()?;
        let statement = &reader.statements[query as usize];
        self.commit(&reader.session, reader.session.query(statement, params))
            .await
    }

    /// Like [`Self::write`], for a statement that returns no rows.
    pub async fn execute(&self, query: Query, params: &[&(dyn ToSql + Sync)]) -> StoreResult<u64> {
        let reader = self.reader()?;
        let statement = &reader.statements[query as usize];
        self.commit(&reader.session, reader.session.execute(statement, params))
            .await
    }

    /// Runs a statement in a transaction whose commit is as durable as a lane's.
    /// All of it goes out at once, so it takes one round trip.
    async fn commit<T>(
        &self,
        session: &Session,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> StoreResult<T> {
        let before = session.waits_given_up();
        let transaction = join3(
            session.batch_execute(sql::BEGIN_CHANGE),
            statement,
            session.batch_execute("COMMIT"),
        );
        match self.bounded(transaction).await {
            // The statement may have committed by itself.
            Ok((Err(e), _, _)) => Err(StoreError::OutcomeUnknown(e.into())),
            Ok((_, Err(e), _)) => Err(written(e)),
            Ok((_, _, Err(e))) if is_answer(&e) => Err(unchanged(e)),
            Ok((_, _, Err(e))) => Err(StoreError::OutcomeUnknown(e.into())),
            Ok(_) if session.waits_given_up() != before => {
                Err(StoreError::OutcomeUnknown(WaitGivenUp.into()))
            }
            Ok((_, Ok(answer), _)) => Ok(answer),
            Err(stalled) => Err(StoreError::OutcomeUnknown(stalled.into())),
        }
    }

    pub async fn ping(&self) -> StoreResult<()> {
        match self.bounded(self.reader()?.session.batch_execute("")).await {
            Ok(answer) => answer.map_err(unchanged),
            Err(stalled) => Err(StoreError::Unavailable(stalled.into())),
        }
    }

    async fn run(
        &self,
        query: Query,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Result<Vec<Row>, tokio_postgres::Error>, Stalled> {
        let Ok(reader) = self.reader() else {
            return Err(Stalled);
        };
        let statement = &reader.statements[query as usize];
        self.bounded(reader.session.query(statement, params)).await
    }

    async fn bounded<T>(&self, asked: impl Future<Output = T>) -> Result<T, Stalled> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let answer = timeout_at(self.deadline.into(), asked)
            .await
            .map_err(|_| Stalled)?;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        Ok(answer)
    }

    /// Only [`Drop`] takes the connection.
    fn reader(&self) -> StoreResult<&Reader> {
        self.conn
            .as_deref()
            .ok_or_else(|| StoreError::Unavailable(Closed.into()))
    }
}

/// A lease that ends with a query under way, because the deadline has come or
/// because the caller has gone, has it cancelled. The connection goes back to
/// the pool if that works, so that a slow minute does not become a storm of new
/// connections.
impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut conn) = self.conn.take() else {
            return;
        };
        if self.under_way.load(Ordering::Relaxed) == 0 {
            return;
        }
        conn.settled = false;
        let connector = self.connector.clone();
        let spawn = Arc::clone(&connector.spawn);
        spawn(Box::pin(async move {
            connector.cancel(conn.session.cancel_token()).await;
            let settled = timeout(SETTLE, conn.session.batch_execute("")).await;
            conn.settled = matches!(settled, Ok(Ok(())));
        }));
    }
}

#[derive(Debug)]
pub(super) struct Readers(Connector);

/// One pooled connection.
pub(super) struct Reader {
    session: Session,
    statements: Vec<Statement>,
    settled: bool,
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
        let session = self.0.connect(None, sql::SESSION).await?;
        let preparing = try_join_all(STATEMENTS.iter().map(|sql| session.prepare(sql)));
        let statements = timeout(ATTEMPT, preparing)
            .await
            .map_err(|_| ConnectError::TimedOut)??;
        Ok(Reader {
            session,
            statements,
            settled: true,
        })
    }

    /// Asks nothing of the server: a round trip before every read would double
    /// its latency. The driver has noticed if the connection is gone.
    async fn is_valid(&self, reader: &mut Reader) -> Result<(), ConnectError> {
        if self.has_broken(reader) {
            return Err(ConnectError::Gone);
        }
        Ok(())
    }

    fn has_broken(&self, reader: &mut Reader) -> bool {
        !reader.settled || reader.session.is_closed()
    }
}
