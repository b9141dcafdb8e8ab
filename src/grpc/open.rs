//! Calls that need no token: health and reflection, which come with tonic.
//!
//! Anybody can make them, so that there may be few: of a connection, and of those
//! that last also in all. A check of the server's health and a connection's first
//! watch of it are let in whatever others hold, since who asks may end a server
//! that does not answer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    body::ResponseBody, gate::take, limit::Limit, peer::Peer, request::RequestBody,
    status::Problem, unary::refused,
};

pub const HEALTH: &str = "/grpc.health.v1.Health/";
pub const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";
pub const REFLECTION_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/";

/// Open at a time, of a connection: a load balancer watches a service or two, and a
/// tool reflects on one stream.
const MOST_A_CONNECTION: usize = 8;
/// Watches in all, besides the first of each connection: 10 KiB each.
const MOST_WATCHES: usize = 1_024;
/// Streams of reflection in all: 30 KiB each, and up to 150 unread.
const MOST_REFLECTIONS: usize = 128;

/// The longest message of such a call, in bytes: the name of a service, a type or
/// a file. tonic takes 4 MiB by itself.
pub const MAX_MESSAGE: usize = 4 * 1024;

/// When to try again: streams last.
const RETRY: Duration = Duration::from_secs(5);

/// Counts the calls of this kind that last, over all connections.
#[derive(Debug, Default)]
pub struct OpenCalls {
    watches: AtomicUsize,
    reflections: AtomicUsize,
}

/// One call, until it is dropped.
#[derive(Debug)]
pub struct OpenPlace {
    peer: Arc<Peer>,
    lasting: Option<(Arc<OpenCalls>, Lasting)>,
}

#[derive(Debug, Clone, Copy)]
enum Lasting {
    Watch,
    Reflection,
}

impl OpenCalls {
    /// Room for a call of `path`.
    pub fn take(self: &Arc<Self>, path: &str, peer: &Arc<Peer>) -> Result<OpenPlace, Problem> {
        let before = peer.begin_open_call();
        let mut place = OpenPlace {
            peer: peer.clone(),
            lasting: None,
        };
        let lasting = match path.strip_prefix(HEALTH) {
            Some("Watch") if before > 0 => Some(Lasting::Watch),
            Some(_) => None,
            None => Some(Lasting::Reflection),
        };
        if before >= MOST_A_CONNECTION || lasting.is_some_and(|lasting| !self.begin(lasting)) {
            return Err(peer.gate.refuse(Limit::OpenCalls, RETRY));
        }
        place.lasting = lasting.map(|lasting| (self.clone(), lasting));
        Ok(place)
    }

    fn begin(&self, lasting: Lasting) -> bool {
        let (count, most) = self.count(lasting);
        take(count, most)
    }

    fn count(&self, lasting: Lasting) -> (&AtomicUsize, usize) {
        match lasting {
            Lasting::Watch => (&self.watches, MOST_WATCHES),
            Lasting::Reflection => (&self.reflections, MOST_REFLECTIONS),
        }
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        self.peer.end_open_call();
        if let Some((calls, lasting)) = &self.lasting {
            calls.count(*lasting).0.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// What an answer's body keeps for as long as it lasts.
pub struct Held {
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OpenPlace,
}

impl Held {
    /// Ready once the server ends.
    pub fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ending.as_mut().poll(cx)
    }
}

/// A service that comes with tonic.
pub type OpenService = Box<dyn Fn(Request<RequestBody>, OpenPlace) -> OpenAnswer + Send + Sync>;
type OpenAnswer = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// `ending` ends the streams, which would outlive the server; `patience` is how
/// long a request may take to come.
pub fn service<S>(service: S, ending: CancellationToken, patience: Duration) -> OpenService
where
    S: tower_service::Service<
            Request<RequestBody>,
            Response = Response<tonic::body::Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    Box::new(move |request, place| {
        let response = service.clone().call(request);
        let response = tokio::time::timeout(patience, response);
        let ending = ending.clone();
        Box::pin(async move {
            match response.await {
                Ok(Ok(response)) => {
                    let held = Held {
                        ending: Box::pin(ending.cancelled_owned()),
                        _place: place,
                    };
                    response.map(|body| ResponseBody::Tonic(Box::new(held), body))
                }
                Ok(Err(never)) => match never {},
                Err(_) => refused(&Problem::too_slow("the request")),
            }
        })
    })
}
