//! Chats that are made.

use super::{
    PostgresStore,
    pool::{Params, Query},
};
use crate::{
    domain::ChatId,
    store::{NewChat, StoreError, StoreResult},
};

impl PostgresStore {
    /// The chat that its creator has made with the same id before, or a new one.
    pub(super) async fn make(&self, chat: NewChat) -> StoreResult<ChatId> {
        let members: Vec<&str> = chat.members.iter().map(|m| &**m).collect();
        let creator: &str = &chat.created_by;
        let client_chat_id = chat.client_chat_id.as_deref();
        let asked: Params<'_> = &[&creator, &chat.created_at.0, &members, &client_chat_id];
        let mut made = self.write(Query::CreateChat, asked, None).await?;
        if made.rows.is_empty() {
            // Another one was being made under the same id, and is there now.
            made = self.write(Query::CreateChat, asked, None).await?;
        }
        let id = made.rows.first().and_then(|row| row.try_get(0).ok());
        // The id column's own sequence starts at 1.
        id.and_then(|id| ChatId::new(id).ok())
            .ok_or_else(|| StoreError::OutcomeUnknown("no id was returned".into()))
    }
}
