//! What all scenarios have in common: the server under test, how often and how
//! long it is measured.

use std::{path::PathBuf, process::Command, time::Duration};

use clap::Args;
use tempfile::TempDir;

use crate::{
    Result,
    child::{self, Child},
    report::Report,
};

#[derive(Args, Clone)]
pub struct Common {
    /// memory, sqlite (a new file a run in the folder for temporary files),
    /// sqlite:FOLDER (a new file a run in a new folder in there), or postgres://…
    #[arg(long, default_value = "memory")]
    pub store: String,

    /// How often; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,

    /// How long a run is measured
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,

    /// How long it is under load before
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,

    /// Write the results to this file as well
    #[arg(long)]
    pub json: Option<PathBuf>,

    /// The server's binary; without it, it is built
    #[arg(long)]
    pub chatd: Option<PathBuf>,

    #[arg(long, default_value_t = 0)]
    pub server_core: usize,

    /// The core for the load
    #[arg(long, default_value_t = 1)]
    pub client_core: usize,

    /// Leave it to the system which core runs what
    #[arg(long)]
    pub unpinned: bool,

    /// End the server by SIGTERM and not at once: a build that profiles itself
    /// writes its profile then
    #[arg(long)]
    pub stop: bool,

    /// An argument for the server, say --server-arg=--ring=1024; several times
    #[arg(long)]
    pub server_arg: Vec<String>,
}

/// A server under test, with the store it was given.
pub struct Server {
    pub child: Child,
    _folder: Option<TempDir>,
}

impl Common {
    /// Runs a scenario as often as asked, and tells the results.
    pub fn repeat(
        &self,
        scenario: &str,
        settings: String,
        mut run: impl FnMut(&Self, &mut Report) -> Result<()>,
    ) -> Result<()> {
        let mut common = self.clone();
        if common.chatd.is_none() {
            common.chatd = Some(built("chat-service", "chatd")?);
        }
        if !common.unpinned {
            child::pin(common.client_core)?;
        }
        // What else the machine does tells how far the figures can be believed.
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default();
        let store = self.store_name();
        let settings = format!("{store}, {settings}, load average before {load}");
        let mut report = Report::new(scenario, settings);
        for number in 1..=self.runs {
            run(&common, &mut report)?;
            eprintln!("{scenario}: run {number} of {}", self.runs);
        }
        report.print();
        if let Some(path) = &self.json {
            report.write_json(path)?;
        }
        Ok(())
    }

    /// Starts the server under test on an empty store.
    pub fn server(&self, more: &[&str]) -> Result<Server> {
        let path = self.chatd.as_ref().ok_or("no server to start")?;
        let (store, folder) = self.new_store()?;
        let mut command = Command::new(path);
        let cores = if self.unpinned { "2" } else { "1" };
        command
            .args(["serve", "--grpc-port", "0", "--log-level", "warn"])
            .args(["--cores", cores, "--store", &store])
            .args(more)
            .args(&self.server_arg);
        Ok(Server {
            child: Child::start(command, self)?,
            _folder: folder,
        })
    }

    /// An empty store, and the folder that goes when it is dropped.
    pub fn new_store(&self) -> Result<(String, Option<TempDir>)> {
        let folder = match self.store.strip_prefix("sqlite") {
            None => return Ok((self.store.clone(), None)),
            Some("") => tempfile::tempdir()?,
            Some(path) => tempfile::tempdir_in(path.trim_start_matches(':'))?,
        };
        let file = folder.path().join("chat.db");
        Ok((format!("sqlite:{}", file.display()), Some(folder)))
    }

    /// The store's kind: a DSN may hold a password.
    fn store_name(&self) -> &str {
        self.store.split(':').next().unwrap_or_default()
    }

    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Builds a program with this one's own cargo and profile.
pub fn built(package: &str, program: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", package])
        .args(["--bin", program])
        .status()?;
    if !status.success() {
        return Err(format!("{program} can't be built").into());
    }
    let me = std::env::current_exe()?;
    Ok(me.with_file_name(program))
}
