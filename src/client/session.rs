//! `chatd connect`: one chat, read and written over as many streams as it
//! takes. Each new stream resumes behind the last message that was printed and
//! posts again what has not come back.

use std::time::{Duration, Instant};

use backon::ExponentialBackoff;
use futures_util::stream;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Split, Stdin},
    sync::mpsc,
};
use tonic::{Code, Status, Streaming};

use super::{ClientError, Peer, asked_pause, backoff, cause, is_final, outbox, print};
use crate::{config::ConnectConfig, proto};

/// A stream that held this long was a success: the next loss starts again with
/// the shortest pause.
const STEADY: Duration = Duration::from_secs(10);

/// A stream that held this long had a token that was good.
const RENEWABLE: Duration = Duration::from_secs(1);

struct Session {
    peer: Peer,
    chat: i64,
    /// The seq of the last message that was printed; until there is one, where
    /// reading began.
    last: i64,
    outbox: outbox::Outbox,
    stdin: Option<Split<BufReader<Stdin>>>,
    exit_on_eof: bool,
}

/// Why a stream ended.
enum End {
    /// Everything that was asked for is done.
    Done,
    Lost(Status),
}

pub(super) async fn run(config: ConnectConfig) -> Result<(), ClientError> {
    let mut peer = Peer::new(&config.peer).await?;
    let mut pauses = backoff();
    let last = match config.after_seq {
        Some(seq) => seq,
        None => newest_seq(&mut peer, config.chat, &mut pauses).await?,
    };
    let mut session = Session {
        peer,
        chat: config.chat,
        last,
        outbox: outbox::Outbox::default(),
        stdin: Some(BufReader::new(tokio::io::stdin()).split(b'\n')),
        exit_on_eof: config.exit_on_eof,
    };
    loop {
        let (began, last) = (Instant::now(), session.last);
        session.peer.renew(false).await?;
        let status = match session.stream().await? {
            End::Done => return Ok(()),
            End::Lost(status) => status,
        };
        if began.elapsed() >= STEADY || session.last > last {
            pauses = backoff();
        }
        // A token that has expired is no end if there is another to be had; one
        // that is refused at once is.
        let expired = status.code() == Code::Unauthenticated && began.elapsed() >= RENEWABLE;
        if expired && session.peer.renew(true).await? {
            continue;
        }
        pause_after(&status, &mut pauses).await?;
    }
}

/// "From now on" has to be a seq: a stream that is lost before its first
/// message could not be resumed otherwise.
async fn newest_seq(
    peer: &mut Peer,
    chat: i64,
    pauses: &mut ExponentialBackoff,
) -> Result<i64, ClientError> {
    loop {
        let request = peer.request(proto::GetRequest { id: chat });
        match peer.client.get(request).await {
            Ok(reply) => {
                let chat = reply.into_inner().chat;
                let chat = chat.ok_or(ClientError::Answer("Get without a chat"))?;
                return Ok(chat.last_seq);
            }
            Err(status) => pause_after(&status, pauses).await?,
        }
    }
}

/// Says what happened and waits, unless trying again cannot help.
async fn pause_after(status: &Status, pauses: &mut ExponentialBackoff) -> Result<(), ClientError> {
    if is_final(status) {
        return Err(status.clone().into());
    }
    let pause = pauses.next().unwrap_or_default().max(asked_pause(status));
    let why = match cause(status) {
        Some(why) => print::escape(&why).into_owned(),
        None => print::status(status),
    };
    print::note(&format!(
        "{why}; trying again in {:.1} s",
        pause.as_secs_f64()
    ));
    tokio::time::sleep(pause).await;
    Ok(())
}

impl Session {
    /// One stream, from its join to its end.
    async fn stream(&mut self) -> Result<End, ClientError> {
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
        self.outbox.reconnected();
        let frames = stream::unfold(queue, |mut queue| async move {
            queue.recv().await.map(|frame| (frame, queue))
        });
        let request = self.peer.stream_request(frames);
        let mut replies = match self.peer.client.connect_chat(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => return Ok(End::Lost(status)),
        };
        self.converse(&posts, &mut replies).await
    }

    async fn converse(
        &mut self,
        posts: &mpsc::Sender<proto::ConnectChatRequest>,
        replies: &mut Streaming<proto::Message>,
    ) -> Result<End, ClientError> {
        loop {
            if let Some(status) = self.post(posts) {
                return Ok(End::Lost(status));
            }
            if self.exit_on_eof && self.stdin.is_none() && self.outbox.is_empty() {
                return Ok(End::Done);
            }
            let read_on = !self.outbox.is_full();
            tokio::select! {
                reply = replies.message() => match reply {
                    Ok(Some(message)) => self.receive(message)?,
                    Ok(None) => {
                        return Ok(End::Lost(Status::unavailable("the server ended the stream")));
                    }
                    Err(status) => return Ok(End::Lost(status)),
                },
                line = next_line(self.stdin.as_mut()), if read_on => self.typed(line?),
                () = sleep_until(self.outbox.wake_at()) => {}
            }
        }
    }

    /// Posts what is to be posted now. Gives back why the stream is useless, if
    /// it is.
    fn post(&mut self, posts: &mpsc::Sender<proto::ConnectChatRequest>) -> Option<Status> {
        while let Some(line) = self.outbox.next(Instant::now()) {
            let frame = proto::ConnectChatRequest {
                send: Some(proto::Post {
                    text: line.text.clone(),
                    client_message_id: line.id.clone(),
                }),
                ..Default::default()
            };
            if posts.try_send(frame).is_err() {
                return Some(Status::unavailable("the server takes no more posts"));
            }
        }
        None
    }

    fn typed(&mut self, line: Option<Vec<u8>>) {
        let Some(line) = line else {
            self.stdin = None;
            return;
        };
        let text = String::from_utf8_lossy(&line);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        if !text.is_empty() {
            self.outbox.push(text.to_owned());
        }
    }

    fn receive(&mut self, message: proto::Message) -> Result<(), ClientError> {
        if let Some(rejected) = &message.rejected {
            self.rejected(&message.client_message_id, rejected);
            return Ok(());
        }
        // A resumed stream begins behind `last`; should a server repeat itself,
        // the reader need not see it.
        if message.seq > self.last {
            print::line(&print::message(&message))?;
            self.last = message.seq;
        }
        if !message.client_message_id.is_empty() {
            self.outbox.done(&message.client_message_id);
        }
        Ok(())
    }

    fn rejected(&mut self, id: &str, rejected: &proto::Rejected) {
        match Code::from_i32(rejected.code) {
            // Stored by an earlier stream: that is the acknowledgement.
            Code::AlreadyExists => {
                self.outbox.done(id);
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
                let text = self.outbox.done(id).map_or_else(String::new, |l| l.text);
                let start: String = text.chars().take(40).collect();
                print::note(&format!(
                    "not posted ({code:?} {}: {}): {}",
                    print::escape(&rejected.reason),
                    print::escape(&rejected.message),
                    print::escape(&start)
                ));
            }
        }
    }
}

/// The next line of standard input; never, once that has ended.
async fn next_line(
    stdin: Option<&mut Split<BufReader<Stdin>>>,
) -> Result<Option<Vec<u8>>, ClientError> {
    match stdin {
        Some(stdin) => Ok(stdin.next_segment().await?),
        None => std::future::pending().await,
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
