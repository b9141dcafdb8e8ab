//! The bus: core NATS, at most once. It carries; nothing is asked of it that has to be
//! true.

use std::{fmt, path::PathBuf, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subscriber, connection::State};
use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture};
use tokio::sync::mpsc;

use crate::{domain::NodeId, telemetry::log_limited};

/// Batches that wait for the client, which writes them as fast as the server takes them.
/// One that finds no room is lost, and its receiver notices.
const OUT: usize = 4_096;

/// Batches that have come and wait for the node. Further ones are lost.
const IN: usize = 4_096;

/// A connection that says nothing for about twice as long is given up.
const PING: Duration = Duration::from_secs(1);

/// Between two tries to connect.
const RECONNECT: Duration = Duration::from_millis(200);

/// Where the bus is, and who asks.
#[derive(Clone)]
pub struct BusSettings {
    /// `nats://[user:password@]host[:port]`, or `tls://`, one server or several. All take
    /// the same user, that of the first address that has one.
    pub servers: Vec<String>,
    /// A file with a user's credentials, as `nsc` makes it.
    pub credentials: Option<PathBuf>,
    /// Certificates of who may have signed the servers', besides the public ones.
    pub ca: Option<PathBuf>,
    /// Nodes of the same name are one cluster.
    pub cluster: String,
}

/// Leaves out the addresses, which may hold passwords.
impl fmt::Debug for BusSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusSettings")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Why the bus can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("cannot read the credentials: {0}")]
    Credentials(#[source] std::io::Error),
    #[error("cannot connect to NATS: {0}")]
    Connect(#[source] async_nats::ConnectError),
    #[error("cannot listen on NATS: {0}")]
    Subscribe(#[source] async_nats::SubscribeError),
}

/// The way to other nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    client: Client,
    cluster: String,
    out: mpsc::Sender<(String, Bytes)>,
}

impl Bus {
    /// A bus that connects in the background, and again whenever it is cut off; and what
    /// has to run for it to send.
    ///
    /// # Errors
    /// If the settings can't be used.
    pub async fn open(settings: BusSettings) -> Result<(Self, BoxFuture<'static, ()>), BusError> {
        let mut options = ConnectOptions::new()
            .name("chatd")
            .retry_on_initial_connect()
            .ping_interval(PING)
            .subscription_capacity(IN)
            .reconnect_delay_callback(|_| RECONNECT)
            .event_callback(|event| async move { said(&event) });
        if let Some((user, password)) = settings.servers.iter().find_map(|one| login(one)) {
            options = options.user_and_password(user, password);
        }
        if let Some(file) = &settings.credentials {
            let with = options.credentials_file(file).await;
            options = with.map_err(BusError::Credentials)?;
        }
        if let Some(ca) = settings.ca {
            options = options.add_root_certificates(ca);
        }
        let client = options.connect(settings.servers).await;
        let client = client.map_err(BusError::Connect)?;
        let (out, mut batches) = mpsc::channel::<(String, Bytes)>(OUT);
        let bus = Self {
            client: client.clone(),
            cluster: settings.cluster,
            out,
        };
        let sending = async move {
            while let Some((subject, batch)) = batches.recv().await {
                if let Err(error) = client.publish(subject, batch).await {
                    log_limited!(WARN, error = %error, "a batch was not sent to another node");
                }
            }
        };
        Ok((bus, Box::pin(sending)))
    }

    /// Whether batches would get anywhere, as far as this node knows.
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Most bytes of a message, as the server says; `None` before it has.
    pub fn most_bytes(&self) -> Option<usize> {
        match self.client.server_info().max_payload {
            0 => None,
            most => Some(most),
        }
    }

    /// Sends a batch, or loses it.
    pub fn send(&self, to: NodeId, batch: Bytes) {
        if self.is_up() && self.out.try_send((self.subject(to), batch)).is_err() {
            log_limited!(WARN, node = %to, "the bus takes no more, a batch is lost");
        }
    }

    /// What comes for the node from now on.
    ///
    /// # Errors
    /// If the bus is closed.
    pub async fn listen(&self, me: NodeId) -> Result<Incoming, BusError> {
        let listening = self.client.subscribe(self.subject(me)).await;
        listening.map(Incoming).map_err(BusError::Subscribe)
    }

    fn subject(&self, node: NodeId) -> String {
        format!("chatd.{}.n.{node}", self.cluster)
    }
}

/// What comes for one node.
#[derive(Debug)]
pub struct Incoming(Subscriber);

impl Incoming {
    /// The next batch. Never ends before the bus does.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.next().await.map(|message| message.payload)
    }
}

/// The user and the password of a server's address, which the client does not look for
/// there.
fn login(server: &str) -> Option<(String, String)> {
    let address: ServerAddr = server.parse().ok()?;
    Some((
        address.username()?.to_owned(),
        address.password()?.to_owned(),
    ))
}

fn said(event: &Event) {
    match event {
        Event::Connected => tracing::info!("NATS is connected"),
        Event::Disconnected => log_limited!(WARN, "NATS is disconnected, connecting again"),
        Event::SlowConsumer(_) => {
            log_limited!(
                WARN,
                "batches of other nodes were lost: they came faster than they were read"
            );
        }
        // Of a try to connect; the next one follows.
        Event::ClientError(error) => tracing::debug!(%error, "NATS"),
        other => log_limited!(WARN, event = %other, "NATS"),
    }
}
