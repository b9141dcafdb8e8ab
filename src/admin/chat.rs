use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_SECURITY_POLICY};
use http_body_util::Full;
use serde_json::json;

use super::routes::{HTML, JSON, answer, line};

/// `web/dist`, which `make web` builds of the sources beside it.
const INDEX: &str = include_str!("../../web/dist/index.html");
const SCRIPT: &str = include_str!("../../web/dist/chat.js");
const STYLE: &str = include_str!("../../web/dist/chat.css");

/// The page of the chats, and what it has to know of this server.
pub struct ChatPage {
    config: String,
    policy: HeaderValue,
}

/// Where the page finds gRPC-Web, and how its users sign in.
#[derive(Debug, Clone)]
pub struct ChatPageConfig {
    /// The gRPC port …
    pub port: u16,
    /// … whether it wants TLS …
    pub tls: bool,
    /// … and an address that counts instead of both.
    pub url: Option<String>,
    /// `dev`: with a name. `service`: with a name and a password. `jwt`: with a
    /// token.
    pub auth: &'static str,
}

impl ChatPage {
    pub fn new(config: &ChatPageConfig) -> Self {
        let ChatPageConfig {
            port,
            tls,
            url,
            auth,
        } = config;
        let scheme = if *tls { "https" } else { "http" };
        let called = url.clone().unwrap_or(format!("{scheme}://*:{port}"));
        // No script or style but the page's own files, and no markup from text.
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src 'self' {called}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        );
        let strict = HeaderValue::from_static("default-src 'none'");
        Self {
            config: json!({ "port": port, "tls": tls, "url": url, "auth": auth }).to_string(),
            policy: HeaderValue::try_from(policy).unwrap_or(strict),
        }
    }

    /// What is at a path, `/chat` or below.
    pub fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let (kind, body): (_, Bytes) = match path {
            "/chat" | "/chat/" => (HTML, INDEX.into()),
            "/chat/chat.js" => ("text/javascript; charset=utf-8", SCRIPT.into()),
            "/chat/chat.css" => ("text/css; charset=utf-8", STYLE.into()),
            "/chat/config.json" => (JSON, self.config.clone().into()),
            _ => return line(StatusCode::NOT_FOUND, "no such page; there is /chat"),
        };
        let mut answer = answer(StatusCode::OK, kind, body);
        let policy = self.policy.clone();
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        answer
    }
}

/// The origins of the page, where they are this server's beyond doubt: on a
/// loopback address nobody else can have its port.
pub fn own_origins(ip: IpAddr, port: u16) -> Vec<String> {
    if !ip.to_canonical().is_loopback() {
        return Vec::new();
    }
    let host = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    vec![
        format!("http://{host}:{port}"),
        format!("http://localhost:{port}"),
    ]
}
