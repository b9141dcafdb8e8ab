use std::{task::Poll, time::Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::poll;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use tokio::time::timeout_at;

use super::{
    begun::{Room, Sends},
    encoding::Encoding,
    request::RequestBody,
    status::Problem,
};
use crate::domain::PREFIX_LEN;

/// Takes the messages of a request body out of their gRPC frames. A message
/// that came in one piece is not copied.
#[derive(Debug)]
pub struct Deframer<B = RequestBody> {
    body: B,
    /// What has been received and not taken.
    rest: Bytes,
    /// What a message has whose rest is waited for. Most have come already.
    held: Option<Box<Held>>,
    max: u32,
    encoding: Encoding,
}

#[derive(Debug)]
struct Held {
    room: Room,
    /// The message is to be whole by then.
    until: Instant,
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
            held: None,
            max: u32::try_from(max).unwrap_or(u32::MAX),
            encoding,
        }
    }

    /// True if it is already known that nothing more will come.
    pub fn is_finished(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// The next message, or `None` after the last.
    pub async fn next(&mut self, sender: &impl Sends) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(message) = self.take_message()? {
                self.held = None;
                return Ok(Some(message));
            }
            if self.read(None, sender).await? {
                continue;
            }
            return match self.rest.is_empty() {
                true => Ok(None),
                false => Err(Problem::malformed("the last message is cut short").into()),
            };
        }
    }

    /// Waits for the end of a body of which `message` is to be all.
    pub async fn end(&mut self, message: &mut Bytes, sender: &impl Sends) -> Result<(), Broken> {
        while self.rest.is_empty() {
            if !self.read(Some(message), sender).await? {
                return Ok(());
            }
        }
        Err(Problem::malformed("more than one request message").into())
    }

    /// Reads one more piece; false if there is none. `kept` is what the reader has of
    /// the body besides.
    async fn read(
        &mut self,
        kept: Option<&mut Bytes>,
        sender: &impl Sends,
    ) -> Result<bool, Broken> {
        let frame = if kept.is_none() && self.rest.is_empty() {
            self.body.frame().await
        } else {
            let frame = poll!(self.body.frame());
            match frame {
                Poll::Ready(frame) => frame,
                // Boxed: most streams wait for the whole of a message.
                Poll::Pending => Box::pin(self.wait(kept, sender)).await?,
            }
        };
        match frame {
            Some(Ok(frame)) => {
                // Trailers of a request mean nothing to us.
                if let Ok(data) = frame.into_data() {
                    self.add(data);
                }
                Ok(true)
            }
            Some(Err(_)) => Err(Broken::Gone),
            None => Ok(false),
        }
    }

    /// Waits for the next piece of what has begun. For that there is to be room for all
    /// of it, and what has come is put there: a piece as it came keeps all else that came
    /// with it in memory.
    async fn wait(
        &mut self,
        kept: Option<&mut Bytes>,
        sender: &impl Sends,
    ) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Broken> {
        let expected = self.expected();
        let bytes = expected + kept.as_ref().map_or(0, |kept| kept.len());
        let until = match self.held.take() {
            Some(held) if held.room.fits(bytes) => {
                let until = held.until;
                self.held = Some(held);
                until
            }
            // Whoever needs more gives back what it has, and waits for no one who waits.
            held => {
                let mut terms = sender.terms();
                if let Some(Held { until, room }) = held.map(|held| *held) {
                    drop(room);
                    terms.until = until;
                }
                let room = terms.room(bytes).await?;
                let until = terms.until;
                self.held = Some(Box::new(Held { room, until }));
                if let Some(kept) = kept {
                    *kept = Bytes::copy_from_slice(kept);
                }
                self.rest = owned(&self.rest, expected).freeze();
                until
            }
        };
        let frame = timeout_at(until.into(), self.body.frame()).await;
        frame.map_err(|_| Problem::too_slow("the rest of a message").into())
    }

    /// The bytes of the message that has begun, with its prefix; 0 until that is there.
    fn expected(&self) -> usize {
        match self.rest.first_chunk::<PREFIX_LEN>() {
            Some([_, length @ ..]) => PREFIX_LEN + u32::from_be_bytes(*length) as usize,
            None => 0,
        }
    }

    fn add(&mut self, data: Bytes) {
        if self.rest.is_empty() {
            self.rest = data;
        } else {
            // Once the pieces are in a buffer of our own, which is as large as the
            // message will be, they are not copied again.
            let expected = self.expected();
            let rest = std::mem::take(&mut self.rest);
            let mut joined = rest
                .try_into_mut()
                .unwrap_or_else(|shared| owned(&shared, expected));
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

/// The same bytes in memory of their own, with room for so many.
fn owned(bytes: &[u8], room: usize) -> BytesMut {
    let mut own = BytesMut::with_capacity(room.max(bytes.len()));
    own.extend_from_slice(bytes);
    own
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;
    use crate::{
        grpc::begun::{
            Begun, Terms,
            tests::{Client, free},
        },
        telemetry::Metrics,
        testing::fuzz,
    };

    const MAX: usize = 64;

    /// Sends all at once, so that nothing has to be waited for.
    struct AtOnce;

    impl Sends for AtOnce {
        fn terms(&self) -> Terms<'_> {
            panic!("nothing is counted of what comes at once")
        }
    }

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
            let next = deframer.next(&AtOnce).now_or_never();
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

    type Pieces = tokio::sync::mpsc::Sender<&'static [u8]>;

    /// A body that comes bit by bit.
    fn bit_by_bit(max: usize) -> (Pieces, Deframer<impl Body<Data = Bytes> + Unpin>) {
        let (pieces, mut come) = tokio::sync::mpsc::channel::<&'static [u8]>(8);
        let frames = stream::poll_fn(move |cx| come.poll_recv(cx));
        let frames = futures_util::StreamExt::map(frames, |piece| {
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece)))
        });
        let body = StreamBody::new(frames);
        (pieces, Deframer::new(body, max, Encoding::Identity))
    }

    #[tokio::test]
    async fn p6_what_is_waited_for_has_room_until_it_is_whole() {
        let begun = Begun::new(0, Metrics::new(1));
        let all = free(&begun);
        let alice = Client::new(&begun, Some("alice"));
        let (pieces, mut deframer) = bit_by_bit(100_000);
        let mut message = |piece| {
            pieces.try_send(piece).unwrap();
            deframer.next(&alice).now_or_never()
        };
        // All of it counts as soon as it is known how long it is, and no more later.
        assert!(message(b"\0\0").is_none());
        assert_eq!(free(&begun), all);
        for piece in [&b"\0\x28\0abc"[..], b"def", &[7; 10_000]] {
            assert!(message(piece).is_none());
            assert_eq!(free(&begun), all - 11 * 1024, "10 KiB and a prefix");
        }
        let whole = message(&[8; 234]).unwrap().unwrap().unwrap();
        assert_eq!(whole.len(), 10_240);
        assert_eq!((&whole[..7], whole[10_239]), (&b"abcdef\x07"[..], 8));
        assert_eq!(free(&begun), all);
        // What comes in one piece has none.
        assert!(message(b"\0\0\0\0\x01x").unwrap().is_ok());
        assert!(message(b"\0\0\0\0\x01").is_none());
        drop(deframer);
        assert_eq!(free(&begun), all, "nor does what is given up");
    }

    #[tokio::test]
    async fn p6_a_request_whose_end_does_not_come_has_room() {
        let begun = Begun::new(0, Metrics::new(1));
        let all = free(&begun);
        let alice = Client::new(&begun, Some("alice"));
        let (pieces, mut deframer) = bit_by_bit(100);
        pieces.try_send(b"\0\0\0\0\x01x").unwrap();
        let mut message = deframer.next(&alice).await.unwrap().unwrap();
        let mut end = Box::pin(deframer.end(&mut message, &alice));
        assert!(end.as_mut().now_or_never().is_none());
        assert_eq!(free(&begun), all - 1024);
        drop(pieces);
        end.await.unwrap();
        assert_eq!(message, "x");
        let (pieces, mut deframer) = bit_by_bit(100);
        pieces.try_send(b"\0\0\0\0\x01x\0").unwrap();
        let mut message = deframer.next(&alice).await.unwrap().unwrap();
        let end = deframer.end(&mut message, &alice).await;
        assert!(end.is_err(), "more than one");
    }

    #[tokio::test(start_paused = true)]
    async fn p6_a_message_that_has_begun_is_whole_in_time_or_refused() {
        let begun = Begun::new(0, Metrics::new(1));
        let alice = Client {
            patience: std::time::Duration::from_secs(10),
            ..Client::new(&begun, Some("alice"))
        };
        let refused = |next: Result<Option<Bytes>, Broken>| match next {
            Err(Broken::Problem(problem)) => problem,
            other => panic!("{other:?}"),
        };
        let (pieces, mut deframer) = bit_by_bit(100);
        pieces.try_send(b"\0\0\0\0\x02x").unwrap();
        let late = refused(deframer.next(&alice).await);
        assert_eq!(late, Problem::too_slow("the rest of a message"));
        drop(deframer);
        // It is not read on while there is no room for it.
        let (pieces, mut second) = bit_by_bit(1 << 20);
        let terms = alice.terms();
        let full = terms.room(1 << 20).await.unwrap();
        pieces.try_send(b"\0\0\x01\0\0x").unwrap();
        let mut waits = Box::pin(second.next(&alice));
        for (room, left) in [(Some(full), 1), (None, 0)] {
            assert!(waits.as_mut().now_or_never().is_none());
            if room.is_some() {
                pieces.try_send(b"more").unwrap();
            }
            assert!(waits.as_mut().now_or_never().is_none());
            assert_eq!(pieces.max_capacity() - pieces.capacity(), left);
        }
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
