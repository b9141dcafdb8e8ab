mod changes;
mod direct;
mod epoch;
mod link;
mod locks;
mod pooled;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{sync::Mutex, time::timeout};
use tokio_postgres::SimpleQueryMessage;

use self::{
    epoch::Epochs,
    link::{BEGIN, BEGIN_APPLIED, Copies, Failure, Link, stalled, terminate, unavailable},
};
use super::{
    Settings,
    connect::Connector,
    error::{Closed, WaitGivenUp},
    places::Wanted,
    sql,
};
use crate::{
    domain::Row,
    store::{StoreError, StoreResult},
};

/// A lane's session. A role's or a database's defaults must not end a COPY, which waits
/// for no lock for long (see [`locks`]), and a server that lost its client must soon let
/// go of the keys that an unfinished batch has locked.
const SETUP: &str = "
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = 0;
    SET lock_timeout = '50ms';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3";

/// Batches that come within this time of each other follow each other. Without
/// one for so long, what was opened ahead is closed: it has a snapshot, which
/// vacuum has to spare.
const FOLLOW: Duration = Duration::from_millis(10);

/// One connection that batches go through, one at a time.
pub(super) struct Lane {
    index: usize,
    connector: Connector,
    stall: Duration,
    /// How long an epoch of its sessions is.
    epoch: Duration,
    connects: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    link: Option<Link>,
    /// When the last batch ended.
    ended: Option<Instant>,
    /// [`Lane::rest`] runs.
    resting: bool,
    /// What the batches so far were written to, or the caller has been told.
    lineage: u64,
    /// The name of a session that was given up with a batch under way. Its
    /// backend may not know and may still hold locks on the batch's keys, or
    /// even commit it: it must be gone before the lane writes again.
    abandoned: Option<Arc<str>>,
    /// The server has no place for a session of this lane.
    wanted: Option<Wanted>,
    closed: bool,
}

impl Lane {
    pub fn new(index: usize, connector: Connector, settings: &Settings) -> Self {
        let lineage = connector.servers().number();
        Self {
            index,
            connector,
            stall: settings.lane_stall,
            epoch: settings.activity_epoch,
            connects: settings.lane_connects.clone(),
            state: Mutex::new(State {
                lineage,
                link: None,
                ended: None,
                resting: false,
                abandoned: None,
                wanted: None,
                closed: false,
            }),
        }
    }

    /// Commits the rows, all or none. A broken lane tries once to connect; to try
    /// again, and when, is the caller's decision.
    pub async fn append(self: &Arc<Self>, rows: &[Row]) -> StoreResult<()> {
        let mut state = self.state.lock().await;
        let follows = state.is_busy();
        let mut link = self.link(&mut state).await?;
        if link.session.lineage != state.lineage {
            state.lineage = link.session.lineage;
            state.link = Some(link);
            return Err(StoreError::Replaced);
        }
        // Until the batch has ended well, also if this future is dropped.
        state.abandoned = Some(Arc::clone(&link.name));
        let mut outcome = self.write(&mut link, rows, follows).await;
        if let Err(failure) = &outcome
            && locks::has_waited(failure)
        {
            outcome = Err(self.name_locked(&mut link, rows).await);
        }
        state.ended = Some(Instant::now());
        if outcome.as_ref().err().is_none_or(|f| f.reusable) {
            state.abandoned = None;
            if link.ahead.is_some() && !state.resting {
                state.resting = true;
                (self.connector.spawn)(Self::rest(Arc::downgrade(self)).boxed());
            }
            state.link = Some(link);
        } else if !matches!(&outcome, Err(failure) if matches!(failure.error, StoreError::Stale)) {
            // Its server may be gone for the others too.
            self.connector.doubt();
        }
        outcome.map_err(|failure| failure.error)
    }

    /// Something was locked that the rows need: which chats it is in the way of.
    async fn name_locked(&self, link: &mut Link, rows: &[Row]) -> Failure {
        if link.ahead.is_some()
            && let Err(failure) = self.finish(link).await
        {
            return failure;
        }
        locks::name(link, rows, self.stall).await
    }

    /// Closes what was opened ahead, and ends the epoch if it is over and no lock is in
    /// the way.
    async fn finish(&self, link: &mut Link) -> Result<(), Failure> {
        match self.write(link, &[], false).await {
            Err(failure) if locks::has_waited(&failure) => {
                link.epochs.prolong(Instant::now());
                Ok(())
            }
            finished => finished,
        }
    }

    /// Connects, so that the first batch finds a session.
    pub async fn warm(&self) {
        let mut state = self.state.lock().await;
        // The first batch says what is wrong.
        if let Ok(link) = self.link(&mut state).await {
            state.link = Some(link);
        }
    }

