use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response, Version};
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
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    answer::{Answer, at_once},
    body::{BodyError, ResponseBody},
    gate::ConnectionPlace,
    gather::{Gathered, Outlet},
    host,
    io::{Heard, Protocol},
    peer::Peer,
    server::Server,
    sip::Sipped,
    turns::Newcomer,
};
use crate::{
    runtime::{Tls, TlsStream},
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
const HEADER_ROOM: u32 = 4;

/// How long a connection that is one too many stays open, to be told so.
const TURN_AWAY: Duration = Duration::from_secs(1);

/// hyper's HTTP/1.1 works with no smaller one, in bytes. It holds a request's
/// head, and what waits for a slow reader.
const LEAST_BUFFER: usize = 8 * 1024;

/// Bytes that the kernel keeps for a client and has not sent. Without a bound it keeps
/// some four megabytes for one that has wide windows and does not read: what it is
/// sent comes behind all that in any case. Twice what a connection writes at a time.
const UNSENT: u32 = 256 * 1024;

/// HTTP/1.1 has no PING: the kernel asks whether the other side is still there,
/// so often, and so often without an answer before the connection ends.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 2;

/// What serves one connection. Whoever only waits has nothing in memory that it
/// does not need for that: a server has tens of thousands of these.
pub struct Connection {
    pub server: Arc<Server>,
    pub place: ConnectionPlace,
    pub peer: Arc<Peer>,
}

/// A connection whose client has shown that it means to talk.
enum Begun {
    Plain(Heard<Sipped>, Protocol),
    Tls(Heard<Box<TlsStream<Sipped>>>, Protocol),
}

impl Connection {
    /// Serves the connection to its end.
    ///
    /// Both parts are boxed: there is room for a handshake only until it is done,
    /// and for the rest only from then on.
    pub fn run(self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        let opened = Box::pin(self.open(stream));
        async move {
            if let Some(served) = opened.await {
                served.await;
            }
        }
    }

    /// `None` if it does not begin in time, or not at all.
    async fn open(self, stream: TcpStream) -> Option<BoxFuture<'static, ()>> {
        let server = &self.server;
        let limit = match self.place.is_turned_away() {
            true => server.settings.handshake.min(TURN_AWAY),
            false => server.settings.handshake,
        };
        let peer = self.peer.clone();
        let begun = begin(stream, server.tls.clone(), peer.newcomer.clone());
        let begun = async {
            let mut begun = pin!(begun);
            poll_fn(|cx| {
                let polled = begun.as_mut().poll(cx);
                peer.newcomer.was_polled();
                polled
            })
            .await
        };
        let begun = tokio::select! {
            begun = tokio::time::timeout(limit, begun) => begun,
            () = server.ending.cancelled() => return None,
            () = poll_fn(|cx| self.peer.poll_gives_way(cx)) => return None,
        };
        match begun {
            Ok(Ok(Begun::Plain(stream, protocol))) => {
                self.keep_alive(protocol, stream.get_ref().get_ref());
                return Some(self.serve(stream, protocol));
            }
            Ok(Ok(Begun::Tls(stream, protocol))) => {
                self.keep_alive(protocol, stream.get_ref().get_ref().0.get_ref());
                return Some(self.serve(stream, protocol));
            }
            Ok(Err(error)) => log_limited!(DEBUG, %error, "handshake failed"),
            Err(_) => log_limited!(DEBUG, "handshake not done in time"),
        }
        None
    }

    fn serve<S>(self, stream: Heard<S>, protocol: Protocol) -> BoxFuture<'static, ()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.peer.newcomer.has_begun();
        let is_turned_away = self.place.is_turned_away();
        let served = match protocol {
            Protocol::Http2 => self.serve_http2(stream).boxed(),
            Protocol::Http1 => self.serve_http1(stream).boxed(),
        };
        if is_turned_away {
            return Box::pin(async { _ = tokio::time::timeout(TURN_AWAY, served).await });
        }
        served
    }

    fn serve_http2<S>(self, stream: Heard<S>) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, outlet) = Gathered::new(stream.watched(self.peer.clone()));
        let settings = self.server.settings;
        let connection = http2::Builder::new(self.server.spawner.clone())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(settings.max_streams)
            .max_send_buf_size(settings.stream_buffer)
            .max_header_list_size(HEADER_ROOM * settings.max_header)
            .max_pending_accept_reset_streams(settings.pending_resets)
            .max_local_error_reset_streams(settings.error_resets)
            .keep_alive_interval(settings.keep_alive_interval)
            .keep_alive_timeout(settings.keep_alive_timeout)
            .serve_connection(TokioIo::new(stream), service_fn(self.calls()));
        Served::new(self, connection, outlet)
    }

    /// For gRPC-Web: one call or stream at a time.
    fn serve_http1<S>(self, stream: Heard<S>) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stream, outlet) = Gathered::new(stream);
        let settings = self.server.settings;
        let buffer = settings.max_header as usize;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .header_read_timeout(settings.handshake)
            .max_buf_size(buffer.max(LEAST_BUFFER))
            .serve_connection(TokioIo::new(stream), service_fn(self.calls()));
        Served::new(self, connection, outlet)
    }

    /// What answers the connection's calls; one connection too many, each with
    /// a refusal.
    fn calls(&self) -> impl Fn(Request<Incoming>) -> Answered + use<> {
        let server = self.server.clone();
        let peer = self.peer.clone();
        let too_many = self.place.refusal().map(Box::new);
        move |request| {
            let service = &server.service;
            if !host::is_named(&request) {
                return match request.version() {
                    Version::HTTP_2 => Answered::Malformed,
                    _ => Answered::With(at_once(host::not_named())),
                };
            }
            Answered::With(match &too_many {
                Some(problem) => at_once(service.turn_away(&request, problem)),
                None => service.answer(request, &peer),
            })
        }
    }

    /// Bounds what the kernel keeps of what it has not sent, and has it end an HTTP/1.1
    /// connection whose other side is gone, and with it its stream. HTTP/2 sees to that
    /// itself.
    fn keep_alive(&self, protocol: Protocol, stream: &TcpStream) {
        if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT) {
            log_limited!(DEBUG, %error, "no bound on what the kernel keeps of a connection");
        }
        if protocol == Protocol::Http2 {
            return;
        }
        let probes = TcpKeepalive::new()
            .with_time(self.server.settings.keep_alive_interval)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBES);
        if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&probes) {
            log_limited!(DEBUG, %error, "no keep-alive on a connection");
        }
    }
}

