use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::runtime::TlsStream;

/// The HTTP that a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// How long to wait for a second byte: nearly all clients send more at once.
const PAUSE: Duration = Duration::from_millis(2);

/// HTTP/1.1 has no PING: the kernel asks whether the other side is still there.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 2;

/// What the client begins with, once it does. HTTP/2 begins with `PRI`, HTTP/1.1
/// with a method; everything else is left to HTTP/2, which knows an error for it.
pub async fn spoken(stream: &TcpStream) -> io::Result<Protocol> {
    let mut first = [0; 2];
    loop {
        let count = stream.peek(&mut first).await?;
        match first[..count] {
            [b'P'] => tokio::time::sleep(PAUSE).await,
            [b'P', b'R'] => return Ok(Protocol::Http2),
            [b'A'..=b'Z', ..] => return Ok(Protocol::Http1),
            _ => return Ok(Protocol::Http2),
        }
    }
}

/// What client and server have agreed on. Without a word about it, it is HTTP/2,
/// as gRPC wants.
pub fn alpn(stream: &TlsStream<TcpStream>) -> Protocol {
    match stream.get_ref().1.alpn_protocol() {
        Some(b"http/1.1") => Protocol::Http1,
        _ => Protocol::Http2,
    }
}

/// Has the kernel end a connection whose other side is gone, and with it its
/// stream.
pub fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "no keep-alive on a connection");
    }
}
