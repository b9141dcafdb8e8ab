//! A user of the service, and what it reads and posts.

use chat_service::proto::{
    AddMembersRequest, Chat, ChatInfo, ConnectChatRequest, CreateRequest, DeleteMessageRequest,
    DeleteRequest, EditMessageRequest, GetRequest, ListChatsRequest, ListChatsResponse,
    ListMessagesRequest, ListMessagesResponse, Message, Post, ReactRequest, ReactResponse,
    RemoveMembersRequest, SendMessageRequest, SendMessageResponse, chat_v1_client::ChatV1Client,
    list_messages_request::View,
};
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::soon;

/// Puts a user's token on every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = self.0.clone();
        request.metadata_mut().insert("authorization", token);
        Ok(request)
    }
}

/// One user on one connection. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub grpc: ChatV1Client<InterceptedService<Channel, Bearer>>,
}

impl Client {
    pub fn new(channel: Channel, user: &str) -> Self {
        let token = format!("Bearer {user}").parse().unwrap();
        Self {
            grpc: ChatV1Client::with_interceptor(channel, Bearer(token)),
        }
    }

    pub async fn create(&self, with: &[&str]) -> i64 {
        self.try_create(with).await.unwrap()
    }

    pub async fn try_create(&self, with: &[&str]) -> Result<i64, Status> {
        let usernames = with.iter().map(|user| (*user).to_owned()).collect();
        let info = Some(ChatInfo { usernames });
        let created = self
            .grpc
            .clone()
            .create(CreateRequest {
                info,
                ..Default::default()
            })
            .await?;
        Ok(created.into_inner().id)
    }

    pub async fn get(&self, id: i64) -> Result<Chat, Status> {
        let found = self.grpc.clone().get(GetRequest { id }).await?;
        Ok(found.into_inner().chat.unwrap())
    }

    pub async fn delete(&self, id: i64) -> Result<(), Status> {
        let deleted = self.grpc.clone().delete(DeleteRequest { id }).await;
        deleted.map(|_| ())
    }

    /// Sends a message, with a client_message_id unless it is empty.
    pub async fn send(
        &self,
        chat: i64,
        text: &str,
        id: &str,
    ) -> Result<SendMessageResponse, Status> {
        let request = SendMessageRequest {
            chat_id: chat,
            message: Some(Message {
                text: text.to_owned(),
                ..Default::default()
            }),
            client_message_id: id.to_owned(),
        };
        let sent = self.grpc.clone().send_message(request).await?;
        Ok(sent.into_inner())
    }

    /// Gives a message another text; the edit's seq.
    pub async fn edit(&self, chat: i64, seq: i64, text: &str) -> Result<i64, Status> {
        let request = EditMessageRequest {
            chat_id: chat,
            seq,
            text: text.to_owned(),
            ..Default::default()
        };
        let edited = self.grpc.clone().edit_message(request).await?;
        Ok(edited.into_inner().seq)
    }

    /// Deletes a message; the deletion's seq.
    pub async fn delete_message(&self, chat: i64, seq: i64) -> Result<i64, Status> {
        let request = DeleteMessageRequest {
            chat_id: chat,
            seq,
            ..Default::default()
        };
        let deleted = self.grpc.clone().delete_message(request).await?;
        Ok(deleted.into_inner().seq)
    }

    /// Reacts to a message, or takes that back if the emoji has a minus before it.
    pub async fn react(&self, chat: i64, seq: i64, emoji: &str) -> Result<ReactResponse, Status> {
        let request = ReactRequest {
            chat_id: chat,
            seq,
            emoji: emoji.trim_start_matches('-').to_owned(),
            remove: emoji.starts_with('-'),
            ..Default::default()
        };
        let reacted = self.grpc.clone().react(request).await?;
        Ok(reacted.into_inner())
    }

    pub async fn page(&self, request: ListMessagesRequest) -> Result<ListMessagesResponse, Status> {
        let page = self.grpc.clone().list_messages(request).await?;
        Ok(page.into_inner())
    }

    /// All messages of a chat as they are now, by ListMessages.
    pub async fn history(&self, chat: i64) -> Vec<Message> {
        self.history_in(chat, View::Current).await
    }

    /// All entries of a chat as they happened.
    pub async fn log(&self, chat: i64) -> Vec<Message> {
        self.history_in(chat, View::Log).await
    }