    /// Whether the row is there for good: the transaction that sees it writes a
    /// record of its own, and a commit that has written nothing would wait neither
    /// for the disk nor for a standby. Both happen in one transaction, since after
    /// a failover the next session may be with another server. There is no fence before
    /// it: it writes no chat, and what is stored is so whoever owns the chat by now.
    pub async fn confirm(&self, row: &Row) -> StoreResult<bool> {
        let mut state = self.state.lock().await;
        let mut link = self.link(&mut state).await?;
        state.abandoned = Some(Arc::clone(&link.name));
        if link.ahead.is_some() {
            let finished = self.finish(&mut link).await;
            finished.map_err(|failure| failure.error)?;
        }
        let sql = format!(
            "{}; SELECT pg_logical_emit_message(true, 'chatd', '') FROM messages WHERE chat_id = {} AND seq = {} AND id = {}; COMMIT",
            link.begin(),
            row.chat,
            row.seq,
            row.id.0
        );
        let before = link.session.waits_given_up();
        let answers = timeout(self.stall, link.session.simple_query(&sql))
            .await
            .map_err(|_| stalled())?
            .map_err(unavailable)?;
        let given_up = link.session.waits_given_up() != before;
        state.abandoned = None;
        state.link = Some(link);
        if given_up {
            return Err(StoreError::Unavailable(WaitGivenUp.into()));
        }
        Ok(answers
            .iter()
            .any(|answer| matches!(answer, SimpleQueryMessage::Row(_))))
    }

    async fn link(&self, state: &mut State) -> StoreResult<Link> {
        if state.closed {
            return Err(StoreError::Unavailable(Closed.into()));
        }
        match state.link.take() {
            Some(link) if self.is_current(&link) => Ok(link),
            _ => self.connect(state).await,
        }
    }

    /// It is there, with the server that the newest sessions are with, and writes as the
    /// node as which the store stands.
    fn is_current(&self, link: &Link) -> bool {
        let lineage = self.connector.servers().number();
        let is_alive = !link.session.is_closed() && link.session.lineage == lineage;
        is_alive && link.node == self.connector.standing.get()
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
                && lane.finish(&mut link).await.is_ok()
            {
                state.link = Some(link);
            }
            return;
        }
    }

    /// Ends the epoch that no batch has ended in time.
    pub async fn end_epoch(&self) {
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        let now = Instant::now();
        let is_over = |link: &mut Link| link.ahead.is_none() && link.epochs.is_over(now);
        if let Some(mut link) = state.link.take_if(is_over)
            && self.finish(&mut link).await.is_ok()
        {
            state.link = Some(link);
        }
    }

    /// Waits for the batch under way and gives up the connection.
    pub async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        state.link = None;
        state.wanted = None;
    }

    async fn connect(&self, state: &mut State) -> StoreResult<Link> {
        let name: Arc<str> = format!("chatd lane {} {:016x}", self.index, fastrand::u64(..)).into();
        let session = match self.connector.connect(Some(&name), SETUP).await {
            Ok(session) => session,
            Err(error) => {
                if error.is_full() && state.wanted.is_none() {
                    state.wanted = Some(self.connector.places.want());
                }
                return Err(StoreError::Unavailable(error.into()));
            }
        };
        state.wanted = None;
        let ready = async {
            if let Some(abandoned) = &state.abandoned {
                terminate(&session, abandoned).await?;
            }
            let copy = match session.is_direct {
                true => {
                    // As long as it lives, its epochs are its own.
                    let lock = format!("SELECT pg_advisory_lock({})", pooled::key(&name));
                    session.batch_execute(&lock).await.map_err(unavailable)?;
                    Some(Copies::prepare(&session).await.map_err(unavailable)?)
                }
                false => None,
            };
            let shown = session.simple_query("SHOW synchronous_commit").await;
            let applied = shown.map_err(unavailable)?.iter().any(|answer| {
                matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) == Some("remote_apply"))
            });
            StoreResult::Ok((copy, if applied { &BEGIN_APPLIED } else { &BEGIN }))
        };
        let (copy, begin) = timeout(self.stall, ready).await.map_err(|_| stalled())??;
        state.abandoned = None;
        self.connects.fetch_add(1, Ordering::Relaxed);
        let node = self.connector.standing.get();
        tracing::debug!(lane = self.index, "the lane has connected");
        Ok(Link {
            epochs: Epochs::new(pooled::key(&name), session.is_direct, self.epoch),
            session: Arc::new(session),
            copy,
            name,
            begin,
            node,
            fence: node.map(|node| sql::fence(node).into()),
            ahead: None,
        })
    }

    /// Commits the rows; if the batch is one of several, it opens the next one's
    /// COPY.
    async fn write(&self, link: &mut Link, rows: &[Row], follows: bool) -> Result<(), Failure> {
        match link.copy {
            Some(_) => direct::write(link, rows, follows, self.stall).await,
            None => pooled::write(link, rows, self.stall).await,
        }
    }
}

impl State {
    /// A batch that came now would follow the last.
    fn is_busy(&self) -> bool {
        self.ended.is_some_and(|end| end.elapsed() < FOLLOW)
    }
}
