//! A small Auth Service, so that the whole way from a password to a message can
//! be walked with one binary: in tests, in the README, on a machine of one's
//! own. Users come from a TOML file, and there is no other state.
//!
//! `main` and tests call it. Invariants:
//! 1. No password and no token is logged, nor part of an error.
//! 2. A refresh token is no access token: the two have different keys.
//! 3. A password costs a guess the same time whether the name exists or not,
//!    and only so many guesses a minute are made from an address.
//! 4. A token counts only as long as its user has the password of that login.

mod bounds;
mod connections;
mod service;
mod tokens;
mod users;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::TokenServerConfig,
    runtime::{self, BindError, Cores},
};

use service::Service;

/// Why the service did not start. One line.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("{0}: {1}")]
    File(String, String),
    #[error("the operating system gives no threads, events or randomness: {0}")]
    Io(#[from] io::Error),
}

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// If it can't start.
pub fn run(config: TokenServerConfig) -> Result<(), ReferenceError> {
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    main.block_on(async {
        runtime::raise_file_limit();
        runtime::outlive_signals()?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let reference = Reference::start(config)?;
        println!("listening on {}", reference.address());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        reference.stop();
        Ok(())
    })
}

/// A service that runs.
#[derive(Debug)]
pub struct Reference {
    address: SocketAddr,
    cores: Cores,
}

impl Reference {
    /// Reads the files and listens.
    ///
    /// # Errors
    /// If a file can't be read or the address can't be had.
    pub fn start(config: TokenServerConfig) -> Result<Self, ReferenceError> {
        let mut listeners = runtime::bind(SocketAddr::new(config.host, config.port), 1)?;
        let listener = listeners.remove(0);
        let address = listener.local_addr()?;
        if !address.ip().to_canonical().is_loopback() {
            tracing::warn!("serving without TLS: passwords can be read on their way");
        }
        let cores = Cores::start(1)?;
        let spawner = cores.spawner(0).clone();
        let service = match Service::new(&config, spawner.clone()) {
            Ok(service) => Arc::new(service),
            Err(error) => {
                cores.stop();
                return Err(error);
            }
        };
        tracing::info!(%address, "auth service listening");
        let accepting = connections::accept(listener, service, spawner.clone());
        spawner.spawn_vital("auth listener", accepting);
        Ok(Self { address, cores })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends at once: a call that is cut is made again.
    pub fn stop(self) {
        self.cores.stop();
    }
}
