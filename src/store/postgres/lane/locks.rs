//! What a lane does about a lock that somebody holds on some table of messages, as DDL
//! and VACUUM FULL do: it waits for a moment, and then tells which chats the lock is in
//! the way of, so that the others go on without them.

use std::{fmt::Write as _, time::Duration};

use tokio::time::timeout;
use tokio_postgres::{SimpleQueryMessage, error::SqlState};

use super::link::{Failure, stalled, unavailable};
use crate::{
    domain::{ChatId, Row},
    store::{StoreError, postgres::session::Session},
};

/// Of some chats, those whose table has a lock, or one that is waited for, which a row
/// that is written has to wait for (the manual's table of conflicting lock modes).
const LOCKED: &str = "
    WITH locked AS (
        SELECT DISTINCT class.relname FROM pg_locks
        JOIN pg_class class ON class.oid = relation
        JOIN pg_inherits ON inhrelid = class.oid AND inhparent = 'messages'::regclass
        WHERE locktype = 'relation'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
    SELECT chat FROM unnest('{CHATS}'::bigint[]) chat, generate_series(0, 15) remainder
    WHERE 'messages_' || lpad(remainder::text, 2, '0') IN (SELECT relname FROM locked)
    AND satisfies_hash_partition('messages'::regclass, 16, remainder, chat)";

/// What goes with the rows waits for its locks: it is in nobody's way for long.
pub(super) fn patient(sql: String) -> String {
    match sql.is_empty() {
        true => sql,
        false => format!("SET LOCAL lock_timeout = 0; {sql}"),
    }
}

/// Whether the rows have waited for a lock for as long as they may, and the session is
/// at rest.
pub(super) fn has_waited(failure: &Failure) -> bool {
    let StoreError::Unavailable(source) = &failure.error else {
        return false;
    };
    let error = source.downcast_ref::<tokio_postgres::Error>();
    let code = error.and_then(tokio_postgres::Error::code);
    failure.reusable && code == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Which of the rows' chats a lock is in the way of. If it is of none, because it is gone
/// again or is another kind of lock, the rows are to be tried again as they are.
pub(super) async fn name(session: &Session, rows: &[Row], stall: Duration) -> Failure {
    let mut chats = String::new();
    for chat in rows.chunk_by(|one, next| one.chat == next.chat) {
        let comma = if chats.is_empty() { "" } else { "," };
        // A String takes all that it is given.
        _ = write!(chats, "{comma}{}", chat[0].chat);
    }
    let sql = LOCKED.replace("CHATS", &chats);
    let answers = match timeout(stall, session.simple_query(&sql)).await {
        Ok(Ok(answers)) => answers,
        Ok(Err(error)) => return Failure::lost(unavailable(error)),
        Err(_) => return Failure::lost(stalled()),
    };
    let chat = |answer: &SimpleQueryMessage| match answer {
        SimpleQueryMessage::Row(row) => ChatId::new(row.get(0)?.parse().ok()?).ok(),
        _ => None,
    };
    let locked: Vec<ChatId> = answers.iter().filter_map(chat).collect();
    let error = match locked.is_empty() {
        true => StoreError::Unavailable("a lock was in the way for a moment".into()),
        false => StoreError::Locked(locked),
    };
    Failure {
        error,
        reusable: true,
    }
}
