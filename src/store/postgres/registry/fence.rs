//! How a node is kept from writing for good.
//!
//! Each transaction of a node that writes a chat holds the node's lock together with the
//! others (`chatd_fence` of migration 4) and begins by looking whether the node is one of
//! the cluster. Its state is committed as gone before this begins. So who holds the lock
//! exclusively knows that all transactions that have seen another state are over, and that
//! no other will write. Whoever keeps it from that lock is ended: a process that has
//! stopped leaves a session of the server behind that may sit in its transaction for ever.
//! It is found by the lock that it holds. Behind a pooler the session's name would be
//! somebody else's.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};
use tokio_postgres::SimpleQueryMessage;

use super::{BEGIN, connect, number, read};
use crate::{
    cluster::NodeId,
    store::{
        StoreError, StoreResult,
        postgres::{
            connect::Connector,
            error::{AwaitsStandby, Stalled, WaitGivenUp, is_lock_timeout, written},
            session::Session,
            sql,
        },
    },
};

/// How long the lock is waited for before those that hold it are ended. A commit that is
/// under way takes less. Who wants to write as the node waits behind it for as long.
const BRIEFLY: &str = "100ms";

/// How long a session may take to end.
const TERMINATE_MILLIS: u32 = 3_000;

/// Between two tries when there is nobody to be ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Something of the node is under way still.
#[derive(Debug, thiserror::Error)]
#[error("a transaction of the node that is gone does not end")]
struct UnderWay;

/// The node is one of the cluster.
#[derive(Debug, thiserror::Error)]
#[error("the node was not declared gone")]
struct NotGone;

/// Takes the node's lock and writes down that it is fenced, if it is in one of the states
/// `from`.
pub(super) async fn run(
    connector: &Connector,
    node: NodeId,
    from: &[&str],
    deadline: Instant,
) -> StoreResult<()> {
    let session = connect(connector, "chatd fence", deadline).await?;
    let mark = mark(node, from);
    let mut is_held = false;
    let marking = async {
        loop {
            let before = session.waits_given_up();
            match session.simple_query(&mark).await {
                Ok(_) if session.waits_given_up() != before => {
                    return Err(StoreError::OutcomeUnknown(WaitGivenUp.into()));
                }
                Ok(answers) => {
                    let rows = read::last_rows(answers);
                    let state = rows.first().and_then(|row| row.get(0));
                    return match state {
                        // What is forgotten is refused as well.
                        None | Some("fenced") => Ok(()),
                        Some(_) => Err(StoreError::Refused(NotGone.into())),
                    };
                }
                Err(error) if is_lock_timeout(&error) => {
                    is_held = true;
                    session.batch_execute("ROLLBACK").await.map_err(written)?;
                    end_holders(&session, node).await?;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(written(error)),
            }
        }
    };
    match timeout_at(deadline.into(), marking).await {
        Ok(marked) => marked,
        Err(_) if is_held => Err(StoreError::Unavailable(UnderWay.into())),
        Err(_) => Err(StoreError::OutcomeUnknown(Stalled.into())),
    }
}

/// The state is read behind the commit, so that it tells what is so for good.
fn mark(node: NodeId, from: &[&str]) -> String {
    let (node, from) = (number(node), from.join("', '"));
    format!(
        "{BEGIN}; SET LOCAL lock_timeout = '{BRIEFLY}'; SELECT pg_advisory_xact_lock({node}); \
         UPDATE nodes SET state = 'fenced', since = now() \
          WHERE id = {node} AND state IN ('{from}'); COMMIT; \
         SELECT state FROM nodes WHERE id = {node}"
    )
}

/// Ends whoever writes as the node. Others who fence it hold the lock exclusively, and are
/// left alone.
async fn end_holders(session: &Session, node: NodeId) -> StoreResult<()> {
    let sql = format!(
        "SELECT CASE WHEN wait_event = 'SyncRep' THEN 'waits' \
                     ELSE pg_terminate_backend(pid, {TERMINATE_MILLIS})::text END \
           FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND {}",
        sql::holds_lock(node.0, "ShareLock")
    );
    let answers = session.simple_query(&sql).await.map_err(written)?;
    let waits = answers.iter().any(
        |answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) == Some("waits")),
    );
    match waits {
        true => Err(StoreError::Unavailable(AwaitsStandby.into())),
        false => Ok(()),
    }
}
