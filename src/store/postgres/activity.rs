//! Lists of a user's chats are read from an index of `members.active_at`, which is
//! written here, behind the messages: what has become active since is named in
//! `active_chats` by the lanes (`lane/epoch.rs`), and a list looks at those chats'
//! newest messages ([`super::sql::CHATS_OF`]). So a list is in the right order at any
//! time, after a crash too, and whoever else writes.
//!
//! One statement takes the names of epochs that have ended, and writes what it sees: all
//! transactions that rely on these names had ended before. A later message finds its
//! chat named by another epoch. `active_at` only grows, so that several servers may be at
//! it. A row without it, of somebody added or of an earlier release, counts as named.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_postgres::types::Type;

use super::{
    connect::Connector, error::ConnectError, lane::Lane, purge, session::Session, sql::active_at,
};
use crate::telemetry::{chain, log_limited};

/// Chats, and members without their activity, a step. A chat has up to some thousand
/// members, at 20 µs each.
const STEP: i64 = 50;

/// A step that took `t` is followed by `PAUSE * t` for others.
const PAUSE: u32 = 9;

/// Longer than a step may take. The server may be one that has stopped.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// Epochs of sessions that are gone. Nobody begins with one of such an age.
/// `$1` seconds.
const END: &str = "
    DELETE FROM activity_epochs WHERE id IN (
        SELECT id FROM activity_epochs
         WHERE opened_at < now() - make_interval(secs => $1)
           AND pg_try_advisory_xact_lock(lane))";

/// `$1` chats. How many names were taken.
const WRITE: &str = concat!(
    "
    WITH taken AS (
             DELETE FROM active_chats WHERE (epoch, chat_id) IN (
                 SELECT epoch, chat_id FROM active_chats a
                  WHERE NOT EXISTS (SELECT FROM activity_epochs e WHERE e.id = a.epoch)
                  ORDER BY epoch, chat_id LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING chat_id),
         newest AS (
             SELECT chat_id, ",
    active_at!(
        "(SELECT created_at FROM messages WHERE chat_id = t.chat_id
                  ORDER BY seq DESC LIMIT 1)",
        "NULL"
    ),
    " AS at FROM (SELECT DISTINCT chat_id FROM taken) t),
         written AS (
             UPDATE members SET active_at = newest.at FROM newest
              WHERE members.chat_id = newest.chat_id
                AND (members.active_at < newest.at OR members.active_at IS NULL))
    SELECT count(*) FROM taken"
);

/// `$1` members. Servers of the release before name no chats, and may still run for a
/// while after this one has brought the database up to date.
const FILL: &str = concat!(
    "
    UPDATE members SET active_at = ",
    active_at!(
        "coalesce((SELECT created_at FROM messages WHERE messages.chat_id = chats.id
                           ORDER BY seq DESC LIMIT 1), chats.created_at)",
        "NULL"
    ),
    " FROM (SELECT chat_id, user_name FROM members WHERE active_at IS NULL
               AND EXISTS (SELECT FROM chatd_migrations new, chatd_migrations first
                            WHERE new.version = 3 AND first.version = 1
                              AND (new.applied_at = first.applied_at
                                   OR new.applied_at < now() - interval '10 minutes'))
             LIMIT $1 FOR UPDATE SKIP LOCKED) behind
      JOIN chats ON chats.id = behind.chat_id
     WHERE members.chat_id = behind.chat_id AND members.user_name = behind.user_name
       AND members.active_at IS NULL"
);

/// Writes the activity of members, for ever. `epoch` is how long the lanes' epochs are.
pub(super) async fn keep(connector: &Connector, lanes: &[Arc<Lane>], epoch: Duration) {
    let mut session = None;
    loop {
        for lane in lanes {
            lane.end_epoch().await;
        }
        let start = Instant::now();
        let step = tokio::time::timeout(STEP_TIMEOUT, step(connector, &mut session, epoch)).await;
        let pause = match step.unwrap_or(Err(ConnectError::TimedOut(STEP_TIMEOUT))) {
            Ok(0) => None,
            Ok(_) => Some(start.elapsed() * PAUSE),
            Err(error) => {
                log_limited!(WARN, error = %chain(&error), "cannot write when chats were last active");
                None
            }
        };
        let pause = pause.unwrap_or_else(|| {
            // No connection is kept for what is rare.
            session = None;
            (epoch / 4).mul_f64(0.5 + fastrand::f64())
        });
        tokio::time::sleep(pause).await;
    }
}

/// One transaction. How many names and members it has dealt with.
async fn step(
    connector: &Connector,
    session: &mut Option<Session>,
    epoch: Duration,
) -> Result<u64, ConnectError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(connector.connect(Some("chatd activity"), "").await?),
    };
    let age = (epoch * 2).as_secs_f64();
    session.batch_execute(purge::BEGIN).await?;
    session.execute_typed(END, &[(&age, Type::FLOAT8)]).await?;
    let taken = session.query_typed(WRITE, &[(&STEP, Type::INT8)]).await?;
    let taken: i64 = match taken.first() {
        Some(row) => row.try_get(0)?,
        None => 0,
    };
    let filled = session.execute_typed(FILL, &[(&STEP, Type::INT8)]).await?;
    session.batch_execute("COMMIT").await?;
    Ok(taken as u64 + filled)
}
