//! Entries of a chat as the wire has them in pages.

use prost::Message as _;

use super::to_timestamp;
use crate::{
    domain::{Attached, Change, Current, Row, UserName},
    proto::{self, message::Change as Wire},
};

/// A message as it is now, as `viewer` is to see it.
pub(super) fn to_current(current: Current, viewer: &UserName) -> proto::Message {
    let Current { mut row, reactions } = current;
    let mut edited_at = None;
    if let Some(Change::Edited { text, at, .. }) = row.change.as_deref() {
        edited_at = Some(to_timestamp(*at));
        row.text = text.clone();
    }
    let reactions = reactions.into_iter().map(|one| proto::ReactionCount {
        emoji: one.emoji.into(),
        count: i32::try_from(one.count).unwrap_or(i32::MAX),
        mine: one.mine,
    });
    proto::Message {
        edited_at,
        reactions: reactions.collect(),
        ..to_entry(row, viewer)
    }
}

/// An entry as it happened.
pub(super) fn to_entry(row: Row, viewer: &UserName) -> proto::Message {
    let deleted = row.is_erased();
    let own = row.client_message_id.filter(|_| row.from == *viewer);
    let attached = row.change.as_deref().and_then(Change::attached);
    let attached = attached.map_or_else(Default::default, to_attached);
    let mut text = String::from(row.text);
    let change = row.change.and_then(|change| to_change(&change, &mut text));
    proto::Message {
        from: row.from.to_string(),
        text,
        created_at: Some(to_timestamp(row.created_at)),
        seq: row.seq,
        chat_id: row.chat.get(),
        client_message_id: own.map_or_else(String::new, |id| id.to_string()),
        deleted,
        change,
        ..attached
    }
}

/// What an entry says that is no message: the text goes with it.
fn to_change(change: &Change, text: &mut String) -> Option<Wire> {
    let mut text = || std::mem::take(text);
    Some(match *change {
        Change::Edit { target } => Wire::Edit(proto::Edit {
            target,
            text: text(),
        }),
        Change::Deletion { target } => Wire::Deletion(proto::Deletion { target }),
        Change::Reaction { target, removed } => Wire::Reaction(proto::Reaction {
            target,
            emoji: text(),
            removed,
        }),
        Change::Attached(_) | Change::Edited { .. } | Change::Deleted => return None,
    })
}

/// A message with nothing but what it carries.
fn to_attached(attached: &Attached) -> proto::Message {
    // Whoever has made it, or read it, has seen that it is so.
    proto::Message::decode(attached.as_bytes()).unwrap_or_default()
}
