use bytes::{BufMut, Bytes, BytesMut};

use super::{Change, ClientMessageId, Invalid, Row, attached::is_attached};

/// Length of the prefix of a gRPC message: one byte of flags and the length as
/// a big-endian `u32` (gRPC over HTTP/2, "Length-Prefixed-Message").
pub const PREFIX_LEN: usize = 5;

/// One `chat_v1.Message` as it goes over the wire: gRPC prefix and protobuf.
/// It is encoded once and shared by every reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

// Protobuf tags, `field << 3 | wire type`, of chat_v1.Message.
const FROM: u8 = 1 << 3 | 2;
const TEXT: u8 = 2 << 3 | 2;
const CREATED_AT: u8 = 3 << 3 | 2;
const SEQ: u8 = 4 << 3;
const CHAT_ID: u8 = 5 << 3;
const CLIENT_MESSAGE_ID: u8 = 6 << 3 | 2;
const EDIT: u8 = 8 << 3 | 2;
const DELETION: u8 = 9 << 3 | 2;
const REACTION: u8 = 10 << 3 | 2;
const DELETED: u8 = 12 << 3;
// … of Edit, Deletion and Reaction …
const TARGET: u8 = 1 << 3;
const NEW_TEXT: u8 = 2 << 3 | 2;
const REMOVED: u8 = 3 << 3;
// … and of google.protobuf.Timestamp.
const SECONDS: u8 = 1 << 3;
const NANOS: u8 = 2 << 3;

impl Frame {
    /// The frame that everybody but the sender gets: without the
    /// `client_message_id`. A message is as it was posted, unless it was deleted: its
    /// edits are entries of their own.
    pub fn encode(row: &Row) -> Self {
        let mut change = BytesMut::new();
        if let Some(more) = row.change.as_deref() {
            put_change(more, &row.text, &mut change);
        }
        // Of an entry that is no message, the text is in what it says of the change.
        let text = match row.is_message() {
            true => row.text.as_bytes(),
            false => &[],
        };
        let (seconds, nanos) = row.created_at.to_parts();
        let (seconds, nanos) = (seconds as u64, nanos as u64);
        let time_len = field_len(seconds) + field_len(nanos);
        let len = bytes_field_len(row.from.len())
            + optional_field_len(text.len())
            + bytes_field_len(time_len)
            + field_len(row.seq as u64)
            + field_len(row.chat.get() as u64)
            + change.len();

        let mut out = BytesMut::with_capacity(PREFIX_LEN + len);
        put_prefix(&mut out, len);
        put_bytes(&mut out, FROM, row.from.as_bytes());
        if !text.is_empty() {
            put_bytes(&mut out, TEXT, text);
        }
        out.put_u8(CREATED_AT);
        put_varint(&mut out, time_len as u64);
        put_field(&mut out, SECONDS, seconds);
        put_field(&mut out, NANOS, nanos);
        put_field(&mut out, SEQ, row.seq as u64);
        put_field(&mut out, CHAT_ID, row.chat.get() as u64);
        out.put_slice(&change);
        debug_assert_eq!(out.len(), PREFIX_LEN + len);
        Self(out.freeze())
    }

    /// The same message, or edit of one, once the message was deleted: without the text and
    /// what it carries, and with a mark.
    pub fn erased(&self) -> Self {
        let mut rest = &self.0[PREFIX_LEN..];
        let mut body = BytesMut::with_capacity(rest.len() + 2);
        while let Some(Field { tag, value, whole }) = next_field(&mut rest) {
            match tag as u8 {
                _ if is_attached(tag) => {}
                _ if tag > u64::from(u8::MAX) => body.put_slice(whole),
                TEXT | DELETED => {}
                EDIT => put_edit(target_of(value), "", &mut body),
                _ => body.put_slice(whole),
            }
        }
        put_field(&mut body, DELETED, 1);
        let mut out = BytesMut::with_capacity(PREFIX_LEN + body.len());
        put_prefix(&mut out, body.len());
        out.put_slice(&body);
        Self(out.freeze())
    }

    /// The same message for the sender's own streams.
    pub fn with_client_message_id(&self, id: &ClientMessageId) -> Self {
        let mut out = BytesMut::with_capacity(self.len() + Self::len_of_id(id));
        self.put_with_client_message_id(id, &mut out);
        Self(out.freeze())
    }

