use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{
    Invalid, MAX_NAME_BYTES, Seq, UserName,
    frame::{next_field, take_varint},
};

// Fields of chat_v1.Message.
const REPLY_TO: u32 = 14;
const DATA: u32 = 15;
const DATA_TYPE: u32 = 16;
const MENTIONS: u32 = 17;

/// Bytes of what says of which type data is: RFC 6838, 4.2 allows a media type 127 on
/// each side of the slash, which nobody uses.
pub const MAX_DATA_TYPE_BYTES: usize = 128;

/// What a message carries besides its text: the message that it answers, whom it mentions,
/// and data of the embedder's own. It is kept as the fields of `chat_v1.Message` that say
/// so, encoded: stores, nodes and frames pass them on as they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attached(Box<[u8]>);

impl Attached {
    /// `None`: nothing. Data and its type come together or not at all.
    pub fn new(
        reply_to: Option<Seq>,
        data: &[u8],
        data_type: &str,
        mentions: &[UserName],
    ) -> Option<Self> {
        let mut out = Vec::new();
        if let Some(seq) = reply_to {
            encode_key(REPLY_TO, WireType::Varint, &mut out);
            encode_varint(seq as u64, &mut out);
        }
        if !data.is_empty() {
            put(DATA, data, &mut out);
            put(DATA_TYPE, data_type.as_bytes(), &mut out);
        }
        for user in mentions {
            put(MENTIONS, user.as_bytes(), &mut out);
        }
        (!out.is_empty()).then(|| Self(out.into()))
    }

    /// What a store or another node has kept.
    ///
    /// # Errors
    /// If it is anything else than what a message carries.
    pub fn read(bytes: &[u8]) -> Result<Self, Invalid> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let field = next_field(&mut rest);
            if !field.is_some_and(|field| is_attached(field.tag)) {
                return Err(Invalid::new("is not what a message carries"));
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The most bytes that it can have with so many bytes of data and so many mentions.
    pub const fn max_bytes(data: usize, mentions: usize) -> usize {
        // Each field has a tag of at most two bytes and a length or a number besides.
        let beside = 2 + 10;
        2 * beside + data + beside + MAX_DATA_TYPE_BYTES + mentions * (MAX_NAME_BYTES + beside)
    }

    /// The message that it answers.
    pub fn reply_to(&self) -> Option<Seq> {
        // It comes first.
        let mut rest = &*self.0;
        let tag = take_varint(&mut rest)?;
        let seq = (tag == u64::from(REPLY_TO << 3)).then(|| take_varint(&mut rest))?;
        seq.map(|seq| seq as Seq)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a field of a message that was encoded is one of these, by its tag.
pub(super) fn is_attached(tag: u64) -> bool {
    let number = |field: u32, wire: WireType| u64::from(field << 3) | wire as u64;
    tag == number(REPLY_TO, WireType::Varint)
        || [DATA, DATA_TYPE, MENTIONS]
            .iter()
            .any(|field| tag == number(*field, WireType::LengthDelimited))
}

fn put(field: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{proto, testing::user};

    #[test]
    fn it_is_the_fields_of_a_message() {
        let mentions = [user("bob"), user("карл")];
        let attached = Attached::new(Some(300), b"\0data", "x/y", &mentions).unwrap();
        let message = proto::Message::decode(attached.as_bytes()).unwrap();
        let expected = proto::Message {
            reply_to: 300,
            data: b"\0data".to_vec(),
            data_type: "x/y".into(),
            mentions: vec!["bob".into(), "карл".into()],
            ..Default::default()
        };
        assert_eq!(message, expected);
        assert_eq!(attached.reply_to(), Some(300));
        assert_eq!(Attached::read(attached.as_bytes()), Ok(attached));
    }

    #[test]
    fn each_may_be_missing() {
        assert_eq!(Attached::new(None, b"", "", &[]), None);
        for one in [
            Attached::new(Some(1), b"", "", &[]),
            Attached::new(None, b"1", "t", &[]),
            Attached::new(None, b"", "", &[user("bob")]),
        ] {
            let one = one.unwrap();
            let message = proto::Message::decode(one.as_bytes()).unwrap();
            assert_eq!(one.reply_to().unwrap_or(0), message.reply_to);
        }
    }

    #[test]
    fn nothing_else_is_read() {
        let text = proto::Message {
            text: "no".into(),
            ..Default::default()
        };
        for bad in [&text.encode_to_vec()[..], b"\x70", b"\x7a\x05ab", b"\xff"] {
            assert!(Attached::read(bad).is_err(), "{bad:?}");
        }
    }
}
