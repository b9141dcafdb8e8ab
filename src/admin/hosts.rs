//! Whom a request means to reach, and whose page sent it.
//!
//! A page anywhere on the web can have its own host's name turned to this
//! machine's address (DNS rebinding): its browser then takes this server for the
//! page's own, and lets it read. But the `Host` it sends is the page's.

use std::net::{IpAddr, Ipv6Addr};

use http::{
    HeaderMap, HeaderName, Method, Request, Version,
    header::{HOST, ORIGIN},
};

/// The hosts that are answered.
#[derive(Debug)]
pub struct Hosts {
    any: bool,
    named: Vec<String>,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stray {
    /// There is no host, or more than one.
    NoHost,
    OtherHost,
    /// It would change something, and comes from a page or through a proxy.
    OtherPage,
}

impl Hosts {
    /// For a server that listens on `address`. Where only this machine can reach
    /// it, or hosts are `named`, others are refused; everywhere to what would
    /// change something.
    pub fn new(address: IpAddr, named: Vec<String>) -> Self {
        let any = !address.to_canonical().is_loopback() && named.is_empty();
        Self { any, named }
    }

    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Stray> {
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        let own = host(request)?;
        // The probes of some load balancers speak HTTP/1.0 and name no host
        // (RFC 9112, 3.2); no browser does.
        if own.is_none() && !(reads && request.version() == Version::HTTP_10) {
            return Err(Stray::NoHost);
        }
        // A browser on this machine may be made to change what it may read.
        if !(self.any && reads)
            && let Some(own) = own
            && !own_name(own).is_some_and(|name| self.answers(name))
        {
            return Err(Stray::OtherHost);
        }
        if reads || is_own(request.headers(), own) {
            Ok(())
        } else {
            Err(Stray::OtherPage)
        }
    }

    /// An address can't be turned to another one, so it is always answered.
    fn answers(&self, host: &str) -> bool {
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_address = match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => host.parse::<IpAddr>().is_ok(),
        };
        is_address
            || host.eq_ignore_ascii_case("localhost")
            || self
                .named
                .iter()
                .any(|name| host.eq_ignore_ascii_case(name))
    }
}

/// The request's one host, with its port.
fn host<B>(request: &Request<B>) -> Result<Option<&str>, Stray> {
    let mut values = request.headers().get_all(HOST).iter();
    let host = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(host), None) => host.to_str().map_err(|_| Stray::NoHost)?,
        _ => return Err(Stray::NoHost),
    };
    let is_host = |c: u8| c.is_ascii_alphanumeric() || b".-_:[]".contains(&c);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(Stray::NoHost);
    }
    match request.uri().authority() {
        Some(named) if *named != host => Err(Stray::NoHost),
        _ => Ok(Some(host)),
    }
}

/// A host without its port; `None` if what follows the name is no port.
fn own_name(host: &str) -> Option<&str> {
    let end = match host.find(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_number = |digits: &str| digits.is_empty() || digits.parse::<u16>().is_ok();
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_number);
    is_port.then_some(name)
}

/// Whether no browser sent it from another server's page, and no proxy passed it
/// on for somebody who is not on this machine.
fn is_own(headers: &HeaderMap, own: Option<&str>) -> bool {
    // `Forwarded`, `X-Forwarded-For`, `-Host`, `-Proto` and what else proxies say so.
    let says_so = |name: &HeaderName| {
        let others = ["via", "x-real-ip", "true-client-ip", "cf-connecting-ip"];
        name.as_str().contains("forwarded") || others.contains(&name.as_str())
    };
    if headers.keys().any(says_so) {
        return false;
    }
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return false;
    }
    headers.get_all(ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        own.is_some_and(|own| origin == format!("http://{own}"))
    })
}
