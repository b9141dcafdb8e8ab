use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    runtime::Handle,
};

use super::listen;
use crate::Result;

/// Serves HTTP/2 on any free port, set up as the server under test is, until it
/// is killed.
pub fn serve<A, F, B>(answer: A) -> Result<()>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    B::Data: Send,
{
    crate::pace::block_on(async {
        let listener = TcpListener::from_std(listen()?)?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = answer.clone();
            let answers = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = http2::Builder::new(Here)
                .auto_date_header(false)
                .initial_stream_window_size(64 * 1024)
                .initial_connection_window_size(1024 * 1024)
                .max_concurrent_streams(16_384)
                .max_send_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(Gathered(stream)), answers);
            Here.execute(async {
                // A client that is done just goes.
                _ = connection.await;
            });
        }
    })
}

/// Runs streams on this thread's runtime.
#[derive(Clone, Copy)]
pub struct Here;

impl<F> Executor<F> for Here
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        Handle::current().spawn(task);
    }
}

/// A stream without vectored writes: h2 makes a system call a frame with them.
struct Gathered<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
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
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
