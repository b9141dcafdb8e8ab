use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Settings, Spawner,
    dsn::Dsn,
    error::{ConnectError, OpenError, is_wait_given_up},
    tls,
};

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    timeout: Duration,
    pub spawn: Spawner,
}

impl Connector {
    pub fn new(settings: &Settings) -> Result<Self, OpenError> {
        let dsn = Dsn::parse(&settings.dsn)?;
        let mut config = dsn.config.clone();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(settings.connect_timeout);
        }
        Ok(Self {
            config,
            tls: tls::connector(&dsn)?,
            timeout: settings.connect_timeout,
            spawn: Arc::clone(&settings.spawn),
        })
    }

    /// A connection on which `setup` has run. `name` tells it from others in
    /// `pg_stat_activity`.
    pub async fn connect(&self, name: Option<&str>, setup: &str) -> Result<Session, ConnectError> {
        let connecting = async {
            let mut config = self.config.clone();
            if let Some(name) = name {
                config.application_name(name);
            }
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
            (self.spawn)(Box::pin(async move {
                tokio::select! {
                    end = drive => if let Err(error) = end {
                        tracing::debug!(%error, "a database connection has ended");
                    },
                    _ = dropped => {}
                }
            }));
            let session = Session {
                client,
                waits_given_up,
                _alive: alive,
            };
            session.batch_execute(setup).await?;
            Ok(session)
        };
        tokio::time::timeout(self.timeout, connecting)
            .await
            .map_err(|_| ConnectError::TimedOut)?
    }

    /// Asks the server to end what a connection is doing.
    pub async fn cancel(&self, token: CancelToken) {
        let asked = tokio::time::timeout(self.timeout, token.cancel_query(self.tls.clone())).await;
        if let Ok(Err(error)) = asked {
            tracing::debug!(%error, "could not cancel a query");
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// A connection. Dropping it closes the socket at once, whatever is under way:
/// the client's own drop would wait for answers that a stopped server never
/// gives.
pub(super) struct Session {
    client: Client,
    waits_given_up: Arc<AtomicU64>,
    _alive: oneshot::Sender<Infallible>,
}

impl Session {
    /// How many commits of this session gave up waiting for a standby: they were
    /// answered like any other, but a failover may undo them.
    pub fn waits_given_up(&self) -> u64 {
        self.waits_given_up.load(Ordering::Acquire)
    }
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}
