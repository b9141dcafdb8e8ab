//! A lane behind a pooler that gives each transaction any session of the server
//! (PgBouncer's transaction mode). What is prepared, set or locked for a session is
//! then another's, so each batch is a transaction that brings all it needs: its
//! settings, a lock that tells it from others, and an INSERT without a name, since
//! tokio-postgres prepares a COPY. It takes one round trip.

use std::time::{Duration, Instant};

use futures_util::future::join4;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};

use super::{
    changes::with_changes,
    link::{Begin, Failure, Link, unavailable},
};
use crate::{
    domain::Row,
    store::{
        StoreError,
        entries::Columns,
        postgres::{
            error::{Stalled, WaitGivenUp, is_answer, is_lock_timeout, is_stale, unchanged},
            sql,
        },
    },
};

const INSERT: &str = "
    INSERT INTO messages (chat_id, seq, id, sender, text, client_message_id, created_at,
                          number, kind, target, attached)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
                         $6::text[], $7::bigint[], $8::bigint[], $9::smallint[], $10::bigint[],
                         $11::bytea[])";

/// What opens a transaction of the lane with this name, unless it is with another
/// server than the lane's connection was: the pooler may go on with a new one. The fence
/// goes behind the lane's lock, where it waits for whoever holds the node's.
pub(super) fn begin(begin: &Begin, name: &str, server: &str, fence: Option<&str>) -> String {
    let (isolation, fence) = match fence {
        Some(fence) => (
            "; SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            format!("; {fence}"),
        ),
        None => ("", String::new()),
    };
    format!(
        "{}{isolation}; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; {}; \
         SELECT pg_advisory_xact_lock({}){fence}; SET LOCAL lock_timeout = '50ms'",
        begin.alone,
        sql::is_server(server),
        key(name)
    )
}

/// The random number that a lane's name ends with.
pub(super) fn key(name: &str) -> i64 {
    let number = name.rsplit(' ').next().unwrap_or_default();
    u64::from_str_radix(number, 16).unwrap_or_default() as i64
}

/// Commits the rows.
pub(super) async fn write(link: &mut Link, rows: &[Row], stall: Duration) -> Result<(), Failure> {
    let ints = |of: fn(&Row) -> i64| -> Vec<i64> { rows.iter().map(of).collect() };
    let (chats, seqs) = (ints(|row| row.chat.get()), ints(|row| row.seq));
    let (ids, times) = (ints(|row| row.id.0), ints(|row| row.created_at.0));
    let senders: Vec<&str> = rows.iter().map(|row| &*row.from).collect();
    let texts: Vec<&str> = rows.iter().map(|row| &*row.text).collect();
    let keys: Vec<Option<&str>> = rows
        .iter()
        .map(|row| row.client_message_id.as_deref())
        .collect();
    let columns: Vec<Columns<'_>> = rows.iter().map(Columns::of).collect();
    let numbers: Vec<Option<i64>> = columns.iter().map(|one| one.number).collect();
    let kinds: Vec<Option<i16>> = columns.iter().map(|one| one.kind).collect();
    let targets: Vec<Option<i64>> = columns.iter().map(|one| one.target).collect();
    let attached: Vec<Option<&[u8]>> = columns.iter().map(|one| one.attached).collect();
    let params: [(&(dyn ToSql + Sync), Type); 11] = [
        (&chats, Type::INT8_ARRAY),
        (&seqs, Type::INT8_ARRAY),
        (&ids, Type::INT8_ARRAY),
        (&senders, Type::TEXT_ARRAY),
        (&texts, Type::TEXT_ARRAY),
        (&keys, Type::TEXT_ARRAY),
        (&times, Type::INT8_ARRAY),
        (&numbers, Type::INT8_ARRAY),
        (&kinds, Type::INT2_ARRAY),
        (&targets, Type::INT8_ARRAY),
        (&attached, Type::BYTEA_ARRAY),
    ];
    let session = &link.session;
    let fence = link.fence.as_deref();
    let begin = begin(link.begin, &link.name, &session.server, fence);
    let before = session.waits_given_up();
    let mut said = link.epochs.say(rows, Instant::now());
    let sql = with_changes(std::mem::take(&mut said.sql), rows);
    let transaction = join4(
        session.batch_execute(&begin),
        session.execute_typed(INSERT, &params),
        session.batch_execute(&sql),
        session.batch_execute("COMMIT"),
    );
    let unknown = |why: crate::store::Source| StoreError::OutcomeUnknown(why);
    match timeout(stall, transaction).await {
        Err(_) => Err(Failure::lost(unknown(Stalled.into()))),
        // The transaction was open, so the INSERT was in it and failed too.
        Ok((Err(e), _, _, committed)) if is_stale(&e) => Err(Failure {
            reusable: committed.is_ok(),
            error: StoreError::Stale,
        }),
        // The INSERT may have committed by itself.
        Ok((Err(e), ..)) => Err(Failure::lost(unknown(e.into()))),
        Ok((_, Err(e), _, committed)) if e.as_db_error().is_some() => Err(Failure {
            reusable: is_answer(&e) && committed.is_ok(),
            error: unchanged(e),
        }),
        // The same of what goes with the rows.
        Ok((_, Ok(_), Err(e), committed)) if e.as_db_error().is_some() => Err(Failure {
            reusable: is_lock_timeout(&e) && committed.is_ok(),
            error: unavailable(e),
        }),
        Ok((_, Ok(_), Ok(()), Err(e))) if is_answer(&e) => Err(Failure::lost(unchanged(e))),
        Ok((_, Err(e), ..) | (_, _, Err(e), _) | (.., Err(e))) => {
            Err(Failure::lost(unknown(e.into())))
        }
        Ok((_, Ok(count), ..)) if count == rows.len() as u64 => {
            link.epochs.keep(said);
            match session.waits_given_up() == before {
                true => Ok(()),
                // Committed and visible, but a failover may undo it.
                false => Err(Failure {
                    error: unknown(WaitGivenUp.into()),
                    reusable: true,
                }),
            }
        }
        // Somebody's trigger or rule has its own ideas.
        Ok((_, Ok(count), ..)) => Err(Failure::lost(unknown(
            format!("of {} rows, {count} were stored", rows.len()).into(),
        ))),
    }
}
