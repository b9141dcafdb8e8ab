use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use chat_service::proto;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, rt::Executor as _};
use prost::Message as _;

use super::serve::{Here, serve};
use crate::{Result, wire};

/// Messages that a chat keeps.
const RING: usize = 1_024;
/// Bytes of several messages put together into one DATA frame.
const CHUNK: usize = 16 * 1024;

/// Speaks ConnectChat without any of its promises: a post is framed once and
/// put where all the chat's readers find it. Nothing is checked, kept or
/// acknowledged, so this is what the transport itself costs.
pub fn run() -> Result<()> {
    let chats = Arc::<Mutex<HashMap<String, Arc<Chat>>>>::default();
    serve(move |request: Request<Incoming>| {
        let chats = chats.clone();
        async move {
            let mut posts = Posts::new(request.into_body());
            let join = posts.next().await.unwrap_or_default();
            let chat = lock(&chats).entry(join.chat_id).or_default().clone();
            let cursor = match join.after_seq {
                Some(after) => after as u64,
                None => lock(&chat.0).last,
            };
            if !posts.body.is_end_stream() {
                let chat = chat.clone();
                Here.execute(async move {
                    while let Some(post) = posts.next().await {
                        chat.publish(post.send.unwrap_or_default());
                    }
                });
            }
            let mut response = Response::new(Reader { chat, cursor });
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(CONTENT_TYPE, grpc);
            response
        }
    })
}

#[derive(Default)]
struct Chat(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    frames: VecDeque<Bytes>,
    last: u64,
    waiting: Vec<Waker>,
    /// What the last reader of several messages got: behind which, up to which.
    shared: Option<(u64, u64, Bytes)>,
}

impl Chat {
    fn publish(&self, post: proto::Post) {
        let mut ring = lock(&self.0);
        ring.last += 1;
        let frame = wire::frame(&proto::Message {
            from: crate::posts::POSTER.into(),
            text: post.text,
            created_at: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 123_456_000,
            }),
            seq: ring.last as i64,
            chat_id: 1,
            ..Default::default()
        });
        ring.frames.push_back(frame.into());
        if ring.frames.len() > RING {
            ring.frames.pop_front();
        }
        let waiting = std::mem::take(&mut ring.waiting);
        drop(ring);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Ring {
    /// The messages behind `after`, and up to which. What has fallen off is
    /// left out: this server promises nothing.
    fn read(&mut self, after: u64) -> (u64, Bytes) {
        let first = self.last + 1 - self.frames.len() as u64;
        let after = after.max(first - 1);
        let frames = self.frames.range((after + 1 - first) as usize..);
        let mut len = 0;
        let fitting = frames.clone().take_while(|frame| {
            len += frame.len();
            len <= CHUNK
        });
        let count = fitting.count().max(1);
        let through = after + count as u64;
        let mut frames = frames.take(count);
        if count == 1 {
            return (through, frames.next().cloned().unwrap_or_default());
        }
        match &self.shared {
            Some((a, t, bytes)) if (*a, *t) == (after, through) => (through, bytes.clone()),
            _ => {
                let bytes: Vec<u8> = frames.flatten().copied().collect();
                let bytes = Bytes::from(bytes);
                self.shared = Some((after, through, bytes.clone()));
                (through, bytes)
            }
        }
    }
}

struct Reader {
    chat: Arc<Chat>,
    cursor: u64,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut ring = lock(&self.chat.0);
        if ring.last == self.cursor {
            ring.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        let (cursor, bytes) = ring.read(self.cursor);
        drop(ring);
        self.cursor = cursor;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// The frames of a request.
struct Posts {
    body: Incoming,
    rest: Vec<u8>,
}

impl Posts {
    fn new(body: Incoming) -> Self {
        let rest = Vec::new();
        Self { body, rest }
    }

    async fn next(&mut self) -> Option<proto::ConnectChatRequest> {
        use hyper::body::Body as _;
        loop {
            if let Some(&[_, a, b, c, d]) = self.rest.first_chunk::<5>()
                && let end = 5 + u32::from_be_bytes([a, b, c, d]) as usize
                && end <= self.rest.len()
            {
                let message = proto::ConnectChatRequest::decode(&self.rest[5..end]);
                self.rest.drain(..end);
                return message.ok();
            }
            if self.body.is_end_stream() {
                return None;
            }
            let data = self.body.frame().await?.ok()?.into_data().ok()?;
            self.rest.extend_from_slice(&data);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
