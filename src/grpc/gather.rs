//! Writes of one poll, put together.
//!
//! h2 writes every DATA frame of a kilobyte and more by itself, its head and its
//! payload by one system call each, and calls for a flush behind it (`h2` 0.4,
//! `codec/framed_write.rs`). What a connection writes while it is polled goes out
//! at once instead, when the poll has ended.

use std::{
    cell::Cell,
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are put together at most, about: eight of the largest frames. With
/// a fourth of it a delivery of a kilobyte takes twice the CPU. Clients that have
/// not asked for larger windows than HTTP/2 begins with never fill half of it.
const ROOM: usize = 128 * 1024;

/// A stream that is written when its [`Outlet`] is polled, or when there is no
/// more room.
#[derive(Debug)]
pub struct Gathered<S>(Arc<Mutex<Gather<S>>>);

/// Writes what a [`Gathered`] stream has put together.
#[derive(Debug)]
pub struct Outlet<S>(Arc<Mutex<Gather<S>>>);

#[derive(Debug)]
struct Gather<S> {
    stream: S,
    /// Without room while there is nothing to write: most connections are idle.
    out: Vec<u8>,
    written: usize,
    /// Something was written that the stream may still hold.
    unflushed: bool,
}

impl<S> Gathered<S> {
    pub fn new(stream: S) -> (Self, Outlet<S>) {
        let gather = Arc::new(Mutex::new(Gather {
            stream,
            out: Vec::new(),
            written: 0,
            unflushed: false,
        }));
        (Self(gather.clone()), Outlet(gather))
    }
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    /// Adds the last words of a connection that is to end.
    pub fn put_last(&self, words: &[u8]) {
        lock(&self.0).out.extend_from_slice(words);
    }

    /// Writes as much as the stream takes; ready when that was all.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_out(cx)
    }
}

thread_local! {
    /// Room that nobody needs just now: what is used again and again stays in the
    /// cache.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<S> Gather<S> {
    fn take_room(&mut self) {
        if self.out.capacity() == 0 {
            self.out = SPARE.take();
            self.out.reserve_exact(ROOM);
        }
    }

    fn put_back(&mut self) {
        let mut out = mem::take(&mut self.out);
        if out.capacity() > 0 {
            out.clear();
            SPARE.set(out);
        }
        self.written = 0;
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
            self.unflushed = true;
        }
        self.put_back();
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gather = lock(&self.0);
        if gather.out.len() + buf.len() > ROOM && !gather.out.is_empty() {
            ready!(gather.poll_out(cx))?;
        }
        let now = &buf[..buf.len().min(ROOM)];
        gather.take_room();
        gather.out.extend_from_slice(now);
        Poll::Ready(Ok(now.len()))
    }

    /// The outlet's business.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gather = lock(&self.0);
        ready!(gather.poll_out(cx))?;
        Pin::new(&mut gather.stream).poll_shutdown(cx)
    }

    /// With it, h2 would make a system call of every DATA frame of 256 bytes and
    /// more (hyperium/h2 #902).
    fn is_write_vectored(&self) -> bool {
        false
    }
}

/// Only the connection's own task comes here.
fn lock<S>(gather: &Mutex<Gather<S>>) -> MutexGuard<'_, Gather<S>> {
    gather.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn writes_go_out_together() {
        let (ours, mut theirs) = duplex(1 << 20);
        let (mut gathered, outlet) = Gathered::new(ours);
        let mut buf = [0; 64];
        for word in ["one ", "two ", "three"] {
            gathered.write_all(word.as_bytes()).await.unwrap();
            gathered.flush().await.unwrap();
            assert!(theirs.read(&mut buf).now_or_never().is_none());
        }
        poll_fn(|cx| outlet.poll(cx)).await.unwrap();
        let count = theirs.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..count], b"one two three");
        assert_eq!(lock(&outlet.0).out.capacity(), 0, "idle, without memory");
    }

    #[tokio::test]
    async fn p6_it_holds_no_more_than_it_has_room_for() {
        let (ours, mut theirs) = duplex(100);
        let (mut gathered, outlet) = Gathered::new(ours);
        let mut sent = Vec::new();
        while let Some(written) = gathered.write(&[7; 1_000]).now_or_never() {
            sent.resize(sent.len() + written.unwrap(), 7);
            assert!(sent.len() <= ROOM + 100, "{}", sent.len());
        }
        let mut read = Vec::new();
        let reading = async {
            poll_fn(|cx| outlet.poll(cx)).await.unwrap();
            gathered.shutdown().await.unwrap();
        };
        let ((), count) = tokio::join!(reading, theirs.read_to_end(&mut read));
        assert_eq!(count.unwrap(), sent.len());
        assert_eq!(read, sent);
    }

    #[tokio::test]
    async fn a_shutdown_sends_what_is_left() {
        let (ours, mut theirs) = duplex(16);
        let (mut gathered, _outlet) = Gathered::new(ours);
        gathered.write_all(&[1; 5_000]).await.unwrap();
        let mut read = Vec::new();
        let (shut, count) = tokio::join!(gathered.shutdown(), theirs.read_to_end(&mut read));
        shut.unwrap();
        assert_eq!(count.unwrap(), 5_000);
    }
}
