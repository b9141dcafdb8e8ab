use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::{connect::ChatStream, unary::ok_trailers};

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every response.
pub enum ResponseBody {
    /// The status is in the headers.
    Empty,
    /// One message, then the trailers of success.
    Message(Option<Bytes>),
    Trailers,
    /// The messages of a chat.
    Chat(Box<ChatStream>),
    /// Of the services that come with tonic.
    Tonic(tonic::body::Body),
}

impl ResponseBody {
    /// One message, in its gRPC frame.
    pub fn message(frame: Bytes) -> Self {
        Self::Message(Some(frame))
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
            Self::Empty => Poll::Ready(None),
            Self::Message(message) => {
                let message = message.take();
                *body = Self::Trailers;
                Poll::Ready(message.map(|message| Ok(Frame::data(message))))
            }
            Self::Trailers => {
                *body = Self::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
            }
            Self::Chat(stream) => match stream.poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(frames)) => Poll::Ready(Some(Ok(Frame::data(frames)))),
                Poll::Ready(Err(problem)) => {
                    let mut trailers = HeaderMap::new();
                    problem.add_to(&mut trailers);
                    // Lets go of the chat at once, not when the client has
                    // read its last frame.
                    *body = Self::Empty;
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
            Self::Tonic(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|status| Box::new(status) as BodyError),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Message(_) | Self::Trailers | Self::Chat(_) => false,
            Self::Tonic(body) => body.is_end_stream(),
        }
    }
}
