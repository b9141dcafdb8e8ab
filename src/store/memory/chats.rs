//! Chats that are made, and forgotten.

use std::collections::BTreeMap;

use super::{Chat, State};
use crate::{
    domain::ChatId,
    store::{ChatRecord, NewChat, StoreError, StoreResult},
};

impl State {
    /// The chat that its creator has made with the same id before, or a new one.
    pub(super) fn make(&mut self, chat: NewChat) -> StoreResult<ChatId> {
        let key = chat.client_chat_id.map(|id| (chat.created_by.clone(), id));
        if let Some(made) = key.as_ref().and_then(|key| self.made_as.get(key)) {
            return Ok(*made);
        }
        let id = ChatId::new(self.last_id + 1).map_err(|e| StoreError::Refused(e.into()))?;
        self.last_id = id.get();
        for user in &chat.members {
            self.of_user.entry(user.clone()).or_default().push(id);
        }
        let record = ChatRecord {
            id,
            created_by: chat.created_by,
            created_at: chat.created_at,
            member_count: chat.members.len(),
            members: chat.members,
            last_seq: 0,
        };
        let made = Chat {
            record,
            messages: BTreeMap::new(),
            about: BTreeMap::new(),
        };
        self.chats.insert(id, made);
        self.made_as.extend(key.map(|key| (key, id)));
        Ok(id)
    }

    /// The chat has been taken out.
    pub(super) fn forget(&mut self, gone: Chat) {
        let id = gone.record.id;
        self.made_as.retain(|_, made| *made != id);
        for user in gone.record.members {
            self.leave(&user, id);
        }
    }
}
