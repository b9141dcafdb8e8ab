use std::{
    convert::Infallible,
    future::{Future, ready},
    io,
    pin::pin,
    time::Duration,
};

use futures_util::{FutureExt as _, future::Either};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{gate::ConnectionPlace, io::Http2, service::Service, unary::refused};
use crate::{
    runtime::{Spawner, Tls, TlsStream},
    telemetry::log_limited,
};

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

/// Headers this many times the limit are refused by HTTP/2 alone (status 431),
/// and the connection closed if they go on; below, the call is told.
const HEADER_ROOM: u32 = 2;

/// How long a connection that is one too many stays open, to be told so.
const TURN_AWAY: Duration = Duration::from_secs(1);

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
    /// How long the TLS handshake and the beginning of HTTP/2 may take.
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
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closed.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    log_limited!(DEBUG, %peer, "connection accepted");
                    if let Some(place) = self.service.connection() {
                        let connection = self.connection(stream, place);
                        self.spawner
                            .spawn(self.connections.track_future(connection));
                    }
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "connections can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        place: ConnectionPlace,
    ) -> impl Future<Output = ()> + Send + 'static {
        // Small frames are not to wait for the answer to the last ones.
        _ = stream.set_nodelay(true);
        let calls = Connection {
            service: self.service.clone(),
            settings: self.settings,
            core: self.core,
            spawner: self.spawner.clone(),
            ending: self.ending.clone(),
            place,
        };
        let tls = self.tls.clone();
        let limit = match calls.place.refusal() {
            None => self.settings.handshake,
            Some(_) => TURN_AWAY.min(self.settings.handshake),
        };
        let ending = self.ending.clone();
        async move {
            let begin = async {
                match tls {
                    Some(tls) => {
                        // Boxed, so that connections without TLS do not pay for it.
                        let stream = Box::pin(tls.accept(stream)).await?;
                        Http2::begin(Box::new(stream)).await.map(Begun::Tls)
                    }
                    None => Http2::begin(stream).await.map(Begun::Plain),
                }
            };
            let begun = tokio::select! {
                begun = tokio::time::timeout(limit, begin) => begun,
                () = ending.cancelled() => return,
            };
            // Boxed, so that who only connects is not given room for more.
            match begun {
                Ok(Ok(Begun::Plain(stream))) => Box::pin(calls.serve(stream)).await,
                Ok(Ok(Begun::Tls(stream))) => Box::pin(calls.serve(stream)).await,
                Ok(Err(error)) => log_limited!(DEBUG, %error, "handshake failed"),
                Err(_) => log_limited!(DEBUG, "handshake not done in time"),
            }
        }
    }
}

/// A connection whose client has shown that it means to talk.
enum Begun {
    Plain(Http2<TcpStream>),
    Tls(Http2<Box<TlsStream<TcpStream>>>),
}

/// What serves one connection.
struct Connection {
    service: Service,
    settings: ServerSettings,
    core: usize,
    spawner: Spawner,
    ending: CancellationToken,
    place: ConnectionPlace,
}

impl Connection {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: Http2<S>) {
        let (service, core, spawner) = (self.service, self.core, self.spawner.clone());
        let too_many = self.place.refusal();
        let turn_away = too_many.is_some();
        let calls = service_fn(move |request| {
            let answer = match &too_many {
                Some(problem) => Either::Left(ready(refused(problem))),
                // Boxed: on its way into its task a future is moved several times.
                None => {
                    let answer = service.clone().answer(request, core, spawner.clone());
                    Either::Right(Box::pin(answer))
                }
            };
            answer.map(Ok::<_, Infallible>)
        });
        let connection = http2::Builder::new(self.spawner)
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.settings.max_streams)
            .max_send_buf_size(self.settings.stream_buffer)
            .max_header_list_size(HEADER_ROOM * self.settings.max_header)
            .max_pending_accept_reset_streams(self.settings.pending_resets)
            .max_local_error_reset_streams(self.settings.error_resets)
            .keep_alive_interval(self.settings.keep_alive_interval)
            .keep_alive_timeout(self.settings.keep_alive_timeout)
            .serve_connection(TokioIo::new(stream), calls);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = tokio::time::sleep(TURN_AWAY), if turn_away => return,
        };
        if let Err(error) = ended {
            log_limited!(DEBUG, %error, "connection ended");
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
