//! One chat, read and written over as many streams as it takes. Each new stream
//! resumes behind the last message that was handed on, and posts again what has
//! not come back. What is done with it is a [`Front`]'s to say: lines of text
//! (`lines.rs`) or the full screen (`screen.rs`).

use std::time::{Duration, Instant};

use backon::ExponentialBackoff;
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{
    ClientError,
    outbox::{self, Line, Outbox},
    peer::{Peer, asked_pause, backoff, cause, is_final},
    print,
};
use crate::proto;

/// A stream that held this long was a success: the next loss starts again with
/// the shortest pause.
const STEADY: Duration = Duration::from_secs(10);

/// A stream that held this long had a token that was good.
const RENEWABLE: Duration = Duration::from_secs(1);

/// How long the end of a stream that takes no more posts may be in coming: the
/// transport lets go of both directions at once.
const READ_OUT: Duration = Duration::from_secs(1);

const ENDED: &str = "the server ended the stream";

/// Where a session's messages go, and where its lines come from.
pub(super) trait Front {
    /// A stream is open.
    async fn live(&mut self) -> Result<(), ClientError>;

    /// The stream is gone, for what reason; the next one is tried after a pause.
    async fn lost(&mut self, why: String, pause: Duration) -> Result<(), ClientError>;

    /// The chat's next message.
    async fn message(&mut self, message: proto::Message) -> Result<(), ClientError>;

    /// A line turned out to be among the messages that were handed on already.
    async fn stored(&mut self, id: &str) -> Result<(), ClientError>;

    /// The server will never take this line.
    async fn refused(&mut self, line: Line, why: String) -> Result<(), ClientError>;

    /// The next line to post; none, once there are no more. May be dropped while
    /// it waits.
    async fn line(&mut self) -> Result<Option<Line>, ClientError>;
}

pub(super) struct Session {
    peer: Peer,
    chat: i64,
    /// The seq of the last message that was handed on; until there is one, where
    /// reading began.
    last: i64,
    /// Nothing is posted before the reader has got here.
    caught_up: i64,
    outbox: Outbox,
    /// Whether lines may still come.
    open: bool,
    /// End when none come any more and all are stored.
    exit_on_eof: bool,
}

/// Why a stream ended.
enum End {
    /// Everything that was asked for is done.
    Done,
    Lost(Status),
}

impl Session {
    pub(super) fn new(peer: Peer, chat: i64, last: i64, exit_on_eof: bool) -> Self {
        Self {
            peer,
            chat,
            last,
            caught_up: 0,
            outbox: Outbox::default(),
            open: true,
            exit_on_eof,
        }
    }

    /// Goes on behind another message.
    pub(super) fn restart(&mut self, last: i64) {
        self.last = last;
    }

    /// Reads and posts until everything is done.
    pub(super) async fn run(&mut self, front: &mut impl Front) -> Result<(), ClientError> {
        let mut pauses = backoff();
        loop {
            let (began, last) = (Instant::now(), self.last);
            self.peer.renew(false).await?;
            let status = match self.stream(front).await? {
                End::Done => return Ok(()),
                End::Lost(status) => status,
            };
            if began.elapsed() >= STEADY || self.last > last {
                pauses = backoff();
            }
            // A token that has expired is no end if there is another to be had;
            // one that is refused at once is.
            let expired = status.code() == Code::Unauthenticated && began.elapsed() >= RENEWABLE;
            if expired && self.peer.renew(true).await? {
                continue;
            }
            pause_after(&status, &mut pauses, front).await?;
        }
    }

    /// One stream, from its join to its end.
    async fn stream(&mut self, front: &mut impl Front) -> Result<End, ClientError> {
        self.outbox.reconnected();
        if self.outbox.is_uncertain() {
            // The server tells repeated ids apart among the newest messages
            // only. So first read what came meanwhile: a line that was stored is
            // there, and is not posted again.
            match newest_seq(&mut self.peer, self.chat).await {
                Ok(seq) => self.caught_up = seq,
                Err(status) => return Ok(End::Lost(status)),
            }
        }
        // Room for the join and for every line there can be: nothing waits.
        let (posts, queue) = mpsc::channel(1 + outbox::CAPACITY);
        let join = proto::ConnectChatRequest {
            chat_id: self.chat.to_string(),
            after_seq: Some(self.last),
            ..Default::default()
        };
        if posts.try_send(join).is_err() {
            return Ok(End::Lost(Status::internal("the stream's queue is closed")));
        }
        let frames = stream::unfold(queue, |mut queue| async move {
            queue.recv().await.map(|frame| (frame, queue))
        });
        let request = self.peer.stream_request(frames);
        let mut replies = match self.peer.client.connect_chat(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => return Ok(End::Lost(status)),
        };
        front.live().await?;
        self.converse(&posts, &mut replies, front).await
    }