    async fn history_in(&self, chat: i64, view: View) -> Vec<Message> {
        let mut all: Vec<Message> = Vec::new();
        loop {
            let request = ListMessagesRequest {
                chat_id: chat,
                after_seq: Some(all.last().map_or(0, |message| message.seq)),
                page_size: 1000,
                view: view.into(),
                ..Default::default()
            };
            let page = self.page(request).await.unwrap();
            all.extend(page.messages);
            if !page.has_more {
                return all;
            }
        }
    }

    pub async fn chats(&self, size: i32, token: &str) -> Result<ListChatsResponse, Status> {
        let request = ListChatsRequest {
            page_size: size,
            page_token: token.to_owned(),
            ..Default::default()
        };
        let page = self.grpc.clone().list_chats(request).await?;
        Ok(page.into_inner())
    }

    pub async fn add(&self, chat: i64, users: &[&str]) -> Result<Chat, Status> {
        let request = AddMembersRequest {
            chat_id: chat,
            usernames: users.iter().map(|user| (*user).to_owned()).collect(),
        };
        let added = self.grpc.clone().add_members(request).await?;
        Ok(added.into_inner().chat.unwrap())
    }

    pub async fn remove(&self, chat: i64, users: &[&str]) -> Result<Chat, Status> {
        let request = RemoveMembersRequest {
            chat_id: chat,
            usernames: users.iter().map(|user| (*user).to_owned()).collect(),
        };
        let removed = self.grpc.clone().remove_members(request).await?;
        Ok(removed.into_inner().chat.unwrap())
    }

    /// Reads a chat as clients of old do: one frame, then the half-close.
    pub async fn read(&self, chat: i64, after_seq: Option<i64>) -> Frames {
        let mut grpc = self.grpc.clone();
        let opened = grpc.connect_chat(stream::iter([join(chat, after_seq)]));
        Frames(opened.await.unwrap().into_inner())
    }

    /// Reads a chat on a stream that can also post.
    pub async fn open(&self, chat: i64, after_seq: Option<i64>) -> (Posts, Frames) {
        self.open_with(join(chat, after_seq)).await
    }

    /// Opens a stream with any first frame.
    pub async fn open_with(&self, first: ConnectChatRequest) -> (Posts, Frames) {
        let (posts, mut queue) = mpsc::channel(64);
        posts.try_send(first).unwrap();
        let frames = stream::poll_fn(move |cx| queue.poll_recv(cx));
        let opened = self.grpc.clone().connect_chat(frames).await;
        (posts, Frames(opened.unwrap().into_inner()))
    }
}

/// The request side of a stream; dropping it half-closes.
pub type Posts = mpsc::Sender<ConnectChatRequest>;

/// The first frame of a stream.
pub fn join(chat: i64, after_seq: Option<i64>) -> ConnectChatRequest {
    ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq,
        ..Default::default()
    }
}

/// A later frame of a stream.
pub fn post(text: &str, id: &str) -> ConnectChatRequest {
    ConnectChatRequest {
        send: Some(Post {
            text: text.to_owned(),
            client_message_id: id.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The response side of a stream.
pub struct Frames(Streaming<Message>);

impl Frames {
    /// The next frame, or the status with which the stream ended. May be
    /// dropped while it waits.
    pub async fn next(&mut self) -> Result<Message, Status> {
        let frame = soon("the next frame", self.0.message()).await?;
        Ok(frame.expect("a stream of messages ends with an error only"))
    }

    /// The next frame, a message with this seq.
    pub async fn expect(&mut self, seq: i64) -> Message {
        let message = self.next().await.unwrap();
        assert_eq!((message.seq, message.rejected.is_some()), (seq, false));
        message
    }

    /// Reads up to the message with this text, it included.
    pub async fn until(&mut self, text: &str) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let message = self.next().await.unwrap();
            let last = message.text == text;
            all.push(message);
            if last {
                return all;
            }
        }
    }

    /// Reads to the end; the status that it was.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// The seqs are first, first + 1, first + 2 …
pub fn assert_dense(messages: &[Message], first: i64) {
    for (message, seq) in messages.iter().zip(first..) {
        assert_eq!(message.seq, seq, "a gap or a duplicate");
    }
}

/// What every reader of a message sees of it.
pub fn text_of(message: &Message) -> (i64, &str, &str) {
    (message.seq, &message.from, &message.text)
}
