//! The requests that scenarios send, and how chats come to be.

use std::{net::SocketAddr, time::Instant};

use chat_service::proto;

use crate::{
    Result,
    pace::stamp,
    wire::{Conn, Deframer, Event, frame},
};

pub const SEND: &str = "/chat_v1.ChatV1/SendMessage";
pub const CONNECT: &str = "/chat_v1.ChatV1/ConnectChat";
const CREATE: &str = "/chat_v1.ChatV1/Create";
pub const LIST: &str = "/chat_v1.ChatV1/ListMessages";
const ADD: &str = "/chat_v1.ChatV1/AddMembers";

/// Who makes the chats and posts to them.
pub const POSTER: &str = "poster";

/// Digits of a stamp at the beginning of a text.
const STAMP: usize = 20;

/// Digits of a post's id.
const ID: usize = 12;

/// Calls of the setting up that are under way at a time.
const PARALLEL: usize = 256;

/// Names that one request may carry without waiting for flow control.
const NAMES: usize = 1_000;

/// A text of `len` bytes that tells when it was to be sent.
pub fn text(at: Instant, len: usize) -> String {
    let mut text = format!("{:0STAMP$}", stamp(at));
    while text.len() < len {
        text.push((b'a' + (text.len() % 26) as u8) as char);
    }
    text.truncate(len.max(STAMP));
    text
}

/// A refusal comes in a `Message` too, but names no sender, its first field.
pub fn is_refusal(message: &[u8]) -> bool {
    message.first().is_some_and(|tag| *tag != 0x0a)
}

/// The stamp in a `Message` as it begins on the wire: its sender, its text. None
/// if it is cut before that.
pub fn stamp_of(message: &[u8]) -> Option<u64> {
    let (&[0x0a, from], rest) = message.split_first_chunk::<2>()? else {
        return None;
    };
    let rest = rest.get(usize::from(from)..)?;
    let (&0x12, rest) = rest.split_first()? else {
        return None;
    };
    let length = rest.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let digits = rest.get(length..length + STAMP)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub fn send(chat: i64, text: String, id: String) -> Vec<u8> {
    frame(&proto::SendMessageRequest {
        chat_id: chat,
        message: Some(proto::Message {
            text,
            ..Default::default()
        }),
        client_message_id: id,
    })
}

pub fn join(chat: i64, after_seq: Option<i64>) -> Vec<u8> {
    frame(&proto::ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq,
        ..Default::default()
    })
}

/// The posts of a stream: each is the last one, with its own stamp and id
/// written over those.
pub struct Posts {
    frame: Vec<u8>,
    stamp: usize,
    id: usize,
}

impl Posts {
    /// Of texts of `len` bytes.
    pub fn new(len: usize) -> Self {
        let (stamp, id) = ("S".repeat(STAMP), "I".repeat(ID));
        let mut text = text(Instant::now(), len);
        text.replace_range(..STAMP, &stamp);
        let frame = post(text, id.clone());
        let find = |digits: &str| {
            let mut windows = frame.windows(digits.len());
            windows.position(|window| window == digits.as_bytes())
        };
        let (stamp, id) = (find(&stamp), find(&id));
        Self {
            frame,
            stamp: stamp.unwrap_or_default(),
            id: id.unwrap_or_default(),
        }
    }

    /// The stream's post of this number, intended for that time.
    pub fn post(&mut self, number: u64, at: Instant) -> &[u8] {
        put_digits(&mut self.frame[self.stamp..][..STAMP], stamp(at));
        put_digits(&mut self.frame[self.id..][..ID], number);
        &self.frame
    }
}

/// In decimal, with zeros before.
fn put_digits(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

pub fn post(text: String, id: String) -> Vec<u8> {
    frame(&proto::ConnectChatRequest {
        send: Some(proto::Post {
            text,
            client_message_id: id,
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// Makes as many chats as there are lists of members.
pub async fn create_chats(address: SocketAddr, members: &[Vec<String>]) -> Result<Vec<i64>> {
    let mut conn = Conn::open(address).await?;
    let first = |names: &Vec<String>| names.iter().take(NAMES).cloned().collect();
    let creates = members.iter().map(|names| {
        frame(&proto::CreateRequest {
            info: Some(proto::ChatInfo {
                usernames: first(names),
            }),
            ..Default::default()
        })
    });
    let answers = call_all(&mut conn, CREATE, creates.collect()).await?;
    let mut chats = Vec::with_capacity(members.len());
    for answer in answers {
        let created: proto::CreateResponse = prost::Message::decode(&answer[..])?;
        chats.push(created.id);
    }
    let adds = members.iter().zip(&chats).flat_map(|(names, chat)| {
        let rest = names.get(NAMES..).unwrap_or_default();
        rest.chunks(NAMES).map(|names| {
            frame(&proto::AddMembersRequest {
                chat_id: *chat,
                usernames: names.into(),
            })
        })
    });
    for add in adds {
        call_all(&mut conn, ADD, vec![add]).await?;
    }
    Ok(chats)
}

/// The newest seq of each chat.
pub async fn last_seqs(address: SocketAddr, chats: &[i64]) -> Result<Vec<i64>> {
    let mut conn = Conn::open(address).await?;
    let newest = chats.iter().map(|chat| {
        frame(&proto::ListMessagesRequest {
            chat_id: *chat,
            page_size: 1,
            ..Default::default()
        })
    });
    let mut seqs = Vec::with_capacity(chats.len());
    for answer in call_all(&mut conn, LIST, newest.collect()).await? {
        let page: proto::ListMessagesResponse = prost::Message::decode(&answer[..])?;
        seqs.push(page.messages.first().map_or(0, |message| message.seq));
    }
    Ok(seqs)
}

/// Makes the calls, and returns their answers in the same order.
async fn call_all(conn: &mut Conn, path: &str, calls: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let mut answers: Vec<Option<Vec<u8>>> = vec![None; calls.len()];
    let mut streams = std::collections::HashMap::new();
    let mut calls = calls.iter().enumerate().peekable();
    let mut failed = false;
    while calls.peek().is_some() || !streams.is_empty() {
        while streams.len() < PARALLEL
            && let Some((at, call)) = calls.peek()
            && let Some(stream) = conn.call(path, POSTER, call, true)
        {
            streams.insert(stream, *at);
            calls.next();
        }
        conn.step(|event| match event {
            Event::Data(stream, data) => {
                // An answer without a message in it would have no prefix.
                let mut deframer = Deframer::default();
                if let Some(at) = streams.get(&stream) {
                    deframer.add(data, |message| answers[*at] = Some(message.into()));
                }
            }
            Event::End(stream) => {
                let at = streams.remove(&stream);
                failed |= at.is_some_and(|at| answers[at].is_none());
            }
        })
        .await?;
        if failed {
            return Err(format!("{path} fails").into());
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_written_over_the_last_one() {
        let at = Instant::now();
        let mut posts = Posts::new(100);
        for number in [7, 123_456] {
            let expected = post(text(at, 100), format!("{number:012}"));
            assert_eq!(posts.post(number, at), expected);
        }
    }
}
