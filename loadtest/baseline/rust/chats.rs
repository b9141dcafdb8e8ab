use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, PoisonError, RwLock},
};

use chat_service::proto::Message;
use tokio::sync::{Mutex, mpsc};
use tonic::Status;

/// Messages that wait for one reader.
pub const QUEUE: usize = 1_024;
/// Newest messages of a chat that are kept for whoever joins.
const RECENT: usize = 256;

pub type Reader = mpsc::Sender<Result<Message, Status>>;

#[derive(Default)]
pub struct Chats(RwLock<HashMap<i64, Arc<Mutex<Chat>>>>);

#[derive(Default)]
pub struct Chat {
    pub members: HashSet<String>,
    recent: VecDeque<Message>,
    readers: Vec<Reader>,
}

impl Chats {
    pub fn create(&self, members: HashSet<String>) -> i64 {
        let mut chats = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let id = chats.len() as i64 + 1;
        let chat = Chat {
            members,
            ..Chat::default()
        };
        chats.insert(id, Arc::new(Mutex::new(chat)));
        id
    }

    pub fn get(&self, id: i64) -> Result<Arc<Mutex<Chat>>, Status> {
        let chats = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let chat = chats.get(&id).cloned();
        chat.ok_or_else(|| Status::not_found("no such chat"))
    }
}

impl Chat {
    pub fn check_member(&self, user: &str) -> Result<(), Status> {
        match self.members.contains(user) {
            true => Ok(()),
            false => Err(Status::permission_denied("not a member")),
        }
    }

    /// From now on the reader gets what is published, and before it what is kept
    /// behind `after`.
    pub fn join(&mut self, reader: Reader, after: Option<i64>) {
        if let Some(after) = after {
            for message in self.recent.iter().filter(|message| message.seq > after) {
                // A new queue has more room than there are messages kept.
                _ = reader.try_send(Ok(message.clone()));
            }
        }
        self.readers.push(reader);
    }

    pub async fn publish(&mut self, message: Message) {
        let mut gone = false;
        for reader in &self.readers {
            gone |= reader.send(Ok(message.clone())).await.is_err();
        }
        if gone {
            self.readers.retain(|reader| !reader.is_closed());
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(message);
    }
}
