//! What a lane has while it is connected.

use std::{borrow::Cow, pin::pin, sync::Arc};

use bytes::Bytes;
use futures_util::{
    SinkExt as _,
    future::{BoxFuture, join3},
    poll,
};
use tokio_postgres::{CopyInSink, SimpleQueryMessage, Statement};

use super::{epoch::Epochs, pooled};
use crate::{
    cluster::NodeId,
    store::{
        StoreError, StoreResult,
        postgres::{
            copy::{Encoder, Layout},
            error::{AwaitsStandby, Stalled, unchanged},
            session::Session,
            sql,
        },
    },
};

/// What opens a transaction, alone and behind another's COMMIT. A role's or a
/// database's defaults, or what a pooler has left in the session, must not weaken
/// P1, so each transaction says it for itself.
pub(super) struct Begin {
    pub alone: &'static str,
    pub behind: &'static str,
}

pub(super) const BEGIN: Begin = Begin {
    alone: "BEGIN; SET LOCAL synchronous_commit = on",
    behind: "COMMIT; BEGIN; SET LOCAL synchronous_commit = on",
};

/// Where the operator wants more than `on`.
pub(super) const BEGIN_APPLIED: Begin = Begin {
    alone: "BEGIN; SET LOCAL synchronous_commit = remote_apply",
    behind: "COMMIT; BEGIN; SET LOCAL synchronous_commit = remote_apply",
};

/// Long enough for a backend to notice that it has been told to go.
const TERMINATE_MILLIS: u32 = 3_000;

pub(super) struct Link {
    pub session: Arc<Session>,
    /// None behind a pooler: see [`super::pooled`].
    pub copy: Option<Copies>,
    pub name: Arc<str>,
    pub begin: &'static Begin,
    /// The node of a cluster as which it writes …
    pub node: Option<NodeId>,
    /// … and the statement that each of its transactions begins with because of that.
    pub fence: Option<Arc<str>>,
    pub epochs: Epochs,
    /// The next batch's COPY, of the layout that the last one had.
    pub ahead: Option<(Layout, Opening)>,
}

/// A COPY of each layout, prepared.
#[derive(Clone)]
pub(super) struct Copies {
    plain: Statement,
    whole: Statement,
}

impl Copies {
    pub async fn prepare(session: &Session) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            plain: session.prepare(Layout::Plain.statement()).await?,
            whole: session.prepare(Layout::Whole.statement()).await?,
        })
    }

    pub fn of(&self, layout: Layout) -> &Statement {
        match layout {
            Layout::Plain => &self.plain,
            Layout::Whole => &self.whole,
        }
    }
}

/// A COPY in a transaction of its own, to be had once the server has opened it.
pub(super) type Opening = BoxFuture<'static, Result<CopyInSink<Bytes>, Failure>>;

pub(super) struct Failure {
    pub error: StoreError,
    /// Whether the session is known to be at rest.
    pub reusable: bool,
}

impl Link {
    /// What opens a transaction, alone and without the fence.
    pub fn begin(&self) -> Cow<'static, str> {
        match self.copy {
            Some(_) => self.begin.alone.into(),
            None => pooled::begin(self.begin, &self.name, &self.session.server, None).into(),
        }
    }

    /// Opens a COPY; what is to go before it goes out with it. The fence does so as a
    /// request of its own: were it one with the COMMIT of the batch before, that batch
    /// would have to wait for it, and could not be told from one that has failed.
    ///
    /// Without its BEGIN, the COPY would commit by itself; and after a failed start
    /// tokio-postgres has one Sync too many under way. Neither session is to be
    /// used again.
    pub fn open(&self, begin: Option<&'static str>, layout: Layout) -> Opening {
        let (session, copy) = (self.session.clone(), self.copy.clone());
        let fence = self.fence.clone();
        Box::pin(async move {
            let copy = copy.ok_or_else(|| Failure::lost(stalled()))?;
            let begin = async {
                match begin {
                    Some(begin) => session.batch_execute(begin).await,
                    None => Ok(()),
                }
            };
            let fence = async {
                match &fence {
                    Some(fence) => session.batch_execute(fence).await,
                    None => Ok(()),
                }
            };
            let (begun, fenced, sink) = join3(begin, fence, session.copy_in(copy.of(layout))).await;
            begun.map_err(|e| Failure::lost(unchanged(e)))?;
            // Before the COPY's own error, which is that the transaction is aborted.
            fenced.map_err(|e| Failure::lost(unchanged(e)))?;
            sink.map_err(|e| Failure::lost(unchanged(e)))
        })
    }

    /// Takes the place of a COPY of plain messages, that was opened ahead, for other rows:
    /// in the same transaction, by one more round trip.
    pub async fn open_whole(
        &mut self,
        plain: CopyInSink<Bytes>,
    ) -> Result<CopyInSink<Bytes>, Failure> {
        let lost = |error| Failure::lost(unchanged(error));
        let mut plain = pin!(plain);
        // Without rows there is a beginning and an end.
        for chunk in Encoder::new(&[], Layout::Plain) {
            plain.feed(chunk).await.map_err(lost)?;
        }
        plain.finish().await.map_err(lost)?;
        let copy = self.copy.as_ref().ok_or_else(|| Failure::lost(stalled()))?;
        let whole = self.session.copy_in(copy.of(Layout::Whole)).await;
        whole.map_err(lost)
    }

    /// Hands the driver what opens the next COPY. COMMIT, which it has, begins the
    /// transaction.
    pub async fn open_ahead(&mut self, layout: Layout) {
        let mut opening = self.open(None, layout);
        // The next batch waits for the answer.
        if poll!(opening.as_mut()).is_pending() {
            self.ahead = Some((layout, opening));
        }
    }
}

impl Failure {
    pub fn lost(error: StoreError) -> Self {
        Self {
            error,
            reusable: false,
        }
    }
}

/// Ends a session by its name, which no other session ever had: a process id
/// could by now be somebody else's. One that waits for a standby is left alone:
/// to end it would make visible what a failover may undo.
pub(super) async fn terminate(session: &Session, name: &str) -> StoreResult<()> {
    let which = match session.is_direct {
        true => format!("application_name = '{name}'"),
        false => sql::holds_lock(pooled::key(name), "ExclusiveLock"),
    };
    let sql = format!(
        "SELECT CASE WHEN wait_event = 'SyncRep' THEN 'waits' ELSE pg_terminate_backend(pid, {TERMINATE_MILLIS})::text END FROM pg_stat_activity WHERE {which}"
    );
    let answers = session.simple_query(&sql).await.map_err(unavailable)?;
    for answer in &answers {
        let SimpleQueryMessage::Row(row) = answer else {
            continue;
        };
        match row.get(0) {
            Some("true") => {}
            Some("waits") => return Err(StoreError::Unavailable(AwaitsStandby.into())),
            _ => return Err(stalled()),
        }
    }
    Ok(())
}

pub(super) fn unavailable(error: tokio_postgres::Error) -> StoreError {
    StoreError::Unavailable(error.into())
}

pub(super) fn stalled() -> StoreError {
    StoreError::Unavailable(Stalled.into())
}
