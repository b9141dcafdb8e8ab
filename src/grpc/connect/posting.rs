//! The half of a stream that posts.

use std::{future::poll_fn, sync::Arc, time::Instant};

use super::Why;
use crate::{
    chats::{End, Slot},
    domain::{Draft, Refusal},
    grpc::{
        begun::{Sender, Sends, Terms},
        calls::Calls,
        deframe::{Broken, Deframer},
        pass::Pass,
        peer::Peer,
        status::Problem,
        validate::{self, Poster},
    },
    telemetry::SpanRef,
};

/// The posting half: posts each frame in turn, until the client has no more.
pub(super) struct PostingHalf {
    pub poster: Poster,
    pub slot: Arc<Slot>,
    pub calls: Arc<Calls>,
    pub peer: Arc<Peer>,
    pub pass: Option<Pass>,
    pub span: Option<SpanRef>,
    pub why: Why,
}

/// A frame that has begun is to be whole within the time that a call may take.
impl Sends for PostingHalf {
    fn terms(&self) -> Terms<'_> {
        Terms {
            begun: &self.peer.gate.begun,
            sender: Sender::User(self.slot.user()),
            waiting: &self.peer.short_of_room,
            until: Instant::now() + self.calls.limits().timeout,
        }
    }
}

impl PostingHalf {
    pub async fn run(mut self, mut frames: Deframer) {
        loop {
            let frame = match frames.next(&self).await {
                Ok(Some(frame)) => validate::read_post(frame, self.calls.limits(), self.poster),
                Ok(None) | Err(Broken::Gone) => return,
                Err(Broken::Problem(problem)) => Err(problem),
            };
            // The reading half is not polled while the client does not read, so
            // that it can't be the one to see that the right to post has ended.
            let held = match &mut self.pass {
                Some(pass) => pass.hold().await.map_err(Problem::from),
                None => Ok(()),
            };
            match held.and(frame) {
                Ok(posted) => self.post(posted).await,
                Err(problem) => {
                    self.why.get_or_init(|| Box::new(problem));
                    return self.slot.end(End::Misused);
                }
            }
        }
    }

    async fn post(&self, posted: Result<Draft, validate::Refused>) {
        let (id, refusal) = match posted {
            Ok(draft) => match self.peer.gate.send(self.slot.user()) {
                Ok(()) => {
                    return self
                        .calls
                        .post_on_stream(self.poster.chat, &self.slot, draft, self.span)
                        .await;
                }
                Err(retry) => (draft.client_message_id, Refusal::TooFast { retry }),
            },
            Err((id, field, why)) => (id, Refusal::Invalid { field, why }),
        };
        poll_fn(|cx| self.slot.poll_post(cx)).await;
        self.slot.answer(id, Err(refusal));
    }
}
