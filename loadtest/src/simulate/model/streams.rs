//! P2, P3, P4, P7, P9: what a reader may see.

use std::collections::BTreeMap;

use bytes::Bytes;
use chat_service::{
    chats::{End, PostAnswer},
    domain::{ChatError, ChatId, Draft, PREFIX_LEN, Row, Seq, UserName},
    proto,
};
use prost::Message as _;

use super::{Kept, Model, rule};
use crate::simulate::disk::Disk;

/// A join that waits for its answer.
#[derive(Debug)]
pub struct JoinCall {
    pub chat: ChatId,
    pub user: UserName,
    pub after: Option<Seq>,
    /// The newest message that somebody knew of when it was asked for.
    known: Seq,
    /// Messages that takeovers had cost by then.
    lost: u64,
    /// See [`Model::is_out`].
    out: Option<u32>,
    ended: bool,
}

/// One open stream, as its client sees it.
#[derive(Debug)]
pub struct Stream {
    pub chat: ChatId,
    user: UserName,
    joined: u64,
    /// The seq that must come next. While it is `None`, any above the first and
    /// up to the second may.
    next: Option<Seq>,
    first: (Seq, Seq),
    /// Its chat has lost messages since it joined, or shortly before.
    pub(super) doubtful: bool,
    /// It was there when that happened, so it must end.
    pub(super) must_end: bool,
    /// Posts on the stream, by their id, which no other post on it has.
    posts: BTreeMap<String, StreamPost>,
}

#[derive(Debug)]
struct StreamPost {
    draft: Draft,
    /// Its message has come by.
    shown: bool,
    answered: bool,
}

impl Model {
    pub fn join_asked(&mut self, chat: ChatId, user: &UserName, after: Option<Seq>) -> JoinCall {
        JoinCall {
            chat,
            user: user.clone(),
            after,
            known: self.chat(chat).acknowledged,
            lost: self.counts.lost,
            out: self.member(chat, user).out_at(),
            ended: self.chat(chat).end_acknowledged,
        }
    }

    pub fn join_refused(&mut self, call: &JoinCall, error: ChatError) -> Kept {
        let ended = self.chat(call.chat).end_asked;
        let safe = self.member(call.chat, &call.user).safe;
        let fair = match error {
            ChatError::NotMember => ended || !safe,
            ChatError::NotFound
            | ChatError::NotCreator
            | ChatError::TooManyMembers { .. }
            | ChatError::Moved => false,
            ChatError::AheadOfChat { .. } => {
                let kept = self.kept(call.chat, call.known);
                call.after.is_some_and(|after| after > kept)
            }
            ChatError::Draining => self.draining,
            ChatError::Busy { .. } | ChatError::Unavailable => true,
        };
        let ahead = matches!(error, ChatError::AheadOfChat { .. });
        rule(fair, if ahead { "P4" } else { "P7" }, || {
            format!(
                "{} joins {} behind {:?}: {error}",
                call.user, call.chat, call.after
            )
        })
    }

    pub fn joined(&mut self, call: &JoinCall, disk: &Disk) -> (u64, Kept) {
        self.counts.joins += 1;
        let id = self.tick();
        let newest = disk.chats[&call.chat].last_seq();
        // Some of it may have been lost since, and others have come in their places
        // after the join was answered.
        let known = match self.counts.lost == call.lost {
            true => call.known,
            false => self.kept(call.chat, call.known),
        };
        let stream = Stream {
            chat: call.chat,
            user: call.user.clone(),
            joined: id,
            next: call.after.map(|after| after + 1),
            first: (known, newest + 1),
            doubtful: self.chat(call.chat).stale,
            must_end: false,
            posts: BTreeMap::new(),
        };
        self.streams.insert(id, stream);
        let out = self.is_out(call.chat, &call.user, call.out);
        let kept = rule(!out && !call.ended, "P7", || {
            format!("{} may not join {} and does", call.user, call.chat)
        });
        (id, kept)
    }

    pub fn stream_closed(&mut self, id: u64) {
        self.streams.remove(&id);
    }

    /// The seq of the last message that a stream has brought, if any.
    pub fn cursor(&self, id: u64) -> Option<Seq> {
        self.streams.get(&id)?.next.map(|next| next - 1)
    }

    pub fn posted_on(&mut self, id: u64, draft: &Draft) {
        self.counts.posts += 1;
        self.may_be_stored(draft);
        let key = draft.client_message_id.as_deref().unwrap_or_default();
        if let Some(stream) = self.streams.get_mut(&id) {
            let post = StreamPost {
                draft: draft.clone(),
                shown: false,
                answered: false,
            };
            stream.posts.insert(key.to_string(), post);
        }
    }

    /// Frames came by on a stream.
    pub fn delivered(&mut self, id: u64, mut frames: Bytes, disk: &Disk) -> Kept {
        while !frames.is_empty() {
            let length = frames.get(1..PREFIX_LEN).and_then(|at| at.try_into().ok());
            let length = length.map_or(0, u32::from_be_bytes) as usize;
            let frame = frames.split_to(frames.len().min(PREFIX_LEN + length));
            let message = frame.get(PREFIX_LEN..).map(proto::Message::decode);
            let Some(Ok(message)) = message else {
                return rule(false, "P4", || "a frame in pieces".into());
            };
            self.message(id, &message, disk)?;
        }
        Ok(())
    }

