//! Frames of a stream that post a message and nothing besides, as nearly all do. They are
//! read in place: a whole request would have to have room for all that a frame may say.

use prost::encoding::decode_varint;

use super::posts::{Poster, Refused, message_of, post};
use crate::{
    domain::Draft,
    grpc::{calls::Limits, status::Problem, unary::decode},
};

// Protobuf tags, `field << 3 | wire type`, of chat_v1.ConnectChatRequest …
const SEND: u8 = 4 << 3 | 2;
// … and of chat_v1.Post.
const TEXT: u8 = 1 << 3 | 2;
const CLIENT_MESSAGE_ID: u8 = 2 << 3 | 2;

/// What a later frame posts.
///
/// # Errors
/// If it is no request at all; and within, what is wrong with it.
pub fn read(
    frame: bytes::Bytes,
    limits: &Limits,
    poster: Poster,
) -> Result<Result<Draft, Refused>, Problem> {
    match plain(&frame) {
        Some((text, id)) => Ok(message_of(text, id, limits)),
        None => Ok(post(decode(frame)?, limits, poster)),
    }
}

/// Its text and its id. `None` if it is another frame, or none that is right.
fn plain(frame: &[u8]) -> Option<(&str, &str)> {
    let mut rest = frame.strip_prefix(&[SEND])?;
    if decode_varint(&mut rest).ok()? != rest.len() as u64 {
        return None;
    }
    let (mut text, mut id) = ("", "");
    while let Some((tag, mut behind)) = rest.split_first() {
        let len = usize::try_from(decode_varint(&mut behind).ok()?).ok()?;
        let value;
        (value, rest) = behind.split_at_checked(len)?;
        match *tag {
            TEXT => text = str::from_utf8(value).ok()?,
            CLIENT_MESSAGE_ID => id = str::from_utf8(value).ok()?,
            _ => return None,
        }
    }
    Some((text, id))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        proto::{ConnectChatRequest, Post},
        testing::for_seeds,
    };

    fn frame(text: &str, id: &str) -> ConnectChatRequest {
        ConnectChatRequest {
            send: Some(Post {
                text: text.into(),
                client_message_id: id.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_plain_post_is_read_in_place() {
        for (text, id) in [("hällo", "k"), ("", ""), ("x", ""), (&"y".repeat(300), "z")] {
            let encoded = frame(text, id).encode_to_vec();
            assert_eq!(plain(&encoded), Some((text, id)));
        }
        for other in [
            ConnectChatRequest::default(),
            ConnectChatRequest {
                entries: true,
                ..frame("x", "")
            },
            ConnectChatRequest {
                send: Some(Post {
                    text: "x".into(),
                    reply_to: 1,
                    ..Default::default()
                }),
                ..Default::default()
            },
        ] {
            assert_eq!(plain(&other.encode_to_vec()), None);
        }
    }

    /// Whatever the bytes, what is read in place is what a decoder reads.
    #[test]
    fn fuzz_a_frame_read_in_place_says_what_it_says() {
        let (mut in_place, mut elsewhere) = (0, 0);
        for_seeds(20_000, |rng| {
            let text = ["", "a", "hällo", "\u{1f980}\0"][rng.usize(..4)];
            let mut bytes = frame(text, ["", "k"][rng.usize(..2)]).encode_to_vec();
            if rng.bool() {
                // A second one of the same field, or of another.
                bytes.extend(frame("b", "c").encode_to_vec());
            }
            for _ in 0..rng.usize(..3) {
                if !bytes.is_empty() {
                    let at = rng.usize(..bytes.len());
                    bytes[at] =
                        [bytes[at] ^ 1, rng.u8(..), 0, TEXT, CLIENT_MESSAGE_ID][rng.usize(..5)];
                }
            }
            let Some((text, id)) = plain(&bytes) else {
                elsewhere += 1;
                return;
            };
            in_place += 1;
            let decoded = ConnectChatRequest::decode(&bytes[..]).expect("it can be read");
            assert_eq!(decoded, frame(text, id));
        });
        if std::env::var("CHAT_TEST_SEED").is_err() {
            assert!(
                in_place > 1_000 && elsewhere > 1_000,
                "{in_place} {elsewhere}"
            );
        }
    }
}
