//! Whether the store can be used.

use std::{fs, io, path::Path, time::Duration};

use super::{Report, Verdict};
use crate::{
    config::{ServeConfig, StoreChoice},
    runtime::Cores,
    store::{postgres, sqlite},
    telemetry::chain,
};

/// Beyond this the times of messages differ visibly between two servers.
const SKEW_WARN: Duration = Duration::from_secs(1);

/// Sessions beside those of lanes and readers: to migrate, to purge, and to write when
/// chats were active.
const OTHER_SESSIONS: usize = 3;

/// Of the store's file.
pub const OPEN_TO_OTHERS: &str = "other users of this machine can read all messages: \
    chmod 600 the file, and its -wal and -shm beside it";

pub fn store(config: &ServeConfig, report: &mut Report) {
    match &config.store {
        StoreChoice::Memory => {
            let text = "memory: all is gone when the process ends; for trying out only";
            report.line(Verdict::Warn, "store", text);
        }
        StoreChoice::Sqlite(path) => match usable(path) {
            Ok(ahead) => {
                let shown = path.display();
                report.line(
                    Verdict::Ok,
                    "store",
                    format!("sqlite, {shown} can be written"),
                );
                clock_ahead(ahead, report);
                if sqlite::is_open_to_others(path) == Some(true) {
                    let text = format!("{shown}: {OPEN_TO_OTHERS}");
                    report.line(Verdict::Warn, "store", text);
                }
            }
            Err(error) => report.line(
                Verdict::Fail,
                "store",
                format!("{}: {error}", path.display()),
            ),
        },
        StoreChoice::Postgres(dsn) => match inspect(dsn.expose()) {
            Ok(found) => {
                let needed = config.writer_lanes + config.store_readers + OTHER_SESSIONS;
                database(&found, needed as u64, report);
            }
            Err(error) => report.line(
                Verdict::Fail,
                "database",
                format!(
                    "{error}: check the address, the network and the password in --store or \
                     PG_DSN, and that PostgreSQL runs"
                ),
            ),
        },
    }
}

