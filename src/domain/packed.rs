//! Messages in gzip.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::frame::PREFIX_LEN;

/// A framed message compressed, in its new frame ("Compressed-Flag" of gRPC over
/// HTTP/2); `None` if it would not get shorter.
pub fn packed(framed: &[u8]) -> Option<Box<[u8]>> {
    let message = framed.get(PREFIX_LEN..)?;
    let mut out = Vec::with_capacity(PREFIX_LEN + message.len() / 2);
    out.extend_from_slice(&[1, 0, 0, 0, 0]);
    let mut encoder = GzEncoder::new(out, Compression::fast());
    encoder.write_all(message).ok()?;
    let mut out = encoder.finish().ok()?;
    let length = (out.len() - PREFIX_LEN) as u32;
    out[1..PREFIX_LEN].copy_from_slice(&length.to_be_bytes());
    (out.len() < framed.len()).then(|| out.into())
}
