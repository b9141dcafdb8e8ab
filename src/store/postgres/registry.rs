//! The cluster's nodes and partitions in the database: what the pure cores of
//! [`crate::cluster`] decide by, and what they have done there.
//!
//! Invariants:
//! 1. A call is one request to the server, with its whole transaction in it. A node that
//!    stops in the middle of a call leaves no transaction open, and so none of its locks
//!    is in the way of those who declare it gone.
//! 2. What has changed is committed as durably as a batch of messages before the call
//!    answers `Ok`.
//! 3. Nothing is changed but on the condition that it is as the caller has read it.

mod fence;
mod literal;
mod read;

use std::{
    fmt,
    sync::PoisonError,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, time::timeout_at};
use tokio_postgres::SimpleQueryRow;

use self::literal::{number, text};
use super::{
    connect::Connector,
    error::{RightsMissing, Stalled, WaitGivenUp, written},
    pool::missing,
    session::Session,
    sql,
};
use crate::{
    cluster::{Given, Label, NodeId, Partition, Table, Verdict},
    store::{StoreError, StoreResult},
};

/// How long a call may take, connecting included, where it is not told.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two times that forgotten nodes are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Opens a transaction whose commit is as durable as a lane's, whatever the defaults are.
/// The rows that are changed are never locked for long. Whoever waits for a lock for
/// longer is told so, and tries again.
const BEGIN: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = 0;
    SET LOCAL lock_timeout = '1s';
    SELECT set_config('synchronous_commit', 'on', true)
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')";

