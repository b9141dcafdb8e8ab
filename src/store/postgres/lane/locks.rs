//! What a lane does about a lock that somebody else holds on a table that it writes to,
//! as DDL and VACUUM FULL do, or on a row: it waits for a moment, and then tells which
//! chats the lock is in the way of, so that the others go on without them.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::link::{Failure, Link, stalled, unavailable};
use crate::{
    domain::{ChatId, Row},
    store::{StoreError, postgres::error::is_lock_timeout},
};

/// Of some chats, those whose table has a lock, or one that is waited for, which a row
/// that is written has to wait for (the manual's table of conflicting lock modes); and
/// 0, which is no chat, if a table has one that the names of active chats go to.
const LOCKED: &str = "
    WITH locked AS (
        SELECT DISTINCT relation, relation::regclass::text AS name FROM pg_locks
        WHERE locktype = 'relation'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
    SELECT chat FROM unnest('{CHATS}'::bigint[]) chat, generate_series(0, 15) remainder
    WHERE EXISTS (
        SELECT FROM locked JOIN pg_class ON pg_class.oid = relation
        JOIN pg_inherits ON inhrelid = relation AND inhparent = 'messages'::regclass
        WHERE relname = 'messages_' || lpad(remainder::text, 2, '0'))
    AND satisfies_hash_partition('messages'::regclass, 16, remainder, chat)
    UNION ALL
    SELECT 0 FROM locked
    WHERE relation IN ('active_chats'::regclass, 'activity_epochs'::regclass)";

/// Whether the transaction has waited for a lock for as long as it may, and the session
/// is at rest.
pub(super) fn has_waited(failure: &Failure) -> bool {
    let StoreError::Unavailable(source) = &failure.error else {
        return false;
    };
    let error = source.downcast_ref::<tokio_postgres::Error>();
    failure.reusable && error.is_some_and(is_lock_timeout)
}

/// Which of the rows' chats a lock is in the way of. None are named if it is another
/// lock, as on a row, or is gone again.
pub(super) async fn name(link: &mut Link, rows: &[Row], stall: Duration) -> Failure {
    let mut chats = String::new();
    for chat in rows.chunk_by(|one, next| one.chat == next.chat) {
        let comma = if chats.is_empty() { "" } else { "," };
        // A String takes all that it is given.
        _ = write!(chats, "{comma}{}", chat[0].chat);
    }
    let sql = LOCKED.replace("CHATS", &chats);
    let answers = match timeout(stall, link.session.simple_query(&sql)).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => return Failure::lost(unavailable(error)),
        Err(_) => return Failure::lost(stalled()),
    };
    let chat = |answer: &SimpleQueryMessage| match answer {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse::<i64>().ok(),
        _ => None,
    };
    let found: Vec<i64> = answers.iter().filter_map(chat).collect();
    let mut locked: Vec<ChatId> = found.iter().flat_map(|id| ChatId::new(*id)).collect();
    let mut error = None;
    if found.contains(&0) {
        // Chats that are named already can do without a new epoch.
        let now = Instant::now();
        link.epochs.prolong(now);
        locked.extend(link.epochs.say(rows, now).named);
        if locked.is_empty() {
            let why = "a lock was in the way of a new epoch, the last one goes on";
            error = Some(StoreError::Unavailable(why.into()));
        }
    }
    Failure {
        error: error.unwrap_or(StoreError::Locked(locked)),
        reusable: true,
    }
}
