//! What is posted on a stream, and what changes messages, by a call or on a stream.

use super::attached::{Carried, attached, names as carried_names};
use crate::{
    domain::{Change, ChatId, ClientMessageId, Draft, Invalid, Seq, check_emoji},
    grpc::{calls::Limits, status::Problem},
    proto::{ConnectChatRequest, DeleteMessageRequest, EditMessageRequest, Post, ReactRequest},
};

/// Whose posts they are.
#[derive(Debug, Clone, Copy)]
pub struct Poster {
    pub chat: ChatId,
    /// Its stream yields every entry.
    pub entries: bool,
    /// May delete the messages of others.
    pub admin: bool,
}

/// What is wrong with which field, and the id under which it was posted, if that is good.
pub type Refused = (Option<ClientMessageId>, &'static str, Invalid);

/// What the fields of a request are called where it stands.
struct Names {
    chat_id: &'static str,
    seq: &'static str,
    what: &'static str,
    client_message_id: &'static str,
}

/// A name in a call, and in the frame of a stream.
macro_rules! names {
    ($frame:literal, $what:literal) => {
        [
            Names {
                chat_id: "chat_id",
                seq: "seq",
                what: $what,
                client_message_id: "client_message_id",
            },
            Names {
                chat_id: concat!($frame, ".chat_id"),
                seq: concat!($frame, ".seq"),
                what: concat!($frame, ".", $what),
                client_message_id: concat!($frame, ".client_message_id"),
            },
        ]
    };
}

const EDIT: [Names; 2] = names!("edit", "text");
const DELETE: [Names; 2] = names!("delete", "seq");
const REACT: [Names; 2] = names!("react", "emoji");

/// What is posted by a frame, if it is by one that may not post: the field's name.
pub(super) fn first_posted(frame: &ConnectChatRequest) -> Option<&'static str> {
    posted(frame).next()
}

fn posted(frame: &ConnectChatRequest) -> impl Iterator<Item = &'static str> {
    let posted = [
        ("send", frame.send.is_some()),
        ("edit", frame.edit.is_some()),
        ("delete", frame.delete.is_some()),
        ("react", frame.react.is_some()),
    ];
    posted
        .into_iter()
        .filter_map(|(name, is)| is.then_some(name))
}

/// A stream's later frame.
pub(super) fn post(
    frame: ConnectChatRequest,
    limits: &Limits,
    poster: Poster,
) -> Result<Draft, Refused> {
    let joins = [
        ("chat_id", !frame.chat_id.is_empty()),
        ("username", !frame.username.is_empty()),
        ("after_seq", frame.after_seq.is_some()),
        ("entries", frame.entries),
    ];
    let field = posted(&frame).next().unwrap_or("send");
    let second = posted(&frame).nth(1);
    let draft = match frame {
        ConnectChatRequest {
            send: Some(send), ..
        } => message(send, limits),
        ConnectChatRequest {
            edit: Some(edit), ..
        } => edited(edit, limits, &EDIT[1], Some(poster.chat)),
        ConnectChatRequest {
            delete: Some(delete),
            ..
        } => deleted(delete, poster.admin, &DELETE[1], Some(poster.chat)),
        ConnectChatRequest {
            react: Some(react), ..
        } => reacted(react, &REACT[1], Some(poster.chat)),
        _ => return Err((None, "send", Invalid("is missing".into()))),
    }?;
    let refuse =
        |field, why: &str| Err((draft.client_message_id.clone(), field, Invalid(why.into())));
    if let Some((field, _)) = joins.into_iter().find(|(_, set)| *set) {
        return refuse(field, "belongs to the first frame only");
    }
    if let Some(field) = second {
        return refuse(field, "a frame has one of send, edit, delete and react");
    }
    if draft.target().is_some() && !poster.entries {
        let why = "is answered by an entry, and this stream was not opened with entries";
        return refuse(field, why);
    }
    Ok(draft)
}

fn message(send: Post, limits: &Limits) -> Result<Draft, Refused> {
    let draft = message_of(&send.text, &send.client_message_id, limits)?;
    let carried = Carried {
        reply_to: send.reply_to,
        data: send.data,
        data_type: send.data_type,
        mentions: send.mentions,
    };
    match attached(carried, limits, &carried_names!("send")) {
        Err((field, why)) => Err((draft.client_message_id, field, why)),
        Ok(change) => Ok(Draft { change, ..draft }),
    }
}

