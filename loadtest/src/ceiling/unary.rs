use std::future::{Ready, ready};

use chat_service::proto::{SendMessageRequest, SendMessageResponse};
use http::Request;
use tonic::{Response, Status, server::Grpc};
use tonic_prost::ProstCodec;

use super::serve::serve;
use crate::Result;

/// Takes SendMessage's requests with tonic and answers them with a response of
/// the usual size, doing nothing.
pub fn run() -> Result<()> {
    serve(|request: Request<hyper::body::Incoming>| async {
        let codec = ProstCodec::<SendMessageResponse, SendMessageRequest>::default();
        Grpc::new(codec).unary(Noop, request).await
    })
}

struct Noop;

impl tower_service::Service<tonic::Request<SendMessageRequest>> for Noop {
    type Response = Response<SendMessageResponse>;
    type Error = Status;
    type Future = Ready<Result<Self::Response, Status>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Status>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<SendMessageRequest>) -> Self::Future {
        ready(Ok(Response::new(SendMessageResponse {
            seq: request.into_inner().chat_id + 100_000,
            created_at: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 123_456_000,
            }),
            duplicate: false,
        })))
    }
}