fn inspect(dsn: &str) -> Result<postgres::Inspection, String> {
    let inspect = || -> io::Result<_> {
        let cores = Cores::start(1)?;
        let main = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let spawn = std::sync::Arc::new(cores.spawner_here());
        let settings = postgres::Settings::new(dsn, spawn);
        Ok(main.block_on(postgres::inspect(&settings)))
    };
    match inspect() {
        Ok(found) => found.map_err(|e| chain(&e).to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn database(found: &postgres::Inspection, needed: u64, report: &mut Report) {
    let version = &found.server_version;
    report.line(
        Verdict::Ok,
        "database",
        format!("PostgreSQL {version} answers"),
    );
    let (applied, known) = (found.applied, found.known);
    let (verdict, text) = match applied.cmp(&known) {
        std::cmp::Ordering::Equal => (Verdict::Ok, format!("up to date, at {known}")),
        std::cmp::Ordering::Less => (
            Verdict::Warn,
            format!(
                "at {applied} of {known}: the next start applies the rest; chatd migrate does so now"
            ),
        ),
        std::cmp::Ordering::Greater => (
            Verdict::Fail,
            format!("at {applied}, this chatd knows {known}: install the newer chatd"),
        ),
    };
    report.line(verdict, "migrations", text);
    if found.fsync_off {
        let text = "fsync is off: a crash may lose acknowledged messages; set fsync = on";
        report.line(Verdict::Fail, "durability", text);
    } else {
        report.line(Verdict::Ok, "durability", "fsync is on");
    }
    served(found, needed, report);
    let skew = found.skew;
    let (verdict, mend) = if skew > SKEW_WARN {
        (Verdict::Warn, ": run an NTP client on both machines")
    } else {
        (Verdict::Ok, "")
    };
    let text = format!("{} ms from here{mend}", skew.as_millis());
    report.line(verdict, "database clock", text);
    clock_ahead(found.ahead, report);
}

/// Messages keep the time that they were given, and a chat's next ones don't go back.
fn clock_ahead(ahead: Duration, report: &mut Report) {
    if ahead > SKEW_WARN {
        let text = format!(
            "a chat's newest message is {} s ahead, so a clock was: the chat's next messages keep \
             its time until then; run an NTP client",
            ahead.as_secs()
        );
        report.line(Verdict::Warn, "message times", text);
    }
}

/// Whether the server can work with the database as it is.
fn served(found: &postgres::Inspection, needed: u64, report: &mut Report) {
    let (verdict, text) = match found.encoding.as_str() {
        "UTF8" => (Verdict::Ok, "UTF8".to_owned()),
        other => (
            Verdict::Fail,
            format!(
                "{other}, which cannot hold every message: make the database with ENCODING \
                 'UTF8' TEMPLATE template0"
            ),
        ),
    };
    report.line(verdict, "encoding", text);
    match &found.missing {
        None => report.line(Verdict::Ok, "rights", "the role may do what is needed"),
        Some(missing) => {
            let text = format!("the role lacks {missing}: grant it, or let it own the tables");
            report.line(Verdict::Fail, "rights", text);
        }
    }
    let places = found.places;
    let (verdict, mend) = match places < needed {
        true => (
            Verdict::Warn,
            ": raise max_connections or the CONNECTION LIMIT of the role or the database, or \
             lower --store-readers; lanes get their sessions first",
        ),
        false => (Verdict::Ok, ""),
    };
    let text = format!("room for {places} sessions, {needed} are wanted{mend}");
    report.line(verdict, "sessions", text);
    if found.pooled {
        let text = "statements are not prepared, which costs reads some time; its own limits are \
                    not seen here; where it can, let chatd go to PostgreSQL itself";
        report.line(Verdict::Warn, "pooler", text);
    }
}

/// Whether the database can be written, and read if it is there; how far its messages
/// are ahead.
fn usable(path: &Path) -> Result<Duration, String> {
    writable(path).map_err(|error| {
        format!(
            "{error}: let the server's user own the folder, or name another with \
             --store sqlite:PATH"
        )
    })?;
    let disk = if path.exists() { path } else { folder_of(path) };
    sqlite::has_room(disk).map_err(|error| format!("{error}: make room"))?;
    sqlite::look(path).map_err(|error| format!("{error}: put back a copy that is whole"))
}

/// The nearest folder that is there.
fn folder_of(path: &Path) -> &Path {
    let mut folders = path.ancestors().skip(1);
    let nearest = folders.find(|folder| folder.exists());
    nearest.unwrap_or(Path::new("."))
}

/// Without leaving anything behind.
fn writable(path: &Path) -> io::Result<()> {
    if path.exists() {
        return fs::OpenOptions::new().append(true).open(path).map(drop);
    }
    // The server makes the folders that are missing: the nearest that is there
    // must let it.
    let probe = folder_of(path).join(format!(".chatd-doctor-{}", std::process::id()));
    fs::write(&probe, [])?;
    fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_judged_by_what_it_says() {
        let judged = |change: fn(&mut postgres::Inspection)| {
            let mut found = postgres::Inspection {
                server_version: "15.1".into(),
                applied: 2,
                known: 2,
                fsync_off: false,
                skew: Duration::ZERO,
                encoding: "UTF8".into(),
                missing: None,
                places: 20,
                pooled: false,
                ahead: Duration::ZERO,
            };
            change(&mut found);
            let mut report = Report::default();
            database(&found, 12, &mut report);
            (report.failed, report.warned)
        };
        assert_eq!(judged(|_| {}), (0, 0));
        assert_eq!(judged(|found| found.applied = 1), (0, 1));
        assert_eq!(judged(|found| found.applied = 3), (1, 0));
        assert_eq!(judged(|found| found.fsync_off = true), (1, 0));
        assert_eq!(judged(|found| found.skew = Duration::from_secs(2)), (0, 1));
        assert_eq!(judged(|found| found.encoding = "LATIN1".into()), (1, 0));
        assert_eq!(judged(|found| found.missing = Some("a".into())), (1, 0));
        assert_eq!(judged(|found| found.places = 11), (0, 1));
        assert_eq!(judged(|found| found.pooled = true), (0, 1));
        assert_eq!(
            judged(|found| found.ahead = Duration::from_secs(60)),
            (0, 1)
        );
    }
}
