use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::{request::RequestBody, status::Problem};
use crate::domain::PREFIX_LEN;

/// Takes the messages of a request body out of their gRPC frames. A message
/// that came in one piece is not copied.
#[derive(Debug)]
pub struct Deframer {
    body: RequestBody,
    /// What has been received and not taken.
    rest: Bytes,
    max: usize,
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

impl Deframer {
    /// `max` bounds a message, in bytes.
    pub fn new(body: RequestBody, max: usize) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            max,
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
        match flags {
            0 => {}
            1 => return Err(Problem::compressed().into()),
            _ => return Err(Problem::malformed("unknown flags before a message").into()),
        }
        if length > self.max {
            return Err(Problem::too_large(self.max).into());
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.rest.advance(PREFIX_LEN);
        Ok(Some(self.rest.split_to(length)))
    }
}
