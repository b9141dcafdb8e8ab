//! An Auth Service that does what a test tells it to.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use chat_service::proto::access::{
    CheckRequest,
    access_v1_server::{AccessV1, AccessV1Server},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use hyper::{Response as HttpResponse, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Code, Request, Response, Status};
use tower_service::Service as _;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Yes,
    Slow(Duration),
    Hang,
    /// Nothing about users whose names begin so, and yes about others.
    HangAbout(&'static str),
    /// That it can't serve, about such users, and yes about others.
    AwayAbout(&'static str),
    /// A status and its text.
    No(Code, &'static str),
    /// No gRPC, but an HTTP status.
    Http(u16),
    /// The same with a page.
    Page(u16),
    /// It ends before it says how the call went.
    CutOff,
    /// The message of a yes, and this around it.
    Says(Around),
    /// The call's stream is reset, and the connection goes on.
    Reset,
    /// Every other call fails, beginning with the first.
    Flap,
}

/// What an answer says beside its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    pub http: u16,
    pub content_type: &'static str,
    /// Of `grpc-status`, in the headers …
    pub headers: &'static [&'static str],
    /// … and in the trailers.
    pub trailers: &'static [&'static str],
}

impl Around {
    fn response(self) -> HttpResponse<tonic::body::Body> {
        let statuses = |of: &[&'static str]| -> HeaderMap {
            let name = HeaderName::from_static("grpc-status");
            let value = |one| HeaderValue::from_static(one);
            of.iter().map(|one| (name.clone(), value(one))).collect()
        };
        let message = Bytes::from_static(&[0; 5]);
        let trailers = statuses(self.trailers);
        let body = Full::from(message).with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = HttpResponse::new(tonic::body::Body::new(body));
        *response.status_mut() = self.http.try_into().unwrap();
        *response.headers_mut() = statuses(self.headers);
        let kind = HeaderValue::from_static(self.content_type);
        response.headers_mut().insert("content-type", kind);
        response
    }
}

#[derive(Clone)]
pub struct Peer(Arc<State>);