    /// Puts that behind others: protobuf lets a field come last, so it is a copy
    /// and an addition.
    pub fn put_with_client_message_id(&self, id: &ClientMessageId, out: &mut BytesMut) {
        let body = &self.0[PREFIX_LEN..];
        put_prefix(out, body.len() + Self::len_of_id(id));
        out.put_slice(body);
        put_bytes(out, CLIENT_MESSAGE_ID, id.as_bytes());
    }

    /// What an id adds to a frame.
    pub fn len_of_id(id: &ClientMessageId) -> usize {
        bytes_field_len(id.len())
    }

    /// Length on the wire, prefix included.
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One that another node has encoded.
    ///
    /// # Errors
    /// If the prefix does not tell the length of what follows it.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, Invalid> {
        let said = bytes
            .get(1..PREFIX_LEN)
            .and_then(|len| Some(u32::from_be_bytes(len.try_into().ok()?)));
        match said.is_some_and(|len| len as usize == bytes.len() - PREFIX_LEN) {
            true => Ok(Self(bytes)),
            false => Err(Invalid::new("is not one whole frame")),
        }
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

fn put_change(change: &Change, text: &str, out: &mut BytesMut) {
    match change {
        Change::Edit { target } => {
            put_edit(*target as u64, text, out);
            put_field(out, DELETED, u64::from(text.is_empty()));
        }
        Change::Deletion { target } => {
            out.put_u8(DELETION);
            put_varint(out, field_len(*target as u64) as u64);
            put_field(out, TARGET, *target as u64);
        }
        Change::Reaction { target, removed } => {
            let (target, removed) = (*target as u64, u64::from(*removed));
            let len = field_len(target) + optional_field_len(text.len()) + field_len(removed);
            out.put_u8(REACTION);
            put_varint(out, len as u64);
            put_field(out, TARGET, target);
            put_bytes(out, NEW_TEXT, text.as_bytes());
            put_field(out, REMOVED, removed);
        }
        Change::Attached(attached)
        | Change::Edited {
            attached: Some(attached),
            ..
        } => out.put_slice(attached.as_bytes()),
        Change::Edited { attached: None, .. } => {}
        Change::Deleted => put_field(out, DELETED, 1),
    }
}

fn put_edit(target: u64, text: &str, out: &mut BytesMut) {
    let len = field_len(target) + optional_field_len(text.len());
    out.put_u8(EDIT);
    put_varint(out, len as u64);
    put_field(out, TARGET, target);
    if !text.is_empty() {
        put_bytes(out, NEW_TEXT, text.as_bytes());
    }
}

/// A field of a message that was encoded.
pub(super) struct Field<'a> {
    pub tag: u64,
    /// Of one that has a length.
    value: &'a [u8],
    /// With its tag.
    whole: &'a [u8],
}

/// `None` at the end, and where a message is none.
pub(super) fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let from = *rest;
    let tag = take_varint(rest)?;
    let mut value: &[u8] = &[];
    match tag & 7 {
        0 => _ = take_varint(rest)?,
        1 => *rest = rest.get(8..)?,
        2 => {
            let len = usize::try_from(take_varint(rest)?).ok()?;
            (value, *rest) = rest.split_at_checked(len)?;
        }
        5 => *rest = rest.get(4..)?,
        _ => return None,
    }
    let whole = &from[..from.len() - rest.len()];
    Some(Field { tag, value, whole })
}

pub(super) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

/// The message that an edit is of.
fn target_of(mut edit: &[u8]) -> u64 {
    while !edit.is_empty() {
        let mut start = edit;
        match next_field(&mut edit) {
            Some(field) if field.tag == u64::from(TARGET) => {
                // Behind the tag.
                _ = take_varint(&mut start);
                return take_varint(&mut start).unwrap_or(0);
            }
            Some(_) => {}
            None => return 0,
        }
    }
    0
}

fn put_prefix(out: &mut BytesMut, len: usize) {
    out.put_u8(0); // not compressed
    out.put_u32(len as u32);
}

fn put_bytes(out: &mut BytesMut, tag: u8, value: &[u8]) {
    out.put_u8(tag);
    put_varint(out, value.len() as u64);
    out.put_slice(value);
}

/// proto3 leaves out a scalar that has its default value.
fn put_field(out: &mut BytesMut, tag: u8, value: u64) {
    if value != 0 {
        out.put_u8(tag);
        put_varint(out, value);
    }
}

