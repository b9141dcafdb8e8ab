use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use super::{
    connect::Connector,
    error::{ConnectError, OpenError},
    pool::missing,
    session::Session,
    sql,
};

/// What a database is like, as far as this program cares.
#[derive(Debug)]
pub struct Inspection {
    pub server_version: String,
    /// The number of the newest migration that the database has …
    pub applied: i32,
    /// … and that this program has.
    pub known: i32,
    /// A crash of the database may lose what was committed.
    pub fsync_off: bool,
    /// Between its clock and this machine's, a round trip included.
    pub skew: Duration,
    /// By how much the newest message of a chat is ahead of the database's clock.
    pub ahead: Duration,
    /// As PostgreSQL names it.
    pub encoding: String,
    /// Rights that the role lacks, in words.
    pub missing: Option<String>,
    /// How many sessions the server would let this role have, beside those that
    /// there are.
    pub places: u64,
    /// Behind a pooler, whose own limits nobody here can see.
    pub pooled: bool,
}

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
    2 "0002_chats_by_creator",
    3 "0003_activity",
    4 "0004_nodes",
    5 "0005_entries",
    6 "0006_client_chat_ids",
];

/// A commit that takes longer is said to.
const COMMIT: Duration = Duration::from_secs(5);

/// Any number will do as long as it is ours in this database ("chatd" in ASCII).
const LOCK: i64 = 0x0063_6861_7464;

/// A migration may wait for the server that is at it, and may take its time. The
/// lock and the settings end with the transaction, so a pooler may be in between.
fn begin() -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
         SELECT pg_advisory_xact_lock({LOCK}); {RECORD}"
    )
}

const RECORD: &str = "
    CREATE TABLE IF NOT EXISTS chatd_migrations (
        version int PRIMARY KEY,
        name text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )";

/// Brings the database up to date, and sees that it can be served from. Any number
/// of servers may start at once: one of them holds the lock, the others then find
/// nothing to do. All that is missing is applied in one transaction.
///
/// Not refinery: it takes no lock, and what is left of it then is this loop.
pub(super) async fn run(connector: &Connector) -> Result<(), OpenError> {
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let session = connector.connect(Some("chatd migrate"), "").await?;
    if !session.is_direct {
        tracing::info!(
            "a pooler is between this and the database: statements are not prepared, which costs reads some time"
        );
    }
    let encoding = ask(&session, "SHOW server_encoding").await?;
    if encoding != "UTF8" {
        return Err(OpenError::Encoding(encoding));
    }
    // Without touching anything, so that a server whose role must not create
    // tables can start on a database that is up to date.
    if applied(&session).await? < known {
        let begun = session.batch_execute(&begin()).await;
        begun.map_err(|error| lost_or(error, OpenError::Record))?;
        let applied = applied(&session).await?;
        for migration in MIGRATIONS.iter().filter(|m| m.version > applied) {
            apply(&session, migration).await?;
        }
        let commit = session.batch_execute("COMMIT");
        let mut commit = pin!(commit);
        let committed = match timeout(COMMIT, &mut commit).await {
            Ok(committed) => committed,
            Err(_) => {
                tracing::warn!(
                    "the database has not committed the migrations yet: does it wait for a standby (synchronous_standby_names) that is away?"
                );
                commit.await
            }
        };
        committed.map_err(state)?;
    }
    let database = applied(&session).await?;
    if database > known {
        return Err(OpenError::Newer { database, known });
    }
    if let Some(missing) = rights(&session).await? {
        return Err(OpenError::Rights(missing));
    }
    // Whoever runs it so may know why, but should not do so unawares.
    if ask(&session, "SHOW fsync").await? == "off" {
        tracing::warn!("the database has fsync off: a crash may lose acknowledged messages");
    }
    Ok(())
}

