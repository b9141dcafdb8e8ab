use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;

use super::{encoding::Encoding, request::RequestBody, status::Problem};
use crate::domain::PREFIX_LEN;

/// Takes the messages of a request body out of their gRPC frames. A message
/// that came in one piece is not copied.
#[derive(Debug)]
pub struct Deframer<B = RequestBody> {
    body: B,
    /// What has been received and not taken.
    rest: Bytes,
    max: u32,
    encoding: Encoding,
}

/// Why there is no next message.
#[derive(Debug)]
pub enum Broken {
    /// What the client sent breaks the protocol.
    Problem(Problem),
    /// The client or the connection is gone; there is nobody to tell.
    Gone,
}

impl From<Problem> for Broken {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Deframer<B> {
    /// `max` bounds a message, in bytes, before and after it is decompressed.
    pub fn new(body: B, max: usize, encoding: Encoding) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            max: u32::try_from(max).unwrap_or(u32::MAX),
            encoding,
        }
    }

    /// True if it is already known that nothing more will come.
    pub fn is_finished(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// The next message, or `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    // Trailers of a request mean nothing to us.
                    if let Ok(data) = frame.into_data() {
                        self.add(data);
                    }
                }
                Some(Err(_)) => return Err(Broken::Gone),
                None if self.rest.is_empty() => return Ok(None),
                None => return Err(Problem::malformed("the last message is cut short").into()),
            }
        }
    }

    fn add(&mut self, data: Bytes) {
        if self.rest.is_empty() {
            self.rest = data;
        } else {
            // Once the pieces are in a buffer of our own it grows by doubling: a
            // message that comes byte by byte is not copied as often.
            let rest = std::mem::take(&mut self.rest);
            let mut joined = rest
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            joined.extend_from_slice(&data);
            self.rest = joined.freeze();
        }
    }

    fn take_message(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some((prefix, rest)) = self.rest.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let [flags, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        let max = self.max as usize;
        if flags > 1 {
            return Err(Problem::malformed("unknown flags before a message").into());
        }
        if length > max {
            return Err(Problem::too_large(max).into());
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.rest.advance(PREFIX_LEN);
        let message = self.rest.split_to(length);
        Ok(Some(match flags {
            0 => message,
            _ => self.encoding.decode(&message, max)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;
    use crate::testing::fuzz;

    const MAX: usize = 64;

    /// All messages of a body that comes in pieces, and whether it ends well.
    fn deframe(pieces: &[&[u8]]) -> (Vec<Bytes>, bool) {
        let frames = pieces.iter().map(|piece| {
            let data = Bytes::copy_from_slice(piece);
            Ok::<_, Infallible>(Frame::data(data))
        });
        let body = StreamBody::new(stream::iter(frames.collect::<Vec<_>>()));
        let mut deframer = Deframer::new(body, MAX, Encoding::Identity);
        let mut messages = Vec::new();
        loop {
            let next = deframer.next().now_or_never();
            match next.expect("nothing to wait for") {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, true),
                Err(_) => return (messages, false),
            }
        }
    }

    /// The same, from the bytes in one piece and by the book.
    fn by_the_book(mut bytes: &[u8]) -> (Vec<Bytes>, bool) {
        let mut messages = Vec::new();
        while let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_LEN>() {
            let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
            if prefix[0] != 0 || length > MAX || rest.len() < length {
                return (messages, false);
            }
            let (message, rest) = rest.split_at(length);
            messages.push(Bytes::copy_from_slice(message));
            bytes = rest;
        }
        (messages, bytes.is_empty())
    }

    /// The first byte says how the others are cut into pieces.
    #[test]
    fn p10_fuzz_frames() {
        fuzz("frames", |input| {
            let Some((size, bytes)) = input.split_first() else {
                return;
            };
            let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*size).max(1)).collect();
            let expected = by_the_book(bytes);
            assert_eq!(deframe(&pieces), expected);
            assert_eq!(deframe(&[bytes]), expected);
        });
    }
}
