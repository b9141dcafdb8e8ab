//! An answer of the Auth Service says one thing, or it says nothing. What is between may
//! add to what it said: an HTTP status, a page, a second `grpc-status`. The client of gRPC
//! reads one of them and leaves the others; here a yes is one only if all agree.
//!
//! An answer is gRPC's if its HTTP status is 200 and its content type is gRPC's
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Responses").

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName},
};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body, transport::Channel};
use tower_service::Service;

const GRPC: &[u8] = b"application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A channel whose answers say one thing.
#[derive(Debug, Clone)]
pub(super) struct OneAnswer(pub Channel);

impl Service<Request<Body>> for OneAnswer {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        answer.map(|answer| answer.map(checked)).boxed()
    }
}

fn checked(answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    let is_grpc = head.status == StatusCode::OK && is_grpc(&head.headers);
    let mut said = Said::default();
    if is_grpc {
        said.add(&head.headers);
    } else {
        // Then the HTTP status is what counts.
        head.headers.remove(GRPC_STATUS);
    }
    let body = Rest {
        body,
        is_grpc,
        said,
    };
    Response::from_parts(head, Body::new(body))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(GRPC));
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

/// What an answer has said so far of how the call went.
#[derive(Debug, Default)]
struct Said {
    status: Option<HeaderValue>,
    contradicts: bool,
}

impl Said {
    fn add(&mut self, headers: &HeaderMap) {
        for status in headers.get_all(GRPC_STATUS) {
            let first = self.status.get_or_insert_with(|| status.clone());
            self.contradicts |= first != status;
        }
    }
}

/// The rest of an answer, whose trailers are held against its headers.
#[derive(Debug)]
struct Rest {
    body: Body,
    is_grpc: bool,
    said: Said,
}

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            match this.is_grpc {
                true => this.said.add(trailers),
                false => _ = trailers.remove(GRPC_STATUS),
            }
        }
        if this.said.contradicts {
            let twofold = Status::internal("it says in two ways how the call went");
            return Poll::Ready(Some(Err(twofold)));
        }
        Poll::Ready(frame)
    }

    /// Not what the inner one says: there may be an error yet.
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.said.contradicts
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
