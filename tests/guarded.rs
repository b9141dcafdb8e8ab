//! What the tests of tokens, TLS and limits have in common: a server in this
//! process, tokens, clients, and that none of it shows a secret.

pub mod keys;
pub mod peer;
pub mod secrets;

use std::time::Duration;

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
    secrets::capture_logs();
    let own = ["--store", "memory", "--grpc-port", "0", "--cores", "2"];
    let flags = [&own[..], flags].concat();
    App::start(config::serve_from(&flags).unwrap())
        .await
        .unwrap()
}

/// The end of every test with a token: nothing may have shown it.
pub async fn stop(app: App) {
    app.drain(Duration::from_secs(10)).await;
    secrets::assert_none_shows();
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
    let request = with_token(
        CreateRequest {
            info,
            ..Default::default()
        },
        token,
    );
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
                    Err(status) => {
                        secrets::produced(&status);
                        return status;
                    }
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
        Err(status) => {
            secrets::produced(status);
            (status.code(), reason(status))
        }
    }
}

pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(String::new, |info| info.reason)
}
