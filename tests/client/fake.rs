//! A server of one chat that fails in the ways the tests need.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use chat_service::proto::{
    self, AddMembersRequest, AddMembersResponse, ConnectChatRequest, CreateRequest, CreateResponse,
    DeleteMessageRequest, DeleteMessageResponse, DeleteRequest, EditMessageRequest,
    EditMessageResponse, GetRequest, GetResponse, ListChatsRequest, ListChatsResponse,
    ListMessagesRequest, ListMessagesResponse, Message, Post, ReactRequest, ReactResponse,
    Rejected, RemoveMembersRequest, RemoveMembersResponse, SendMessageRequest, SendMessageResponse,
    chat_v1_server::{ChatV1, ChatV1Server},
};
use futures_util::{Stream, stream};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Code, Request, Response, Status, Streaming};

const CHAT: i64 = 7;
/// A chat in which nobody is a member.
const FOREIGN: i64 = 8;
/// Among so many of the newest messages a repeated id is told apart.
const WINDOW: usize = 4;

#[derive(Default)]
pub struct State {
    pub stored: Vec<Message>,
    /// `after_seq` of each join.
    pub joins: Vec<i64>,
    refused_once: bool,
    pub sends: Vec<String>,
}

impl State {
    fn store(&mut self, post: &Post) -> Message {
        let message = Message {
            from: "bob".into(),
            text: post.text.clone(),
            seq: self.stored.len() as i64 + 1,
            chat_id: CHAT,
            client_message_id: post.client_message_id.clone(),
            ..Default::default()
        };
        self.stored.push(message.clone());
        message
    }

    /// What the server does about a post on its `nth` stream.
    fn answer(&mut self, nth: usize, post: &Post) -> Vec<Result<Message, Status>> {
        let id = &post.client_message_id;
        let reject = |code: Code, seq| {
            Ok(Message {
                client_message_id: id.clone(),
                rejected: Some(Rejected {
                    code: code.into(),
                    reason: "A_REASON".into(),
                    message: "why\u{7}".into(),
                    retry_delay: (code == Code::ResourceExhausted).then(|| {
                        prost_types::Duration::try_from(Duration::from_millis(50)).unwrap()
                    }),
                    seq,
                }),
                ..Default::default()
            })
        };
        let mut newest = self.stored.iter().rev().take(WINDOW);
        let known = newest.find(|m| m.client_message_id == *id);
        if let Some(message) = known {
            return vec![reject(Code::AlreadyExists, message.seq)];
        }
        match post.text.as_str() {
            "bad" => vec![reject(Code::InvalidArgument, 0)],
            // Stored, and the stream is lost before the answer.
            "two" if nth == 1 => {
                self.store(post);
                vec![Err(Status::unavailable("going away"))]
            }
            // The same, and it is far down when the client is back.
            "late" if nth == 1 => {
                self.store(post);
                for _ in 0..2 * WINDOW {
                    self.store(&Post::default());
                }
                vec![Err(Status::unavailable("going away"))]
            }
            "three" if !self.refused_once => {
                self.refused_once = true;
                vec![reject(Code::ResourceExhausted, 0)]
            }
            _ => vec![Ok(self.store(post))],
        }
    }
}

#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<State>>);

impl Fake {
    pub fn with_messages(count: i64) -> Self {
        let fake = Self::default();
        for n in 1..=count {
            let text = format!("m{n}");
            let client_message_id = String::new();
            fake.0.lock().unwrap().store(&Post {
                text,
                client_message_id,
                ..Default::default()
            });
        }
        fake
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

#[tonic::async_trait]
impl ChatV1 for Fake {
    type ConnectChatStream = Frames;

    async fn connect_chat(
        &self,
        request: Request<Streaming<ConnectChatRequest>>,
    ) -> Result<Response<Frames>, Status> {
        let mut posts = request.into_inner();
        let join = posts.message().await?.expect("a join");
        assert_eq!(join.chat_id, CHAT.to_string());
        let after = join.after_seq.expect("the client always says where it is");
        let (nth, backlog) = {
            let mut state = self.0.lock().unwrap();
            state.joins.push(after);
            let behind = state.stored.iter().filter(|m| m.seq > after).cloned();
            // As on another user's stream: the post has to be acknowledged by
            // its rejection as a duplicate, unless it is too late for that.
            let newest = state.stored.len().saturating_sub(WINDOW) as i64;
            let foreign = behind.map(|mut m| {
                if m.seq > newest {
                    m.client_message_id.clear();
                }
                Ok(m)
            });
            (state.joins.len(), foreign.collect::<VecDeque<_>>())
        };
        let frames = stream::unfold(
            (self.clone(), posts, backlog),
            move |(fake, mut posts, mut queue)| async move {
                while queue.is_empty() {
                    match posts.message().await {
                        Ok(Some(frame)) => {
                            let post = frame.send.expect("a post");
                            queue.extend(fake.0.lock().unwrap().answer(nth, &post));
                        }
                        _ => std::future::pending().await,
                    }
                }
                let frame = queue.pop_front()?;
                Some((frame, (fake, posts, queue)))
            },
        );
        Ok(Response::new(Box::pin(frames)))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        if request.into_inner().id == FOREIGN {
            return Err(Status::permission_denied("not a member\nof it"));
        }
        let chat = proto::Chat {
            id: CHAT,
            last_seq: self.0.lock().unwrap().stored.len() as i64,
            ..Default::default()
        };
        Ok(Response::new(GetResponse { chat: Some(chat) }))
    }

    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let token = request.metadata().get("authorization").expect("a token");
        assert_eq!(token.as_encoded_bytes(), "Bearer Zoë".as_bytes());
        let info = request.into_inner().info.expect("info");
        assert_eq!(info.usernames, ["bob", "carol"]);
        Ok(Response::new(CreateResponse { id: CHAT }))
    }

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        state.sends.push(request.into_inner().client_message_id);
        if state.sends.len() == 1 {
            return Err(Status::unavailable("once"));
        }
        Ok(Response::new(SendMessageResponse {
            seq: 42,
            ..Default::default()
        }))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let request = request.into_inner();
        if request.chat_id == FOREIGN {
            return Err(Status::permission_denied("not a member\nof it"));
        }
        let size = request.page_size as usize;
        let stored = &self.0.lock().unwrap().stored;
        let end = request
            .before_seq
            .map_or(stored.len(), |seq| seq as usize - 1);
        let range = match request.after_seq {
            Some(seq) => seq as usize..(seq as usize + size).min(stored.len()),
            None => end.saturating_sub(size)..end,
        };
        let has_more = match request.after_seq {
            Some(_) => range.end < stored.len(),
            None => range.start > 0,
        };
        let messages = stored[range].to_vec();
        Ok(Response::new(ListMessagesResponse { messages, has_more }))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_chats(
        &self,
        _: Request<ListChatsRequest>,
    ) -> Result<Response<ListChatsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn add_members(
        &self,
        _: Request<AddMembersRequest>,
    ) -> Result<Response<AddMembersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove_members(
        &self,
        _: Request<RemoveMembersRequest>,
    ) -> Result<Response<RemoveMembersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn edit_message(
        &self,
        _: Request<EditMessageRequest>,
    ) -> Result<Response<EditMessageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_message(
        &self,
        _: Request<DeleteMessageRequest>,
    ) -> Result<Response<DeleteMessageResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn react(&self, _: Request<ReactRequest>) -> Result<Response<ReactResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Serves `fake` until the set is dropped.
pub async fn start(fake: Fake) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let service = TowerToHyperService::new(ChatV1Server::new(fake.clone()));
            connections.spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    (addr, tasks)
}
