use std::{convert::Infallible, future::Future, io, pin::pin, time::Duration};

use futures_util::FutureExt as _;
use hyper::{rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{io::Gathered, service::Service};
use crate::runtime::Spawner;

/// HTTP/2 flow-control windows for what clients send. Requests are small; a
/// connection carries many.
///
/// h2 closes a connection once the DATA frames that wait in it, each for what
/// it is short of 256 bytes, come to half the connection's window. A stream
/// whose posts are held back fills its window with frames of as little as 10
/// bytes: 16 KiB of these count 400 KiB, so that five such streams do not yet
/// end the others of their connection.
const STREAM_WINDOW: u32 = 16 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Resets that a client may have the server do work for before the connection
/// is closed (rapid reset, CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;
const MAX_LOCAL_RESETS: usize = 1_024;

/// A connection that does not answer a PING is gone, and with it its streams.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Waiting after an `accept` that failed for want of something, files mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy)]
pub struct ServerSettings {
    /// Bytes that HTTP/2 may hold for one stream's reader (P6).
    pub stream_buffer: usize,
    /// Streams that one connection may have open.
    pub max_streams: u32,
}

/// The listener of one core, and its connections.
pub struct Server {
    pub service: Service,
    pub settings: ServerSettings,
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
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closed.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    tracing::debug!(%peer, "connection accepted");
                    let connection = self.connection(stream);
                    self.spawner
                        .spawn(self.connections.track_future(connection));
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "connections can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        // Small frames are not to wait for the answer to the last ones.
        _ = stream.set_nodelay(true);
        let (service, core, spawner) = (self.service.clone(), self.core, self.spawner.clone());
        let calls = service_fn(move |request| {
            // Boxed: on its way into its task a future is moved several times.
            let answer = Box::pin(service.clone().answer(request, core, spawner.clone()));
            answer.map(Ok::<_, Infallible>)
        });
        let connection = http2::Builder::new(OnCore(self.spawner.clone()))
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.settings.max_streams)
            .max_send_buf_size(self.settings.stream_buffer)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_RESETS)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(Gathered(stream)), calls);
        let ending = self.ending.clone();
        async move {
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = ending.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
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

/// Runs a connection's streams on its own core.
#[derive(Clone)]
struct OnCore(Spawner);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OnCore {
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
