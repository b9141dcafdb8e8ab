use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Routes;
use crate::{runtime::Spawner, telemetry::log_limited};

/// A browser has up to six, a scraper one. For one more, another gives way. So
/// many, because a flood of connections must not push out one that is so new that
/// its request is still on its way.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take over a request's head, and how long a connection
/// may idle between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection is not kept for longer, so that slow ones don't use up the room.
const LIFETIME: Duration = Duration::from_secs(300);

const MAX_HEAD: usize = 16 * 1024;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listener of the HTTP port.
pub struct AdminServer {
    pub routes: Arc<Routes>,
    pub spawner: Spawner,
}

impl AdminServer {
    /// Accepts connections for as long as it is polled.
    pub async fn run(self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "http listener not usable"),
        };
        let places = Arc::new(Places::default());
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let place = Place::take(&places);
                    self.spawner.spawn(self.connection(stream, place));
                    // Each is read once before the next one may take its place:
                    // a probe that came with its request is then no longer idle.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    log_limited!(WARN, %error, "http connections can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        place: Place,
    ) -> impl Future<Output = ()> + Send + 'static {
        let routes = self.routes.clone();
        async move {
            let Ok(peer) = stream.peer_addr() else { return };
            let used = place.used.clone();
            let service = service_fn(move |request| {
                let (routes, used) = (routes.clone(), used.clone());
                async move {
                    used.moved();
                    let answer = routes.answer(request, peer.ip()).await;
                    used.moved();
                    answer
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = tokio::time::timeout(LIFETIME, connection) => {
                    if let Ok(Err(error)) = ended {
                        tracing::debug!(%error, "http connection ended");
                    }
                }
                () = place.used.gives_way.cancelled() => {}
            }
        }
    }
}

/// The connections that are open, the oldest first.
#[derive(Debug, Default)]
struct Places(Mutex<VecDeque<Arc<Used>>>);

/// One connection, until it is dropped.
struct Place {
    places: Arc<Places>,
    used: Arc<Used>,
}

#[derive(Debug)]
struct Used {
    /// When it was accepted, its last request began, or was answered: whoever has
    /// done nothing for longest is idle, or waits for a body that does not come.
    since: Mutex<Instant>,
    gives_way: CancellationToken,
}

impl Places {
    fn open(&self) -> MutexGuard<'_, VecDeque<Arc<Used>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A place for whoever comes next, so that a probe is answered whatever
    /// others hold: the connection on which nothing has happened for longest ends if
    /// there are too many.
    fn take(places: &Arc<Places>) -> Self {
        let used = Arc::new(Used {
            since: Mutex::new(Instant::now()),
            gives_way: CancellationToken::new(),
        });
        let mut open = places.open();
        if open.len() >= MAX_CONNECTIONS {
            let longest = (0..open.len()).min_by_key(|n| *open[*n].since());
            if let Some(gone) = longest.and_then(|n| open.remove(n)) {
                gone.gives_way.cancel();
            }
        }
        open.push_back(used.clone());
        drop(open);
        Self {
            places: places.clone(),
            used,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places
            .open()
            .retain(|other| !Arc::ptr_eq(other, &self.used));
    }
}

impl Used {
    fn since(&self) -> MutexGuard<'_, Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins, or has been answered.
    fn moved(&self) {
        *self.since() = Instant::now();
    }
}
