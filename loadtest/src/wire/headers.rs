use std::net::SocketAddr;

/// The request headers in HPACK (RFC 7541). Like a usual client's, they stand
/// in the dynamic table after a connection's first request, and later ones
/// refer to them; what differs from the first is sent as it is.
pub struct Headers {
    authority: String,
    first: Option<(String, String)>,
}

// Static table, and the dynamic one as the first request leaves it.
const POST: u8 = 0x83;
const HTTP: u8 = 0x86;
const AUTHORITY: usize = 1;
const PATH: usize = 4;
const AUTHORIZATION: usize = 23;
const CONTENT_TYPE: usize = 31;
const KNOWN_AUTHORIZATION: u8 = 0x80 | 62;
const KNOWN_TE: u8 = 0x80 | 63;
const KNOWN_CONTENT_TYPE: u8 = 0x80 | 64;
const KNOWN_AUTHORITY: u8 = 0x80 | 65;
const KNOWN_PATH: u8 = 0x80 | 66;

impl Headers {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            authority: address.to_string(),
            first: None,
        }
    }

    pub fn put(&mut self, out: &mut Vec<u8>, path: &str, token: &str) {
        out.extend([POST, HTTP]);
        let authorization = format!("Bearer {token}");
        let Some((first_path, first_token)) = &self.first else {
            named(out, 0x40, 0x3f, PATH, path);
            named(out, 0x40, 0x3f, AUTHORITY, &self.authority);
            named(out, 0x40, 0x3f, CONTENT_TYPE, "application/grpc");
            out.push(0x40);
            text(out, "te");
            text(out, "trailers");
            named(out, 0x40, 0x3f, AUTHORIZATION, &authorization);
            self.first = Some((path.into(), token.into()));
            return;
        };
        if first_path == path {
            out.push(KNOWN_PATH);
        } else {
            named(out, 0, 0x0f, PATH, path);
        }
        out.extend([KNOWN_AUTHORITY, KNOWN_CONTENT_TYPE, KNOWN_TE]);
        if first_token == token {
            out.push(KNOWN_AUTHORIZATION);
        } else {
            named(out, 0, 0x0f, AUTHORIZATION, &authorization);
        }
    }
}

/// A literal whose name is in the static table; `kind` says whether it goes into
/// the dynamic one, and `mask` is what is left of the byte for the name's index.
fn named(out: &mut Vec<u8>, kind: u8, mask: u8, name: usize, value: &str) {
    integer(out, kind, mask, name);
    text(out, value);
}

fn text(out: &mut Vec<u8>, value: &str) {
    integer(out, 0, 0x7f, value.len());
    out.extend(value.as_bytes());
}

fn integer(out: &mut Vec<u8>, kind: u8, mask: u8, value: usize) {
    if value < usize::from(mask) {
        return out.push(kind | value as u8);
    }
    out.push(kind | mask);
    let mut rest = value - usize::from(mask);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_the_rfc() {
        let mut out = Vec::new();
        integer(&mut out, 0, 0x1f, 1337);
        assert_eq!(out, [31, 154, 10]);
    }

    #[test]
    fn a_second_request_refers_to_the_first() {
        let mut headers = Headers::new("127.0.0.1:1".parse().unwrap());
        let mut out = Vec::new();
        headers.put(&mut out, "/a/B", "t");
        out.clear();
        headers.put(&mut out, "/a/B", "t");
        assert_eq!(out, [0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe]);
    }
}
