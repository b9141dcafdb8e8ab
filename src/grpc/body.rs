use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::{
    connect::ChatStream, open::Held, status::Problem, unary::ok_trailers, untaken::Room,
    web::WebBody,
};

pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every response. Every stream and every call under way has one,
/// so it is kept small.
pub enum ResponseBody {
    /// The status is in the headers.
    Empty,
    /// One message, then the trailers of success. It may have room that it keeps
    /// until the socket has it.
    Message(Box<[u8]>, Option<Box<Room>>),
    Trailers,
    /// The messages of a chat.
    Chat(Box<ChatStream>),
    /// How such a stream ends, behind all that it has been given.
    Ended(Box<Problem>),
    /// Of the services that come with tonic, until the server ends.
    Tonic(Box<Held>, tonic::body::Body),
    /// Any of these, for gRPC-Web.
    Web(Box<WebBody>),
}

impl ResponseBody {
    /// Ends with a status, and lets go at once of what fed the body.
    fn end(&mut self, problem: &Problem) -> Frame<Bytes> {
        let mut trailers = HeaderMap::new();
        problem.add_to(&mut trailers);
        *self = Self::Empty;
        Frame::trailers(trailers)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        match body {
            Self::Web(web) => web.poll_data(cx),
            Self::Empty => Poll::Ready(None),
            Self::Message(message, room) => {
                let message = mem::take(message);
                let message = match room.take() {
                    None => message.into(),
                    Some(room) => Bytes::from_owner(Roomy(message, room)),
                };
                *body = Self::Trailers;
                Poll::Ready(Some(Ok(Frame::data(message))))
            }
            Self::Trailers => {
                *body = Self::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
            }
            Self::Chat(stream) => match stream.poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(frames)) => Poll::Ready(Some(Ok(Frame::data(frames)))),
                Poll::Ready(Err(problem)) => Poll::Ready(Some(Ok(match stream.end() {
                    None => body.end(&problem),
                    Some(last) => {
                        *body = Self::Ended(Box::new(problem));
                        Frame::data(last)
                    }
                }))),
            },
            Self::Ended(problem) => {
                let problem = Problem::clone(problem);
                Poll::Ready(Some(Ok(body.end(&problem))))
            }
            Self::Tonic(held, inner) => match Pin::new(inner).poll_frame(cx) {
                Poll::Ready(frame) => {
                    Poll::Ready(frame.map(|frame| frame.map_err(|status| Box::new(status).into())))
                }
                Poll::Pending => held
                    .poll_ending(cx)
                    .map(|()| Some(Ok(body.end(&Problem::draining())))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Message(..) | Self::Trailers | Self::Chat(_) | Self::Ended(_) => false,
            Self::Tonic(_, body) => body.is_end_stream(),
            Self::Web(web) => web.is_end_stream(),
        }
    }
}

/// A message with its room, for as long as a slice of it is kept.
struct Roomy(
    Box<[u8]>,
    #[expect(dead_code, reason = "dropped with it")] Box<Room>,
);

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Spawner;

    /// A server has hundreds of thousands of these. Eight bytes more may take
    /// the next of the allocator's sizes, or a task of 256 bytes to 384.
    #[test]
    fn what_every_stream_has_is_small() {
        assert!(size_of::<ResponseBody>() <= 32);
        assert!(size_of::<ChatStream>() <= 192);
        assert!(size_of::<Spawner>() <= 8);
    }
}
