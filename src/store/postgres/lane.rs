use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt as _, future::join};
use tokio::{sync::Mutex, time::timeout};
use tokio_postgres::{SimpleQueryMessage, Statement};

use super::{
    connect::{Connector, Session},
    copy::{COPY, Encoder},
    error::{Closed, Stalled, is_answer, unchanged},
};
use crate::{
    domain::Row,
    store::{StoreError, StoreResult},
};

/// A lane's session. A role's or a database's defaults must neither weaken P1
/// nor end a COPY; and a server that lost its client must soon let go of the
/// keys that an unfinished batch has locked.
const SETUP: &str = "
    SELECT set_config('synchronous_commit', 'on', false)
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = 0;
    SET lock_timeout = 0;
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3";

/// Long enough for a backend to notice that it has been told to go.
const TERMINATE_MILLIS: u32 = 3_000;

/// One connection that batches go through, one at a time.
///
/// A batch is `BEGIN; COPY; COMMIT` in two round trips: BEGIN goes out with the
/// COPY, COMMIT with the end of the data. A COPY without BEGIN would take as
/// many, and its answer is not the commit: through the extended protocol the
/// commit only comes with the Sync behind it, and tokio-postgres does not wait
/// for that. So the outcome is unknown if, and only if, the connection is lost
/// after COMMIT was handed to the driver.
pub(super) struct Lane {
    index: usize,
    connector: Connector,
    stall: Duration,
    state: Mutex<State>,
}

struct State {
    link: Option<Link>,
    /// The name of a session that was given up with a batch under way. Its
    /// backend may not know and may still hold locks on the batch's keys, or
    /// even commit it: it must be gone before the lane writes again.
    abandoned: Option<Arc<str>>,
    closed: bool,
}

struct Link {
    session: Session,
    copy: Statement,
    name: Arc<str>,
}

struct Failure {
    error: StoreError,
    /// Whether the session is known to be at rest.
    reusable: bool,
}

impl Lane {
    pub fn new(index: usize, connector: Connector, stall: Duration) -> Self {
        Self {
            index,
            connector,
            stall,
            state: Mutex::new(State {
                link: None,
                abandoned: None,
                closed: false,
            }),
        }
    }

    /// Commits the rows, all or none. A broken lane tries once to connect; to try
    /// again, and when, is the caller's decision.
    pub async fn append(&self, rows: &[Row]) -> StoreResult<()> {
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(StoreError::Unavailable(Closed.into()));
        }
        let link = match state.link.take() {
            Some(link) if !link.session.is_closed() => link,
            _ => self.connect(&mut state).await?,
        };
        // Until the batch has ended well, also if this future is dropped.
        state.abandoned = Some(Arc::clone(&link.name));
        let outcome = self.write(&link, rows).await;
        if outcome.as_ref().err().is_none_or(|f| f.reusable) {
            state.abandoned = None;
            state.link = Some(link);
        }
        outcome.map_err(|failure| failure.error)
    }

    /// Waits for the batch under way and gives up the connection.
    pub async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        state.link = None;
    }

    async fn connect(&self, state: &mut State) -> StoreResult<Link> {
        let name: Arc<str> = format!("chatd lane {} {:016x}", self.index, fastrand::u64(..)).into();
        let session = self
            .connector
            .connect(Some(&name), SETUP)
            .await
            .map_err(|e| StoreError::Unavailable(e.into()))?;
        let ready = async {
            if let Some(abandoned) = &state.abandoned {
                terminate(&session, abandoned).await?;
            }
            let copy = session.prepare(COPY).await.map_err(unavailable)?;
            StoreResult::Ok(copy)
        };
        let copy = timeout(self.stall, ready).await.map_err(|_| stalled())??;
        state.abandoned = None;
        tracing::debug!(lane = self.index, "the lane has connected");
        Ok(Link {
            session,
            copy,
            name,
        })
    }

    async fn write(&self, link: &Link, rows: &[Row]) -> Result<(), Failure> {
        let client = &link.session;
        let opening = join(
            client.batch_execute("BEGIN"),
            client.copy_in::<_, Bytes>(&link.copy),
        );
        let (begun, sink) = timeout(self.stall, opening)
            .await
            .map_err(|_| Failure::lost(stalled()))?;
        // Without its BEGIN, the COPY would commit by itself; and after a failed
        // start tokio-postgres has one Sync too many under way. Neither session
        // is to be used again.
        begun.map_err(|e| Failure::lost(unchanged(e)))?;
        let mut sink = pin!(sink.map_err(|e| Failure::lost(unchanged(e)))?);

        for chunk in Encoder::new(rows) {
            timeout(self.stall, sink.feed(chunk))
                .await
                .map_err(|_| Failure::lost(stalled()))?
                .map_err(|e| Failure::lost(unavailable(e)))?;
        }

        // The driver writes requests in the order in which they were made, so
        // COMMIT follows the end of the data. If the COPY has failed, it rolls
        // back.
        let ending = join(sink.finish(), client.batch_execute("COMMIT"));
        match timeout(self.stall, ending).await {
            Ok((Ok(copied), Ok(()))) if copied == rows.len() as u64 => Ok(()),
            // Somebody's trigger or rule has its own ideas.
            Ok((Ok(copied), Ok(()))) => Err(Failure::lost(StoreError::OutcomeUnknown(
                format!("of {} rows, {copied} were stored", rows.len()).into(),
            ))),
            // An error in COPY's own place: it has not succeeded, so nothing was
            // there to commit.
            Ok((Err(e), committed)) if e.as_db_error().is_some() => Err(Failure {
                reusable: is_answer(&e) && committed.is_ok(),
                error: unchanged(e),
            }),
            Ok((Ok(_), Err(e))) if is_answer(&e) => Err(Failure::lost(unchanged(e))),
            Ok((Err(e), _) | (_, Err(e))) => {
                Err(Failure::lost(StoreError::OutcomeUnknown(e.into())))
            }
            Err(_) => Err(Failure::lost(StoreError::OutcomeUnknown(Stalled.into()))),
        }
    }
}

impl Failure {
    fn lost(error: StoreError) -> Self {
        Self {
            error,
            reusable: false,
        }
    }
}

/// Ends a session by its name, which no other session ever had: a process id
/// could by now be somebody else's.
async fn terminate(session: &Session, name: &str) -> StoreResult<()> {
    let sql = format!(
        "SELECT pg_terminate_backend(pid, {TERMINATE_MILLIS}) FROM pg_stat_activity WHERE application_name = '{name}'"
    );
    let answers = session.simple_query(&sql).await.map_err(unavailable)?;
    let still_there = answers
        .iter()
        .any(|answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) != Some("t")));
    if still_there {
        return Err(stalled());
    }
    Ok(())
}

fn unavailable(error: tokio_postgres::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}

fn stalled() -> StoreError {
    StoreError::Unavailable(Stalled.into())
}
