//! The host that a request names.

use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, HOST},
    uri::{Authority, Scheme},
};

use super::body::ResponseBody;

/// Whether a request names its host as its HTTP wants: HTTP/1.1 once, by a `Host`
/// that can be read (RFC 9112, 3.2); HTTP/2 at most once, and by a `Host` only as
/// `:authority` does (RFC 9113, 8.3.1).
pub fn is_named<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, more) = (hosts.next(), hosts.next().is_some());
    if request.version() == Version::HTTP_2 {
        return request.uri().authority().is_none_or(is_good)
            && first.is_none_or(|host| !more && is_authority(request, host));
    }
    match first {
        Some(host) => !more && (host.is_empty() || parse(host).is_some()),
        None => request.version() < Version::HTTP_11,
    }
}

/// What HTTP/1.1 answers a request that does not. Its connection is closed: what comes
/// behind may be meant for somebody else, if a proxy in front reads it otherwise.
pub fn not_named() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

fn is_authority<B>(request: &Request<B>, host: &HeaderValue) -> bool {
    let Some(authority) = request.uri().authority() else {
        return parse(host).is_some();
    };
    if host.as_bytes() == authority.as_str().as_bytes() {
        return true;
    }
    let usual = match request.uri().scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => ":443",
        _ => ":80",
    };
    // Two spellings of the same host are the same (RFC 3986, 6.2.3).
    let normal = |authority: &Authority| {
        let port = port(authority).filter(|port| ![":", usual].contains(port));
        let port = port.unwrap_or_default().to_owned();
        (authority.host().to_ascii_lowercase(), port)
    };
    parse(host).is_some_and(|host| normal(&host) == normal(authority))
}

/// A host, perhaps with a port, and nothing else.
fn parse(host: &HeaderValue) -> Option<Authority> {
    let host = Authority::try_from(host.as_bytes()).ok()?;
    is_good(&host).then_some(host)
}

fn is_good(authority: &Authority) -> bool {
    is_plain(authority.as_str().as_bytes()) || is_good_at_length(authority)
}

/// A name or an address of IPv4, perhaps with a port: what nearly all calls name.
fn is_plain(authority: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    match authority.iter().position(|byte| !is_of_name(byte)) {
        None => !authority.is_empty(),
        Some(end) => {
            end > 0 && authority[end] == b':' && authority[end + 1..].iter().all(u8::is_ascii_digit)
        }
    }
}

fn is_good_at_length(authority: &Authority) -> bool {
    let is_number = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let is_port = |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(is_number);
    !authority.host().is_empty() && port(authority).is_some_and(is_port)
}

/// What stands behind the host, with its colon.
fn port(authority: &Authority) -> Option<&str> {
    authority.as_str().strip_prefix(authority.host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(version: Version, uri: &str, hosts: &[&str]) -> bool {
        let mut request = Request::post(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        is_named(&request.body(()).unwrap())
    }

    #[test]
    fn what_is_plainly_a_host_is_one_at_length() {
        let alphabet = *b"aZ0.-:@[]%_";
        let mut texts = vec![Vec::new()];
        let mut plain = 0;
        for _ in 0..4 {
            let longer = |text: Vec<u8>| alphabet.map(|byte| [&text[..], &[byte]].concat());
            texts = texts.into_iter().flat_map(longer).collect();
            for text in texts.iter().filter(|text| is_plain(text)) {
                let authority = Authority::try_from(&text[..]).unwrap();
                assert!(is_good_at_length(&authority), "{}", text.escape_ascii());
                plain += 1;
            }
        }
        assert!(plain > 500 && !is_plain(b""));
    }

    #[test]
    fn p10_http1_names_one_host_that_can_be_read() {
        let path = "/chat_v1.ChatV1/Get";
        for good in ["chat", "chat:8092", "[::1]:8092", "127.0.0.1", "chat:", ""] {
            assert!(named(Version::HTTP_11, path, &[good]), "{good}");
        }
        for bad in [
            "a b", "a@chat", "chat:x", "chat/", "a,b c", "[::1", "a:ax", "8:8x", "[::1]x", ":80",
        ] {
            assert!(!named(Version::HTTP_11, path, &[bad]), "{bad}");
        }
        assert!(!named(Version::HTTP_11, path, &[]));
        assert!(!named(Version::HTTP_11, "http://chat/", &[]));
        assert!(!named(Version::HTTP_11, path, &["chat", "chat"]));
        assert!(named(Version::HTTP_10, path, &[]));
        assert!(!named(Version::HTTP_10, path, &["chat", "chat"]));
    }

    #[test]
    fn p10_http2_names_no_other_host_than_its_authority() {
        let two = |uri, hosts: &[&str]| named(Version::HTTP_2, uri, hosts);
        assert!(two("http://chat/x", &[]) && two("/x", &[]) && two("/x", &["chat"]));
        for same in ["chat", "CHAT", "chat:80", "chat:"] {
            assert!(two("http://chat/x", &[same]), "{same}");
        }
        assert!(two("https://chat:443/x", &["chat"]));
        assert!(two("http://[::1]:8092/x", &["[::1]:8092"]));
        for other in ["", "chat2", "chat:8092", "chat:443", "a@chat", "a b"] {
            assert!(!two("http://chat/x", &[other]), "{other}");
        }
        assert!(!two("http://chat/x", &["chat", "chat"]));
        assert!(!two("/x", &["chat", "eve"]));
        assert!(!two("http://a/x", &["a:5a"]) && !two("http://8/x", &["8:9998"]));
        assert!(!two("/x", &["a b"]) && !two("/x", &["a@b"]) && !two("http://u@chat/x", &[]));
    }
}
