//! How a message is compressed (gRPC over HTTP/2, "Message-Encoding").

use std::{cell::Cell, io::Read as _, time::Instant};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::status::Problem;
use crate::{chats::Packed, domain::packed};

pub static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// What requests may be in.
pub const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,gzip");
pub const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Shorter messages are hardly worth it, in bytes.
const LEAST: usize = 4 * 1024;

/// What a client says that its compressed messages are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// It said nothing, or that there are none.
    Identity,
    Gzip,
    Unknown,
}

impl Encoding {
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(&GRPC_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Self::Identity,
            Some(b"gzip") => Self::Gzip,
            Some(_) => Self::Unknown,
        }
    }

    /// A compressed message, which may have `max` bytes afterwards.
    ///
    /// # Errors
    /// If it is larger, or in something else.
    pub fn decode(self, message: &[u8], max: usize) -> Result<Bytes, Problem> {
        match self {
            Self::Identity => Err(Problem::flag_without_encoding()),
            Self::Unknown => Err(Problem::compressed()),
            Self::Gzip => {
                let mut plain = Vec::new();
                let mut reader = GzDecoder::new(message).take(max as u64 + 1);
                let read = reader.read_to_end(&mut plain);
                if plain.len() > max {
                    return Err(Problem::too_large(max));
                }
                // Thousands of empty members would cost more than their bytes.
                let is_one = reader.into_inner().into_inner().is_empty();
                if read.is_err() || !is_one {
                    return Err(Problem::malformed("a message is no gzip of one member"));
                }
                Ok(plain.into())
            }
        }
    }
}

/// Whether a client reads gzip.
pub fn reads_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(&GRPC_ACCEPT_ENCODING).iter();
    let mut all = accepted.flat_map(|value| value.as_bytes().split(|b| *b == b','));
    all.any(|one| one.trim_ascii() == b"gzip")
}

/// Whether a framed message is long enough to be compressed.
pub fn is_worth_it(framed: &[u8]) -> bool {
    framed.len() >= LEAST
}

/// Compressing messages of streams may take one part in so many of a core's time.
const PART: u32 = 5;

thread_local! {
    /// When this core may compress again.
    static AGAIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A frame of a stream compressed, or as it is if that is no shorter, or if this core has
/// compressed enough for now.
pub fn pack(frame: Bytes, place: &Packed) -> Bytes {
    // Most find it compressed, and need no clock.
    let may = || AGAIN.get().is_none_or(|again| Instant::now() >= again);
    if !place.is_there() && !may() {
        return frame;
    }
    let compress = || {
        let began = Instant::now();
        let packed = packed(&frame).map(Bytes::from);
        AGAIN.set(Some(began + began.elapsed() * PART));
        packed
    };
    place.get(compress).unwrap_or(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::PREFIX_LEN;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = (message.len() as u32).to_be_bytes();
        [&[0][..], &length, message].concat()
    }

    #[test]
    fn what_is_compressed_comes_back_and_nothing_grows() {
        let text = b"a message of some length, again and again. ".repeat(400);
        let short = packed(&framed(&text)).unwrap();
        assert!(short.len() < text.len() / 10);
        assert_eq!(short[0], 1);
        let plain = Encoding::Gzip.decode(&short[PREFIX_LEN..], text.len());
        assert_eq!(plain.unwrap(), text);
        let noise: Vec<u8> = (0..8_192).map(|_| fastrand::u8(..)).collect();
        assert_eq!(packed(&framed(&noise)), None);
        assert!(!is_worth_it(&framed(b"short")) && is_worth_it(&framed(&text)));
    }

    #[test]
    fn p6_p10_what_is_too_large_or_no_gzip_is_refused() {
        let bomb = packed(&framed(&vec![0; 1024 * 1024])).unwrap();
        let bomb = &bomb[PREFIX_LEN..];
        assert!(bomb.len() < 16 * 1024);
        let max = 1024 * 1024 - 1;
        assert_eq!(
            Encoding::Gzip.decode(bomb, max),
            Err(Problem::too_large(max))
        );
        for (encoding, bytes) in [
            (Encoding::Gzip, &b"no gzip"[..]),
            (Encoding::Gzip, &bomb[..100]),
            (Encoding::Gzip, b""),
            (Encoding::Gzip, &[bomb, bomb].concat()),
            (Encoding::Gzip, &[bomb, b"x"].concat()),
            (Encoding::Identity, bomb),
            (Encoding::Unknown, bomb),
        ] {
            assert!(encoding.decode(bytes, 1 << 21).is_err(), "{encoding:?}");
        }
    }

    #[test]
    fn clients_say_what_they_read() {
        for (accepted, reads) in [
            ("gzip", true),
            ("identity, deflate, gzip", true),
            ("identity", false),
            ("gzippo", false),
        ] {
            let value = HeaderValue::from_static(accepted);
            let headers = HeaderMap::from_iter([(GRPC_ACCEPT_ENCODING.clone(), value)]);
            assert_eq!(reads_gzip(&headers), reads, "{accepted}");
        }
        assert!(!reads_gzip(&HeaderMap::new()));
    }
}
