use tokio_postgres::error::{Severity, SqlState};

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

/// No progress for too long.
#[derive(Debug, thiserror::Error)]
#[error("the database did not answer in time")]
pub(super) struct Stalled;

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
pub(super) struct Closed;
