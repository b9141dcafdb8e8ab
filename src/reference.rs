//! A small Auth Service, so that the whole way from a password to a message can
//! be walked with one binary: in tests, in the README, on a machine of one's
//! own. Users come from a TOML file, and there is no other state.
//!
//! `main` and tests call it. Invariants:
//! 1. No password and no token is logged, nor part of an error.
//! 2. A refresh token is no access token: the two have different keys.
//! 3. A password costs a guess the same time whether the name exists or not,
//!    and only so many guesses a minute are made.

mod service;
mod tokens;
mod users;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tower_service::Service as _;

use crate::{
    config::TokenServerConfig,
    proto::{access::access_v1_server::AccessV1Server, tokens::auth_v1_server::AuthV1Server},
    runtime::{self, BindError, Cores, Spawner},
    telemetry::log_limited,
};

use service::Service;

const MAX_STREAMS: u32 = 128;
const MAX_HEADER_BYTES: u32 = 16 * 1024;

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
        let accepting = accept(listener, service, spawner.clone());
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

async fn accept(listener: std::net::TcpListener, service: Arc<Service>, spawner: Spawner) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "listener not usable"),
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log_limited!(WARN, %error, "connection can't be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = service.clone();
        let calls = service_fn(move |request| answer(service.clone(), request));
        let connection = http2::Builder::new(spawner.clone())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), calls);
        spawner.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn answer(
    service: Arc<Service>,
    request: Request<Incoming>,
) -> Result<Response<tonic::body::Body>, Infallible> {
    if request.uri().path().starts_with("/access_v1.AccessV1/") {
        AccessV1Server::from_arc(service).call(request).await
    } else {
        // Also answers what is of neither.
        AuthV1Server::from_arc(service).call(request).await
    }
}
