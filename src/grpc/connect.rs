//! ConnectChat: one stream reads a chat and posts to it.
//!
//! The two halves are apart: the reading half is the response's body, which
//! HTTP/2 polls when the client has room for more; the posting half is a task,
//! which goes on even while the client does not read. Half-closing the request
//! ends only the latter.

mod posting;

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use tokio::task::AbortHandle;

use self::posting::PostingHalf;
use super::{
    body::ResponseBody,
    calls::Calls,
    deframe::{Broken, Deframer},
    encoding::{GRPC_ENCODING, GZIP, pack},
    measure::Measured,
    opening::{Caller, Due},
    pass::Pass,
    peer::StreamPlace,
    request::RequestBody,
    seat::Seat,
    status::{Problem, duplicate},
    unary::{decode, encode, ok},
    validate::{self, Join, Poster},
};
use crate::{
    auth::{Identity, Role},
    chats::{Delivery, End, PostAnswer, Reader, Share, Slot, counted},
    domain::{ChatId, Seq},
    proto,
    telemetry::SpanRef,
};

/// Whose stream it is, and by what right.
pub struct Entry {
    pub caller: Caller,
    pub identity: Arc<Identity>,
    /// None: the right does not end while the stream is open.
    pub pass: Option<Pass>,
    pub place: StreamPlace,
    /// It is one of many streams of the user.
    pub share: Option<Arc<Share>>,
    /// The call's span, if it is sampled.
    pub span: Option<SpanRef>,
    /// The client reads gzip.
    pub packs: bool,
}

/// The response side of a stream: first joining, then reading.
pub struct ChatStream {
    state: State,
    /// Why it ended, once it has.
    ended: Option<Box<Problem>>,
    measured: Option<Measured>,
}