fn put_varint(out: &mut BytesMut, value: u64) {
    prost::encoding::encode_varint(value, out);
}

fn field_len(value: u64) -> usize {
    if value == 0 {
        0
    } else {
        1 + prost::encoding::encoded_len_varint(value)
    }
}

/// … and bytes that are none.
fn optional_field_len(len: usize) -> usize {
    match len {
        0 => 0,
        len => bytes_field_len(len),
    }
}

fn bytes_field_len(len: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::domain::{ChatId, MessageId, Timestamp, UserName};
    use crate::proto;

    fn row() -> Row {
        Row {
            chat: ChatId::new(7).unwrap(),
            seq: 300,
            id: MessageId(1),
            from: UserName::new("alice").unwrap(),
            text: "hällo".into(),
            client_message_id: ClientMessageId::from_wire("k-1").unwrap(),
            created_at: Timestamp(1_700_000_000_000_001),
            number: 300,
            change: None,
        }
    }

    fn decode(frame: &Frame) -> proto::Message {
        let bytes = frame.as_bytes();
        assert_eq!(bytes[0], 0);
        let len = u32::from_be_bytes(bytes[1..PREFIX_LEN].try_into().unwrap());
        assert_eq!(len as usize, bytes.len() - PREFIX_LEN);
        proto::Message::decode(&bytes[PREFIX_LEN..]).unwrap()
    }

    #[test]
    fn prost_reads_what_we_write() {
        let message = decode(&Frame::encode(&row()));
        let expected = proto::Message {
            from: "alice".into(),
            text: "hällo".into(),
            created_at: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 1_000,
            }),
            seq: 300,
            chat_id: 7,
            ..Default::default()
        };
        assert_eq!(message, expected);
    }

    #[test]
    fn only_the_senders_frame_names_the_client_message_id() {
        let shared = Frame::encode(&row());
        let own = shared.with_client_message_id(row().client_message_id.as_ref().unwrap());
        assert_eq!(decode(&shared).client_message_id, "");
        assert_eq!(decode(&own).client_message_id, "k-1");
        assert_eq!(decode(&own).text, "hällo");
    }

    #[test]
    fn prost_reads_what_happens_to_messages() {
        use proto::message::Change as Wire;
        let entry = |text: &str, change| Row {
            text: text.into(),
            change: Some(Box::new(change)),
            ..row()
        };
        let target = 200;
        let removed = true;
        let edit = Wire::Edit(proto::Edit {
            target,
            text: "better".into(),
        });
        let deletion = Wire::Deletion(proto::Deletion { target });
        let reaction = |removed| {
            Wire::Reaction(proto::Reaction {
                target,
                emoji: "👍".into(),
                removed,
            })
        };
        for (row, expected) in [
            (entry("better", Change::Edit { target }), edit),
            (entry("", Change::Deletion { target }), deletion),
            (
                entry("👍", Change::Reaction { target, removed }),
                reaction(true),
            ),
            (
                entry(
                    "👍",
                    Change::Reaction {
                        target,
                        removed: false,
                    },
                ),
                reaction(false),
            ),
        ] {
            let message = decode(&Frame::encode(&row));
            assert_eq!((message.seq, &*message.text), (300, ""));
            assert_eq!(message.change, Some(expected));
            assert!(!message.deleted);
        }
    }

    #[test]
    fn p12_an_erased_frame_is_that_of_the_row_without_its_text() {
        let edit = Change::Edit { target: 200 };
        let erased = |change: Change| Row {
            text: "".into(),
            change: Some(Box::new(change)),
            ..row()
        };
        let edited = Row {
            change: Some(Box::new(edit.clone())),
            ..row()
        };
        let message = Frame::encode(&row()).erased();
        assert_eq!(
            decode(&message),
            decode(&Frame::encode(&erased(Change::Deleted)))
        );
        assert_eq!(message.erased(), message, "once is enough");
        let edit = Frame::encode(&erased(edit));
        assert_eq!(decode(&Frame::encode(&edited).erased()), decode(&edit));
        for frame in [message, edit] {
            assert!(decode(&frame).deleted);
            let bytes = frame.as_bytes();
            assert!(!bytes.windows(5).any(|part| part == &b"h\xc3\xa4ll"[..]));
        }
    }
}
