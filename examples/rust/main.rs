//! A chat client to copy: it posts the lines of standard input and prints what
//! the chat says, across every loss of the connection, without a gap or a
//! duplicate.
//!
//! ```sh
//! cargo run --example client -- http://127.0.0.1:8083 CHAT TOKEN [AFTER_SEQ]
//! ```
//!
//! In a package of its own it needs `prost`, `prost-types`, `tonic`,
//! `tonic-prost` and `tokio`, and a `build.rs` with
//! `tonic_prost_build::compile_protos("proto/chat_v1/chat.proto")`.

use std::{
    collections::VecDeque,
    env,
    io::{self, BufRead as _},
    process, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chat_v1::{ConnectChatRequest, Message, Post, chat_v1_client::ChatV1Client};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status};

mod chat_v1 {
    #![allow(clippy::all, clippy::pedantic)]
    tonic::include_proto!("chat_v1");
}

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// Posts on their way at a time; more lines wait to be read.
const MOST_UNSENT: usize = 32;

/// Trying again would not help.
const FINAL: [Code; 5] = [
    Code::Unauthenticated,
    Code::PermissionDenied,
    Code::NotFound,
    Code::InvalidArgument,
    Code::OutOfRange,
];

struct Client {
    address: String,
    chat: String,
    token: String,
    /// The newest message that was printed: where to go on.
    last_seq: i64,
    /// What has not come back yet, in the order in which it was typed.
    unsent: VecDeque<Post>,
    lines: mpsc::Receiver<String>,
    input_ended: bool,
    /// Makes ids that no other run has made.
    ids: String,
    count: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address, chat, token, rest @ ..] = args.as_slice() else {
        eprintln!("usage: http://HOST:PORT CHAT TOKEN [AFTER_SEQ]");
        process::exit(2);
    };
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut client = Client {
        address: address.clone(),
        chat: chat.clone(),
        token: token.clone(),
        last_seq: rest.first().and_then(|seq| seq.parse().ok()).unwrap_or(0),
        unsent: VecDeque::new(),
        lines: read_lines(),
        input_ended: false,
        ids: format!("{:x}-{:x}", started.as_nanos(), process::id()),
        count: 0,
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let before = client.last_seq;
        match client.session().await {
            Ok(()) => return,
            Err(status) if FINAL.contains(&status.code()) => {
                eprintln!("{:?}: {}", status.code(), status.message());
                process::exit(1);
            }
            Err(status) => eprintln!("reconnecting: {}", status.message()),
        }
        if client.last_seq > before {
            pause = FIRST_PAUSE;
        }
        // Of random length, so that clients do not come back all at once.
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = LONG_PAUSE.min(2 * pause);
    }
}

impl Client {
    /// One connection, from the join to its end; `Ok` when all is said.
    async fn session(&mut self) -> Result<(), Status> {
        let connected = ChatV1Client::connect(self.address.clone()).await;
        let mut chats = connected.map_err(|error| Status::unavailable(error.to_string()))?;
        let (frames, mut queue) = mpsc::channel(MOST_UNSENT + 1);
        // Resume behind what was seen, then post again what has not come back.
        // A failed send shows as the error that the other half gives.
        let join = ConnectChatRequest {
            chat_id: self.chat.clone(),
            after_seq: Some(self.last_seq),
            ..Default::default()
        };
        _ = frames.send(join).await;
        for again in &self.unsent {
            _ = frames.send(post(again)).await;
        }
        let requests = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
        let mut request = Request::new(requests);
        let token = format!("Bearer {}", self.token).parse();
        let token = token.map_err(|_| Status::unauthenticated("not a token"))?;
        request.metadata_mut().insert("authorization", token);
        let mut stream = chats.connect_chat(request).await?.into_inner();
        while !(self.input_ended && self.unsent.is_empty()) {
            let room = !self.input_ended && self.unsent.len() < MOST_UNSENT;
            tokio::select! {
                frame = stream.message() => {
                    let ended = || Status::unavailable("the stream has ended");
                    self.take(frame?.ok_or_else(ended)?, &frames).await;
                }
                line = self.lines.recv(), if room => match line {
                    Some(text) => {
                        self.count += 1;
                        let client_message_id = format!("{}-{}", self.ids, self.count);
                        self.unsent.push_back(Post { text, client_message_id, ..Default::default() });
                        _ = frames.send(post(&self.unsent[self.unsent.len() - 1])).await;
                    }
                    None => self.input_ended = true,
                },
            }
        }
        Ok(())
    }

    async fn take(&mut self, frame: Message, frames: &mpsc::Sender<ConnectChatRequest>) {
        let id = frame.client_message_id;
        let Some(rejected) = frame.rejected else {
            if frame.seq > self.last_seq {
                self.last_seq = frame.seq;
                println!("{} {}: {}", frame.seq, frame.from, frame.text);
                self.done(&id);
            }
            return;
        };
        if rejected.code == Code::AlreadyExists as i32 {
            // Stored by an earlier attempt.
            self.done(&id);
        } else if let Some(delay) = rejected.retry_delay {
            tokio::time::sleep(delay.try_into().unwrap_or(FIRST_PAUSE)).await;
            if let Some(again) = self.unsent.iter().find(|post| post.client_message_id == id) {
                _ = frames.send(post(again)).await;
            }
        } else {
            eprintln!("rejected: {}: {}", rejected.reason, rejected.message);
            self.done(&id);
        }
    }

    /// Forgets a post that needs no more sending.
    fn done(&mut self, id: &str) {
        self.unsent.retain(|post| post.client_message_id != id);
    }
}

fn post(post: &Post) -> ConnectChatRequest {
    ConnectChatRequest {
        send: Some(post.clone()),
        ..Default::default()
    }
}

fn read_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
