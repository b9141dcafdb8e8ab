use super::{
    connect::{Connector, Session},
    error::{ConnectError, OpenError},
};

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!("../../../migrations/postgres/", $name, ".sql")),
        }),*]
    };
}

/// In order. What has been released is never changed.
const MIGRATIONS: &[Migration] = migrations![
    1 "0001_chats_and_messages",
];

/// Any number will do as long as it is ours in this database ("chatd" in ASCII).
const LOCK: i64 = 0x0063_6861_7464;

/// A migration may wait for the server that is at it, and may take its time.
const SETUP: &str = "SET statement_timeout = 0; SET lock_timeout = 0";

const RECORD: &str = "
    CREATE TABLE IF NOT EXISTS chatd_migrations (
        version int PRIMARY KEY,
        name text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

/// Brings the database up to date. Any number of servers may start at once: one
/// of them holds the lock, the others then find nothing to do. The lock ends
/// with the connection.
///
/// Not refinery: it takes no lock, and what is left of it then is this loop.
pub(super) async fn run(connector: &Connector) -> Result<(), OpenError> {
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let session = connector.connect(Some("chatd migrate"), SETUP).await?;
    // Without touching anything, so that a server whose role must not create
    // tables can start on a database that is up to date.
    if applied(&session).await? < known {
        let lock = format!("SELECT pg_advisory_lock({LOCK}); {RECORD}");
        session.batch_execute(&lock).await.map_err(state)?;
        let applied = applied(&session).await?;
        for migration in MIGRATIONS.iter().filter(|m| m.version > applied) {
            apply(&session, migration).await?;
        }
    }
    let database = applied(&session).await?;
    if database > known {
        return Err(OpenError::Newer { database, known });
    }
    warn_if_unsafe(&session).await
}

/// Whoever runs it so may know why, but should not do so unawares.
async fn warn_if_unsafe(session: &Session) -> Result<(), OpenError> {
    let row = session
        .query_one("SELECT current_setting('fsync') <> 'off'", &[])
        .await
        .map_err(state)?;
    if !row.try_get(0).map_err(state)? {
        tracing::warn!("the database has fsync off: a crash may lose acknowledged messages");
    }
    Ok(())
}

async fn applied(session: &Session) -> Result<i32, OpenError> {
    let exists: bool = session
        .query_one("SELECT to_regclass('chatd_migrations') IS NOT NULL", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(state)?;
    if !exists {
        return Ok(0);
    }
    session
        .query_one(
            "SELECT coalesce(max(version), 0) FROM chatd_migrations",
            &[],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(state)
}

async fn apply(session: &Session, migration: &Migration) -> Result<(), OpenError> {
    let Migration { version, name, sql } = migration;
    tracing::info!(name, "migrating the database");
    // One simple query of several statements with BEGIN and COMMIT around them:
    // an error ends it, and the connection, and with it the transaction.
    let record =
        format!("INSERT INTO chatd_migrations (version, name) VALUES ({version}, '{name}')");
    session
        .batch_execute(&format!("BEGIN;\n{sql};\n{record};\nCOMMIT"))
        .await
        .map_err(|source| OpenError::Migration { name, source })
}

fn state(error: tokio_postgres::Error) -> OpenError {
    // Lost on the way rather than answered: an outage, not a state.
    if error.as_db_error().is_none() {
        return OpenError::Connect(ConnectError::Postgres(error));
    }
    OpenError::State(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_embedded_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let embedded: Vec<String> = MIGRATIONS
            .iter()
            .map(|m| format!("{}.sql", m.name))
            .collect();
        assert_eq!(files, embedded);
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version, at as i32 + 1);
            assert!(
                migration
                    .name
                    .starts_with(&format!("{:04}_", migration.version))
            );
        }
    }
}
