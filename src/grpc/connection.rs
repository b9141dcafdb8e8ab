use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, NeverError},
};
use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answer, at_once},
    body::BodyError,
    gate::ConnectionPlace,
    gather::{Gathered, Outlet},
    io::{Heard, Protocol},
    server::ServerSettings,
    service::Service,
    turns::{Newcomer, Turns},
};
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

/// hyper's HTTP/1.1 works with no smaller one, in bytes. It holds a request's
/// head, and what waits for a slow reader.
const LEAST_BUFFER: usize = 8 * 1024;

/// HTTP/1.1 has no PING: the kernel asks whether the other side is still there,
/// so often, and so often without an answer before the connection ends.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 2;

/// What serves one connection.
pub struct Connection {
    pub service: Service,
    pub settings: ServerSettings,
    pub core: usize,
    pub spawner: Spawner,
    pub ending: CancellationToken,
    pub place: ConnectionPlace,
    pub turns: Arc<Turns>,
}

/// A connection whose client has shown that it means to talk.
enum Begun {
    Plain(Heard<TcpStream>, Protocol),
    Tls(Heard<Box<TlsStream<TcpStream>>>, Protocol),
}

impl Connection {
    /// Serves the connection to its end.
    pub async fn run(self, stream: TcpStream, tls: Option<Tls>) {
        let newcomer = self.turns.newcomer();
        // Boxed, so that there is room for a handshake only until it is done.
        match Box::pin(self.begun(stream, tls, &newcomer)).await {
            Some(Begun::Plain(stream, protocol)) => {
                self.keep_alive(protocol, stream.get_ref());
                self.serve(stream, protocol, newcomer).await;
            }
            Some(Begun::Tls(stream, protocol)) => {
                self.keep_alive(protocol, stream.get_ref().get_ref().0);
                self.serve(stream, protocol, newcomer).await;
            }
            None => {}
        }
    }

    /// `None` if it does not begin in time, or not at all.
    async fn begun(
        &self,
        stream: TcpStream,
        tls: Option<Tls>,
        newcomer: &Arc<Newcomer>,
    ) -> Option<Begun> {
        let mut limit = self.settings.handshake;
        if self.place.refusal().is_some() {
            limit = limit.min(TURN_AWAY);
        }
        let begun = tokio::select! {
            begun = tokio::time::timeout(limit, begin(stream, tls, newcomer)) => begun,
            () = self.ending.cancelled() => return None,
        };
        match begun {
            Ok(Ok(begun)) => return Some(begun),
            Ok(Err(error)) => log_limited!(DEBUG, %error, "handshake failed"),
            Err(_) => log_limited!(DEBUG, "handshake not done in time"),
        }
        None
    }

    /// Boxed, so that who only connects is not given room for more, and nobody
    /// for another protocol than the own.
    fn serve<S>(
        &self,
        stream: Heard<S>,
        protocol: Protocol,
        newcomer: Arc<Newcomer>,
    ) -> BoxFuture<'_, ()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match protocol {
            Protocol::Http2 => self.serve_http2(stream, newcomer).boxed(),
            Protocol::Http1 => self.serve_http1(stream).boxed(),
        }
    }

    async fn serve_http2<S>(&self, stream: Heard<S>, newcomer: Arc<Newcomer>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let calls = self.calls();
        let (stream, outlet) = Gathered::new(stream.in_turn(newcomer.clone()));
        let connection = pin!(
            http2::Builder::new(self.spawner.clone())
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
                .serve_connection(TokioIo::new(stream), service_fn(calls))
        );
        self.finish(connection, &outlet, Some(&newcomer)).await;
    }

    /// For gRPC-Web: one call or stream at a time.
    async fn serve_http1<S>(&self, stream: Heard<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let calls = self.calls();
        let buffer = self.settings.max_header as usize;
        let (stream, outlet) = Gathered::new(stream);
        let connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .header_read_timeout(self.settings.handshake)
                .max_buf_size(buffer.max(LEAST_BUFFER))
                .serve_connection(TokioIo::new(stream), service_fn(calls))
        );
        self.finish(connection, &outlet, None).await;
    }

    /// What answers the connection's calls; one connection too many, each with
    /// a refusal.
    fn calls(&self) -> impl Fn(Request<Incoming>) -> NeverError<Answer> + use<> {
        let (service, core, spawner) = (self.service.clone(), self.core, self.spawner.clone());
        let too_many = self.place.refusal();
        move |request| {
            let answer = match &too_many {
                Some(problem) => at_once(service.turn_away(&request, problem)),
                None => service.answer(request, core, &spawner),
            };
            answer.never_error()
        }
    }

    /// Pinned before: a future that pins what it is given keeps room for it twice.
    async fn finish<C, S>(
        &self,
        mut connection: Pin<&mut C>,
        outlet: &Outlet<S>,
        newcomer: Option<&Newcomer>,
    ) where
        C: GracefulConnection<Error = hyper::Error>,
        S: AsyncWrite + Unpin,
    {
        let turn_away = self.place.refusal().is_some();
        let end = |connection: &mut Pin<&mut C>, cx: &mut Context<'_>| {
            let polled = connection.as_mut().poll(cx);
            if let Some(newcomer) = &newcomer {
                newcomer.was_polled();
            }
            match (polled, outlet.poll(cx)) {
                (Poll::Ready(ended), _) => Poll::Ready(ended.map_err(BodyError::from)),
                (Poll::Pending, Poll::Ready(Err(broken))) => Poll::Ready(Err(broken.into())),
                (Poll::Pending, _) => Poll::Pending,
            }
        };
        let ended = tokio::select! {
            ended = poll_fn(|cx| end(&mut connection, cx)) => ended,
            () = self.ending.cancelled() => {
                connection.as_mut().graceful_shutdown();
                poll_fn(|cx| end(&mut connection, cx)).await
            }
            () = tokio::time::sleep(TURN_AWAY), if turn_away => return,
        };
        if let Err(error) = ended {
            log_limited!(DEBUG, %error, "connection ended");
        }
    }

    /// Has the kernel end an HTTP/1.1 connection whose other side is gone, and
    /// with it its stream. HTTP/2 sees to that itself.
    fn keep_alive(&self, protocol: Protocol, stream: &TcpStream) {
        if protocol == Protocol::Http2 {
            return;
        }
        let probes = TcpKeepalive::new()
            .with_time(self.settings.keep_alive_interval)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBES);
        if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&probes) {
            log_limited!(DEBUG, %error, "no keep-alive on a connection");
        }
    }
}

/// The TLS handshake, if there is to be one, and the client's first words, when
/// it is the connection's turn.
async fn begin(stream: TcpStream, tls: Option<Tls>, newcomer: &Arc<Newcomer>) -> io::Result<Begun> {
    stream.readable().await?;
    newcomer.first_turn().await;
    let Some(tls) = tls else {
        let (stream, protocol) = Heard::listen(stream).await?;
        return Ok(Begun::Plain(stream, protocol));
    };
    // Boxed, so that connections without TLS do not pay for it.
    let stream = Box::new(Box::pin(tls.accept(stream)).await?);
    let (stream, protocol) = Heard::listen(stream).await?;
    Ok(Begun::Tls(stream, protocol))
}
