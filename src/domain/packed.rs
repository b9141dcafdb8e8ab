//! Messages in gzip.

use std::cell::RefCell;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::frame::PREFIX_LEN;

/// What a gzip member begins with (RFC 1952, 2.3): deflate, no name, no time, the fastest
/// way, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// A checksum and a length.
const TRAILER: usize = 8;

thread_local! {
    /// Its tables are 300 KiB: to make them anew costs more than a short message does.
    static DEFLATE: RefCell<Compress> =
        RefCell::new(Compress::new(Compression::fast(), false));
}

/// A framed message compressed, in its new frame ("Compressed-Flag" of gRPC over
/// HTTP/2); `None` if it would not get shorter.
pub fn packed(framed: &[u8]) -> Option<Box<[u8]>> {
    let message = framed.get(PREFIX_LEN..)?;
    let mut out = Vec::with_capacity(framed.len());
    out.extend_from_slice(&[1, 0, 0, 0, 0]);
    out.extend_from_slice(&HEADER);
    // No more is written than there is room for.
    let ended = DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        deflate.compress_vec(message, &mut out, FlushCompress::Finish)
    });
    let is_whole = ended.ok()? == Status::StreamEnd;
    if !is_whole || out.len() + TRAILER >= framed.len() {
        return None;
    }
    let mut crc = Crc::new();
    crc.update(message);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    let length = (out.len() - PREFIX_LEN) as u32;
    out[1..PREFIX_LEN].copy_from_slice(&length.to_be_bytes());
    Some(out.into())
}