struct State {
    answer: Mutex<Answer>,
    checks: AtomicUsize,
    /// The last one's `authorization`, method and `traceparent`.
    last: Mutex<[String; 3]>,
    /// Checks by token and method.
    seen: Mutex<HashMap<[String; 2], usize>>,
    address: Mutex<Option<SocketAddr>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Peer {
    pub async fn start(answer: Answer) -> Self {
        let peer = Self(Arc::new(State {
            answer: Mutex::new(answer),
            checks: AtomicUsize::new(0),
            last: Mutex::default(),
            seen: Mutex::default(),
            address: Mutex::default(),
            tasks: Mutex::default(),
        }));
        peer.up().await;
        peer
    }

    /// The flags with which a server asks this peer.
    pub fn flags(&self) -> Vec<String> {
        let address = self.0.address.lock().unwrap().unwrap();
        let host = address.ip().to_string();
        let port = address.port().to_string();
        let mode = ["--auth", "service", "--access-client-host", &host];
        let port = ["--access-client-port", &port];
        let flags = mode.iter().chain(&port);
        flags.map(|flag| (*flag).to_owned()).collect()
    }

    pub fn answers(&self, answer: Answer) {
        *self.0.answer.lock().unwrap() = answer;
    }

    pub fn checks(&self) -> usize {
        self.0.checks.load(Ordering::SeqCst)
    }

    /// The checks since the last time this was asked.
    pub fn take_checks(&self) -> usize {
        self.0.checks.swap(0, Ordering::SeqCst)
    }

    pub fn last(&self) -> [String; 3] {
        self.0.last.lock().unwrap().clone()
    }

    /// The most checks of one token and method.
    pub fn most_of_one(&self) -> usize {
        let seen = self.0.seen.lock().unwrap();
        seen.values().copied().max().unwrap_or(0)
    }

    /// The checks of a method, of all tokens.
    pub fn checks_of(&self, method: &str) -> usize {
        let seen = self.0.seen.lock().unwrap();
        let of_method = seen.iter().filter(|([_, of], _)| of == method);
        of_method.map(|(_, count)| count).sum()
    }

    /// Ends the process, so to speak.
    pub fn down(&self) {
        *self.0.tasks.lock().unwrap() = JoinSet::new();
    }

    /// Begins to listen, on the port it had.
    pub async fn up(&self) {
        let known = *self.0.address.lock().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = TcpListener::bind(known.unwrap_or(any)).await.unwrap();
        *self.0.address.lock().unwrap() = Some(listener.local_addr().unwrap());
        let peer = self.clone();
        self.0.tasks.lock().unwrap().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let peer = peer.clone();
                let service = service_fn(move |request| {
                    let peer = peer.clone();
                    async move {
                        if let Answer::Http(status) = peer.answer() {
                            peer.0.checks.fetch_add(1, Ordering::SeqCst);
                            let mut response = HttpResponse::new(tonic::body::Body::empty());
                            *response.status_mut() = status.try_into().unwrap();
                            return Ok(response);
                        }
                        if let Answer::Page(status) = peer.answer() {
                            peer.0.checks.fetch_add(1, Ordering::SeqCst);
                            let page = "<html><body>The peer is away.</body></html>";
                            let page = Full::<Bytes>::from(page);
                            let mut response = HttpResponse::new(tonic::body::Body::new(page));
                            *response.status_mut() = status.try_into().unwrap();
                            return Ok(response);
                        }
                        if peer.answer() == Answer::CutOff {
                            peer.0.checks.fetch_add(1, Ordering::SeqCst);
                            let mut response = HttpResponse::new(tonic::body::Body::empty());
                            let grpc = "application/grpc".parse().unwrap();
                            response.headers_mut().insert("content-type", grpc);
                            return Ok(response);
                        }
                        if let Answer::Says(around) = peer.answer() {
                            peer.0.checks.fetch_add(1, Ordering::SeqCst);
                            return Ok(around.response());
                        }
                        if peer.answer() == Answer::Reset {
                            peer.0.checks.fetch_add(1, Ordering::SeqCst);
                            return Err(io::Error::other("not this one"));
                        }
                        let answered = AccessV1Server::new(peer).call(request).await;
                        Ok(answered.unwrap_or_else(|never| match never {}))
                    }
                });
                connections.spawn(async move {
                    let builder = http2::Builder::new(TokioExecutor::new());
                    _ = builder
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
    }

    fn answer(&self) -> Answer {
        *self.0.answer.lock().unwrap()
    }
}

#[tonic::async_trait]
impl AccessV1 for Peer {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<()>, Status> {
        let number = self.0.checks.fetch_add(1, Ordering::SeqCst);
        let header = |name| {
            let value = request.metadata().get(name);
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        let (token, trace) = (header("authorization"), header("traceparent"));
        let method = request.get_ref().endpoint_address.clone();
        let about = named(&token);
        *self.0.last.lock().unwrap() = [token.clone(), method.clone(), trace];
        *self
            .0
            .seen
            .lock()
            .unwrap()
            .entry([token, method])
            .or_default() += 1;
        match self.answer() {
            Answer::Yes
            | Answer::Http(_)
            | Answer::Page(_)
            | Answer::CutOff
            | Answer::Says(_)
            | Answer::Reset => {}
            Answer::Slow(time) => tokio::time::sleep(time).await,
            Answer::Hang => std::future::pending().await,
            Answer::HangAbout(name) if about.starts_with(name) => std::future::pending().await,
            Answer::AwayAbout(name) if about.starts_with(name) => {
                return Err(Status::unavailable("not about this one"));
            }
            Answer::HangAbout(_) | Answer::AwayAbout(_) => {}
            Answer::Flap if number % 2 == 1 => {}
            Answer::Flap => return Err(Status::unavailable("flapping")),
            Answer::No(code, text) => return Err(Status::new(code, text)),
        }
        Ok(Response::new(()))
    }
}

/// Whom a token names.
fn named(authorization: &str) -> String {
    let payload = authorization.split('.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap_or_default();
    claims["username"].as_str().unwrap_or_default().to_owned()
}
