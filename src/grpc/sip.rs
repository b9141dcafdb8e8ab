use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::turns::Newcomer;

/// A stream that is read in turn with those of other newcomers, from the first
/// byte on: a handshake, and any HTTP.
#[derive(Debug)]
pub struct Sipped {
    stream: TcpStream,
    /// None: it reads as much as there is.
    newcomer: Option<Arc<Newcomer>>,
}

impl Sipped {
    pub fn new(stream: TcpStream, newcomer: Arc<Newcomer>) -> Self {
        Self {
            stream,
            newcomer: Some(newcomer),
        }
    }

    pub fn get_ref(&self) -> &TcpStream {
        &self.stream
    }
}

/// Reads so many bytes at most.
pub fn poll_sip(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    most: usize,
) -> Poll<io::Result<()>> {
    if buf.remaining() <= most {
        return Pin::new(stream).poll_read(cx, buf);
    }
    let mut sip = ReadBuf::new(buf.initialize_unfilled_to(most));
    let done = Pin::new(stream).poll_read(cx, &mut sip);
    let read = sip.filled().len();
    buf.advance(read);
    done
}

impl AsyncRead for Sipped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(newcomer) = &this.newcomer else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        // Who has nothing to say does not wait for a turn.
        ready!(this.stream.poll_read_ready(cx))?;
        let most = ready!(newcomer.poll_turn(cx));
        let before = buf.filled().len();
        let done = ready!(poll_sip(&mut this.stream, cx, buf, most));
        let read = buf.filled().len() - before;
        if !newcomer.has_read(read) {
            this.newcomer = None;
        }
        Poll::Ready(done)
    }
}

impl AsyncWrite for Sipped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
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
