use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, SinkExt as _,
    future::{BoxFuture, join},
    poll,
};
use tokio::{sync::Mutex, time::timeout};
use tokio_postgres::{CopyInSink, SimpleQueryMessage, Statement};

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

/// Batches that come within this time of each other follow each other. Without
/// one for so long, what was opened ahead is closed: it has a snapshot, which
/// vacuum has to spare.
const FOLLOW: Duration = Duration::from_millis(10);

/// One connection that batches go through, one at a time.
///
/// A batch is `BEGIN; COPY; COMMIT` in two round trips: BEGIN goes out with the
/// COPY, COMMIT with the end of the data. While batches follow each other it is
/// one: the next one's BEGIN and COPY go out with COMMIT. A COPY without BEGIN
/// would take as many, and its answer is not the commit: through the extended
/// protocol the commit only comes with the Sync behind it, and tokio-postgres does
/// not wait for that. So the outcome is unknown if, and only if, the connection is
/// lost after COMMIT was handed to the driver.
pub(super) struct Lane {
    index: usize,
    connector: Connector,
    stall: Duration,
    connects: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    link: Option<Link>,
    /// When the last batch ended.
    ended: Option<Instant>,
    /// [`Lane::rest`] runs.
    resting: bool,
    /// The name of a session that was given up with a batch under way. Its
    /// backend may not know and may still hold locks on the batch's keys, or
    /// even commit it: it must be gone before the lane writes again.
    abandoned: Option<Arc<str>>,
    closed: bool,
}

struct Link {
    session: Arc<Session>,
    copy: Statement,
    name: Arc<str>,
    /// The next batch's COPY.
    ahead: Option<Opening>,
}

/// A COPY in a transaction of its own, to be had once the server has opened it.
type Opening = BoxFuture<'static, Result<CopyInSink<Bytes>, Failure>>;

struct Failure {
    error: StoreError,
    /// Whether the session is known to be at rest.
    reusable: bool,
}

impl Lane {
    pub fn new(
        index: usize,
        connector: Connector,
        stall: Duration,
        connects: Arc<AtomicU64>,
    ) -> Self {
        Self {
            index,
            connector,
            stall,
            connects,
            state: Mutex::new(State {
                link: None,
                ended: None,
                resting: false,
                abandoned: None,
                closed: false,
            }),
        }
    }

    /// Commits the rows, all or none. A broken lane tries once to connect; to try
    /// again, and when, is the caller's decision.
    pub async fn append(self: &Arc<Self>, rows: &[Row]) -> StoreResult<()> {
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(StoreError::Unavailable(Closed.into()));
        }
        let follows = state.is_busy();
        let mut link = match state.link.take() {
            Some(link) if !link.session.is_closed() => link,
            _ => self.connect(&mut state).await?,
        };
        // Until the batch has ended well, also if this future is dropped.
        state.abandoned = Some(Arc::clone(&link.name));
        let outcome = self.write(&mut link, rows, follows).await;
        state.ended = Some(Instant::now());
        if outcome.as_ref().err().is_none_or(|f| f.reusable) {
            state.abandoned = None;
            if link.ahead.is_some() && !state.resting {
                state.resting = true;
                (self.connector.spawn)(Self::rest(Arc::downgrade(self)).boxed());
            }
            state.link = Some(link);
        }
        outcome.map_err(|failure| failure.error)
    }

    /// Closes what was opened ahead once no batch follows any more.
    async fn rest(lane: Weak<Self>) {
        loop {
            tokio::time::sleep(FOLLOW).await;
            let Some(lane) = lane.upgrade() else { return };
            let mut state = lane.state.lock().await;
            if state.is_busy() {
                continue;
            }
            state.resting = false;
            if let Some(mut link) = state.link.take_if(|link| link.ahead.is_some())
                && lane.write(&mut link, &[], false).await.is_ok()
            {
                state.link = Some(link);
            }
            return;
        }
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
        self.connects.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(lane = self.index, "the lane has connected");
        Ok(Link {
            session: Arc::new(session),
            copy,
            name,
            ahead: None,
        })
    }

    /// Commits the rows; if the batch is one of several, it opens the next one's
    /// COPY.
    async fn write(&self, link: &mut Link, rows: &[Row], follows: bool) -> Result<(), Failure> {
        let opening = link.ahead.take();
        let opening = opening.unwrap_or_else(|| link.open(Some("BEGIN")));
        let opened = timeout(self.stall, opening).await;
        let mut sink = pin!(opened.map_err(|_| Failure::lost(stalled()))??);

        for chunk in Encoder::new(rows) {
            timeout(self.stall, sink.feed(chunk))
                .await
                .map_err(|_| Failure::lost(stalled()))?
                .map_err(|e| Failure::lost(unavailable(e)))?;
        }

        // The driver writes requests in the order in which they were made, so
        // COMMIT follows the end of the data. If the COPY has failed, it rolls
        // back.
        let session = link.session.clone();
        let commit = if follows { "COMMIT; BEGIN" } else { "COMMIT" };
        let ending = join(sink.finish(), session.batch_execute(commit));
        let mut ending = pin!(timeout(self.stall, ending));
        let ended = match poll!(ending.as_mut()) {
            Poll::Ready(ended) => ended,
            Poll::Pending => {
                if follows {
                    link.open_ahead().await;
                }
                ending.await
            }
        };
        match ended {
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

impl State {
    /// A batch that came now would follow the last.
    fn is_busy(&self) -> bool {
        self.ended.is_some_and(|end| end.elapsed() < FOLLOW)
    }
}

impl Link {
    /// Opens a COPY; what is to go before it goes out with it.
    ///
    /// Without its BEGIN, the COPY would commit by itself; and after a failed start
    /// tokio-postgres has one Sync too many under way. Neither session is to be
    /// used again.
    fn open(&self, begin: Option<&'static str>) -> Opening {
        let (session, copy) = (self.session.clone(), self.copy.clone());
        Box::pin(async move {
            let begin = async {
                match begin {
                    Some(begin) => session.batch_execute(begin).await,
                    None => Ok(()),
                }
            };
            let (begun, sink) = join(begin, session.copy_in(&copy)).await;
            begun.map_err(|e| Failure::lost(unchanged(e)))?;
            sink.map_err(|e| Failure::lost(unchanged(e)))
        })
    }

    /// Hands the driver what opens the next COPY. COMMIT, which it has, begins the
    /// transaction.
    async fn open_ahead(&mut self) {
        let mut opening = self.open(None);
        // The next batch waits for the answer.
        if poll!(opening.as_mut()).is_pending() {
            self.ahead = Some(opening);
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