/// What a request gets.
enum Answered {
    With(Answer),
    /// Its stream is reset (RFC 9113, 8.1.1).
    Malformed,
}

impl Future for Answered {
    type Output = Result<Response<ResponseBody>, h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::With(answer) => answer.as_mut().poll(cx).map(Ok),
            Self::Malformed => Poll::Ready(Err(h2::Reason::PROTOCOL_ERROR.into())),
        }
    }
}

/// A connection that is served to its end.
struct Served<C, S> {
    connection: C,
    outlet: Outlet<S>,
    peer: Arc<Peer>,
    /// `None` once the connection is to end when its calls have.
    ending: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _place: ConnectionPlace,
}

impl<C, S> Served<C, S> {
    fn new(of: Connection, connection: C, outlet: Outlet<S>) -> Self {
        Self {
            connection,
            outlet,
            peer: of.peer,
            ending: Some(Box::pin(of.server.ending.clone().cancelled_owned())),
            _place: of.place,
        }
    }
}

impl<C, S> Future for Served<C, S>
where
    C: GracefulConnection<Error = hyper::Error> + Unpin,
    S: AsyncWrite + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.peer.poll_gives_way(cx).is_ready() {
            return Poll::Ready(());
        }
        if this.peer.newcomer.poll_stranger(cx).is_pending() {
            return Poll::Pending;
        }
        let mut connection = Pin::new(&mut this.connection);
        if let Some(ending) = &mut this.ending
            && ending.as_mut().poll(cx).is_ready()
        {
            this.ending = None;
            connection.as_mut().graceful_shutdown();
        }
        this.peer.begin_poll();
        let polled = connection.poll(cx);
        this.peer.newcomer.was_polled();
        if polled.is_ready()
            && let Some(farewell) = this.peer.farewell()
        {
            this.outlet.put_last(&farewell);
        }
        let ended = match (polled, this.outlet.poll(cx)) {
            (Poll::Ready(ended), _) => ended.map_err(BodyError::from),
            (Poll::Pending, Poll::Ready(Err(broken))) => Err(broken.into()),
            (Poll::Pending, _) => return Poll::Pending,
        };
        if let Err(error) = ended {
            log_limited!(DEBUG, %error, "connection ended");
        }
        Poll::Ready(())
    }
}

/// The TLS handshake, if there is to be one, and the client's first words, when
/// it is the connection's turn.
async fn begin(stream: TcpStream, tls: Option<Tls>, newcomer: Arc<Newcomer>) -> io::Result<Begun> {
    // It has no turn before there is something to read.
    stream.readable().await?;
    let stream = Sipped::new(stream, newcomer);
    let Some(tls) = tls else {
        let (stream, protocol) = Heard::listen(stream).await?;
        return Ok(Begun::Plain(stream, protocol));
    };
    // Boxed, so that connections without TLS do not pay for it.
    let stream = Box::new(Box::pin(tls.accept(stream)).await?);
    let (stream, protocol) = Heard::listen(stream).await?;
    Ok(Begun::Tls(stream, protocol))
}
