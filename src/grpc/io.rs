use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{
    frames::{Flood, Frames, MANY_STREAMS, Turn},
    peer::Peer,
    sip::poll_sip,
};

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The HTTP that a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A stream whose client has begun to speak.
///
/// What it said first is read before hyper gets the stream, which waits for it
/// without end; and then read again.
#[derive(Debug)]
pub struct Heard<S> {
    stream: S,
    first: [u8; PREFACE.len()],
    /// How much of `first` there is, and how much has been read again.
    heard: u8,
    given: u8,
    /// Of HTTP/2.
    watch: Option<Watch>,
}

/// What holds a client to what HTTP/2 costs.
#[derive(Debug)]
struct Watch {
    frames: Frames,
    peer: Arc<Peer>,
    /// Why nothing more is read.
    flood: Option<Flood>,
    /// Until when nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> Heard<S> {
    /// Waits for the client's first words, and tells by them what it speaks.
    ///
    /// # Errors
    /// If the client goes away, or speaks no HTTP.
    pub async fn listen(mut stream: S) -> io::Result<(Self, Protocol)> {
        let mut first = [0; PREFACE.len()];
        let mut heard = 0;
        let protocol = loop {
            let read = stream.read(&mut first[heard..]).await?;
            heard += read;
            let said = &first[..heard];
            if read == 0 || !said[0].is_ascii_uppercase() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP"));
            } else if !PREFACE.starts_with(said) {
                break Protocol::Http1;
            } else if said == PREFACE {
                break Protocol::Http2;
            }
        };
        let stream = Self {
            stream,
            first,
            heard: heard as u8,
            given: 0,
            watch: None,
        };
        Ok((stream, protocol))
    }

    /// Reads HTTP/2, and no frames that cost too much.
    pub fn watched(mut self, peer: Arc<Peer>) -> Self {
        self.watch = Some(Watch {
            frames: Frames::new(Instant::now()),
            peer,
            flood: None,
            pause: None,
        });
        self
    }

    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let again = &self.first[self.given.into()..self.heard.into()];
        if !again.is_empty() {
            let now = &again[..again.len().min(buf.remaining())];
            buf.put_slice(now);
            self.given += now.len() as u8;
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        let Some(watch) = &mut this.watch else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        ready!(watch.poll_begin(cx))?;
        let before = buf.filled().len();
        let most = watch.frames.most_bytes();
        let read = poll_sip(&mut this.stream, cx, buf, most);
        if read.is_pending() {
            watch.frames.rest();
        }
        watch.look(buf, before)?;
        read
    }
}

impl Watch {
    /// Ready when more may be read.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(flood) = self.flood {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, flood)));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        match self.frames.end_turn(self.peer.polls()) {
            None => Poll::Ready(Ok(())),
            Some(Turn::Over) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Turn::Idle(time)) => {
                let mut pause = Box::pin(tokio::time::sleep(time));
                // Whatever time it is, others come first.
                if pause.as_mut().poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
                self.pause = Some(pause);
                Poll::Pending
            }
        }
    }

    /// Takes back what comes from a frame on that is one too many.
    fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let is_crowded = self.peer.streams() >= MANY_STREAMS;
        let read = &buf.filled()[before..];
        let looked = self.frames.read(read, is_crowded, Instant::now);
        let Err((good, flood)) = looked else {
            return Ok(());
        };
        buf.set_filled(before + good);
        self.flood = Some(flood);
        self.peer.cut_off(flood);
        match good {
            // It would say that the client has no more to say.
            0 => Err(io::Error::new(io::ErrorKind::QuotaExceeded, flood)),
            _ => Ok(()),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        if let Some(watch) = &mut self.watch {
            watch.frames.wrote(written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What is heard of a client that says this, a piece at a time.
    async fn said(pieces: &[&[u8]]) -> Option<(Vec<u8>, Protocol)> {
        let (mut client, server) = tokio::io::duplex(1);
        let all = pieces.concat();
        let client = async move {
            _ = client.write_all(&all).await;
        };
        let server = async {
            let (mut stream, protocol) = Heard::listen(server).await.ok()?;
            let mut again = Vec::new();
            stream.read_to_end(&mut again).await.unwrap();
            Some((again, protocol))
        };
        tokio::join!(client, server).1
    }

    #[tokio::test]
    async fn what_was_heard_first_is_read_again() {
        let post = b"POST /chat_v1.ChatV1/Get HTTP/1.1\r\n";
        let put = b"PUT";
        let http2: Vec<u8> = [PREFACE.as_slice(), &[0; 9]].concat();
        let http1 = Some(Protocol::Http1);
        for (words, protocol) in [
            (&http2[..], Some(Protocol::Http2)),
            (&PREFACE[..23], None),
            (post, http1),
            (put, http1),
            (b"PRI * HTTP/3", http1),
            (b"P", None),
            (b"\x16\x03\x01", None),
            (b"", None),
        ] {
            let heard = said(&[words]).await;
            let expected = protocol.map(|protocol| (words.to_vec(), protocol));
            assert_eq!(heard, expected, "{}", words.escape_ascii());
        }
    }
}
