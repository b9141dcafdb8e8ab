use std::time::Duration;

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::{store::StoreError, telemetry::chain};

/// Why a server could not be used for a new connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the connection is gone")]
    Gone,
    #[error("it is a standby, which takes no writes")]
    Standby,
    #[error(
        "its sessions are read-only (default_transaction_read_only of the server, the database or the role): chatd has to write"
    )]
    ReadOnly,
    #[error(
        "it is on timeline {found} of the database, and one on timeline {known} has been met since: it was left behind when a standby was promoted (to go back to it, restart chatd)"
    )]
    LeftBehind { found: u32, known: u32 },
    #[error("the name has no address")]
    NoAddress,
    #[error("the name has no address: {0}")]
    Name(#[from] std::io::Error),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// Each place of the address, and why not there.
    #[error("{}", each(.0))]
    Places(Vec<(String, ConnectError)>),
}

impl ConnectError {
    /// Whether some server has no place for another session.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Postgres(error) => error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
            Self::Places(places) => places.iter().any(|(_, error)| error.is_full()),
            _ => false,
        }
    }
}

fn each(places: &[(String, ConnectError)]) -> String {
    let each = places.iter();
    let each = each.map(|(place, error)| format!("{place}: {}", chain(error)));
    each.collect::<Vec<_>>().join("; ")
}

/// Why the store could not be opened, each in one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("bad database address: {0}")]
    Dsn(String),
    #[error("cannot use {option} {path}: {why}")]
    TlsFile {
        option: &'static str,
        path: String,
        why: String,
    },
    #[error("cannot set up TLS to the database")]
    Tls(#[from] rustls::Error),
    #[error("cannot connect to the database")]
    Connect(#[from] ConnectError),
    #[error(
        "the database is newer than this program: it has migration {database}, this program knows {known}; run a newer chatd"
    )]
    Newer { database: i32, known: i32 },
    #[error(
        "the database's encoding is {0}, and messages are in all languages: make the database with ENCODING 'UTF8' TEMPLATE template0"
    )]
    Encoding(String),
    #[error(
        "the role lacks rights: {0}; grant them, or let the role that chatd connects as own the tables"
    )]
    Rights(String),
    #[error("migration {name} failed")]
    Migration {
        name: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("cannot make the table that says which migrations the database has")]
    Record(#[source] tokio_postgres::Error),
    #[error("cannot read which migrations the database has")]
    State(#[source] tokio_postgres::Error),
}

/// An error after which nothing has changed: a read's, or a write's that the
/// server has answered with an error before it could commit.
pub(super) fn unchanged(error: tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        return StoreError::Unavailable(error.into());
    };
    if *code == SqlState::UNIQUE_VIOLATION {
        return StoreError::Conflict;
    }
    if is_stale(&error) {
        return StoreError::Stale;
    }
    match code.code().get(..2) {
        Some(_) if is_another_server(&error) => StoreError::Unavailable(error.into()),
        // Data exceptions, broken constraints, program limits: the data's fault,
        // today and tomorrow. All else (resources, shutdown, a standby, missing
        // permissions, a deadlock) may be better the next time.
        Some("22" | "23" | "54") => StoreError::Refused(error.into()),
        _ => StoreError::Unavailable(error.into()),
    }
}

/// Whether an answer says that its session is of no use any more, while a new one
/// may be: the server takes no writes there, what was prepared is not what the
/// tables are or is not there, or the session is being ended.
pub(super) fn spoils_session(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        matches!(
            code.code(),
            // Of 0A000 there is only "cached plan must not change result type":
            // nothing else that is asked is unknown to PostgreSQL.
            "25006" | "0A000" | "26000" | "42P05" | "57P01" | "57P02" | "57P03" | "57P05"
        )
    })
}

/// What [`super::sql::is_server`] says of another server. Nothing else that is
/// asked divides.
pub(super) fn is_another_server(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::DIVISION_BY_ZERO)
}

/// What the function `chatd_fence` of migration 4 raises.
const STALE: &str = "CD001";

/// Whether the node as which the transaction was to write is not one of the cluster any
/// more. It was refused before it could write.
pub(super) fn is_stale(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == STALE)
}

/// Whether a statement has waited for a lock for as long as it may.
pub(super) fn is_lock_timeout(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// An error of a statement that commits by itself.
pub(super) fn written(error: tokio_postgres::Error) -> StoreError {
    if is_answer(&error) {
        unchanged(error)
    } else {
        StoreError::OutcomeUnknown(error.into())
    }
}

/// Whether the server answered the statement and lives on. A FATAL error may
/// have come after the commit and in place of its answer.
pub(super) fn is_answer(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        !matches!(
            db.parsed_severity(),
            None | Some(Severity::Fatal | Severity::Panic)
        )
    })
}

/// Whether a notice says that a commit no longer waits for a standby, because
/// somebody cancelled the wait or ended the session. The text depends on the
/// server's language and the code is that of any warning, so the place in the
/// server's source decides; a notice that names none is taken for one.
pub(super) fn is_wait_given_up(notice: &DbError) -> bool {
    match notice.routine() {
        Some(routine) => routine == "SyncRepWaitForLSN",
        None => *notice.code() == SqlState::WARNING,
    }
}

/// A commit was answered, but it did not wait for the standby.
#[derive(Debug, thiserror::Error)]
#[error("the database gave up waiting for a standby: the commit may not be replicated")]
pub(super) struct WaitGivenUp;

/// A commit from before is neither done nor lost.
#[derive(Debug, thiserror::Error)]
#[error("an earlier commit still waits for a standby of the database")]
pub(super) struct AwaitsStandby;

/// What [`super::sql::RIGHTS`] has found.
#[derive(Debug, thiserror::Error)]
#[error("the role lacks rights: {0}")]
pub(super) struct RightsMissing(pub String);

/// No progress for too long.
#[derive(Debug, thiserror::Error)]
#[error("the database did not answer in time")]
pub(super) struct Stalled;

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
pub(super) struct Closed;
