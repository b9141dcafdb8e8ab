use std::{
    borrow::Cow,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bb8::PooledConnection;
use futures_util::future::{join, join3, try_join_all};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{timeout, timeout_at},
};
use tokio_postgres::{Error, Row, SimpleQueryMessage, error::SqlState};

use super::{Answer, Locks, Params, Query, Reader, Readers};
use crate::store::{
    StoreError, StoreResult,
    postgres::{
        connect::Connector,
        error::{
            Closed, RightsMissing, Stalled, WaitGivenUp, is_another_server, is_answer, is_stale,
            spoils_session, unchanged, written,
        },
        session::Session,
        sql,
    },
};

/// How long a cancellation may take before the connection is given up.
const TOLD: Duration = Duration::from_secs(5);

/// The same for the cancelled query's end.
const SETTLE: Duration = Duration::from_secs(1);

/// A connection until the caller's deadline.
///
/// The deadline is kept on this side, and a query that misses it is cancelled:
/// to SET a statement timeout per query would cost every query a statement for
/// the sake of the few that are late.
pub(super) struct Lease {
    conn: Option<PooledConnection<'static, Readers>>,
    deadline: Instant,
    under_way: AtomicUsize,
    /// The session has said that it is of no use any more.
    spoiled: AtomicBool,
    /// Worth a second try: nothing was done.
    again: AtomicBool,
    connector: Connector,
    locks: Arc<Locks>,
    /// It takes the locks of those partitions alone that it reads.
    around: bool,
    /// It waits for what it has met before.
    blocked: Option<OwnedSemaphorePermit>,
    /// It has met a lock that there is no way around.
    is_blocked: AtomicBool,
}

impl Lease {
    pub fn new(
        conn: PooledConnection<'static, Readers>,
        deadline: Instant,
        connector: Connector,
        locks: Arc<Locks>,
    ) -> Self {
        Self {
            conn: Some(conn),
            deadline,
            under_way: AtomicUsize::new(0),
            spoiled: AtomicBool::new(false),
            again: AtomicBool::new(false),
            connector,
            around: locks.are_recent(),
            locks,
            blocked: None,
            is_blocked: AtomicBool::new(false),
        }
    }

    /// Of those that wait for a lock some wait with a connection.
    pub fn waiting(mut self, blocked: OwnedSemaphorePermit) -> Self {
        self.blocked = Some(blocked);
        self.around = true;
        self
    }

