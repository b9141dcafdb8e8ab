use std::{convert::Infallible, fmt, ops::Deref, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tokio_postgres::{CancelToken, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Settings, Spawner,
    dsn::Dsn,
    error::{ConnectError, OpenError},
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
            let (client, connection) = config.connect(self.tls.clone()).await?;
            let (alive, dropped) = oneshot::channel::<Infallible>();
            (self.spawn)(Box::pin(async move {
                tokio::select! {
                    end = connection => if let Err(error) = end {
                        tracing::debug!(%error, "a database connection has ended");
                    },
                    _ = dropped => {}
                }
            }));
            let session = Session {
                client,
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
    _alive: oneshot::Sender<Infallible>,
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}
