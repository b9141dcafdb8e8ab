//! Whom a request means to reach, and whose page sent it.
//!
//! A page anywhere on the web can have its own host's name turned to this
//! machine's address (DNS rebinding): its browser then takes this server for the
//! page's own, and lets it read. But the `Host` it sends is the page's.

use std::net::IpAddr;

use http::{
    HeaderMap, Method, Request, Version,
    header::{FORWARDED, HOST, ORIGIN, VIA},
    uri::Authority,
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
        let own = host(request)?;
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        // A browser on this machine may be made to change what it may read.
        if !(self.any && reads)
            && let Some(own) = &own
            && !self.answers(own.host())
        {
            return Err(Stray::OtherHost);
        }
        if reads || is_own(request.headers(), own.as_ref()) {
            Ok(())
        } else {
            Err(Stray::OtherPage)
        }
    }

    /// An address can't be turned to another one, so it is always answered.
    fn answers(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        host.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self
                .named
                .iter()
                .any(|name| host.eq_ignore_ascii_case(name))
    }
}

/// The request's one host. Only HTTP/1.0, which no browser speaks, may do
/// without (RFC 9112, 3.2).
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, Stray> {
    let mut values = request.headers().get_all(HOST).iter();
    let host = match (values.next(), values.next()) {
        (None, _) if request.version() == Version::HTTP_10 => return Ok(None),
        (Some(host), None) => host.as_bytes(),
        _ => return Err(Stray::NoHost),
    };
    let host = Authority::try_from(host).map_err(|_| Stray::NoHost)?;
    match request.uri().authority() {
        Some(named) if *named != host => Err(Stray::NoHost),
        _ => Ok(Some(host)),
    }
}

/// Whether no browser sent it from another server's page, and no proxy passed it
/// on for somebody who is not on this machine.
fn is_own(headers: &HeaderMap, own: Option<&Authority>) -> bool {
    let forwarded = [
        FORWARDED.as_str(),
        "x-forwarded-for",
        "x-real-ip",
        VIA.as_str(),
    ];
    if forwarded.iter().any(|name| headers.contains_key(*name)) {
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
