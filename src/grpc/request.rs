use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::{body::BodyError, encoding::Encoding};

/// The body of every request.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Plain,
    /// Its compressed messages are in gzip …
    Gzip,
    /// … or in something that is not known.
    Unknown,
    /// The body is base64, and nothing in it compressed; here is what does not make
    /// whole bytes yet.
    Text(Box<BytesMut>),
}

impl RequestBody {
    /// A body whose messages may be compressed as the headers say.
    pub fn plain(incoming: Incoming, encoding: Encoding) -> Self {
        let form = match encoding {
            Encoding::Identity => Form::Plain,
            Encoding::Gzip => Form::Gzip,
            Encoding::Unknown => Form::Unknown,
        };
        Self { incoming, form }
    }

    /// A body in base64, as gRPC-Web's text form has it.
    pub fn base64(incoming: Incoming) -> Self {
        Self {
            incoming,
            form: Form::Text(Box::default()),
        }
    }

    pub fn encoding(&self) -> Encoding {
        match self.form {
            Form::Plain | Form::Text(_) => Encoding::Identity,
            Form::Gzip => Encoding::Gzip,
            Form::Unknown => Encoding::Unknown,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let frame = ready!(Pin::new(&mut body.incoming).poll_frame(cx));
        let Form::Text(text) = &mut body.form else {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(match frame.into_data() {
                Ok(data) => {
                    text.extend_from_slice(&data);
                    decode(text).map(Frame::data)
                }
                Err(trailers) => Ok(trailers),
            }),
            Some(Err(error)) => Some(Err(error.into())),
            None if text.is_empty() => None,
            None => {
                text.clear();
                Some(Err(not_base64()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        let rest = matches!(&self.form, Form::Text(text) if !text.is_empty());
        !rest && self.incoming.is_end_stream()
    }
}

/// Takes all whole groups of four characters. A client encodes piece by piece,
/// so that padding may end any group.
fn decode(text: &mut BytesMut) -> Result<Bytes, BodyError> {
    let whole = text.len() - text.len() % 4;
    let mut bytes = Vec::with_capacity(whole / 4 * 3);
    for piece in text[..whole].chunks(4) {
        STANDARD
            .decode_vec(piece, &mut bytes)
            .map_err(|_| not_base64())?;
    }
    // What is left has at most three bytes, and may stay for long.
    *text = BytesMut::from(&text[whole..]);
    Ok(bytes.into())
}

fn not_base64() -> BodyError {
    io::Error::new(io::ErrorKind::InvalidData, "not base64").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_comes_in_any_pieces_and_padding_may_end_each() {
        let mut text = BytesMut::new();
        let mut all = Vec::new();
        for piece in ["AA", "AAAA", "I=YWI=", "Y2", "Rl"] {
            text.extend_from_slice(piece.as_bytes());
            all.extend_from_slice(&decode(&mut text).unwrap());
        }
        assert_eq!(all, b"\0\0\0\0\x02abcde");
        assert!(text.is_empty());
        for bad in ["A===", "AB!D", "=AAA"] {
            assert!(decode(&mut BytesMut::from(bad)).is_err(), "{bad}");
        }
    }
}
