//! Pages: of a chat's messages, and of a user's chats.

use std::sync::Arc;

use super::{Call, Calls, to_chat, to_timestamp};
use crate::{
    domain::{ChatId, Row, UserName},
    grpc::{
        status::Problem,
        validate::{self, page_size, to_page_token},
    },
    proto,
    store::Page,
};

/// Most bytes of messages in one page of history: gRPC clients refuse answers
/// above 4 MiB unless told otherwise.
const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;

impl Calls {
    pub async fn list_messages(
        self: Arc<Self>,
        call: Call,
        request: proto::ListMessagesRequest,
    ) -> Result<proto::ListMessagesResponse, Problem> {
        let chat = validate::chat_id("chat_id", request.chat_id)?;
        let page = validate::page(&request)?;
        let size = page_size(request.page_size)?;
        // One more than is wanted tells whether there is more.
        let mut rows = self.page(&call, chat, page, size + 1).await?;
        let fitting = fitting(&rows, page, size);
        let has_more = rows.len() > fitting;
        match page {
            Page::After(_) => rows.truncate(fitting),
            Page::Before(_) => drop(rows.drain(..rows.len() - fitting)),
        }
        let messages = rows.into_iter();
        Ok(proto::ListMessagesResponse {
            messages: messages.map(|row| to_message(row, call.user())).collect(),
            has_more,
        })
    }

    /// A page as the store has it, without messages that are still with the writer:
    /// the store may show these already, and a failover of the database may undo
    /// them (P3).
    async fn page(
        &self,
        call: &Call,
        chat: ChatId,
        page: Page,
        limit: usize,
    ) -> Result<Vec<Row>, Problem> {
        let read = |page| call.asked(self.store.page(chat, page, limit, call.deadline));
        let (seen, _) = call.within(self.shards.get(chat, call.caller())).await?;
        let mut rows = read(page).await?;
        if rows.last().is_none_or(|row| row.seq <= seen.last_seq) {
            return Ok(rows);
        }
        let (seen, in_flight) = call.within(self.shards.get(chat, call.caller())).await?;
        let newest = seen.last_seq;
        match page {
            // What is behind has been written by another server.
            _ if in_flight == 0 => {}
            Page::After(_) => rows.retain(|row| row.seq <= newest),
            Page::Before(seq) => rows = read(Page::Before(seq.min(newest + 1))).await?,
        }
        Ok(rows)
    }

    pub async fn list_chats(
        self: Arc<Self>,
        call: Call,
        request: proto::ListChatsRequest,
    ) -> Result<proto::ListChatsResponse, Problem> {
        let size = page_size(request.page_size)?;
        let behind = validate::page_token(&request.page_token)?;
        let chats = self
            .store
            .chats_of(call.user(), behind, size + 1, call.deadline);
        let mut chats = call.asked(chats).await?;
        let more = chats.len() > size;
        chats.truncate(size);
        let last = chats.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |(place, _)| to_page_token(*place));
        let chats = chats.into_iter().map(|(_, record)| to_chat(record));
        Ok(proto::ListChatsResponse {
            chats: chats.collect(),
            next_page_token,
        })
    }
}

/// How many of the rows that a page asked for fit into one answer, counted from
/// where the page begins. At least one.
fn fitting(rows: &[Row], page: Page, size: usize) -> usize {
    let mut room = MAX_PAGE_BYTES;
    let mut fits = |row: &&Row| {
        room = room.saturating_sub(row.weight());
        room > 0
    };
    let count = match page {
        Page::After(_) => rows.iter().take_while(&mut fits).count(),
        Page::Before(_) => rows.iter().rev().take_while(&mut fits).count(),
    };
    count.clamp(1, size).min(rows.len())
}

/// A message of history, as `viewer` is to see it.
fn to_message(row: Row, viewer: &UserName) -> proto::Message {
    let own = row.client_message_id.filter(|_| row.from == *viewer);
    proto::Message {
        from: row.from.to_string(),
        text: row.text.into(),
        created_at: Some(to_timestamp(row.created_at)),
        seq: row.seq,
        chat_id: row.chat.get(),
        client_message_id: own.map_or_else(String::new, |id| id.to_string()),
        rejected: None,
    }
}
