use std::{future::Future, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::Routes;
use crate::runtime::Spawner;

/// A browser has up to six, a scraper one. Others wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

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
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = room.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => _ = self.spawner.spawn(self.connection(stream, place)),
                Err(error) => {
                    tracing::warn!(%error, "http connections can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let routes = self.routes.clone();
        async move {
            let Ok(peer) = stream.peer_addr() else { return };
            let service = service_fn(move |request| routes.clone().answer(request, peer.ip()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let ended = tokio::time::timeout(LIFETIME, connection).await;
            if let Ok(Err(error)) = ended {
                tracing::debug!(%error, "http connection ended");
            }
            drop(place);
        }
    }
}
