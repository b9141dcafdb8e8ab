//! One ask, and how another node reads it.

use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    cluster::{
        handle::{Answered, Asked, Joining},
        wire as read,
    },
    domain::{Caller, Change, ChatError, ChatId, MessageId, Refusal},
    proto::cluster::{self as wire, call::Call, item::Item},
    shard::{Post, Reply},
};

#[derive(Debug)]
pub(super) enum What {
    Post(Post<Reply>, MessageId),
    Call(Asked, oneshot::Sender<Result<Answered, ChatError>>),
    Join(Joining),
}

impl What {
    pub fn to_wire(&self, chat: ChatId, ask: u64, now: Instant) -> Item {
        let chat = chat.get();
        let call = |caller: &Caller, call| {
            Item::Call(wire::Call {
                ask,
                chat,
                user: caller.user.to_string(),
                admin: caller.admin,
                call: Some(call),
            })
        };
        match self {
            Self::Post(post, id) => {
                let draft = &post.draft;
                let key = draft.client_message_id.as_ref();
                let (kind, target) = read::change(draft.change.as_deref());
                let attached = draft.change.as_deref().and_then(Change::attached);
                let sent = wire::Post {
                    ask,
                    chat,
                    id: id.0,
                    from: post.from.to_string(),
                    text: draft.text.to_string(),
                    client_message_id: key.map(|id| id.to_string()),
                    left_micros: post.deadline.saturating_duration_since(now).as_micros() as u64,
                    kind: kind.into(),
                    target,
                    admin: draft.admin,
                    attached: attached.map(|one| Bytes::copy_from_slice(one.as_bytes())),
                    traceparent: post.span.as_ref().map(|span| span.traceparent()),
                };
                match draft.change {
                    None => Item::Post(sent),
                    Some(_) => Item::Change(sent),
                }
            }
            Self::Call(Asked::Get(caller), _) => call(caller, Call::Get(wire::Nothing {})),
            Self::Call(Asked::Add(caller, users), _) => {
                let users = read::names(users);
                call(caller, Call::Add(wire::Users { users }))
            }
            Self::Call(Asked::Remove(caller, users), _) => {
                let users = read::names(users);
                call(caller, Call::Remove(wire::Users { users }))
            }
            Self::Call(Asked::Delete(caller), _) => call(caller, Call::Delete(wire::Nothing {})),
            Self::Join(joining) => Item::Call(wire::Call {
                ask,
                chat,
                user: joining.user.to_string(),
                admin: false,
                call: Some(Call::Join(wire::Join {
                    after_seq: joining.after_seq,
                })),
            }),
        }
    }
}

/// Answers it with one of the two.
pub(super) fn refuse(what: What, refusal: &Refusal, error: ChatError) {
    match what {
        What::Post(post, _) => post.reply.send(Err(refusal.clone())),
        What::Call(_, answer) => _ = answer.send(Err(error)),
        What::Join(joining) => _ = joining.answer.send(Err(error)),
    }
}
