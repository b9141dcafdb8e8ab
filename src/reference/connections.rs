use std::{
    convert::Infallible,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;
use tower_service::Service as _;

use super::service::{From, Service};
use crate::{
    domain::{Clock as _, Origin},
    grpc::{Owner, Stranger, Strangers, Work},
    proto::{access::access_v1_server::AccessV1Server, tokens::auth_v1_server::AuthV1Server},
    runtime::{Spawner, SystemClock, file_limit},
    telemetry::log_limited,
};

/// Connections open, where so many files may be. Where one more comes, one gives way on which no call has
/// succeeded, of those from the address that has most of them, or else one that is idle.
const CONNECTIONS: usize = 1_024;
/// Files that are for something else.
const OTHER_FILES: u64 = 64;
const STREAMS: u32 = 128;
const HEADER_BYTES: u32 = 16 * 1024;
/// A name and a password, or a token.
const MESSAGE_BYTES: usize = 16 * 1024;
/// How long a connection may take to bring its first call.
const FIRST_CALL: Duration = Duration::from_secs(10);
/// How long a call may take, from its headers to its answer; a login's turn is part
/// of it.
const LONGEST_CALL: Duration = Duration::from_secs(15);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);

/// What all connections share.
struct Open {
    service: Arc<Service>,
    strangers: Arc<Strangers>,
    count: AtomicUsize,
    most: usize,
}

/// One connection's place, until it is dropped.
struct Place {
    open: Arc<Open>,
    stranger: Arc<Stranger>,
    from: IpAddr,
    has_called: AtomicBool,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Who gave way has left the place to another.
        if self.stranger.leave() {
            self.open.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

pub(super) async fn accept(
    listener: std::net::TcpListener,
    service: Arc<Service>,
    spawner: Spawner,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "listener not usable"),
    };
    let most = CONNECTIONS.min(file_limit().saturating_sub(OTHER_FILES).max(1) as usize);
    let open = Arc::new(Open {
        service,
        strangers: Strangers::new(most),
        count: AtomicUsize::new(0),
        most,
    });
    loop {
        match listener.accept().await {
            Ok((stream, from)) => match place(&open, from) {
                Some(place) => {
                    let serving = serve(stream, Arc::new(place), spawner.clone());
                    drop(spawner.spawn(serving));
                }
                None => log_limited!(WARN, "connection refused, there are too many"),
            },
            Err(error) => {
                log_limited!(WARN, %error, "connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// This task alone takes places.
fn place(open: &Arc<Open>, from: SocketAddr) -> Option<Place> {
    let (now, origin) = (Instant::now(), Origin::from(from.ip()));
    if open.count.load(Ordering::Relaxed) < open.most {
        open.count.fetch_add(1, Ordering::Relaxed);
    } else if !open.strangers.make_way(origin, now, SystemClock.wall()) {
        return None;
    }
    Some(Place {
        open: open.clone(),
        stranger: open.strangers.enter(origin, now),
        from: from.ip(),
        has_called: AtomicBool::new(false),
    })
}

async fn serve(stream: TcpStream, place: Arc<Place>, spawner: Spawner) {
    let own = place.clone();
    let calls = service_fn(move |request| answer(own.clone(), request));
    let connection = http2::Builder::new(spawner)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), calls);
    let mut connection = pin!(connection);
    let mut first_call = pin!(tokio::time::sleep(FIRST_CALL));
    let mut is_tested = false;
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = poll_fn(|cx| place.stranger.poll_gives_way(cx)) => return,
            () = &mut first_call, if !is_tested => {
                if !place.has_called.load(Ordering::Relaxed) {
                    return;
                }
                is_tested = true;
            }
        }
    }
}

async fn answer(
    place: Arc<Place>,
    mut request: Request<Incoming>,
) -> Result<Response<tonic::body::Body>, Infallible> {
    place.has_called.store(true, Ordering::Relaxed);
    let _work = Work::of(&place.stranger);
    let service = place.open.service.clone();
    let from = service.origin(place.from, request.headers());
    request.extensions_mut().insert(From(from));
    let call = async {
        if request.uri().path().starts_with("/access_v1.AccessV1/") {
            let access = AccessV1Server::from_arc(service);
            access
                .max_decoding_message_size(MESSAGE_BYTES)
                .call(request)
                .await
        } else {
            // Also answers what is of neither.
            let auth = AuthV1Server::from_arc(service);
            auth.max_decoding_message_size(MESSAGE_BYTES)
                .call(request)
                .await
        }
    };
    let Ok(answer) = tokio::time::timeout(LONGEST_CALL, call).await else {
        let late = Status::deadline_exceeded("the request did not come in time");
        return Ok(late.into_http());
    };
    // A refusal has its status among the headers.
    if let Ok(answer) = &answer
        && !answer.headers().contains_key("grpc-status")
    {
        let origin = Origin::from(place.from);
        place.stranger.is_known(None, || Owner::Address(origin));
    }
    answer
}
