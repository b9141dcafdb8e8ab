//! Cancelling what a session is doing, and knowing when that is over.
//!
//! A cancellation goes over a connection of its own, which the server closes once
//! the session has been told. Who leaves before does not know what it hits: it may
//! be the session's next query. PgBouncer 1.18 even ends when the connection goes
//! while it passes the cancellation on (pgbouncer#801). So nothing is closed here
//! before the other side has closed, as in libpq's `PQcancel`.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_postgres::{
    CancelToken,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::telemetry::chain;

/// PgBouncer lets a cancellation wait for a connection to the server for 10 s
/// (`cancel_wait_timeout`), and closes its connection then.
const LONGEST: Duration = Duration::from_secs(15);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where a session was made.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// The name is for TLS.
    Tcp(String, SocketAddr),
    Unix(PathBuf),
}

/// What it takes to cancel what one session is doing.
pub(super) struct Canceller {
    pub token: CancelToken,
    pub peer: Peer,
    pub tls: MakeRustlsConnect,
}

impl Canceller {
    /// Ends when the session has been told, or when it was not in 15 s.
    pub async fn cancel(self) {
        let why = match timeout(LONGEST, self.ask()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&*error).to_string(),
            Err(_) => format!("no answer within {LONGEST:?}"),
        };
        tracing::debug!(error = why, "could not cancel a query");
    }

    async fn ask(self) -> Result<(), Failure> {
        match &self.peer {
            Peer::Tcp(name, addr) => self.ask_over(TcpStream::connect(addr).await?, name).await,
            Peer::Unix(path) => self.ask_over(UnixStream::connect(path).await?, "").await,
        }
    }

    async fn ask_over<S>(&self, stream: S, name: &str) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut tls = self.tls.clone();
        let tls = MakeTlsConnect::<UntilClosed<S>>::make_tls_connect(&mut tls, name)?;
        let asked = self
            .token
            .cancel_query_raw(UntilClosed(stream), Waiting(tls));
        Ok(asked.await?)
    }
}

/// A stream whose shutdown leaves it open and waits for the other side's.
struct UntilClosed<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for UntilClosed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for UntilClosed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut room = [0; 64];
            let mut read = ReadBuf::new(&mut room);
            // However it was closed: a server does not say goodbye in TLS.
            let open = ready!(Pin::new(&mut self.0).poll_read(cx, &mut read)).is_ok();
            if !open || read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: TlsStream + Unpin> TlsStream for UntilClosed<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

/// Makes TLS streams that are [`UntilClosed`] too.
struct Waiting<T>(T);

impl<S, T> TlsConnect<S> for Waiting<T>
where
    T: TlsConnect<S>,
    T::Future: Send + 'static,
{
    type Stream = UntilClosed<T::Stream>;
    type Error = T::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, T::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.0.connect(stream);
        async move { connecting.await.map(UntilClosed) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::sleep,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_waits_for_the_other_side() {
        let (near, mut far) = duplex(64);
        let mut near = UntilClosed(near);
        let quarter = Duration::from_millis(250);
        assert!(timeout(quarter, near.shutdown()).await.is_err());
        // It is still open in both directions.
        near.write_all(b"cancel").await.unwrap();
        let mut asked = [0; 6];
        far.read_exact(&mut asked).await.unwrap();
        far.write_all(&[0; 200][..64]).await.unwrap();
        let close = async {
            sleep(quarter).await;
            drop(far);
        };
        let (closed, ()) = tokio::join!(near.shutdown(), close);
        closed.unwrap();
    }
}
