//! Chat servers as they are usually written (`loadtest/baseline/`): what one
//! would have instead of ours, measured in the same run.

mod go;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Args, ValueEnum};

use crate::{
    Result,
    child::Child,
    options::{Common, built},
};

#[derive(Args, Clone)]
pub struct Against {
    /// Usual servers to measure beside ours, on stores that they know (memory
    /// and PostgreSQL)
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["rust", "go"])]
    against: Vec<Language>,

    /// Only ours and the ceiling
    #[arg(long)]
    alone: bool,
}

#[derive(ValueEnum, Clone, Copy)]
enum Language {
    /// tonic, a queue and an encode a reader, bb8
    Rust,
    /// grpc-go, a goroutine and a channel a stream, pgx; if Go is installed
    Go,
}

/// A usual server, ready to be started.
pub struct Baseline {
    pub name: &'static str,
    path: PathBuf,
}

impl Against {
    /// Builds the servers that can be measured here.
    pub fn build(&self, common: &Common) -> Result<Vec<Baseline>> {
        if self.alone {
            return Ok(Vec::new());
        }
        if common.store.starts_with("sqlite") {
            eprintln!("the usual servers don't know SQLite: they are left out");
            return Ok(Vec::new());
        }
        let mut baselines = Vec::new();
        for language in &self.against {
            baselines.push(match language {
                Language::Rust => Baseline {
                    name: "usual Rust",
                    path: built("loadtest", "baseline")?,
                },
                Language::Go if !go::is_there() => {
                    eprintln!("Go is not installed: its server is left out");
                    continue;
                }
                Language::Go => Baseline {
                    name: "usual Go",
                    path: go::build()?,
                },
            });
        }
        Ok(baselines)
    }
}

impl Baseline {
    /// Starts the server on the store of the run.
    pub fn start(&self, common: &Common) -> Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(["--store", &common.store]);
        Child::start(command, common)
    }
}

/// Where the sources of this package are.
fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
