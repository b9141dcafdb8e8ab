//! Whom a request means to reach, and whose page sent it.
//!
//! A page anywhere on the web can have its own host's name turned to this
//! machine's address (DNS rebinding): its browser then takes this server for the
//! page's own, and lets it read. But the `Host` it sends is the page's.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, Method, Request, Version,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, ORIGIN,
        REFERER, TRANSFER_ENCODING, USER_AGENT,
    },
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
        if reads {
            return Ok(());
        }
        let is_of_here = own
            .and_then(own_name)
            .is_some_and(|name| self.is_of_here(name));
        if !is_of_here {
            return Err(Stray::OtherHost);
        }
        // Proxies speak HTTP/1.0 to whom they pass requests on, and nobody else does.
        if request.version() != Version::HTTP_11 || !is_own(request.headers(), own) {
            return Err(Stray::OtherPage);
        }
        Ok(())
    }

    /// An address can't be turned to another one, so it is always answered.
    fn answers(&self, host: &str) -> bool {
        address(host).is_some() || self.is_of_here(host)
    }

    /// Changes come from this machine only, and so to an address that it alone reaches:
    /// another one is that of a proxy.
    fn is_of_here(&self, host: &str) -> bool {
        address(host).is_some_and(|address| address.to_canonical().is_loopback())
            || host.eq_ignore_ascii_case("localhost")
            || self
                .named
                .iter()
                .any(|name| host.eq_ignore_ascii_case(name))
    }
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().map(IpAddr::V6),
        None => host.parse().ok(),
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

/// What `curl`, `wget` and `chatd` itself send. Proxies say in other headers for whom they
/// speak, and there are more of those than anybody can list.
const PLAIN: [HeaderName; 9] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TRANSFER_ENCODING,
    USER_AGENT,
];

/// Whether no browser sent it from another server's page, and no proxy passed it
/// on for somebody who is not on this machine.
fn is_own(headers: &HeaderMap, own: Option<&str>) -> bool {
    let is_of_page = |name: &HeaderName| {
        [ORIGIN, REFERER].contains(name) || name.as_str().starts_with("sec-fetch-")
    };
    if !headers
        .keys()
        .all(|name| PLAIN.contains(name) || is_of_page(name))
    {
        return false;
    }
    let Some(page) = own.map(|own| format!("http://{own}")) else {
        return false;
    };
    let is_same = |site: &[u8]| site == b"same-origin" || site == b"none";
    let is_below = |address: &[u8]| {
        let rest = address.strip_prefix(page.as_bytes());
        rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    };
    let all = |name: &str, is_good: &dyn Fn(&[u8]) -> bool| {
        let mut values = headers.get_all(name).iter();
        values.all(|value| is_good(value.as_bytes()))
    };
    all("sec-fetch-site", &is_same)
        && all(ORIGIN.as_str(), &|origin| origin == page.as_bytes())
        && all(REFERER.as_str(), &is_below)
}
