//! The server put together: the one place besides `main` that sees every room.

mod doctor;
mod http;
mod node;
mod plan;
mod room;
mod shards;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

pub use doctor::doctor;
use http::Http;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{AccessError, KeyError},
    chats::Chats,
    cluster::{self, News},
    config::{ServeConfig, StoreChoice},
    domain::{Clock, Invalid},
    feed::{History, Wakes},
    grpc::{Calls, Server, Service},
    runtime::{self, BindError, Cores, SystemClock, TlsError, left, wait_until},
    shard::Elsewhere,
    store::{Store, postgres, sqlite},
    telemetry::{Depths, LogLevel, Telemetry, TraceError},
};

/// How long clients may take, after all is answered, to read their streams'
/// ends before their connections are cut.
const LAST_READ: Duration = Duration::from_secs(5);

/// Why the server did not start, or ended other than asked. One line.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("--http-port: {0}; choose another port, or off")]
    Http(#[source] BindError),
    #[error(transparent)]
    Traces(#[from] TraceError),
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    #[error("only PostgreSQL is migrated by command; other stores are when they are opened")]
    NothingToMigrate,
    #[error("--cluster: the store has no table of nodes")]
    NoRegistry,
    #[error("--cluster: {0}")]
    Bus(#[source] cluster::BusError),
    #[error("--cluster: {0}")]
    Join(#[source] cluster::JoinError),
    #[error("--dev-admins: {0}")]
    DevAdmins(Invalid),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("--memory: {0}")]
    Memory(#[source] runtime::NoLimit),
    #[error("the operating system gives no threads or events: {0}")]
    Io(#[from] io::Error),
    #[error("the compiled-in descriptors can't be read: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
    #[error("stopped at once by a second signal")]
    SecondSignal,
}

/// Runs the server until SIGTERM or SIGINT, and then drains it (P9).
///
/// # Errors
/// If it can't start, or a second signal cuts the drain short.
pub fn run(config: ServeConfig, log_level: LogLevel) -> Result<(), AppError> {
    runtime::raise_file_limit();
    let drain_timeout = config.drain_timeout;
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    main.block_on(async {
        let mut signals = Signals::new()?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let app = App::start_with(config, log_level).await?;
        // For scripts that asked for any free port. In one piece, since they may
        // close the pipe behind the first line.
        let http = app.http_address();
        let line = http.map_or_else(String::new, |http| format!("http on {http}\n"));
        let lines = format!("listening on {}\n{line}", app.address());
        print!("{lines}");
        tracing::info!(address = %app.address(), http = http.map(tracing::field::display), "listening");
        let name = signals.next().await;
        tracing::info!(signal = name, "draining");
        tokio::select! {
            () = app.drain(drain_timeout) => Ok(()),
            _ = signals.next() => Err(AppError::SecondSignal),
        }
    })
}

/// Brings the database up to date, and nothing else.
///
/// # Errors
/// If the database can't be reached, is newer than this program, or refuses.
pub fn migrate(store: &StoreChoice) -> Result<(), AppError> {
    let StoreChoice::Postgres(dsn) = store else {
        return Err(AppError::NothingToMigrate);
    };
    let cores = Cores::start(1)?;
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let spawn = Arc::new(cores.spawner_here());
    let settings = postgres::Settings::new(dsn.expose(), spawn);
    main.block_on(postgres::migrate(&settings))?;
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        runtime::outlive_signals()?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A server that runs.
pub struct App {
    address: SocketAddr,
    http: Http,
    telemetry: Telemetry,
    cores: Cores,
    /// Threads of the writer lanes, where they have their own.
    writers: Option<Cores>,
    store: Arc<dyn Store>,
    chats: Chats,
    service: Service,
    connections: TaskTracker,
    closed: CancellationToken,
    ending: CancellationToken,
}

impl App {
    /// Opens the store, starts the cores and listens.
    ///
    /// # Errors
    /// If the store can't be opened or the address can't be had.
    pub async fn start(config: ServeConfig) -> Result<Self, AppError> {
        Self::start_with(config, LogLevel::default()).await
    }

    /// The same, with a log whose level can be changed over HTTP.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(config: ServeConfig, log_level: LogLevel) -> Result<Self, AppError> {
        let address = SocketAddr::new(config.grpc_host, config.grpc_port);
        // First, since it is what most often fails, and opening a store may
        // change it.
        let listeners = runtime::bind(address, config.cores)?;
        let address = listeners[0].local_addr()?;
        let tls = plan::tls(&config)?;
        if tls.is_none() && !address.ip().to_canonical().is_loopback() {
            tracing::warn!("serving without TLS: tokens and messages can be read on their way");
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        #[cfg(feature = "testing")]
        let clock = crate::fault::SetClock::over(clock);
        let http = Http::bind(&config)?;
        let telemetry = plan::telemetry(&config, http.spawner())?;
        let cores = Cores::start(config.cores)?;
        let writers = plan::writers(&config)?;
        let memory = room::memory(&config)?;
        let guards = plan::guards(
            &config,
            &clock,
            cores.spawner(0),
            &telemetry.metrics,
            memory,
        )?;
        let guards = plan::for_pages(guards, &config, http.address(), cores.spawner(0))?;
        let spawn = Arc::new(cores.spawner_here());
        let mut opened = plan::store(&config, spawn).await?;
        let store = opened.store.clone();
        #[cfg(feature = "testing")]
        let store = crate::fault::FaultyStore::over(store);
        if let Some(upkeep) = opened.upkeep.take() {
            cores.spawner(0).spawn_vital("store upkeep", upkeep);
        }

        memory.say();
        telemetry.metrics.memory_allowed(memory.0);
        let lanes_on = writers.as_ref().unwrap_or(&cores);
        let lanes = shards::start_lanes(&config, lanes_on, &store, &clock, &telemetry);
        let history = Arc::new(History {
            store: store.clone(),
            clock: clock.clone(),
            metrics: telemetry.metrics.clone(),
            pages: memory.pages(),
        });
        let wakes = Arc::new(Wakes::new(cores.count()));
        let news = Arc::new(News::default());
        let elsewhere = config
            .cluster
            .as_ref()
            .map(|_| news.clone() as Arc<dyn Elsewhere>);
        let (lanes, history) = (&lanes, &history);
        let shards = shards::start(&config, memory, &cores, lanes, history, &wakes, elsewhere);
        let cluster = match &config.cluster {
            None => None,
            Some(cluster) => {
                let parts = node::Parts {
                    cores: &cores,
                    shards: &shards,
                    wakes: &wakes,
                    history,
                    news: &news,
                    memory: memory.followed(),
                    address: address.to_string(),
                    traces: telemetry.traces.clone(),
                };
                Some(node::join(&config, cluster, &opened, parts).await?)
            }
        };
        let chats = Chats::new(shards, cluster.clone());
        let lane_connects = opened.lane_connects.clone();
        let waiting = chats.clone();
        telemetry.metrics.probe_depths(move || Depths {
            mailbox: waiting.waiting() as u64,
            lane_connects: lane_connects.load(Ordering::Relaxed),
        });
        let limits = plan::limits(&config);
        let calls = Calls::new(chats.clone(), store.clone(), clock, limits);
        let ending = CancellationToken::new();
        let service = Service::new(Arc::new(calls), guards, telemetry.clone(), ending.clone())?;
        let metrics = telemetry.metrics.clone();
        let http = http.serve(
            &cores,
            &store,
            metrics,
            log_level,
            plan::chat_page(&config, address.port()),
            cluster,
        );
        let app = Self {
            address,
            http,
            telemetry,
            cores,
            writers,
            store,
            chats,
            service,
            connections: TaskTracker::new(),
            closed: CancellationToken::new(),
            ending,
        };
        app.service.set_serving().await;
        for (core, listener) in listeners.into_iter().enumerate() {
            let spawner = app.cores.spawner(core);
            let server = Server {
                service: app.service.clone(),
                settings: plan::server(&config),
                tls: tls.clone(),
                core,
                spawner: spawner.clone(),
                connections: app.connections.clone(),
                closed: app.closed.clone(),
                ending: app.ending.clone(),
            };
            spawner.spawn_vital("listener", server.run(listener));
        }
        Ok(app)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP is, if there is any.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.address()
    }

    /// What the server counts and traces with.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Ends the server within `timeout`, in the order of P9: not ready, no new
    /// connections, no new work, all accepted work committed and answered,
    /// streams ended, connections closed, store closed.
    pub async fn drain(self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        self.http.set_draining();
        self.service.set_draining().await;
        self.closed.cancel();
        if !wait_until(deadline, self.chats.drain()).await {
            tracing::warn!("drain timed out, some sends stay unanswered");
        }
        self.ending.cancel();
        self.connections.close();
        let last_read = deadline.min(Instant::now() + LAST_READ);
        if !wait_until(last_read, self.connections.wait()).await {
            let open = self.connections.len();
            tracing::warn!(open, "connections cut that did not end in time");
        }
        if !wait_until(deadline, self.store.close()).await {
            tracing::warn!("the store did not close in time");
        }
        self.http.stop(self.telemetry.traces).await;
        if let Some(writers) = self.writers {
            writers.stop();
        }
        self.cores.stop();
        tracing::info!(left = ?left(deadline), "drained");
    }
}
