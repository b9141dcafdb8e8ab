use std::{future::Future, pin::pin, task::Poll, time::Instant};

use bytes::{BufMut as _, Bytes};
use futures_util::poll;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use prost::Message;

use super::{
    body::ResponseBody,
    deframe::{Broken, Deframer},
    encoding::{ACCEPTED, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, GZIP},
    opening::{Caller, Due},
    request::RequestBody,
    status::{GRPC_STATUS, Problem},
    untaken::Room,
};
use crate::domain::PREFIX_LEN;

/// Answers a call of `caller` that has one request, of at most `max` bytes, and one
/// response.
///
/// A block and not an `async fn`, whose future would hold each argument twice.
pub fn unary<Q, A, F>(
    body: RequestBody,
    max: usize,
    deadline: Instant,
    caller: Caller,
    answer: impl FnOnce(Q) -> F,
) -> impl Future<Output = Response<ResponseBody>>
where
    Q: Message + Default,
    A: Reply,
    F: Future<Output = Result<A, Problem>>,
{
    let encoding = body.encoding();
    let mut messages = Deframer::new(body, max, encoding);
    async move {
        let result = match read_by(deadline, caller, &mut messages).await {
            Ok(request) => answer(request).await,
            Err(problem) => Err(problem),
        };
        match result {
            Ok(answer) => answer.respond(),
            Err(problem) => refused(&problem),
        }
    }
}

/// What a call is answered with.
pub trait Reply {
    fn respond(self) -> Response<ResponseBody>;
}

impl<M: Message> Reply for M {
    fn respond(self) -> Response<ResponseBody> {
        ok(ResponseBody::Message(encode(&self), None))
    }
}

/// An answer, in its frame, that has room of its own until it has been taken.
pub struct Kept {
    message: Box<[u8]>,
    room: Room,
}

impl Kept {
    pub fn new(message: Box<[u8]>, mut room: Room) -> Self {
        room.shrink(message.len());
        Self { message, room }
    }
}

impl Reply for Kept {
    fn respond(self) -> Response<ResponseBody> {
        let is_compressed = self.message.first() == Some(&1);
        let mut response = ok(ResponseBody::Message(
            self.message,
            Some(Box::new(self.room)),
        ));
        if is_compressed {
            response.headers_mut().insert(&GRPC_ENCODING, GZIP);
        }
        response
    }
}

/// Most requests have come with their headers: a timer is only for the others.
async fn read_by<Q: Message + Default>(
    deadline: Instant,
    caller: Caller,
    messages: &mut Deframer,
) -> Result<Q, Problem> {
    let due = Due(&caller, deadline);
    let mut request = pin!(read(messages, &due));
    if let Poll::Ready(request) = poll!(request.as_mut()) {
        return request;
    }
    let _waiting = caller.clone().wait()?;
    let timed = Box::pin(tokio::time::timeout_at(deadline.into(), request));
    timed
        .await
        .unwrap_or_else(|_| Err(Problem::too_slow("the request")))
}

/// What is wrong is said as soon as it is seen. What is right is not kept decoded until
/// the request has ended: small bytes may make many values.
async fn read<Q: Message + Default>(messages: &mut Deframer, due: &Due<'_>) -> Result<Q, Problem> {
    let message = messages.next(due).await.map_err(broken)?;
    let mut message =
        message.ok_or_else(|| Problem::malformed("the request message is missing"))?;
    if !messages.is_finished() {
        decode::<Q>(message.clone())?;
    }
    messages.end(&mut message, due).await.map_err(broken)?;
    decode(message)
}

fn broken(broken: Broken) -> Problem {
    match broken {
        Broken::Problem(problem) => problem,
        Broken::Gone => Problem::malformed("the request was cut short"),
    }
}

/// Reads a protobuf message.
pub fn decode<Q: Message + Default>(bytes: Bytes) -> Result<Q, Problem> {
    // prost's text names the field that can't be read, and nothing else.
    Q::decode(bytes).map_err(|error| Problem::malformed(error.to_string()))
}

/// A message in its gRPC frame.
pub fn encode(message: &impl Message) -> Box<[u8]> {
    let len = message.encoded_len();
    let mut out = Vec::with_capacity(PREFIX_LEN + len);
    out.put_u8(0);
    out.put_u32(len as u32);
    message.encode_raw(&mut out);
    out.into()
}

/// A response that begins well; its body ends it with a status.
pub fn ok(body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
        .headers_mut()
        .insert(&GRPC_ACCEPT_ENCODING, ACCEPTED);
    response
}

/// A response of a status alone.
pub fn refused(problem: &Problem) -> Response<ResponseBody> {
    let mut response = ok(ResponseBody::Empty);
    problem.add_to(response.headers_mut());
    response.extensions_mut().insert(problem.ended());
    response
}

/// The trailers of a call that went well.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS.clone(), HeaderValue::from_static("0"));
    trailers
}