    pub fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    pub async fn read<const N: usize>(
        &self,
        asked: &[(Query, Params<'_>); N],
    ) -> StoreResult<[Vec<Row>; N]> {
        let reader = self.reader()?;
        let answers = try_join_all(
            asked
                .iter()
                .map(|(query, params)| reader.ask(*query, params)),
        );
        let session = &reader.session;
        let answers = if session.is_direct && N == 0 {
            // Whether it answers at all: an idle server would not notice otherwise.
            let asked = self.bounded(session.batch_execute("")).await;
            asked.map(|answered| answered.map(|()| Vec::new()))
        } else if session.is_direct && !self.around {
            self.bounded(answers).await
        } else {
            let begin = match session.is_direct {
                true => Cow::Borrowed(sql::BEGIN_AROUND),
                false => self.of_this_server(sql::BEGIN_READ, session),
            };
            let patience = match self.blocked.is_some() {
                true => sql::BLOCKED,
                false => sql::BRIEFLY,
            };
            let begin = format!("{begin}; SET LOCAL lock_timeout = '{patience}'");
            let transaction = join3(
                session.batch_execute(&begin),
                answers,
                session.batch_execute("COMMIT"),
            );
            let ended = self.bounded(transaction).await;
            ended.map(|(begun, answers, _)| begun.and(answers))
        };
        match answers {
            Ok(Ok(answers)) => {
                let rows: Vec<Vec<Row>> = answers.into_iter().map(|answer| answer.rows).collect();
                // As many as were asked.
                rows.try_into()
                    .map_err(|_| StoreError::Unavailable(Closed.into()))
            }
            Ok(Err(error)) => {
                self.look_at(&error);
                Err(unchanged(error))
            }
            Err(stalled) => Err(StoreError::Unavailable(stalled.into())),
        }
    }

    /// Runs a statement in a transaction whose commit is as durable as a lane's.
    /// All of it goes out at once, so it takes one round trip.
    pub async fn write(
        &self,
        query: Query,
        params: Params<'_>,
        as_of: Option<u64>,
    ) -> StoreResult<Answer> {
        let reader = self.reader()?;
        let session = &reader.session;
        if as_of.is_some_and(|known| known != session.lineage) {
            return Err(StoreError::Replaced);
        }
        let mut begin = self.of_this_server(sql::BEGIN_CHANGE, session);
        // A chat that is made has no owner yet.
        let node = self.connector.standing.get();
        if let (Some(node), true) = (node, !matches!(query, Query::CreateChat)) {
            begin = format!("{begin}; {}", sql::fence(node)).into();
        }
        let before = session.waits_given_up();
        let transaction = join3(
            session.batch_execute(&begin),
            reader.ask(query, params),
            session.batch_execute("COMMIT"),
        );
        let ended = self.bounded(transaction).await;
        if let Ok((Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error))) = &ended {
            self.look_at(error);
        }
        match ended {
            Ok((Err(e), _, _)) if is_another_server(&e) => Err(StoreError::Unavailable(e.into())),
            // The transaction was open, so the statement was in it and failed too.
            Ok((Err(e), _, _)) if is_stale(&e) => Err(StoreError::Stale),
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
        let session = &self.reader()?.session;
        let ready = self.of_this_server(sql::READY, session);
        // What ends the transaction goes out with it: an error or a cancellation
        // would leave it open.
        let ready = join(
            session.simple_query(&ready),
            session.batch_execute("COMMIT"),
        );
        match self
            .bounded(ready)
            .await
            .map(|(ready, ended)| ended.and(ready))
        {
            Ok(Ok(answers)) => match missing(&answers) {
                None => Ok(()),
                Some(rights) => Err(StoreError::Unavailable(RightsMissing(rights).into())),
            },
            Ok(Err(error)) => {
                self.look_at(&error);
                Err(unchanged(error))
            }
            Err(stalled) => Err(StoreError::Unavailable(stalled.into())),
        }
    }

    async fn bounded<T>(&self, asked: impl Future<Output = T>) -> Result<T, Stalled> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let answer = timeout_at(self.deadline.into(), asked)
            .await
            .map_err(|_| Stalled)?;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        Ok(answer)
    }

    /// What opens a transaction, with the question whether it is still with the
    /// session's server: a pooler may go on with another, which may have less.
    fn of_this_server<'s>(&self, begin: &'s str, session: &Session) -> Cow<'s, str> {
        match session.is_direct {
            true => Cow::Borrowed(begin),
            false => format!("{begin}; {}", sql::is_server(&session.server)).into(),
        }
    }

    fn look_at(&self, error: &Error) {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && self.blocked.is_none() {
            self.locks.met();
            self.is_blocked.store(self.around, Ordering::Relaxed);
            self.again.store(true, Ordering::Relaxed);
        }
        // The cancellation of a query before that one came late.
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            self.again.store(true, Ordering::Relaxed);
        }
        if spoils_session(error) || is_another_server(error) {
            self.spoil();
            self.again.store(true, Ordering::Relaxed);
            self.connector.doubt();
        }
    }

    fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }

    pub fn is_worth_another(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }

    /// Only [`Drop`] takes the connection.
    fn reader(&self) -> StoreResult<&Reader> {
        self.conn
            .as_deref()
            .ok_or_else(|| StoreError::Unavailable(Closed.into()))
    }
}

/// The rights that are missing, as [`sql::RIGHTS`] tells them.
pub fn missing(answers: &[SimpleQueryMessage]) -> Option<String> {
    let missing: Vec<&str> = answers
        .iter()
        .filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.try_get("missing").ok().flatten(),
            _ => None,
        })
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
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
        if self.spoiled.load(Ordering::Relaxed) {
            conn.settled = false;
            return;
        }
        if self.under_way.load(Ordering::Relaxed) == 0 {
            return;
        }
        conn.settled = false;
        let connector = self.connector.clone();
        let spawn = Arc::clone(&connector.spawn);
        let cancelling = connector.canceller(&conn.session).cancel();
        spawn(Box::pin(async move {
            let mut cancelling = pin!(cancelling);
            if timeout(TOLD, &mut cancelling).await.is_ok() {
                let settled = timeout(SETTLE, conn.session.batch_execute("")).await;
                conn.settled = matches!(settled, Ok(Ok(())));
            } else {
                drop(conn);
                connector.doubt();
                return cancelling.await;
            }
            if !conn.settled {
                connector.doubt();
            }
        }));
    }
}