    async fn converse(
        &mut self,
        posts: &mpsc::Sender<proto::ConnectChatRequest>,
        replies: &mut Streaming<proto::Message>,
        front: &mut impl Front,
    ) -> Result<End, ClientError> {
        loop {
            if !self.post(posts) {
                return Ok(End::Lost(self.read_out(replies, front).await?));
            }
            if self.exit_on_eof && !self.open && self.outbox.is_empty() {
                return Ok(End::Done);
            }
            let read_on = self.open && !self.outbox.is_full();
            tokio::select! {
                reply = replies.message() => match reply {
                    Ok(Some(message)) => self.receive(message, front).await?,
                    Ok(None) => {
                        return Ok(End::Lost(Status::unavailable(ENDED)));
                    }
                    Err(status) => return Ok(End::Lost(status)),
                },
                line = front.line(), if read_on => match line? {
                    Some(line) => self.outbox.push(line),
                    None => self.open = false,
                },
                () = sleep_until(self.outbox.wake_at()) => {}
            }
        }
    }

    /// Reads a stream that takes no more posts to its end, which says why.
    async fn read_out(
        &mut self,
        replies: &mut Streaming<proto::Message>,
        front: &mut impl Front,
    ) -> Result<Status, ClientError> {
        let deadline = tokio::time::Instant::now() + READ_OUT;
        loop {
            match tokio::time::timeout_at(deadline, replies.message()).await {
                Ok(Ok(Some(message))) => self.receive(message, front).await?,
                Ok(Ok(None)) => return Ok(Status::unavailable(ENDED)),
                Ok(Err(status)) => return Ok(status),
                Err(_) => return Ok(Status::unavailable("the server takes no more posts")),
            }
        }
    }

    /// Posts what is to be posted now. False if the stream takes no more posts.
    fn post(&mut self, posts: &mpsc::Sender<proto::ConnectChatRequest>) -> bool {
        if self.last < self.caught_up {
            return true;
        }
        while let Some(line) = self.outbox.next(Instant::now()) {
            let frame = proto::ConnectChatRequest {
                send: Some(proto::Post {
                    text: line.text.clone(),
                    client_message_id: line.id.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            if posts.try_send(frame).is_err() {
                return false;
            }
        }
        true
    }

    async fn receive(
        &mut self,
        message: proto::Message,
        front: &mut impl Front,
    ) -> Result<(), ClientError> {
        if let Some(rejected) = &message.rejected {
            return self
                .rejected(&message.client_message_id, rejected, front)
                .await;
        }
        if !message.client_message_id.is_empty() {
            self.outbox.done(&message.client_message_id);
        }
        // A resumed stream begins behind `last`; should a server repeat itself,
        // the reader need not see it.
        if message.seq > self.last {
            self.last = message.seq;
            front.message(message).await?;
        }
        Ok(())
    }

    async fn rejected(
        &mut self,
        id: &str,
        rejected: &proto::Rejected,
        front: &mut impl Front,
    ) -> Result<(), ClientError> {
        match Code::from_i32(rejected.code) {
            // Stored by an earlier stream: that is the acknowledgement.
            Code::AlreadyExists => {
                self.outbox.done(id);
                front.stored(id).await?;
            }
            Code::ResourceExhausted | Code::Unavailable => {
                let asked = rejected
                    .retry_delay
                    .and_then(|d| Duration::try_from(d).ok());
                let asked = asked.unwrap_or_default();
                let now = Instant::now();
                self.outbox.refused(id, asked, now, fastrand::f64());
            }
            code => {
                if let Some(line) = self.outbox.done(id) {
                    let why = format!(
                        "{code:?} {}: {}",
                        print::escape(&rejected.reason),
                        print::escape(&rejected.message)
                    );
                    front.refused(line, why).await?;
                }
            }
        }
        Ok(())
    }
}

/// Says what happened and waits, unless trying again cannot help.
pub(super) async fn pause_after(
    status: &Status,
    pauses: &mut ExponentialBackoff,
    front: &mut impl Front,
) -> Result<(), ClientError> {
    if is_final(status) {
        return Err(status.clone().into());
    }
    let pause = pauses.next().unwrap_or_default().max(asked_pause(status));
    let why = match cause(status) {
        Some(why) => print::escape(&why).into_owned(),
        None => print::status(status),
    };
    front.lost(why, pause).await?;
    tokio::time::sleep(pause).await;
    Ok(())
}

/// The seq of a chat's newest message: behind it there may be entries that a stream of
/// messages does not yield.
pub(super) async fn newest_seq(peer: &mut Peer, chat: i64) -> Result<i64, Status> {
    let request = peer.request(proto::ListMessagesRequest {
        chat_id: chat,
        page_size: 1,
        ..Default::default()
    });
    let page = peer.client.list_messages(request).await?.into_inner();
    Ok(page.messages.last().map_or(0, |message| message.seq))
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
