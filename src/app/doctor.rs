//! What would keep a server with some configuration from working: one line a
//! check, and how to mend it.

mod nodes;
mod peers;
mod stores;

use std::{
    fmt::Display,
    fs,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(super) use self::stores::OPEN_TO_OTHERS;
use crate::{
    config::{Refusal, ServeConfig},
    runtime,
};

/// Fewer open files than this are too few to serve anybody …
const FILES_FAIL: u64 = 256;
/// … and fewer than this limit the connections rather than the machine does.
const FILES_WARN: u64 = 65_536;

/// A clock before this program was written is wrong (2026-01-01).
const EPOCH_2026: Duration = Duration::from_secs(1_767_225_600);

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
            stores::store(&config, &mut report);
            nodes::cluster(&config, &mut report);
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
}
