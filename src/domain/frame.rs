use bytes::{BufMut, Bytes, BytesMut};

use super::{ClientMessageId, Invalid, Row};

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
// … and of google.protobuf.Timestamp.
const SECONDS: u8 = 1 << 3;
const NANOS: u8 = 2 << 3;

impl Frame {
    /// The frame that everybody but the sender gets: without the
    /// `client_message_id`.
    pub fn encode(row: &Row) -> Self {
        let (seconds, nanos) = row.created_at.to_parts();
        let (seconds, nanos) = (seconds as u64, nanos as u64);
        let time_len = field_len(seconds) + field_len(nanos);
        let len = bytes_field_len(row.from.len())
            + bytes_field_len(row.text.len())
            + bytes_field_len(time_len)
            + field_len(row.seq as u64)
            + field_len(row.chat.get() as u64);

        let mut out = BytesMut::with_capacity(PREFIX_LEN + len);
        put_prefix(&mut out, len);
        put_bytes(&mut out, FROM, row.from.as_bytes());
        put_bytes(&mut out, TEXT, row.text.as_bytes());
        out.put_u8(CREATED_AT);
        put_varint(&mut out, time_len as u64);
        put_field(&mut out, SECONDS, seconds);
        put_field(&mut out, NANOS, nanos);
        put_field(&mut out, SEQ, row.seq as u64);
        put_field(&mut out, CHAT_ID, row.chat.get() as u64);
        debug_assert_eq!(out.len(), PREFIX_LEN + len);
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
}
