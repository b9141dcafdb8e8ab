use std::{io, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::Connection,
    peer::Peer,
    service::Service,
    strangers::Stranger,
    turns::{Newcomer, Turns},
};
use crate::{
    runtime::{Spawner, Tls},
    telemetry::log_limited,
};

/// Waiting after an `accept` that failed for want of something, files mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// Bytes that HTTP/2 may hold for one stream's reader (P6).
    pub stream_buffer: usize,
    /// Streams that one connection may have open.
    pub max_streams: u32,
    /// Bytes of a request's headers.
    pub max_header: u32,
    /// How long the TLS handshake may take, with the client's first words; over
    /// HTTP/1.1 the head of each request as well.
    pub handshake: Duration,
    /// Calls taken back before work on them began, until their connection is
    /// closed (rapid reset, CVE-2023-44487).
    pub pending_resets: usize,
    /// Calls that we reset for errors, until their connection is closed.
    pub error_resets: usize,
    /// How often a connection is tried with a PING …
    pub keep_alive_interval: Duration,
    /// … and without an answer is gone, and with it its streams.
    pub keep_alive_timeout: Duration,
}

/// The listener of one core, and its connections.
pub struct Server {
    pub service: Service,
    pub settings: ServerSettings,
    pub tls: Option<Tls>,
    pub core: usize,
    pub spawner: Spawner,
    /// Connections that are open.
    pub connections: TaskTracker,
    /// No more connections are to be accepted.
    pub closed: CancellationToken,
    /// Connections are to end once their calls have.
    pub ending: CancellationToken,
}

impl Server {
    /// Accepts connections until the server is closed.
    pub async fn run(self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "listener not usable"),
        };
        let turns = Arc::new(Turns::default());
        self.spawner.spawn_vital("turns", turns.clone().rounds());
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = server.closed.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    log_limited!(DEBUG, %peer, "connection accepted");
                    let origin = peer.ip().into();
                    if let Some(place) = server.service.connection(origin) {
                        // Small frames are not to wait for the answer to the last ones.
                        _ = stream.set_nodelay(true);
                        let stranger = place.stranger.clone();
                        let peer = server.peer(turns.newcomer(origin), stranger);
                        let connection = Connection {
                            server: server.clone(),
                            place,
                            peer: Arc::new(peer),
                        };
                        let connection = server.connections.track_future(connection.run(stream));
                        server.spawner.spawn(connection);
                    }
                    // One a turn, so that however many come at once, the
                    // others' calls wait for one of them at a time.
                    tokio::task::yield_now().await;
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    log_limited!(WARN, %error, "connections can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn peer(&self, newcomer: Arc<Newcomer>, stranger: Option<Arc<Stranger>>) -> Peer {
        let gate = self.service.gate().clone();
        Peer::new(gate, newcomer, stranger, self.core, self.spawner.clone())
    }
}

/// The error says something about the connection, not about us.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
