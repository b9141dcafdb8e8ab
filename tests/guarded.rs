//! What the tests of tokens, TLS and limits have in common: a server in this
//! process, tokens, clients, and all that was logged meanwhile.

pub mod keys;
pub mod peer;

use std::{
    io,
    sync::{Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use chat_service::{
    app::App,
    config,
    proto::{
        ChatInfo, ConnectChatRequest, CreateRequest, Message, Post, SendMessageRequest,
        chat_v1_client::ChatV1Client,
    },
};
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

pub type Client = ChatV1Client<Channel>;

/// A server with its messages in memory, on any port.
pub async fn start(flags: &[&str]) -> App {
    capture_logs();
    let own = ["--store", "memory", "--grpc-port", "0", "--cores", "2"];
    let flags = [&own[..], flags].concat();
    App::start(config::serve_from(&flags).unwrap())
        .await
        .unwrap()
}

pub async fn stop(app: App) {
    app.drain(Duration::from_secs(10)).await;
}

pub fn client(app: &App) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", app.address())).unwrap();
    ChatV1Client::new(endpoint.connect_lazy())
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

pub async fn create(client: &Client, token: &str, with: &[&str]) -> Result<i64, Status> {
    let usernames = with.iter().map(|name| (*name).to_owned()).collect();
    let info = Some(ChatInfo { usernames });
    let request = with_token(CreateRequest { info }, token);
    Ok(client.clone().create(request).await?.into_inner().id)
}

pub async fn send(client: &Client, token: &str, chat_id: i64, text: &str) -> Result<i64, Status> {
    let message = Some(Message {
        text: text.into(),
        ..Default::default()
    });
    let request = SendMessageRequest {
        chat_id,
        message,
        ..Default::default()
    };
    let mut client = client.clone();
    let answer = client.send_message(with_token(request, token));
    Ok(answer.await?.into_inner().seq)
}

/// A stream, and where to post to it.
pub struct Connected {
    pub posts: mpsc::Sender<ConnectChatRequest>,
    pub messages: Streaming<Message>,
}

impl Connected {
    pub async fn post(&self, text: &str) {
        assert!(self.try_post(text).await, "the stream takes posts");
    }

    pub async fn try_post(&self, text: &str) -> bool {
        let post = ConnectChatRequest {
            send: Some(Post {
                text: text.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.posts.send(post).await.is_ok()
    }

    /// Why the stream ends, at most ten seconds from now.
    pub async fn end(&mut self) -> Status {
        let end = async {
            loop {
                match self.messages.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), end)
            .await
            .expect("the stream ends")
    }
}

pub async fn connect(client: &Client, token: &str, chat: i64) -> Result<Connected, Status> {
    let (posts, queue) = mpsc::channel(16);
    let join = ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq: Some(0),
        ..Default::default()
    };
    posts.send(join).await.unwrap();
    let frames = stream::unfold(queue, |mut queue| async move {
        queue.recv().await.map(|frame| (frame, queue))
    });
    let mut client = client.clone();
    let answer = client.connect_chat(with_token(frames, token));
    let messages = answer.await?.into_inner();
    Ok(Connected { posts, messages })
}

/// The code and the stable reason of an answer.
pub fn outcome<T>(answer: &Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), reason(status)),
    }
}

pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(String::new, |info| info.reason)
}

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn logged() -> MutexGuard<'static, Vec<u8>> {
    LOGGED.lock().unwrap()
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        logged().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps all that servers in this process log, as `-l trace` would.
fn capture_logs() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = "chat_service=trace,warn";
        let log = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(|| Log);
        // Another test may have begun a log of its own.
        _ = log.try_init();
    });
}

/// No part of a token that is worth something was logged. To be called last.
pub fn assert_unlogged(tokens: &[&str]) {
    let logged = String::from_utf8_lossy(&logged()).into_owned();
    for token in tokens {
        for part in token.split('.').filter(|part| part.len() >= 16) {
            assert!(!logged.contains(part), "a token is in the log");
        }
    }
}
