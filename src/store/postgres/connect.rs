use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Config, config::Host, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Settings, Spawner,
    cancel::{Canceller, Peer},
    dsn::{Dsn, Place},
    error::{ConnectError, OpenError, is_wait_given_up},
    places::Places,
    servers::Servers,
    session::Session,
    sql,
    standing::Standing,
    tls,
};
use crate::{store::retry_delays, telemetry::chain};

/// Between two tries to find out which server answers.
const ASK_MIN: Duration = Duration::from_millis(20);
const ASK_MAX: Duration = Duration::from_secs(1);

/// Makes connections: to the places of the address in turn, until one of them has
/// a session that writes. Clones know of each other's.
#[derive(Clone)]
pub(super) struct Connector {
    dsn: Arc<Dsn>,
    tls: MakeRustlsConnect,
    /// For each address of a place, authentication and setup included.
    timeout: Duration,
    /// The place that had the last session. Where there are several, one that is
    /// silent costs the first connection its time, and not every one.
    first: Arc<AtomicUsize>,
    /// A pooler has refused the parameter that tells it from a server.
    unmarked: Arc<AtomicBool>,
    doubts: Arc<AtomicU64>,
    servers: Arc<Servers>,
    closed: Arc<watch::Sender<bool>>,
    /// Why the last connection was not made, if it was not.
    failure: Arc<Mutex<Option<String>>>,
    pub places: Arc<Places>,
    pub standing: Arc<Standing>,
    pub spawn: Spawner,
}

impl Connector {
    pub fn new(settings: &Settings) -> Result<Self, OpenError> {
        let dsn = Dsn::parse(&settings.dsn)?;
        Ok(Self {
            tls: tls::connector(&dsn)?,
            timeout: dsn.connect_timeout.unwrap_or(settings.connect_timeout),
            first: Arc::default(),
            unmarked: Arc::default(),
            doubts: Arc::default(),
            servers: Arc::default(),
            closed: Arc::default(),
            failure: Arc::default(),
            places: Arc::default(),
            standing: Arc::default(),
            spawn: Arc::clone(&settings.spawn),
            dsn: Arc::new(dsn),
        })
    }

    /// A connection. `name` tells it from others in `pg_stat_activity`. `setup`
    /// has run on it if it is a server's own session, and not a pooler's.
    pub async fn connect(&self, name: Option<&str>, setup: &str) -> Result<Session, ConnectError> {
        let places = &self.dsn.places;
        let first = match self.dsn.shuffled {
            true => fastrand::usize(..places.len()),
            false => self.first.load(Ordering::Relaxed),
        };
        let mut failed = Vec::new();
        for n in (first..places.len()).chain(0..first) {
            match self.at_place(&places[n], name, setup).await {
                Ok(session) => {
                    self.first.store(n, Ordering::Relaxed);
                    self.set_failure(None);
                    return Ok(session);
                }
                Err(error) => failed.push((places[n].to_string(), error)),
            }
        }
        let error = ConnectError::Places(failed);
        self.set_failure(Some(error.to_string()));
        Err(error)
    }

    fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = failure;
    }

    /// Why no connection can be made, if the last try failed.
    pub fn last_failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        failure.clone()
    }

    async fn at_place(
        &self,
        place: &Place,
        name: Option<&str>,
        setup: &str,
    ) -> Result<Session, ConnectError> {
        let addrs: Vec<Option<IpAddr>> = match (&place.host, place.addr) {
            (Host::Tcp(host), None) => {
                let found = tokio::net::lookup_host((host.as_str(), place.port));
                let found = timeout(self.timeout, found).await;
                let found = found.map_err(|_| ConnectError::TimedOut(self.timeout))?;
                found?.map(|addr| Some(addr.ip())).collect()
            }
            (_, addr) => vec![addr],
        };
        let mut failed = ConnectError::NoAddress;
        for addr in addrs {
            let session = self.at_address(place, addr, name, setup);
            match timeout(self.timeout, session).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = ConnectError::TimedOut(self.timeout),
            }
        }
        Err(failed)
    }

    async fn at_address(
        &self,
        place: &Place,
        addr: Option<IpAddr>,
        name: Option<&str>,
        setup: &str,
    ) -> Result<Session, ConnectError> {
        let mut config = self.dsn.config.clone();
        match &place.host {
            Host::Tcp(host) => config.host(host),
            Host::Unix(path) => config.host_path(path),
        };
        let peer = match (&place.host, addr) {
            (Host::Tcp(host), Some(addr)) => Peer::Tcp(host.clone(), (addr, place.port).into()),
            (Host::Tcp(_), None) => return Err(ConnectError::NoAddress),
            (Host::Unix(path), _) => Peer::Unix(path.join(format!(".s.PGSQL.{}", place.port))),
        };
        if let Some(addr) = addr {
            config.hostaddr(addr);
        }
        config.port(place.port);
        if let Some(password) = &place.password {
            config.password(password);
        }
        if let Some(name) = name {
            config.application_name(name);
        }
        let marker = format!("{:016x}", fastrand::u64(..));
        let marked = with_marker(&config, &marker);
        let mut session = match self.unmarked.load(Ordering::Relaxed) {
            true => self.open(&config, peer).await?,
            false => match self.open(&marked, peer.clone()).await {
                Err(ConnectError::Postgres(error)) if refuses_parameter(&error) => {
                    let session = self.open(&config, peer).await?;
                    self.unmarked.store(true, Ordering::Relaxed);
                    session
                }
                opened => opened?,
            },
        };
        session.doubts = self.doubts();
        let found = session.check().await?;
        session.is_direct = found == marker;
        if session.is_direct {
            session.batch_execute(setup).await?;
        }
        let doubts = &mut session.doubts;
        let met = self
            .servers
            .meet(&session.server, session.timeline.as_ref(), || {
                *doubts = self.doubts.fetch_add(1, Ordering::AcqRel) + 1;
            });
        session.lineage = met?;
        Ok(session)
    }

    async fn open(&self, config: &Config, peer: Peer) -> Result<Session, ConnectError> {
        let (client, mut connection) = config.connect(self.tls.clone()).await?;
        let (alive, dropped) = oneshot::channel::<Infallible>();
        let waits_given_up = Arc::new(AtomicU64::new(0));
        let given_up = Arc::clone(&waits_given_up);
        // A notice is handed on before the answer that it came with.
        let drive = async move {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        if is_wait_given_up(&notice) {
                            given_up.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                }
            }
        };
        let connector = self.clone();
        (self.spawn)(Box::pin(async move {
            let end = tokio::select! {
                biased;
                _ = dropped => return,
                end = drive => end,
            };
            if let Err(error) = end {
                tracing::debug!(error = %chain(&error), "a database connection has ended");
            }
            connector.ask_who_answers();
        }));
        Ok(Session::new(client, peer, waits_given_up, alive))
    }

    /// To end what a session is doing.
    pub fn canceller(&self, session: &Session) -> Canceller {
        Canceller {
            token: session.cancel_token(),
            peer: session.peer.clone(),
            tls: self.tls.clone(),
        }
    }

    /// Some session found its server silent, gone or no longer writing: the others
    /// are to be checked before they are used again.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
        self.ask_who_answers();
    }

    /// A session was lost: makes another, to see whether it meets the same server.
    fn ask_who_answers(&self) {
        if !self.servers.doubt() {
            return;
        }
        let connector = self.clone();
        (self.spawn)(Box::pin(async move {
            let asking = async {
                let mut delay = retry_delays(ASK_MIN, ASK_MAX);
                while connector.servers.is_in_doubt() {
                    match connector.connect(Some("chatd probe"), "").await {
                        // Whoever does get a place will tell.
                        Err(error) if error.is_full() => connector.servers.be_sure(),
                        Err(_) => tokio::time::sleep(delay()).await,
                        Ok(_) => {}
                    }
                }
            };
            tokio::select! {
                () = asking => {}
                () = connector.closed() => {}
            }
        }));
    }

    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Ends when the store is closed.
    pub async fn closed(&self) {
        _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Which server of the database the newest sessions are with.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// How often there was doubt.
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Acquire)
    }
}

/// A parameter that only a server's own session, made for this very connection,
/// will have: a pooler refuses it or passes nothing on. What prepared statements,
/// settings and locks of a session mean hangs on that.
fn with_marker(config: &Config, marker: &str) -> Config {
    let own = config.get_options().unwrap_or_default();
    let mut marked = config.clone();
    marked.options(format!("{own} -c {}={marker}", sql::MARKER).trim_start());
    marked
}

/// PgBouncer answers 08P01; other poolers say that they do not support it.
fn refuses_parameter(error: &tokio_postgres::Error) -> bool {
    let refusals = [
        SqlState::PROTOCOL_VIOLATION,
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_PARAMETER_VALUE,
    ];
    error.code().is_some_and(|code| refusals.contains(code))
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}