/// What the role must be allowed and is not, a row each.
const RIGHTS: &str = "
    SELECT what || ' on ' || name AS missing
      FROM (VALUES ('nodes', ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
                   ('partitions', ARRAY['SELECT', 'UPDATE'])) AS tables (name, whats),
           unnest(whats) AS what
     WHERE NOT has_table_privilege(name, what)
    UNION ALL
    SELECT 'EXECUTE on ' || name
      FROM (VALUES ('chatd_fence(bigint)'),
                   ('pg_terminate_backend(integer, bigint)')) AS functions (name)
     WHERE NOT has_function_privilege(name, 'EXECUTE')";

/// Removes nodes that nobody needs to know of any more: what they own is as free as if
/// they were fenced, and a transaction of theirs is refused either way. Several nodes may
/// be at it.
const FORGET: &str = "
    DELETE FROM nodes WHERE id IN (
        SELECT id FROM nodes
         WHERE state = 'fenced' AND since < now() - interval '1 hour'
           AND NOT EXISTS (SELECT FROM partitions WHERE owner = nodes.id)
           FOR UPDATE SKIP LOCKED)";

/// The table of nodes and partitions, on a session of its own, which is made anew when it
/// has failed.
///
/// Unless a method says otherwise it takes two seconds at most, and answers
/// [`StoreError::Unavailable`] if the database could not be asked, and nothing has
/// changed, and [`StoreError::OutcomeUnknown`] if something may have.
pub struct Registry {
    connector: Connector,
    /// `None` until the first call, and after one that has failed.
    session: Mutex<Option<Session>>,
    /// When [`FORGET`] was last said, since the first beat.
    forgot: std::sync::Mutex<Option<Instant>>,
}

impl Registry {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            session: Mutex::default(),
            forgot: std::sync::Mutex::default(),
        }
    }

    /// Makes the node one of the cluster: up, with beat 0. To be told the same again
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] also if the role lacks a right, which its text names;
    /// [`StoreError::Refused`] if there is another node of this id, or if there was one.
    pub async fn join(&self, label: &Label) -> StoreResult<()> {
        if let Some(rights) = missing(&self.messages(RIGHTS).await?) {
            return Err(StoreError::Unavailable(RightsMissing(rights).into()));
        }
        let Label {
            node,
            name,
            version,
            address,
        } = label;
        let joined = self
            .ask(&format!(
                "{BEGIN}; INSERT INTO nodes (id, name, version, address) \
                 VALUES ({}, {}, {}, {}) ON CONFLICT (id) DO UPDATE SET name = excluded.name \
                 WHERE (nodes.name, nodes.version, nodes.address, nodes.beat, nodes.state) \
                     = (excluded.name, excluded.version, excluded.address, 0, 'up') \
                 RETURNING id; COMMIT",
                number(*node),
                text(name),
                text(version),
                text(address)
            ))
            .await?;
        match joined.is_empty() {
            true => Err(StoreError::Refused(IdTaken.into())),
            false => Ok(()),
        }
    }

    /// Adds one to the node's beat, says whether it can be reached by the bus, and that
    /// it is about to leave if it is; and reads the table as it is then. A node that was
    /// declared gone changes nothing, and finds itself so. About once a minute nodes that
    /// have been fenced for an hour and own nothing are forgotten.
    ///
    /// # Errors
    /// See [`Registry`].
    pub async fn beat(&self, node: NodeId, leaving: bool, on_bus: bool) -> StoreResult<Table> {
        let forget = if self.is_to_forget() { FORGET } else { "" };
        let rows = self
            .ask(&format!(
                "{BEGIN}; UPDATE nodes SET beat = beat + 1, on_bus = {on_bus}, \
                 since = CASE WHEN {leaving} AND state <> 'leaving' THEN now() ELSE since END, \
                 state = CASE WHEN {leaving} THEN 'leaving' ELSE state END \
                 WHERE id = {} AND state IN ('up', 'drained', 'leaving'); {forget}; COMMIT; {}",
                number(node),
                read::TABLE
            ))
            .await?;
        read::table(&rows)
    }

    /// Reads the table.
    ///
    /// # Errors
    /// See [`Registry`].
    pub async fn table(&self) -> StoreResult<Table> {
        read::table(&self.ask(read::TABLE).await?)
    }

    /// Declares a node gone if its beat is still the same. Whether it is gone because of
    /// this.
    ///
    /// # Errors
    /// See [`Registry`].
    pub async fn declare(&self, verdict: Verdict) -> StoreResult<bool> {
        let declared = self
            .ask(&format!(
                "{BEGIN}; UPDATE nodes SET state = 'gone', since = now() \
                 WHERE id = {} AND beat = {} AND state IN ('up', 'drained', 'leaving') RETURNING id; COMMIT",
                number(verdict.node),
                verdict.beat
            ))
            .await?;
        Ok(!declared.is_empty())
    }

    /// Waits until nothing of a node that is gone is under way, and writes down that it
    /// is fenced. Who does not end by itself is ended, but for what has committed and
    /// waits for a standby: to end that would make visible what a failover may undo.
    ///
    /// It takes a session of its own, so that beats need not wait for it, and as long as
    /// the deadline says. It may be called again and again, and by several nodes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if something is under way still;
    /// [`StoreError::Refused`] if the node is not gone; else as [`Registry`] says.
    pub async fn fence(&self, node: NodeId, deadline: Instant) -> StoreResult<()> {
        fence::run(&self.connector, node, &["gone"], deadline).await
    }

    /// Makes the node the owner of each partition whose epoch is still this one and which
    /// has no owner that may still write. How many that were.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the node is not one of the cluster any more; else as
    /// [`Registry`] says.
    pub async fn claim(&self, me: NodeId, asked: &[(Partition, i64)]) -> StoreResult<usize> {
        if asked.is_empty() {
            return Ok(0);
        }
        let (mut partitions, mut epochs) = (Vec::new(), Vec::new());
        for (partition, epoch) in asked {
            partitions.push(partition.number().to_string());
            epochs.push(epoch.to_string());
        }
        let claimed = self
            .ask(&format!(
                "{BEGIN}; {}; \
                 WITH asked AS (SELECT * FROM unnest('{{{}}}'::smallint[], '{{{}}}'::bigint[]) \
                                    AS asked (id, epoch)), \
                      free AS (SELECT id FROM partitions JOIN asked USING (id, epoch) \
                                WHERE NOT EXISTS (SELECT FROM nodes WHERE nodes.id = owner \
                                                     AND state <> 'fenced') \
                                ORDER BY id FOR UPDATE OF partitions) \
                 UPDATE partitions SET owner = {}, epoch = epoch + 1 FROM free \
                  WHERE partitions.id = free.id RETURNING partitions.id; COMMIT",
                sql::fence(me),
                partitions.join(","),
                epochs.join(","),
                number(me)
            ))
            .await?;
        Ok(claimed.len())
    }

    /// Makes another node the owner of a partition if `me` is, in this epoch, and one of
    /// the cluster still. [`Given::Refused`] if nothing has changed, for whatever reason.
    pub async fn give(&self, me: NodeId, partition: Partition, to: NodeId, epoch: i64) -> Given {
        let given = self
            .ask(&format!(
                "{BEGIN}; {}; UPDATE partitions SET owner = {}, epoch = epoch + 1 \
                 WHERE id = {} AND owner = {} AND epoch = {epoch} RETURNING id; COMMIT",
                sql::fence(me),
                number(to),
                partition.number(),
                number(me)
            ))
            .await;
        match given {
            Ok(rows) if rows.is_empty() => Given::Refused,
            Ok(_) => Given::Done,
            Err(StoreError::OutcomeUnknown(_)) => Given::Unknown,
            Err(_) => Given::Refused,
        }
    }

    /// Has those of the nodes that are up hand over what they have, or those that were
    /// made to, and still run, take their part again.
    ///
    /// # Errors
    /// See [`Registry`].
    pub async fn set_drained(&self, nodes: &[NodeId], drained: bool) -> StoreResult<()> {
        let (from, to) = match drained {
            true => ("up", "drained"),
            false => ("drained", "up"),
        };
        let nodes: Vec<String> = nodes.iter().map(|node| number(*node)).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        let nodes = nodes.join(", ");
        self.ask(&format!(
            "{BEGIN}; UPDATE nodes SET state = '{to}', since = now() \
             WHERE state = '{from}' AND id IN ({nodes}); COMMIT"
        ))
        .await?;
        Ok(())
    }

    /// Writes down that the node, which stops, is fenced, once nothing of it is under way
    /// any more: what it could hand over to nobody is free then. Forgets old nodes.
    ///
    /// # Errors
    /// As [`Registry::fence`].
    pub async fn retire(&self, me: NodeId, deadline: Instant) -> StoreResult<()> {
        let from = ["up", "drained", "leaving", "gone"];
        fence::run(&self.connector, me, &from, deadline).await?;
        // Another node does it if this one can't.
        _ = self.ask(&format!("{BEGIN}; {FORGET}; COMMIT")).await;
        Ok(())
    }

    fn is_to_forget(&self) -> bool {
        let now = Instant::now();
        let mut forgot = self.forgot.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = now.duration_since(*forgot.get_or_insert(now)) >= FORGET_EVERY;
        if is_due {
            *forgot = Some(now);
        }
        is_due
    }

    /// The rows of the last statement that has any.
    async fn ask(&self, sql: &str) -> StoreResult<Vec<SimpleQueryRow>> {
        Ok(read::last_rows(self.messages(sql).await?))
    }

    async fn messages(&self, sql: &str) -> StoreResult<Vec<tokio_postgres::SimpleQueryMessage>> {
        let deadline = Instant::now() + PATIENCE;
        let late = |_| StoreError::Unavailable(Stalled.into());
        let place = timeout_at(deadline.into(), self.session.lock());
        let mut place = place.await.map_err(late)?;
        // Whatever ends badly leaves no session to the next call.
        let session = match place.take() {
            Some(session) if is_current(&session, &self.connector) => session,
            _ => connect(&self.connector, "chatd registry", deadline).await?,
        };
        let before = session.waits_given_up();
        let answers = timeout_at(deadline.into(), session.simple_query(sql)).await;
        let unknown = StoreError::OutcomeUnknown(Stalled.into());
        let answers = answers.map_err(|_| unknown)?.map_err(written)?;
        if session.waits_given_up() != before {
            return Err(StoreError::OutcomeUnknown(WaitGivenUp.into()));
        }
        *place = Some(session);
        Ok(answers)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// There was a node of this id before, or there is.
#[derive(Debug, thiserror::Error)]
#[error("another node of the cluster has this id, or has had it")]
struct IdTaken;

/// No other session has met a silent server or another one since it was made.
fn is_current(session: &Session, connector: &Connector) -> bool {
    !session.is_closed() && session.doubts == connector.doubts()
}

async fn connect(connector: &Connector, name: &str, deadline: Instant) -> StoreResult<Session> {
    match timeout_at(deadline.into(), connector.connect(Some(name), "")).await {
        Ok(connected) => connected.map_err(|error| StoreError::Unavailable(error.into())),
        Err(_) => Err(StoreError::Unavailable(match connector.last_failure() {
            Some(why) => why.into(),
            None => Stalled.into(),
        })),
    }
}
