//! HTTP/2 frames made by hand, for what no client library would send.

use std::{io, net::Ipv4Addr, net::SocketAddr, time::Duration};

use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// RFC 9113, 5.3: obsolete, and still to be read.
pub const PRIORITY: u8 = 2;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

/// HTTP/2's name for "too much" (RFC 9113, 7).
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// The largest window there is.
const WINDOW: u32 = (1 << 31) - 1;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let head = head(length, kind, flags, stream);
    [&head[..], payload].concat()
}

/// The head alone, whatever follows it.
pub fn head(length: u32, kind: u8, flags: u8, stream: u32) -> [u8; 9] {
    let [_, a, b, c] = length.to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind, flags, d, e, f, g]
}

/// The beginning of a connection whose client lets any stream have any window.
pub fn hello() -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let settings = setting(INITIAL_WINDOW_SIZE, WINDOW);
    let window = window_update(0, WINDOW - 65_535);
    [PREFACE, &settings, &window].concat()
}

/// SETTINGS with one of them.
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    let setting = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &setting)
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A header in HPACK, as a literal that no table is to keep (RFC 7541, 6.2.2).
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        // A length of 7 bits, and what it is short of in groups of as many.
        match text.len() {
            short @ ..127 => out.push(short as u8),
            long => {
                let mut rest = long - 127;
                out.push(127);
                while rest >= 128 {
                    out.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                out.push(rest as u8);
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The headers of a call.
pub fn call(method: &str, user: &str) -> Vec<u8> {
    [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":path", &format!("/chat_v1.ChatV1/{method}")),
        literal("content-type", "application/grpc"),
        literal("te", "trailers"),
        literal("authorization", &format!("Bearer {user}")),
    ]
    .concat()
}

/// The same of a call without a token.
pub fn open_path(stream: u32, path: &str) -> Vec<u8> {
    let headers = [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":path", path),
        literal("content-type", "application/grpc"),
        literal("te", "trailers"),
    ];
    frame(HEADERS, END_HEADERS, stream, &headers.concat())
}

/// The headers of a call, in their frame; its body is to come.
pub fn open(stream: u32, method: &str, user: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call(method, user))
}

/// A message in its gRPC frame, in DATA.
pub fn message(stream: u32, flags: u8, message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let framed = [&[0][..], &length, &bytes].concat();
    frame(DATA, flags, stream, &framed)
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The reason of a GOAWAY.
    pub fn reason(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }
}

/// A connection that says and hears frames.
#[derive(Debug)]
pub struct Connection(pub TcpStream);

impl Connection {
    /// Connects from one of the many addresses that this machine is for itself:
    /// one address has not enough ports for all.
    pub async fn open(address: SocketAddr, from: u8) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into())?;
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    pub async fn hear(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, d, e, f, g] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await?;
        Ok(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]),
            payload,
        })
    }

    /// The next frame of this kind; `None`: the connection ends before.
    pub async fn hear_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.hear().await.ok()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Asks with a PING whether all that was said has been heard; the reason of
    /// the GOAWAY if that comes instead of an answer.
    pub async fn settle(&mut self) -> Result<(), Option<u32>> {
        // Who has hung up may still have said why.
        _ = self.say(&frame(PING, 0, 0, &[0; 8])).await;
        loop {
            match self.hear().await {
                Ok(frame) if frame.kind == PING && frame.flags == ACK => return Ok(()),
                Ok(frame) if frame.kind == GOAWAY => return Err(Some(frame.reason())),
                Ok(_) => {}
                Err(_) => return Err(None),
            }
        }
    }

    /// Reads until the server hangs up.
    pub async fn closed(&mut self, within: Duration) -> bool {
        let mut buffer = [0; 4096];
        let closed = async { while let Ok(1..) = self.0.read(&mut buffer).await {} };
        tokio::time::timeout(within, closed).await.is_ok()
    }
}