enum State {
    /// With the seq that the client resumes behind.
    Joining(BoxFuture<'static, Result<(Joined, Option<Seq>), Problem>>),
    Joined(Joined),
}

struct Joined {
    chat: ChatId,
    slot: Arc<Slot>,
    seat: Arc<Seat>,
    why: Why,
    /// None once it is known that the client will not post.
    _posting: Option<Task>,
    /// Ends the stream when the caller's right has ended; None: it does not.
    _watch: Option<Task>,
    /// None: [`ChatStream::end`] has it.
    place: Option<StreamPlace>,
}

/// A task that ends with the stream.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// No bytes, which keep a place.
struct Last(#[expect(dead_code, reason = "dropped with it")] StreamPlace);

impl AsRef<[u8]> for Last {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

/// Why the stream ends, if it is for what its client did or may no longer do.
///
/// Boxed: most never do.
type Why = Arc<OnceLock<Box<Problem>>>;

impl ChatStream {
    /// The response that it is the body of; `packs`: messages may come in gzip.
    ///
    /// HPACK is not to remember its headers for later ones: a reader alone on its
    /// connection never has another, and the table to remember them in would take
    /// half a kilobyte.
    pub fn respond(self, packs: bool) -> Response<ResponseBody> {
        let mut response = ok(ResponseBody::Chat(Box::new(self)));
        if packs {
            response.headers_mut().insert(&GRPC_ENCODING, GZIP);
        }
        let headers = response.headers_mut().values_mut();
        headers.for_each(|value| value.set_sensitive(true));
        response
    }

    /// Begins a stream, which is polled on its connection's core.
    pub fn open(calls: Arc<Calls>, entry: Entry, body: RequestBody) -> Self {
        let joining = async move {
            let Entry {
                caller,
                identity,
                pass,
                place,
                share,
                span,
                packs,
            } = entry;
            let until = Instant::now() + calls.limits().first_frame;
            let joined = join(&calls, &identity, body, Due(&caller, until));
            let joined = tokio::time::timeout_at(until.into(), joined);
            let (join, mut reader, frames) = joined
                .await
                .unwrap_or_else(|_| Err(Problem::too_slow("the first frame")))?;
            reader.pack(packs);
            reader.take_entries(join.entries);
            reader.share(share);
            let peer = caller.peer;
            let spawner = peer.spawner.clone();
            let chat = join.chat;
            let poster = Poster {
                chat,
                entries: join.entries,
                admin: identity.role == Role::Admin,
            };
            let (slot, why) = (reader.slot().clone(), Why::default());
            let posting = (!frames.is_finished()).then(|| {
                let posting = PostingHalf {
                    poster,
                    slot: slot.clone(),
                    calls,
                    peer,
                    pass: pass.clone(),
                    span,
                    why: why.clone(),
                };
                Task(spawner.spawn(posting.run(frames)))
            });
            // A task, since the reading half is not polled while the client
            // does not read.
            let watch = pass.map(|pass| {
                let (slot, why) = (slot.clone(), why.clone());
                Task(spawner.spawn(async move {
                    let problem = Problem::from(pass.watch().await);
                    why.get_or_init(|| Box::new(problem));
                    slot.end(End::Misused);
                }))
            });
            let seat = Seat::take(reader, spawner);
            let joined = Joined {
                chat,
                slot,
                seat,
                why,
                _posting: posting,
                _watch: watch,
                place: Some(place),
            };
            Ok((joined, join.after_seq))
        };
        Self {
            state: State::Joining(Box::pin(joining)),
            ended: None,
            measured: None,
        }
    }

    /// Counts the stream from now on, until it is dropped.
    pub fn measure(&mut self, measured: Measured) {
        self.measured = Some(measured);
    }

    /// The next frames for the client, or how the stream ends.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Problem>> {
        let next = ready!(self.poll_frames(cx));
        self.ended = next.as_ref().err().cloned().map(Box::new);
        Poll::Ready(next)
    }

    /// What goes out behind the last frame, once: nothing, but for as long as HTTP/2 has
    /// frames of the stream before it, the stream keeps its place. None if there are none.
    pub fn end(&mut self) -> Option<Bytes> {
        let State::Joined(joined) = &mut self.state else {
            return None;
        };
        let place = joined.place.take_if(|_| joined.seat.delivered() > 0)?;
        Some(Bytes::from_owner(Last(place)))
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Problem>> {
        let measured = self.measured.as_ref();
        loop {
            match &mut self.state {
                State::Joining(joining) => {
                    let (joined, after_seq) = ready!(joining.as_mut().poll(cx))?;
                    if let Some(measured) = measured {
                        let user = joined.slot.user();
                        measured.stream_opened(joined.chat, user, after_seq);
                    }
                    self.state = State::Joined(joined);
                }
                State::Joined(joined) => return joined.poll_next(cx, measured),
            }
        }
    }
}

impl Drop for ChatStream {
    fn drop(&mut self) {
        let Some(measured) = &mut self.measured else {
            return;
        };
        let joined = match &self.state {
            State::Joining(_) => None,
            State::Joined(joined) => {
                let user = joined.slot.user();
                Some((joined.chat, user, joined.seat.delivered()))
            }
        };
        measured.stream_closed(joined, self.ended.as_deref());
    }
}

impl Joined {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        measured: Option<&Measured>,
    ) -> Poll<Result<Bytes, Problem>> {
        match ready!(self.seat.poll_next(cx)) {
            Delivery::Frames(frames) => Poll::Ready(Ok(frames)),
            Delivery::Long(frame, place, counts) => {
                let sent = pack(frame, &place);
                Poll::Ready(Ok(counted(counts, sent)))
            }
            Delivery::Answer(answer, counts) => {
                let (reason, frame) = rejection(self.chat, answer);
                if let Some(measured) = measured {
                    measured.post_refused(&reason);
                }
                Poll::Ready(Ok(counted(counts, frame)))
            }
            Delivery::End(end) => {
                let why = self.why.get().map(|why| Problem::clone(why));
                Poll::Ready(Err(why.unwrap_or_else(|| end.into())))
            }
        }
    }
}

async fn join(
    calls: &Calls,
    identity: &Identity,
    body: RequestBody,
    due: Due<'_>,
) -> Result<(Join, Reader, Deframer), Problem> {
    let encoding = body.encoding();
    let mut frames = Deframer::new(body, calls.limits().max_bytes(), encoding);
    let first = match frames.next(&due).await {
        Ok(Some(first)) => decode(first)?,
        Ok(None) | Err(Broken::Gone) => {
            return Err(Problem::malformed("the first frame is missing"));
        }
        Err(Broken::Problem(problem)) => return Err(problem),
    };
    let join = validate::join(first, &identity.user)?;
    let (user, core) = (identity.user.clone(), due.0.peer.core);
    let reader = calls.way().join(join.chat, user, join.after_seq, core);
    let reader = reader.await?;
    Ok((join, reader, frames))
}

/// The frame that tells a client what became of a post that does not show as a
/// message, and the reason in it.
fn rejection(chat: ChatId, answer: PostAnswer) -> (String, Bytes) {
    let rejected = match answer.result {
        Ok(receipt) => duplicate(receipt.seq),
        Err(refusal) => Problem::from(refusal).to_rejected(),
    };
    let reason = rejected.reason.clone();
    let frame = encode(&proto::Message {
        chat_id: chat.get(),
        client_message_id: answer
            .client_message_id
            .map_or_else(String::new, |id| id.to_string()),
        rejected: Some(rejected),
        ..Default::default()
    });
    (reason, frame.into())
}
