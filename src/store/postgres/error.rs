use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::StoreError;

/// Why a server could not be used for a new connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the database did not answer in time")]
    TimedOut,
    #[error("the connection is gone")]
    Gone,
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
}

/// Why the store could not be opened, each in one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("bad database address: {0}")]
    Dsn(String),
    #[error("cannot use sslrootcert {path}: {why}")]
    RootCert { path: String, why: String },
    #[error("cannot set up TLS to the database")]
    Tls(#[from] rustls::Error),
    #[error("cannot connect to the database")]
    Connect(#[from] ConnectError),
    #[error(
        "the database is newer than this program: it has migration {database}, this program knows {known}; run a newer chatd"
    )]
    Newer { database: i32, known: i32 },
    #[error("migration {name} failed")]
    Migration {
        name: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
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
    match code.code().get(..2) {
        // Data exceptions, broken constraints, program limits: the data's fault,
        // today and tomorrow. All else (resources, shutdown, a standby, missing
        // permissions, a deadlock) may be better the next time.
        Some("22" | "23" | "54") => StoreError::Refused(error.into()),
        _ => StoreError::Unavailable(error.into()),
    }
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

/// No progress for too long.
#[derive(Debug, thiserror::Error)]
#[error("the database did not answer in time")]
pub(super) struct Stalled;

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
pub(super) struct Closed;
