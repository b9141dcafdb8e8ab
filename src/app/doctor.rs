//! What would keep a server with some configuration from working: one line a
//! check, and how to mend it.

mod peers;

use std::{
    fmt::Display,
    fs, io,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    config::{Refusal, ServeConfig, StoreChoice},
    runtime::{self, Cores},
    store::{postgres, sqlite},
    telemetry::chain,
};

/// Fewer open files than this are too few to serve anybody …
const FILES_FAIL: u64 = 256;
/// … and fewer than this limit the connections rather than the machine does.
const FILES_WARN: u64 = 65_536;

/// Beyond this the times of messages differ visibly between two servers.
const SKEW_WARN: Duration = Duration::from_secs(1);

/// Sessions beside those of lanes and readers: to migrate, to purge, and to write when
/// chats were active.
const OTHER_SESSIONS: usize = 3;

/// A clock before this program was written is wrong (2026-01-01).
const EPOCH_2026: Duration = Duration::from_secs(1_767_225_600);

/// Of the store's file.
pub(super) const OPEN_TO_OTHERS: &str = "other users of this machine can read all messages: \
    chmod 600 the file, and its -wal and -shm beside it";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Default)]
struct Report {
    failed: usize,
    warned: usize,
}

impl Report {
    fn line(&mut self, verdict: Verdict, check: &str, text: impl Display) {
        let word = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        self.failed += usize::from(verdict == Verdict::Fail);
        self.warned += usize::from(verdict == Verdict::Warn);
        let text = text.to_string().replace(char::is_control, " ");
        println!("{word} {check}: {text}");
    }
}

/// Checks everything that can be checked without starting the server, and
/// prints what it finds.
///
/// # Errors
/// If something would keep the server from working.
pub fn doctor(config: Result<Box<ServeConfig>, Refusal>) -> Result<(), String> {
    let mut report = Report::default();
    match config {
        Err(refusal) => {
            let mend = "correct it, or leave it out for the default; chatd --help has the bounds";
            report.line(Verdict::Fail, "configuration", format!("{refusal}: {mend}"));
        }
        Ok(config) => {
            report.line(
                Verdict::Ok,
                "configuration",
                "every option is within its bounds",
            );
            for warning in &config.warnings {
                report.line(Verdict::Warn, "configuration", warning);
            }
            ports(&config, &mut report);
            store(&config, &mut report);
            peers::auth(&config, &mut report);
            peers::tls(&config, &mut report);
            peers::traces(&config, &mut report);
        }
    }
    files(&mut report);
    clock(SystemTime::now(), &mut report);
    match report.failed {
        0 => Ok(()),
        1 => Err("1 check failed".into()),
        n => Err(format!("{n} checks failed")),
    }
}

fn ports(config: &ServeConfig, report: &mut Report) {
    let grpc = ("grpc port", config.grpc_host, Some(config.grpc_port));
    let http = ("http port", config.http_host, config.http_port);
    for (check, host, port) in [grpc, http] {
        let Some(port) = port else {
            let text = "off: no /metrics, and nothing for a health check to ask";
            report.line(Verdict::Warn, check, text);
            continue;
        };
        match runtime::bind(SocketAddr::new(host, port), 1) {
            Ok(_) => report.line(Verdict::Ok, check, format!("{host}:{port} is free")),
            Err(error) => report.line(
                Verdict::Warn,
                check,
                format!("{error}: if that is not a chatd that runs already, choose another"),
            ),
        }
    }
    if !config.http_host.to_canonical().is_loopback() && config.http_port.is_some() {
        let text = "not a loopback address: whoever can reach it can read the metrics; \
                    let a firewall or network policy say who";
        report.line(Verdict::Warn, "http host", text);
    }
}

fn store(config: &ServeConfig, report: &mut Report) {
    match &config.store {
        StoreChoice::Memory => {
            let text = "memory: all is gone when the process ends; for trying out only";
            report.line(Verdict::Warn, "store", text);
        }
        StoreChoice::Sqlite(path) => match usable(path) {
            Ok(()) => {
                let shown = path.display();
                report.line(
                    Verdict::Ok,
                    "store",
                    format!("sqlite, {shown} can be written"),
                );
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

/// Without leaving anything behind.
/// Whether the database can be written, and read if it is there.
fn usable(path: &Path) -> Result<(), String> {
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

fn writable(path: &Path) -> io::Result<()> {
    if path.exists() {
        return fs::OpenOptions::new().append(true).open(path).map(drop);
    }
    // The server makes the folders that are missing: the nearest that is there
    // must let it.
    let folders = path.ancestors().skip(1);
    let mut folders = folders.map(|folder| {
        if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        }
    });
    let nearest = folders.find(|folder| folder.exists());
    let nearest = nearest.ok_or(io::ErrorKind::NotFound)?;
    let probe = nearest.join(format!(".chatd-doctor-{}", std::process::id()));
    fs::write(&probe, [])?;
    fs::remove_file(probe)
}

fn files(report: &mut Report) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    let Some(soft) = soft else {
        return report.line(Verdict::Warn, "open files", "the limit can't be read");
    };
    let files = soft.parse().unwrap_or(u64::MAX);
    let mend = "raise it (ulimit -n, or LimitNOFILE= in the systemd unit)";
    let (verdict, text) = if files < FILES_FAIL {
        (Verdict::Fail, format!("at most {soft}: {mend}"))
    } else if files < FILES_WARN {
        (
            Verdict::Warn,
            format!("at most {soft}, and each connection takes one: {mend}"),
        )
    } else {
        (Verdict::Ok, format!("at most {soft}"))
    };
    report.line(verdict, "open files", text);
}

fn clock(now: SystemTime, report: &mut Report) {
    match now.duration_since(UNIX_EPOCH) {
        Ok(now) if now > EPOCH_2026 => report.line(Verdict::Ok, "clock", "set"),
        _ => report.line(Verdict::Fail, "clock", "not set: run an NTP client"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_fails() {
        let mut report = Report::default();
        clock(
            UNIX_EPOCH + EPOCH_2026 + Duration::from_secs(1),
            &mut report,
        );
        assert_eq!(report.failed, 0);
        clock(UNIX_EPOCH + Duration::from_secs(60), &mut report);
        clock(UNIX_EPOCH - Duration::from_secs(60), &mut report);
        assert_eq!(report.failed, 2);
    }

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
    }
}
