use std::{convert::Infallible, future::Future, io, pin::pin, time::Duration};

use futures_util::FutureExt as _;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    gate::ConnectionPlace,
    io::Gathered,
    protocol::{Protocol, alpn, keep_alive, spoken},
    service::Service,
};
use crate::runtime::{Spawner, Tls, TlsStream};

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

/// Resets that a client may have the server do work for before the connection
/// is closed (rapid reset, CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;
const MAX_LOCAL_RESETS: usize = 1_024;

/// A connection that does not answer a PING is gone, and with it its streams.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// hyper's HTTP/1.1 works with no smaller one, in bytes. It holds a request's
/// head, and what waits for a slow reader.
const LEAST_BUFFER: usize = 8 * 1024;

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
    /// How long a TLS handshake may take, and over HTTP/1.1 a request's head.
    pub handshake: Duration,
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
                    tracing::debug!(%peer, "connection accepted");
                    // Without room there is nothing to say it with: the gRPC
                    // client sees a lost connection and comes back later.
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
        };
        let (tls, limit) = (self.tls.clone(), self.settings.handshake);
        let ending = self.ending.clone();
        async move {
            let _place = place;
            let begin = async {
                match tls {
                    Some(tls) => {
                        // Boxed, so that connections without TLS do not pay for it.
                        let stream = Box::pin(tls.accept(stream)).await?;
                        let protocol = alpn(&stream);
                        if protocol == Protocol::Http1 {
                            keep_alive(stream.get_ref().0);
                        }
                        Ok::<_, io::Error>(Begun::Tls(Box::new(stream), protocol))
                    }
                    // The client speaks first.
                    None => {
                        let protocol = spoken(&stream).await?;
                        if protocol == Protocol::Http1 {
                            keep_alive(&stream);
                        }
                        Ok(Begun::Plain(stream, protocol))
                    }
                }
            };
            let begun = tokio::select! {
                begun = tokio::time::timeout(limit, begin) => begun,
                () = ending.cancelled() => return,
            };
            match begun {
                Ok(Ok(Begun::Plain(stream, protocol))) => calls.serve(stream, protocol).await,
                Ok(Ok(Begun::Tls(stream, protocol))) => calls.serve(stream, protocol).await,
                Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
                Err(_) => tracing::debug!("handshake not done in time"),
            }
        }
    }
}

/// A connection whose client has shown that it means to talk.
enum Begun {
    Plain(TcpStream, Protocol),
    Tls(Box<TlsStream<TcpStream>>, Protocol),
}

/// What serves one connection.
struct Connection {
    service: Service,
    settings: ServerSettings,
    core: usize,
    spawner: Spawner,
    ending: CancellationToken,
}

impl Connection {
    async fn serve<S>(self, stream: S, protocol: Protocol)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match protocol {
            Protocol::Http2 => self.serve_http2(stream).await,
            // Boxed, so that other connections do not pay for it.
            Protocol::Http1 => Box::pin(self.serve_http1(stream)).await,
        }
    }

    async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let (service, core, spawner) = (self.service, self.core, self.spawner.clone());
        let calls = service_fn(move |request| {
            // Boxed: on its way into its task a future is moved several times.
            let answer = Box::pin(service.clone().answer(request, core, spawner.clone()));
            answer.map(Ok::<_, Infallible>)
        });
        let connection = http2::Builder::new(self.spawner)
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(self.settings.max_streams)
            .max_send_buf_size(self.settings.stream_buffer)
            .max_header_list_size(self.settings.max_header)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_RESETS)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(Gathered(stream)), calls);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// For gRPC-Web: one call or stream at a time.
    async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let (service, core, spawner) = (self.service, self.core, self.spawner);
        let calls = service_fn(move |request| {
            let answer = service.clone().answer(request, core, spawner.clone());
            answer.map(Ok::<_, Infallible>)
        });
        let buffer = self.settings.max_header as usize;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .header_read_timeout(self.settings.handshake)
            .max_buf_size(buffer.max(LEAST_BUFFER))
            .serve_connection(TokioIo::new(Gathered(stream)), calls);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
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
