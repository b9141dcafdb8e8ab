//! One client's connection to the server, and what it makes of an answer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::proto::{
    ChatInfo, ConnectChatRequest, CreateRequest, GetRequest, ListMessagesRequest,
    ListMessagesResponse, Message, Post, SendMessageRequest, SendMessageResponse,
    chat_v1_client::ChatV1Client,
};
use futures_util::{StreamExt as _, stream};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use super::record::Nanos;

/// After this a client gives an answer up: later than the server's own deadline.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that is silent for so long is tried, and for so long given up.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// Posts that wait to be written to a stream.
const POSTS: usize = 16;

/// Where the server is, and who everybody is there.
#[derive(Debug)]
pub struct Place {
    pub address: SocketAddr,
    /// By user; a user without one is believed its name.
    pub tokens: HashMap<String, String>,
    pub epoch: Instant,
}

#[derive(Debug, Clone)]
pub struct Peer {
    client: ChatV1Client<Channel>,
    pub user: String,
    place: Arc<Place>,
}

/// What an answer that is not OK says of what was asked for.
#[derive(Debug)]
pub enum No {
    /// It was not done and will not be.
    Refused,
    /// It may have been done, or be done yet.
    Open,
    /// Not a member, or no such chat.
    NotAMember,
    /// The chat ends with this seq, before what was asked for.
    Ahead(i64),
    /// What this caller must not be told, whatever is broken.
    Wrong(String),
}

pub type Answer<T> = Result<T, No>;

/// The response side of a stream, and where its posts go.
pub struct Stream {
    messages: Streaming<Message>,
    posts: mpsc::Sender<ConnectChatRequest>,
}

impl Place {
    pub fn now(&self) -> Nanos {
        self.epoch.elapsed().as_nanos() as Nanos
    }

    pub fn peer(self: &Arc<Self>, user: &str) -> Peer {
        // An address is always a URI.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let channel = endpoint
            .unwrap_or_else(|_| Endpoint::from_static("http://127.0.0.1"))
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Peer {
            client: ChatV1Client::new(channel),
            user: user.into(),
            place: self.clone(),
        }
    }
}

impl Peer {
    fn request<T>(&self, message: T) -> Request<T> {
        let token = self.place.tokens.get(&self.user).unwrap_or(&self.user);
        let mut request = Request::new(message);
        if let Ok(value) = format!("Bearer {token}").parse() {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    pub async fn create(&mut self, members: &[&str]) -> Answer<i64> {
        let usernames = members.iter().map(|&name| name.into()).collect();
        let info = Some(ChatInfo { usernames });
        let request = self.request(CreateRequest { info });
        within(PATIENCE, self.client.create(request))
            .await
            .map(|r| r.id)
    }

    pub async fn send(
        &mut self,
        chat: i64,
        text: String,
        id: String,
        patience: Option<Duration>,
    ) -> Answer<SendMessageResponse> {
        let message = Message {
            text,
            ..Default::default()
        };
        let request = self.request(SendMessageRequest {
            chat_id: chat,
            message: Some(message),
            client_message_id: id,
        });
        let patience = patience.unwrap_or(PATIENCE);
        within(patience, self.client.send_message(request)).await
    }

    pub async fn page(&mut self, chat: i64, after: i64, size: i32) -> Answer<ListMessagesResponse> {
        let request = self.request(ListMessagesRequest {
            chat_id: chat,
            after_seq: Some(after),
            page_size: size,
            ..Default::default()
        });
        within(PATIENCE, self.client.list_messages(request)).await
    }

    /// The chat's newest seq.
    pub async fn last_seq(&mut self, chat: i64) -> Answer<i64> {
        let request = self.request(GetRequest { id: chat });
        let answer = within(PATIENCE, self.client.get(request)).await?;
        Ok(answer.chat.map_or(0, |chat| chat.last_seq))
    }

    pub async fn join(&mut self, chat: i64, after: Option<i64>) -> Answer<Stream> {
        let (posts, queue) = mpsc::channel(POSTS);
        let join = ConnectChatRequest {
            chat_id: chat.to_string(),
            after_seq: after,
            ..Default::default()
        };
        let frames = stream::iter([join]).chain(ReceiverStream::new(queue));
        let request = self.request(frames);
        let messages = within(PATIENCE, self.client.connect_chat(request)).await?;
        Ok(Stream { messages, posts })
    }
}

impl Stream {
    /// The next message; none ever comes without the server's saying why not.
    pub async fn next(&mut self) -> Answer<Message> {
        match self.messages.message().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(No::Wrong("a stream ended without a status".into())),
            Err(status) => Err(no(&status)),
        }
    }

    /// False if the stream takes no more.
    pub async fn post(&self, text: String, id: String) -> bool {
        let post = Post {
            text,
            client_message_id: id,
        };
        let frame = ConnectChatRequest {
            send: Some(post),
            ..Default::default()
        };
        self.posts.send(frame).await.is_ok()
    }
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Answer<T> {
    match timeout(patience, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(no(&status)),
        Err(_) => Err(No::Open),
    }
}

fn no(status: &Status) -> No {
    let details = status.get_error_details();
    match details.error_info() {
        Some(info) => match info.metadata.get("last_seq").map(|seq| seq.parse()) {
            Some(Ok(last)) if info.reason == "AFTER_SEQ_AHEAD" => No::Ahead(last),
            _ => reason(status.code(), &info.reason),
        },
        // The server always says why: this is of the connection.
        None => No::Open,
    }
}

/// What a reason says, that of a call or that of a post on a stream.
pub fn reason(code: Code, reason: &str) -> No {
    match (code, reason) {
        (_, "OUTCOME_UNKNOWN") => No::Open,
        (_, "NOT_A_MEMBER") => No::NotAMember,
        (Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded, _) => No::Refused,
        (code, reason) => No::Wrong(format!("{code:?} {reason}")),
    }
}