pub(super) async fn inspect(connector: &Connector) -> Result<Inspection, OpenError> {
    let session = connector.connect(Some("chatd doctor"), "").await?;
    let theirs = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let theirs: i64 = ask(&session, theirs).await?.parse().unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_micros() as i64;
    let applied = applied(&session).await?;
    let known = MIGRATIONS.last().map_or(0, |m| m.version);
    let missing = match applied {
        0 => creating(&session).await?,
        _ => rights(&session).await?,
    };
    let newest: i64 = match &missing {
        None if applied > 0 => ask(&session, NEWEST).await?.parse().unwrap_or_default(),
        _ => 0,
    };
    Ok(Inspection {
        ahead: Duration::from_micros(newest.saturating_sub(theirs).max(0) as u64),
        server_version: ask(&session, "SHOW server_version").await?,
        applied,
        known,
        fsync_off: ask(&session, "SHOW fsync").await? == "off",
        skew: Duration::from_micros(now.abs_diff(theirs)),
        encoding: ask(&session, "SHOW server_encoding").await?,
        missing,
        places: ask(&session, PLACES).await?.parse().unwrap_or_default(),
        pooled: !session.is_direct,
    })
}

/// The time of the newest message, as far as the newest chats are concerned. There is an
/// index for it, also where there are no statistics yet.
const NEWEST: &str = "
    BEGIN;
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_bitmapscan = off;
    SELECT coalesce(max(newest.created_at), 0)
      FROM (SELECT id FROM chats ORDER BY id DESC LIMIT 10000) AS chat,
           LATERAL (SELECT created_at FROM messages WHERE chat_id = chat.id
                     ORDER BY seq DESC LIMIT 1) AS newest;
    COMMIT";

/// How many more sessions the server would let this role have in this database,
/// this one included: what is left of the role's and the database's limits and of
/// the server's.
const PLACES: &str = "
    SELECT greatest(0, least(
        current_setting('max_connections')::bigint
            - current_setting('superuser_reserved_connections')::bigint
            - (SELECT count(*) FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
        (SELECT CASE WHEN rolconnlimit < 0 OR rolsuper THEN 1000000 ELSE rolconnlimit END
             - (SELECT count(*) FROM pg_stat_activity
                 WHERE usename = current_user AND pid <> pg_backend_pid())
           FROM pg_roles WHERE rolname = current_user),
        (SELECT CASE WHEN datconnlimit < 0 THEN 1000000 ELSE datconnlimit END
             - (SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid())
           FROM pg_database WHERE datname = current_database())))";

/// The first column of the first row, empty if it is NULL.
async fn ask(session: &Session, sql: &str) -> Result<String, OpenError> {
    let answers = session.simple_query(sql).await.map_err(state)?;
    let text = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(text.unwrap_or_default())
}

async fn rights(session: &Session) -> Result<Option<String>, OpenError> {
    let answers = session.simple_query(sql::RIGHTS).await.map_err(state)?;
    Ok(missing(&answers))
}

/// What a role lacks that is to make the tables.
async fn creating(session: &Session) -> Result<Option<String>, OpenError> {
    let sql = "SELECT CASE WHEN current_schema() IS NULL THEN 'a schema: search_path names none that is there'
                           WHEN NOT has_schema_privilege(current_schema(), 'CREATE') THEN 'CREATE on the schema' END";
    let missing = ask(session, sql).await?;
    Ok((!missing.is_empty()).then_some(missing))
}

async fn applied(session: &Session) -> Result<i32, OpenError> {
    let exists = "SELECT to_regclass('chatd_migrations') IS NOT NULL";
    if ask(session, exists).await? != "t" {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM chatd_migrations";
    Ok(ask(session, newest).await?.parse().unwrap_or_default())
}

/// In the transaction that is open; an error ends the connection, and with it the
/// transaction.
async fn apply(session: &Session, migration: &Migration) -> Result<(), OpenError> {
    let Migration { version, name, sql } = migration;
    tracing::info!(name, "migrating the database");
    let record =
        format!("INSERT INTO chatd_migrations (version, name) VALUES ({version}, '{name}')");
    session
        .batch_execute(&format!("{sql};\n{record}"))
        .await
        .map_err(|source| OpenError::Migration { name, source })
}

fn state(error: tokio_postgres::Error) -> OpenError {
    lost_or(error, OpenError::State)
}

/// Lost on the way rather than answered is an outage, not what was `answered`.
fn lost_or(
    error: tokio_postgres::Error,
    answered: fn(tokio_postgres::Error) -> OpenError,
) -> OpenError {
    if error.as_db_error().is_none() {
        return OpenError::Connect(ConnectError::Postgres(error));
    }
    answered(error)
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
