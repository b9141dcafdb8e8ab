//! One client's connection to the server, and what it makes of an answer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::proto::{
    AddMembersRequest, ChatInfo, ConnectChatRequest, CreateRequest, GetRequest,
    ListMessagesRequest, ListMessagesResponse, Message, Post, RemoveMembersRequest,
    SendMessageRequest, SendMessageResponse, chat_v1_client::ChatV1Client,
};
use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, rngs::StdRng};
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

/// Where the servers are, and who everybody is there.
#[derive(Debug)]
pub struct Place {
    /// Of each node; all of them serve all chats.
    pub addresses: Vec<SocketAddr>,
    /// By user; a user without one is believed its name.
    pub tokens: HashMap<String, String>,
    pub epoch: Instant,
}

#[derive(Debug, Clone)]
pub struct Peer {
    /// One for each node, which connects when it is first used.
    clients: Vec<ChatV1Client<Channel>>,
    /// The node that is asked.
    at: usize,
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

    /// A client that begins at the node of this number, counted around.
    pub fn peer(self: &Arc<Self>, user: &str, number: usize) -> Peer {
        Peer {
            clients: self.addresses.iter().map(client).collect(),
            at: number % self.addresses.len(),
            user: user.into(),
            place: self.clone(),
        }
    }
}

fn client(address: &SocketAddr) -> ChatV1Client<Channel> {
    // An address is always a URI.
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let channel = endpoint
        .unwrap_or_else(|_| Endpoint::from_static("http://127.0.0.1"))
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy();
    ChatV1Client::new(channel)
}

impl Peer {
    /// Asks another node from now on, if there is one: of the others, the one that
    /// `random` picks.
    pub fn go_elsewhere(&mut self, random: &mut StdRng) {
        let nodes = self.clients.len();
        // With one server, a seed is to give the same numbers as ever.
        if nodes > 1 {
            self.at = (self.at + random.random_range(1..nodes)) % nodes;
        }
    }

    /// The number of the node that is asked.
    pub fn node(&self) -> usize {
        self.at
    }

    fn client(&mut self) -> &mut ChatV1Client<Channel> {
        &mut self.clients[self.at]
    }

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
        let request = self.request(CreateRequest {
            info,
            ..Default::default()
        });
        within(PATIENCE, self.client().create(request))
            .await
            .map(|r| r.id)
    }

    /// Makes the user a member of the chat, or none.
    pub async fn change(&mut self, chat: i64, user: &str, adds: bool) -> Answer<()> {
        let usernames = vec![user.into()];
        if adds {
            let request = self.request(AddMembersRequest {
                chat_id: chat,
                usernames,
            });
            within(PATIENCE, self.client().add_members(request)).await?;
        } else {
            let request = self.request(RemoveMembersRequest {
                chat_id: chat,
                usernames,
            });
            within(PATIENCE, self.client().remove_members(request)).await?;
        }
        Ok(())
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
        within(patience, self.client().send_message(request)).await
    }

    pub async fn page(&mut self, chat: i64, after: i64, size: i32) -> Answer<ListMessagesResponse> {
        let request = self.request(ListMessagesRequest {
            chat_id: chat,
            after_seq: Some(after),
            page_size: size,
            ..Default::default()
        });
        within(PATIENCE, self.client().list_messages(request)).await
    }

    /// The chat's newest seq.
    pub async fn last_seq(&mut self, chat: i64) -> Answer<i64> {
        let request = self.request(GetRequest { id: chat });
        let answer = within(PATIENCE, self.client().get(request)).await?;
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
        let messages = within(PATIENCE, self.client().connect_chat(request)).await?;
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
            ..Default::default()
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
