use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::Settings;

/// In order; a database's `user_version` is how many of them it has had. A
/// migration that has been released is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_chats_and_messages.sql"),
    include_str!("../../../migrations/sqlite/0002_chats_by_creator.sql"),
    include_str!("../../../migrations/sqlite/0003_activity.sql"),
    include_str!("../../../migrations/sqlite/0004_entries.sql"),
    include_str!("../../../migrations/sqlite/0005_client_chat_ids.sql"),
];

/// The lock keeps other servers out, so what makes SQLite busy is a checkpoint
/// or somebody's `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

const STATEMENTS_KEPT: usize = 32;

/// Why the file cannot be the store: one line, for the person who starts the
/// server.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open {}: {}", path.display(), source.kind())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot open {}: another process is using it", path.display())]
    InUse { path: PathBuf },
    #[error("cannot open {}: the disk is full", path.display())]
    Full { path: PathBuf },
    #[error(
        "cannot open {}: a newer version of this program has used it (its schema is {found}, the newest known here is {known})",
        path.display()
    )]
    Newer {
        path: PathBuf,
        found: i64,
        known: usize,
    },
    #[error("cannot open {}: {source}", path.display())]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
}

/// Whether other users of the machine can read the file, as far as its mode and
/// its folder's say; `None` if it is not there.
pub fn is_open_to_others(path: &Path) -> Option<bool> {
    let mode = |path: &Path| Some(path.metadata().ok()?.permissions().mode());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // To read a file one has to get through its folder: r of the one, x of the
    // other, for the group or for everybody.
    Some((mode(path)? >> 2) & mode(folder)? & 0o011 != 0)
}

/// Reads a little of each table of a database that is there: what is damaged mostly
/// shows. How far the newest message of its newest chats is ahead of the clock.
///
/// # Errors
/// If it can't be read.
pub fn look(path: &Path) -> Result<Duration, OpenError> {
    // A file without anything in it is made use of.
    if path.metadata().map_or(0, |file| file.len()) == 0 {
        return Ok(Duration::ZERO);
    }
    let looked = || -> rusqlite::Result<Duration> {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let mut select = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
        let tables = select.query_map([], |row| row.get::<_, String>(0))?;
        for table in tables {
            let sql = format!("SELECT * FROM \"{}\" ORDER BY rowid DESC LIMIT 1", table?);
            conn.prepare(&sql)?.exists([])?;
        }
        let ahead: Option<i64> = match conn.query_row(AHEAD, [], |row| row.get(0)) {
            // A file of somebody else's: the start will say so.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => None,
            ahead => ahead?,
        };
        Ok(Duration::from_micros(ahead.unwrap_or(0).max(0) as u64))
    };
    looked().map_err(|source| sqlite_error(path, source))
}

const AHEAD: &str = "
    SELECT max((SELECT created_at FROM messages WHERE chat_id = chat.id ORDER BY seq DESC LIMIT 1))
           - CAST(unixepoch('subsec') * 1000000 AS INTEGER)
      FROM (SELECT id FROM chats ORDER BY id DESC LIMIT 10000) AS chat";

pub(super) struct Connections {
    pub writer: Connection,
    pub readers: Vec<Connection>,
}

pub(super) fn open(path: &Path, settings: &Settings) -> Result<Connections, OpenError> {
    let writer = open_writer(path, settings)?;
    let readers = (0..settings.readers.max(1)).map(|_| open_reader(path, settings));
    Ok(Connections {
        readers: readers.collect::<Result<_, _>>()?,
        writer,
    })
}

/// The writer's connection, with the schema brought up to date.
pub(super) fn open_writer(path: &Path, settings: &Settings) -> Result<Connection, OpenError> {
    let mut conn = connect(path, settings, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|e| sqlite_error(path, e))?;
    configure_writer(&conn, settings).map_err(|e| sqlite_error(path, e))?;
    migrate(path, &mut conn)?;
    Ok(conn)
}

fn open_reader(path: &Path, settings: &Settings) -> Result<Connection, OpenError> {
    connect(path, settings, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|e| sqlite_error(path, e))
}

fn sqlite_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    OpenError::Sqlite { path, source }
}

fn connect(path: &Path, settings: &Settings, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A negative size is in KiB.
    conn.pragma_update(None, "cache_size", -(settings.cache_kib as i64))?;
    conn.pragma_update(None, "mmap_size", settings.mmap_bytes as i64)?;
    Ok(conn)
}

fn configure_writer(conn: &Connection, settings: &Settings) -> rusqlite::Result<()> {
    // Only a new database takes this.
    conn.pragma_update(None, "page_size", settings.page_bytes)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        // Shared memory is missing, as on a network file system.
        return Err(rusqlite::Error::InvalidPath(
            "the file system does not allow a write-ahead log".into(),
        ));
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    // What is deleted is overwritten: see also scrub.rs.
    conn.pragma_update(None, "secure_delete", "ON")?;
    // The writer does it when the answers are out: see writer.rs.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

fn migrate(path: &Path, conn: &mut Connection) -> Result<(), OpenError> {
    let known = MIGRATIONS.len();
    let error = |e| sqlite_error(path, e);
    let found: i64 = conn
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(error)?;
    let done = match usize::try_from(found) {
        Ok(done) if done <= known => done,
        _ => {
            let path = path.to_owned();
            return Err(OpenError::Newer { path, found, known });
        }
    };
    for (version, sql) in MIGRATIONS.iter().enumerate().skip(done) {
        let apply = |conn: &mut Connection| {
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(sql)?;
            tx.pragma_update(None, "user_version", version as i64 + 1)?;
            tx.commit()
        };
        apply(conn).map_err(error)?;
    }
    Ok(())
}
