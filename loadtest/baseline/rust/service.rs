use std::{sync::Arc, time::SystemTime};

use chat_service::proto::{self, Message, chat_v1_server::ChatV1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    chats::{Chats, QUEUE},
    store::Store,
};

#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    chats: Chats,
    store: Store,
}

impl Service {
    pub fn new(store: Store) -> Self {
        let chats = Chats::default();
        Self(Arc::new(Inner { chats, store }))
    }

    /// Stores a message and gives it to the chat's readers.
    async fn send(
        &self,
        chat_id: i64,
        from: String,
        text: String,
        client_message_id: String,
    ) -> Result<Message, Status> {
        let Inner { chats, store } = &*self.0;
        let chat = chats.get(chat_id)?;
        chat.lock().await.check_member(&from)?;
        let now = SystemTime::now();
        let seq = store
            .insert(chat_id, &from, &text, &client_message_id, now)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let message = Message {
            from,
            text,
            created_at: Some(now.into()),
            seq,
            chat_id,
            client_message_id,
            rejected: None,
            ..Default::default()
        };
        chat.lock().await.publish(message.clone()).await;
        Ok(message)
    }
}

/// The token is the user's name.
fn user<T>(request: &Request<T>) -> Result<String, Status> {
    let token = request.metadata().get("authorization");
    let token = token.and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
    let user = token.map(str::to_owned);
    user.ok_or_else(|| Status::unauthenticated("no token"))
}

#[tonic::async_trait]
impl ChatV1 for Service {
    type ConnectChatStream = ReceiverStream<Result<Message, Status>>;

    async fn create(
        &self,
        request: Request<proto::CreateRequest>,
    ) -> Result<Response<proto::CreateResponse>, Status> {
        let user = user(&request)?;
        let others = request.into_inner().info.unwrap_or_default().usernames;
        let members = others.into_iter().chain([user]).collect();
        let id = self.0.chats.create(members);
        Ok(Response::new(proto::CreateResponse { id }))
    }

    async fn add_members(
        &self,
        request: Request<proto::AddMembersRequest>,
    ) -> Result<Response<proto::AddMembersResponse>, Status> {
        let user = user(&request)?;
        let request = request.into_inner();
        let chat = self.0.chats.get(request.chat_id)?;
        let mut chat = chat.lock().await;
        chat.check_member(&user)?;
        chat.members.extend(request.usernames);
        let chat = proto::Chat {
            id: request.chat_id,
            ..Default::default()
        };
        Ok(Response::new(proto::AddMembersResponse {
            chat: Some(chat),
        }))
    }

    async fn send_message(
        &self,
        request: Request<proto::SendMessageRequest>,
    ) -> Result<Response<proto::SendMessageResponse>, Status> {
        let user = user(&request)?;
        let request = request.into_inner();
        let text = request.message.unwrap_or_default().text;
        let id = request.client_message_id;
        let stored = self.send(request.chat_id, user, text, id).await?;
        Ok(Response::new(proto::SendMessageResponse {
            seq: stored.seq,
            created_at: stored.created_at,
            duplicate: false,
        }))
    }

    async fn connect_chat(
        &self,
        request: Request<Streaming<proto::ConnectChatRequest>>,
    ) -> Result<Response<Self::ConnectChatStream>, Status> {
        let user = user(&request)?;
        let mut frames = request.into_inner();
        let join = frames.message().await?.unwrap_or_default();
        let chat_id = join.chat_id.parse();
        let chat_id = chat_id.map_err(|_| Status::invalid_argument("chat_id"))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        {
            let chat = self.0.chats.get(chat_id)?;
            let mut chat = chat.lock().await;
            chat.check_member(&user)?;
            chat.join(sender.clone(), join.after_seq);
        }
        let service = self.clone();
        #[allow(clippy::disallowed_methods, reason = "as it is usually done")]
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                let post = frame.send.unwrap_or_default();
                let sent = service
                    .send(chat_id, user.clone(), post.text, post.client_message_id)
                    .await;
                if let Err(status) = sent {
                    _ = sender.send(Err(status)).await;
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get(
        &self,
        _: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetResponse>, Status> {
        Err(not_measured())
    }

    async fn delete(&self, _: Request<proto::DeleteRequest>) -> Result<Response<()>, Status> {
        Err(not_measured())
    }

    async fn list_messages(
        &self,
        _: Request<proto::ListMessagesRequest>,
    ) -> Result<Response<proto::ListMessagesResponse>, Status> {
        Err(not_measured())
    }

    async fn list_chats(
        &self,
        _: Request<proto::ListChatsRequest>,
    ) -> Result<Response<proto::ListChatsResponse>, Status> {
        Err(not_measured())
    }

    async fn remove_members(
        &self,
        _: Request<proto::RemoveMembersRequest>,
    ) -> Result<Response<proto::RemoveMembersResponse>, Status> {
        Err(not_measured())
    }

    async fn edit_message(
        &self,
        _: Request<proto::EditMessageRequest>,
    ) -> Result<Response<proto::EditMessageResponse>, Status> {
        Err(not_measured())
    }

    async fn delete_message(
        &self,
        _: Request<proto::DeleteMessageRequest>,
    ) -> Result<Response<proto::DeleteMessageResponse>, Status> {
        Err(not_measured())
    }

    async fn react(
        &self,
        _: Request<proto::ReactRequest>,
    ) -> Result<Response<proto::ReactResponse>, Status> {
        Err(not_measured())
    }
}

fn not_measured() -> Status {
    Status::unimplemented("no scenario needs it")
}
