//! How much there is room for: in memory, and in the files that may be open.

use super::AppError;
use crate::{
    config::{MemoryChoice, ServeConfig},
    feed::Pages,
    runtime,
};

/// What `--memory` comes to, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Budget(pub u64);

impl Budget {
    /// Chats and posts have nine sixteenths of it, pages of history a quarter, answers that
    /// nobody has read yet an eighth, and requests that are not whole yet the rest.
    /// Of a server that is one of several, what it follows has two of the nine.
    pub fn of_shard(self, config: &ServeConfig) -> usize {
        let shards = config.shards as u64;
        let parts = if config.cluster.is_some() { 7 } else { 9 };
        usize::try_from(self.0 / 16 * parts / shards).unwrap_or(usize::MAX)
    }

    /// What chats of other nodes may take that are read here.
    pub fn followed(self) -> usize {
        usize::try_from(self.0 / 8).unwrap_or(usize::MAX)
    }

    pub fn answers(self) -> usize {
        usize::try_from(self.0 / 8).unwrap_or(usize::MAX)
    }

    pub fn requests(self) -> usize {
        usize::try_from(self.0 / 16).unwrap_or(usize::MAX)
    }

    /// Says what it is.
    pub fn say(self) {
        tracing::info!(
            bytes = self.0,
            "the memory for chats, posts, pages of history, answers and requests"
        );
    }

    pub fn pages(self) -> Pages {
        Pages::new(usize::try_from(self.0 / 4).unwrap_or(usize::MAX))
    }
}

/// As `--memory` says.
///
/// # Errors
/// If a share of the machine's memory is asked for and nobody says how much it has.
pub fn memory(config: &ServeConfig) -> Result<Budget, AppError> {
    let budget = match config.memory {
        MemoryChoice::Size(bytes) => bytes,
        MemoryChoice::Share(percent) => {
            let all = runtime::memory_limit().map_err(AppError::Memory)?;
            all / 100 * u64::from(percent)
        }
    };
    Ok(Budget(budget))
}

/// Open files that are not for connections: 256 of the HTTP port, 64 that are told to
/// go, the log's and the store's.
const FILES_KEPT: usize = 400;

/// Below so many connections a server is told to have few.
const FEW_CONNECTIONS: usize = 4_000;

/// Connections at a time where so many files may be open: whatever clients do, probes
/// are answered and the store is reached.
pub fn connections(config: &ServeConfig, files: u64) -> usize {
    let kept = FILES_KEPT + config.store_readers + config.writer_lanes;
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let room = files - kept.min(files / 2);
    let asked = config.limits.connections;
    if room < asked.min(FEW_CONNECTIONS) {
        tracing::warn!(
            connections = room,
            files,
            "fewer connections than --max-connections: the limit of open files is low (ulimit -n)"
        );
    } else if room < asked {
        tracing::debug!(
            connections = room,
            files,
            "as many connections as files may be open"
        );
    }
    room.min(asked)
}