/// A message that carries nothing besides its text.
pub(super) fn message_of(text: &str, id: &str, limits: &Limits) -> Result<Draft, Refused> {
    let id = client_message_id("send.client_message_id", id)?;
    match Draft::check_text(text, limits.max_text) {
        Err(why) => Err((id, "send.text", why)),
        Ok(()) => Ok(Draft::message(text, id)),
    }
}

/// The change that an EditMessage call asks for.
pub fn edit(request: EditMessageRequest, limits: &Limits) -> Result<(ChatId, Draft), Problem> {
    let chat = super::chat_id("chat_id", request.chat_id)?;
    let draft = edited(request, limits, &EDIT[0], None).map_err(problem)?;
    Ok((chat, draft))
}

/// … a DeleteMessage call; admins may delete what others have said …
pub fn delete(request: DeleteMessageRequest, admin: bool) -> Result<(ChatId, Draft), Problem> {
    let chat = super::chat_id("chat_id", request.chat_id)?;
    let draft = deleted(request, admin, &DELETE[0], None).map_err(problem)?;
    Ok((chat, draft))
}

/// … and a React call.
pub fn react(request: ReactRequest) -> Result<(ChatId, Draft), Problem> {
    let chat = super::chat_id("chat_id", request.chat_id)?;
    let draft = reacted(request, &REACT[0], None).map_err(problem)?;
    Ok((chat, draft))
}

fn edited(
    request: EditMessageRequest,
    limits: &Limits,
    names: &Names,
    stream: Option<ChatId>,
) -> Result<Draft, Refused> {
    let id = client_message_id(names.client_message_id, &request.client_message_id)?;
    let target = target(request.chat_id, request.seq, names, stream, &id)?;
    match Draft::check_text(&request.text, limits.max_text) {
        Err(why) => Err((id, names.what, why)),
        Ok(()) => Ok(Draft {
            change: Some(Box::new(Change::Edit { target })),
            ..Draft::message(request.text, id)
        }),
    }
}

fn deleted(
    request: DeleteMessageRequest,
    admin: bool,
    names: &Names,
    stream: Option<ChatId>,
) -> Result<Draft, Refused> {
    let id = client_message_id(names.client_message_id, &request.client_message_id)?;
    let target = target(request.chat_id, request.seq, names, stream, &id)?;
    Ok(Draft {
        change: Some(Box::new(Change::Deletion { target })),
        admin,
        ..Draft::message("", id)
    })
}

fn reacted(request: ReactRequest, names: &Names, stream: Option<ChatId>) -> Result<Draft, Refused> {
    let id = client_message_id(names.client_message_id, &request.client_message_id)?;
    let target = target(request.chat_id, request.seq, names, stream, &id)?;
    let removed = request.remove;
    match check_emoji(&request.emoji) {
        Err(why) => Err((id, names.what, why)),
        Ok(()) => Ok(Draft {
            change: Some(Box::new(Change::Reaction { target, removed })),
            ..Draft::message(request.emoji, id)
        }),
    }
}

fn client_message_id(field: &'static str, id: &str) -> Result<Option<ClientMessageId>, Refused> {
    ClientMessageId::from_wire(id).map_err(|why| (None, field, why))
}

/// The message that is to be changed: on a stream one of the stream's chat.
fn target(
    chat: i64,
    seq: Seq,
    names: &Names,
    stream: Option<ChatId>,
    id: &Option<ClientMessageId>,
) -> Result<Seq, Refused> {
    let refuse = |field, why: &str| Err((id.clone(), field, Invalid(why.into())));
    if stream.is_some_and(|stream| chat != 0 && chat != stream.get()) {
        return refuse(names.chat_id, "must be left out, or be the stream's");
    }
    if seq < 1 {
        return refuse(names.seq, "must be greater than 0");
    }
    Ok(seq)
}

fn problem((_, field, why): Refused) -> Problem {
    Problem::invalid(field, &why)
}
