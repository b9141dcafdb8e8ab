//! `chatd serve` as a process, to be killed and started again.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Result, check::pg::kill, child};

/// Short times, and little in the ring, so that readers go to history and back.
const SETTINGS: [&str; 16] = [
    "--cores",
    "2",
    "--send-timeout",
    "2s",
    "--store-stall",
    "1s",
    "--ring-bytes",
    "16KiB",
    "--keep-alive-interval",
    "1s",
    "--keep-alive-timeout",
    "1s",
    "--drain-timeout",
    "10s",
    "--log-level",
    "info",
];

/// How long a drain may take, its own timeout and the last reads.
const DRAIN: Duration = Duration::from_secs(20);

pub struct Chatd {
    binary: PathBuf,
    args: Vec<String>,
    environment: Vec<(&'static str, String)>,
    home: PathBuf,
    address: SocketAddr,
    /// Where it tells of its cluster, if it is one of several.
    http: Option<SocketAddr>,
    running: Option<(Child, BufReader<ChildStdout>)>,
}

impl Chatd {
    /// In `home`, which is there. Must be called from a thread that stays as long
    /// as the server is to: with it the server goes. `http`: it gets an HTTP port.
    pub fn start(
        binary: &Path,
        home: &Path,
        args: Vec<String>,
        environment: Vec<(&'static str, String)>,
        http: bool,
    ) -> Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut chatd = Self {
            binary: binary.into(),
            args,
            environment,
            home: home.into(),
            address: any,
            http: http.then_some(any),
            running: None,
        };
        chatd.start_again()?;
        Ok(chatd)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its HTTP port, if it has one.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|(process, _)| process.id())
    }

    /// On the ports it had.
    pub fn start_again(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.join("log"))?;
        let port = |http: SocketAddr| http.port().to_string();
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .args(["--http-port", &self.http.map_or("off".into(), port)])
            .args(["--grpc-port", &self.address.port().to_string()])
            .args(["--config-path", ""])
            .args(SETTINGS)
            .args(&self.args);
        let mut command = child::ending_with_us(&command);
        let mut process = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().cloned())
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut stdout = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        self.running = Some((process, stdout));
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            self.kill();
            return Err(format!("the server does not start:\n{}", self.log()).into());
        };
        self.address = address.parse()?;
        if let (Some(http), Some((_, stdout))) = (&mut self.http, &mut self.running) {
            let mut line = String::new();
            stdout.read_line(&mut line)?;
            let address = line.trim().strip_prefix("http on ");
            *http = address.ok_or("the server has no HTTP port")?.parse()?;
        }
        Ok(())
    }

    /// `kill -9`. Returns once it is gone.
    pub fn kill(&mut self) {
        if let Some((mut process, _)) = self.running.take() {
            // An error: it has ended.
            _ = process.kill();
            _ = process.wait();
        }
    }

    /// SIGTERM. Returns once it has drained, which it says with code 0.
    pub fn terminate(&mut self) -> Result<()> {
        let Some((process, _)) = &mut self.running else {
            return Ok(());
        };
        kill("-TERM", process.id());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break status;
            }
            if begun.elapsed() > DRAIN {
                self.kill();
                return Err("the server does not end when it is told to".into());
            }
            thread::sleep(Duration::from_millis(5));
        };
        self.running = None;
        if status.success() {
            Ok(())
        } else {
            Err(format!(
                "the server ended with {status} when it was told to:\n{}",
                self.log()
            )
            .into())
        }
    }

    /// Whether it ended though nobody told it to.
    pub fn has_ended(&mut self) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|(process, _)| !matches!(process.try_wait(), Ok(None)))
    }

    pub fn signal(&self, signal: &str) {
        if let Some(pid) = self.pid() {
            kill(signal, pid);
        }
    }

    /// What it wrote on standard error, in all its lives: the end of it.
    pub fn log(&self) -> String {
        let log = self.whole_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Whether it wrote this, in one of its lives.
    pub fn says(&self, what: &str) -> bool {
        self.whole_log().contains(what)
    }

    /// What it wrote on standard error, in all its lives.
    pub fn whole_log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }
}

impl Drop for Chatd {
    fn drop(&mut self) {
        self.kill();
    }
}
