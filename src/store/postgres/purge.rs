use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use super::{connect::Connector, error::ConnectError, session::Session};
use crate::telemetry::chain;

/// Rows a step: a few milliseconds of work, so that a lane's commit that comes
/// in between hardly notices.
const STEP: i64 = 5_000;

/// Between two steps; with [`STEP`], 10 million messages are gone in a few
/// minutes.
const PAUSE: Duration = Duration::from_millis(50);

/// How often tombstones of other servers, or of before a restart, are looked
/// for.
const LOOK: Duration = Duration::from_secs(30);

/// Longer than a step may take. The server may be one that has stopped.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// What is purged now would be purged again after a crash, so its commits don't
/// wait for the disk. All of this must end with the transaction: a pooler may give
/// the session to a lane next.
pub(super) const BEGIN: &str = "
    BEGIN;
    SET LOCAL synchronous_commit = off;
    SET LOCAL statement_timeout = '60s';
    SET LOCAL plan_cache_mode = force_custom_plan;
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_bitmapscan = off";

/// `SKIP LOCKED`: another server is at it.
const PICK: &str = "
    SELECT chat_id, purged_through FROM deleted_chats
     WHERE next_look <= now() ORDER BY next_look LIMIT 1 FOR UPDATE SKIP LOCKED";

/// Seqs are dense, so a range of seqs is a bounded number of rows; and unlike
/// "the first 5,000", it doesn't walk over the dead entries of the steps before.
const REMOVE: &str = "DELETE FROM messages WHERE chat_id = $1 AND seq > $2 AND seq <= $2 + $3";

const ADVANCE: &str =
    "UPDATE deleted_chats SET purged_through = purged_through + $2 WHERE chat_id = $1";

/// A batch that was under way may still come in behind the tombstone, so it
/// stays for an hour.
const LET_GO: &str = "
    DELETE FROM deleted_chats WHERE chat_id = $1 AND deleted_at < now() - interval '1 hour'";
const LATER: &str = "
    UPDATE deleted_chats SET next_look = now() + interval '10 minutes' WHERE chat_id = $1";

/// Removes the messages of deleted chats, for ever. `wake` ends the pause early.
pub(super) async fn purge(connector: &Connector, wake: &tokio::sync::Notify) {
    let mut session = None;
    loop {
        let step = tokio::time::timeout(STEP_TIMEOUT, step(connector, &mut session)).await;
        let removed = match step.unwrap_or(Err(ConnectError::TimedOut(STEP_TIMEOUT))) {
            Ok(removed) => removed,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot remove the messages of deleted chats");
                None
            }
        };
        if let Some(removed) = removed {
            // In proportion: a thousand small chats are not to take a minute.
            tokio::time::sleep(PAUSE.mul_f64(removed as f64 / STEP as f64)).await;
        } else {
            // No connection is kept for what is rare.
            session = None;
            let jittered = LOOK.mul_f64(0.5 + fastrand::f64());
            let _ = tokio::time::timeout(jittered, wake.notified()).await;
        }
    }
}

/// One transaction. How many messages it has removed; `None` if there was no
/// tombstone to look at.
async fn step(
    connector: &Connector,
    session: &mut Option<Session>,
) -> Result<Option<u64>, ConnectError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(connector.connect(Some("chatd purge"), "").await?),
    };
    session.batch_execute(BEGIN).await?;
    let picked = session.query_typed(PICK, &[]).await?;
    let mut removed = None;
    if let Some(row) = picked.first() {
        let (chat, from): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let count = run(session, REMOVE, &[&chat, &from, &STEP]).await?;
        // Not beyond what was there: more may come.
        run(session, ADVANCE, &[&chat, &(count as i64)]).await?;
        let let_go = count == 0 && run(session, LET_GO, &[&chat]).await? > 0;
        if count < STEP as u64 && !let_go {
            run(session, LATER, &[&chat]).await?;
        }
        removed = Some(count);
    }
    session.batch_execute("COMMIT").await?;
    Ok(removed)
}

/// Without a name for the statement: behind a pooler, the next transaction may
/// meet a session that has not prepared it.
async fn run(session: &Session, sql: &str, numbers: &[&i64]) -> Result<u64, tokio_postgres::Error> {
    let params: Vec<(&(dyn ToSql + Sync), Type)> = numbers
        .iter()
        .map(|number| (*number as &(dyn ToSql + Sync), Type::INT8))
        .collect();
    session.execute_typed(sql, &params).await
}
