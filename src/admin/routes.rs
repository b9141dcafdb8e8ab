use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;

use super::{Health, Hosts, Scrape, chat::ChatPage, hosts::Stray};
use crate::{
    cluster::Cluster,
    telemetry::{self, LogLevel, Samples, log_limited},
};

/// The page; nothing on it comes from elsewhere.
const PAGE: &str = include_str!("page.html");

/// Scripts and styles are the page's own, and it talks to this server only.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The longest body that is read, in bytes: a filter of the log's.
const MAX_BODY: usize = 1_024;

/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const HTML: &str = "text/html; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// What the paths answer.
pub struct Routes {
    pub health: Arc<Health>,
    pub scrape: Scrape,
    pub samples: Arc<Samples>,
    pub log_level: LogLevel,
    pub chat: ChatPage,
    pub hosts: Hosts,
    /// Where there are several nodes.
    pub cluster: Option<Cluster>,
}

impl Routes {
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Result<Answer, Infallible> {
        if let Err(stray) = self.hosts.check(&request) {
            return Ok(refused(&stray));
        }
        let read = [Method::GET, Method::HEAD].contains(request.method());
        if !["/live", "/ready"].contains(&request.uri().path()) {
            // A connection may send many requests at once: others come between
            // any two of them, and probes before all.
            tokio::task::yield_now().await;
        }
        Ok(match request.uri().path() {
            "/log-level" if request.method() == Method::PUT => self.set_level(request, peer).await,
            "/log-level" => not_allowed("PUT"),
            "/" | "/live" | "/ready" | "/metrics" | "/stats.json" | "/chat" if !read => {
                not_allowed("GET, HEAD")
            }
            "/" => page(),
            "/live" => health(self.health.live().await, "live"),
            "/ready" => health(self.health.ready().await, "ready"),
            "/metrics" => self.metrics(&request),
            "/stats.json" => {
                let after = request.uri().query().and_then(|query| {
                    let after = query
                        .split('&')
                        .find_map(|part| part.strip_prefix("after="));
                    after?.parse().ok()
                });
                let json = self.samples.json(after.unwrap_or(0));
                answer(StatusCode::OK, JSON, json)
            }
            "/cluster" if read => self.cluster(),
            "/cluster" if request.method() == Method::PUT => self.move_chats(request, peer).await,
            "/cluster" => not_allowed("GET, HEAD, PUT"),
            path if read && (path == "/chat" || path.starts_with("/chat/")) => {
                self.chat.answer(path)
            }
            _ => line(
                StatusCode::NOT_FOUND,
                "no such page; there are / /chat /live /ready /metrics /stats.json /cluster /log-level",
            ),
        })
    }

    /// `null` for a server that is alone.
    fn cluster(&self) -> Answer {
        let status = self.cluster.as_ref().map(Cluster::status);
        match serde_json::to_string(&status) {
            Ok(json) => answer(StatusCode::OK, JSON, json),
            Err(_) => line(StatusCode::INTERNAL_SERVER_ERROR, "status not encodable"),
        }
    }

    /// Only from this machine, and not from a page of another server.
    async fn move_chats(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        if !peer.to_canonical().is_loopback() {
            return line(StatusCode::FORBIDDEN, "only from this machine");
        }
        let Some(cluster) = &self.cluster else {
            return line(StatusCode::NOT_FOUND, "this server is alone; see --cluster");
        };
        let asked = match body(request).await {
            Ok(asked) => asked,
            Err(refused) => return refused,
        };
        match super::cluster::moved(cluster, &asked).await {
            Ok(done) => line(StatusCode::OK, &done),
            Err(why) => line(StatusCode::BAD_REQUEST, &why),
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> Answer {
        let accepted = request.headers().get_all(ACCEPT).iter();
        let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
        let format = telemetry::Format::wanted(&accepted.join(","));
        match self.scrape.text(format) {
            Ok(text) => answer(StatusCode::OK, format.content_type(), text),
            Err(_) => line(StatusCode::INTERNAL_SERVER_ERROR, "metrics not encodable"),
        }
    }

    /// Only from this machine, and not from a page of another server.
    async fn set_level(&self, request: Request<Incoming>, peer: IpAddr) -> Answer {
        if !peer.to_canonical().is_loopback() {
            return line(StatusCode::FORBIDDEN, "only from this machine");
        }
        let level = match body(request).await {
            Ok(level) => level,
            Err(refused) => return refused,
        };
        let level = match crate::config::read_log_level(level.trim()) {
            Ok(level) => level,
            Err(why) => return line(StatusCode::BAD_REQUEST, &why),
        };
        match self.log_level.set(&level) {
            Ok(()) => {
                log_limited!(WARN, level, "log level changed");
                line(StatusCode::OK, &level)
            }
            Err(error) => line(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
}

/// What a request brings, if it is a short text.
async fn body(request: Request<Incoming>) -> Result<String, Answer> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let Ok(body) = tokio::time::timeout(BODY_TIMEOUT, body).await else {
        return Err(line(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        ));
    };
    let text = body.map(|body| String::from_utf8(body.to_bytes().to_vec()));
    match text {
        Ok(Ok(text)) => Ok(text),
        _ => Err(line(StatusCode::BAD_REQUEST, "the body can't be read")),
    }
}

fn refused(stray: &Stray) -> Answer {
    match stray {
        Stray::NoHost => line(StatusCode::BAD_REQUEST, "host: exactly one is needed"),
        Stray::OtherHost => line(
            StatusCode::MISDIRECTED_REQUEST,
            "host: this server is not known by that name; see --http-hosts",
        ),
        Stray::OtherPage => line(
            StatusCode::FORBIDDEN,
            "only from this machine, in HTTP/1.1, not through a proxy, not for a page of another \
             server, and with no other headers than curl sends",
        ),
    }
}

fn health(state: Result<(), String>, good: &str) -> Answer {
    match state {
        Ok(()) => line(StatusCode::OK, good),
        Err(why) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn page() -> Answer {
    let mut page = answer(StatusCode::OK, HTML, PAGE);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    page
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut refused = line(StatusCode::METHOD_NOT_ALLOWED, methods);
    let methods = HeaderValue::from_static(methods);
    refused.headers_mut().insert(ALLOW, methods);
    refused
}

pub(super) fn line(status: StatusCode, text: &str) -> Answer {
    answer(status, TEXT, format!("{text}\n"))
}

pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