    fn message(&mut self, id: u64, message: &proto::Message, disk: &Disk) -> Kept {
        self.counts.delivered += 1;
        let Some(stream) = self.streams.get_mut(&id) else {
            return rule(false, "P7", || format!("stream {id} is closed and reads"));
        };
        let (chat, user, seq) = (stream.chat, stream.user.clone(), message.seq);
        let (above, up_to) = stream.first;
        let next = stream.next.replace(seq + 1);
        if stream.doubtful {
            if let Some(post) = stream.posts.get_mut(&message.client_message_id) {
                post.shown = true;
            }
            return Ok(());
        }
        let in_place = next.map_or(seq > above && seq <= up_to, |next| seq == next);
        rule(in_place, "P4", || {
            format!("stream {id} of {user} in {chat} gets {seq} after {next:?}, {above}..={up_to}")
        })?;
        let joined = stream.joined;
        let own = stream.posts.get_mut(&message.client_message_id);
        let own = own.map(|post| {
            post.shown = true;
            post.draft.clone()
        });
        let removed = self.member(chat, &user).was_removed_since(joined);
        rule(!removed, "P7", || {
            format!("{user} is removed from {chat} and reads {seq}")
        })?;
        let known = self.chat(chat);
        known.acknowledged = known.acknowledged.max(seq);
        let Some(row) = disk.chats[&chat].row(seq) else {
            return rule(false, "P3", || {
                format!("{chat}:{seq} is delivered and not committed")
            });
        };
        let same = shows(message, row, &user);
        rule(same, "P2", || {
            format!("{row:?} is delivered as {message:?}")
        })?;
        rule(own.is_none_or(|draft| draft.text == row.text), "P5", || {
            format!("{row:?} answers another post")
        })?;
        self.show(row, "P3", disk)
    }

    /// The answer to a post on the stream.
    pub fn answered(&mut self, id: u64, answer: &PostAnswer, disk: &Disk) -> Kept {
        let key = answer.client_message_id.as_deref().unwrap_or_default();
        let Some(stream) = self.streams.get_mut(&id) else {
            return rule(false, "P7", || format!("stream {id} is closed and reads"));
        };
        let (chat, user) = (stream.chat, stream.user.clone());
        match stream.posts.get_mut(key) {
            Some(post) if !post.answered => {
                post.answered = true;
                let draft = post.draft.clone();
                self.outcome(chat, &user, &draft, &answer.result, disk)
            }
            _ => rule(false, "P8", || format!("an answer to nothing: {answer:?}")),
        }
    }

    /// The server has ended a stream.
    pub fn ended(&mut self, id: u64, end: End, ring: usize, disk: &Disk) -> Kept {
        self.counts.ended += 1;
        let Some(stream) = self.streams.get(&id) else {
            return rule(false, "P7", || format!("stream {id} is closed and ends"));
        };
        let (chat, user, next) = (stream.chat, stream.user.clone(), stream.next);
        let fair = match end {
            End::Removed => self.member(chat, &user).removal_asked,
            End::Deleted => self.chat(chat).end_asked,
            End::Draining => self.draining,
            End::Lost => stream.doubtful,
            End::Misused => false,
        };
        rule(fair, "P7", || format!("{user}'s stream in {chat}: {end:?}"))?;
        // P9: a drain lets a reader have what the ring holds for it. The ring may
        // be ahead of what the senders know, and the disk ahead of the ring.
        let newest = self.chat(chat).acknowledged;
        let missing = next.map_or(0, |next| newest - (next - 1));
        let behind = next.map_or(0, |next| disk.chats[&chat].last_seq() - (next - 1));
        let in_ring = end == End::Draining && behind <= ring as Seq;
        rule(!in_ring || missing <= 0, "P9", || {
            format!("{user}'s stream in {chat} ends {missing} messages early")
        })
    }
}

impl Stream {
    /// Whoever is still connected has seen all that there is.
    pub(super) fn at_rest(&self, disk: &Disk) -> Kept {
        let (chat, user) = (self.chat, &self.user);
        let found = &disk.chats[&chat];
        let newest = found.last_seq();
        let cursor = self.next.map_or(self.first.1 - 1, |next| next - 1);
        rule(cursor >= newest, "P4", || {
            format!("{user}'s stream in {chat} stays at {cursor} of {newest}")
        })?;
        rule(found.members().contains(user), "P7", || {
            format!("{user} is no member of {chat} and still reads")
        })?;
        let mut posts = self.posts.values();
        let lost = posts.find(|post| !post.shown && !post.answered);
        rule(lost.is_none(), "P8", || {
            format!("{user}'s post on a stream has no outcome: {lost:?}")
        })
    }
}

/// Whether a message is what `viewer` is to see of a row.
fn shows(message: &proto::Message, row: &Row, viewer: &UserName) -> bool {
    let id = match &row.client_message_id {
        Some(id) if row.from == *viewer => id,
        _ => "",
    };
    let time = message.created_at.map(|at| (at.seconds, at.nanos));
    message.seq == row.seq
        && message.chat_id == row.chat.get()
        && message.from == *row.from
        && message.text == *row.text
        && message.client_message_id == id
        && time == Some(row.created_at.to_parts())
}
