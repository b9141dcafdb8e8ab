//! A client of HTTP/2 and gRPC that does next to nothing: one core of it has to
//! keep up with a server that writes millions of messages a second. It parses
//! frame headers, counts messages by their length prefixes and looks into few.
//!
//! What it takes for granted, since both ends are ours: no padding, no
//! continued header blocks, responses whose status shows in their shape (a call
//! that went well has a message).

mod deframe;
mod headers;

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ahash::AHashMap;
use prost::Message;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
};

pub use deframe::Deframer;
use headers::Headers;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const INPUT: usize = 64 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW: u16 = 4;
const DEFAULT_WINDOW: i64 = 65_535;
/// The largest that the protocol allows, so that no stream ever waits for us.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Received bytes after which the connection's window is filled up again.
const REFILL: u32 = 1 << 26;

/// One connection.
pub struct Conn {
    io: TcpStream,
    input: Box<[u8]>,
    filled: usize,
    out: Vec<u8>,
    written: usize,
    headers: Headers,
    next_stream: u32,
    /// What the server lets us send.
    window: i64,
    initial: i64,
    /// Streams that stay open for sending.
    posting: AHashMap<u32, i64>,
    received: u32,
}

/// What came in.
pub enum Event<'a> {
    Data(u32, &'a [u8]),
    /// The stream is over, one way or the other.
    End(u32),
}

/// A message in its gRPC frame.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0; 5];
    message.encode_raw(&mut out);
    let len = (out.len() - 5) as u32;
    out[1..5].copy_from_slice(&len.to_be_bytes());
    out
}

impl Conn {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let io = TcpStream::connect(address).await?;
        io.set_nodelay(true)?;
        let mut conn = Self {
            io,
            input: vec![0; INPUT].into(),
            filled: 0,
            out: PREFACE.to_vec(),
            written: 0,
            headers: Headers::new(address),
            next_stream: 1,
            window: DEFAULT_WINDOW,
            initial: DEFAULT_WINDOW,
            posting: AHashMap::new(),
            received: 0,
        };
        let mut settings = INITIAL_WINDOW.to_be_bytes().to_vec();
        settings.extend(MAX_WINDOW.to_be_bytes());
        conn.put(SETTINGS, 0, 0, &settings);
        conn.put_window(MAX_WINDOW - DEFAULT_WINDOW as u32);
        Ok(conn)
    }

    /// Begins a call with its first or only message; `last` half-closes it.
    /// False in place of the stream if the server lets us send no more now.
    pub fn call(&mut self, path: &str, token: &str, frame: &[u8], last: bool) -> Option<u32> {
        if self.window < frame.len() as i64 {
            return None;
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        let head = self.out.len();
        self.put(HEADERS, END_HEADERS, stream, &[]);
        self.headers.put(&mut self.out, path, token);
        let len = (self.out.len() - head - HEAD) as u32;
        self.out[head..head + 3].copy_from_slice(&len.to_be_bytes()[1..]);
        self.put(DATA, if last { END_STREAM } else { 0 }, stream, frame);
        self.window -= frame.len() as i64;
        if !last {
            let window = self.initial - frame.len() as i64;
            self.posting.insert(stream, window);
        }
        Some(stream)
    }

    /// Sends on an open stream; false if the server lets us send no more now.
    pub fn send(&mut self, stream: u32, frame: &[u8]) -> bool {
        let len = frame.len() as i64;
        let Some(window) = self.posting.get_mut(&stream) else {
            return false;
        };
        if *window < len || self.window < len {
            return false;
        }
        *window -= len;
        self.window -= len;
        self.put(DATA, 0, stream, frame);
        true
    }

    /// Writes what was put, and waits for something to come in. Nothing is lost
    /// when it is dropped early.
    pub async fn step(&mut self, mut on: impl FnMut(Event<'_>)) -> io::Result<()> {
        poll_fn(|cx| self.poll_step(cx, &mut on)).await
    }

    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        on: &mut impl FnMut(Event<'_>),
    ) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Ready(count) => self.written += count?,
                Poll::Pending => break,
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        let mut buf = ReadBuf::new(&mut self.input[self.filled..]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        let count = buf.filled().len();
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.filled += count;
        Poll::Ready(self.parse(on))
    }

    fn parse(&mut self, on: &mut impl FnMut(Event<'_>)) -> io::Result<()> {
        // Taken out so that frames can be looked at while answers are put.
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let mut result = Ok(());
        while let Some(head) = input[at..self.filled].first_chunk::<HEAD>() {
            let [l2, l1, l0, kind, flags, stream @ ..] = *head;
            let len = u32::from_be_bytes([0, l2, l1, l0]) as usize;
            let Some(payload) = input[at + HEAD..self.filled].get(..len) else {
                break;
            };
            let stream = u32::from_be_bytes(stream) & MAX_WINDOW;
            at += HEAD + len;
            match kind {
                DATA => {
                    self.received += len as u32;
                    on(Event::Data(stream, payload));
                    if flags & END_STREAM != 0 {
                        on(Event::End(stream));
                    }
                }
                HEADERS if flags & END_STREAM != 0 => on(Event::End(stream)),
                RST_STREAM => on(Event::End(stream)),
                SETTINGS if flags & ACK == 0 => self.settings(payload),
                PING if flags & ACK == 0 => self.put(PING, ACK, 0, payload),
                WINDOW_UPDATE => self.window_update(stream, payload),
                GOAWAY => {
                    let debug = payload.get(8..).unwrap_or_default();
                    let why = String::from_utf8_lossy(debug);
                    result = Err(io::Error::other(format!("the server goes away: {why}")));
                }
                _ => {}
            }
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.received > REFILL {
            self.put_window(self.received);
            self.received = 0;
        }
        result
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let id = u16::from_be_bytes([setting[0], setting[1]]);
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            if id == INITIAL_WINDOW {
                let more = i64::from(value) - self.initial;
                self.initial += more;
                self.posting.values_mut().for_each(|window| *window += more);
            }
        }
        self.put(SETTINGS, ACK, 0, &[]);
    }

    fn window_update(&mut self, stream: u32, payload: &[u8]) {
        let Ok(more) = payload.try_into().map(u32::from_be_bytes) else {
            return;
        };
        if stream == 0 {
            self.window += i64::from(more);
        } else if let Some(window) = self.posting.get_mut(&stream) {
            *window += i64::from(more);
        }
    }

    fn put_window(&mut self, more: u32) {
        self.put(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
    }

    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let len = (payload.len() as u32).to_be_bytes();
        let [s3, s2, s1, s0] = stream.to_be_bytes();
        let head = [len[1], len[2], len[3], kind, flags, s3, s2, s1, s0];
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(payload);
    }
}
