//! Pages: of a chat's messages, and of a user's chats.

use std::sync::Arc;

use super::{Call, Calls, to_chat, to_timestamp};
use crate::{
    chats::Places,
    domain::{ChatId, Row, UserName},
    grpc::{
        place::Place,
        status::Problem,
        validate::{self, page_size},
    },
    proto,
    store::{Activity, ChatRecord, Page, Walk},
};

/// Most bytes of messages in one page of history: gRPC clients refuse answers
/// above 4 MiB unless told otherwise.
pub const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;

/// The same of a list of chats, whose names most clients have no use for.
pub const MAX_LIST_BYTES: usize = 1024 * 1024;

/// Pages that the store reads for one user at a time: one of the largest, or of lists,
/// whose cost does not show in their size, or some small ones of messages. The others of
/// the user wait, and what others ask for comes in between.
pub(super) const READS: u32 = 12;
const LIST: u32 = 8;

/// What may wait for that of one user: a thousand lists.
pub(super) const READS_WAITING: u32 = 1_024 * LIST;

impl Calls {
    pub async fn list_messages(
        self: Arc<Self>,
        call: Call,
        request: proto::ListMessagesRequest,
    ) -> Result<proto::ListMessagesResponse, Problem> {
        let chat = validate::chat_id("chat_id", request.chat_id)?;
        let page = validate::page(&request)?;
        let size = page_size(request.page_size)?;
        let turn = self.turn_to_read(&call, 1 + size as u32 / 100).await?;
        // One more than is wanted tells whether there is more.
        let mut rows = self.page(&call, &turn, chat, page, size + 1).await?;
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

    /// A page of a chat of which the caller is a member. Another server of the database
    /// may take over in between, and have another chat by this id.
    async fn page(
        &self,
        call: &Call,
        turn: &Arc<Places>,
        chat: ChatId,
        page: Page,
        limit: usize,
    ) -> Result<Vec<Row>, Problem> {
        loop {
            let lineage = self.store.lineage_number();
            let rows = self.page_of_member(call, turn, chat, page, limit).await?;
            if self.store.lineage_number() == lineage {
                return Ok(rows);
            }
        }
    }

    /// A page as the store has it, without messages that are still with the writer:
    /// the store may show these already, and a failover of the database may undo
    /// them (P3).
    async fn page_of_member(
        &self,
        call: &Call,
        turn: &Arc<Places>,
        chat: ChatId,
        page: Page,
        limit: usize,
    ) -> Result<Vec<Row>, Problem> {
        let read = |page| {
            let (store, deadline) = (self.store.clone(), call.deadline);
            let read = async move { store.page(chat, page, limit, deadline).await };
            call.in_turn(turn.clone(), read)
        };
        let (seen, _) = call.within(self.chats.get(chat, call.caller())).await?;
        let mut rows = read(page).await?;
        if rows.last().is_none_or(|row| row.seq <= seen.last_seq) {
            return Ok(rows);
        }
        let (seen, in_flight) = call.within(self.chats.get(chat, call.caller())).await?;
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
        let names = validate::names(request.max_usernames)?;
        let place = Place::from_token(&request.page_token)?;
        let turn = self.turn_to_read(&call, LIST).await?;
        // One more than is wanted tells whether there is more.
        let mut chats = self
            .chats(&call, &turn, place.walk, size + 1, names)
            .await?;
        let fitting = fitting_chats(&chats, size);
        let more = chats.len() > fitting;
        chats.truncate(fitting);
        let next = match (chats.first(), chats.last(), place.since) {
            (Some((first, _)), Some((last, _)), _) if more => Some(place.behind(*first, *last)),
            (.., Some(since)) => self.moved_up(&call, &turn, since).await?,
            _ => None,
        };
        let chats = chats.into_iter().map(|(_, record)| to_chat(record));
        Ok(proto::ListChatsResponse {
            chats: chats.collect(),
            next_page_token: next.map_or_else(String::new, Place::to_token),
        })
    }

    /// The turn is kept until the store has read, also if the caller is gone before.
    async fn turn_to_read(&self, call: &Call, weight: u32) -> Result<Arc<Places>, Problem> {
        let turn = self.reading.enter(call.user(), weight);
        call.within(turn).await.map(Arc::new)
    }

    async fn chats(
        &self,
        call: &Call,
        turn: &Arc<Places>,
        walk: Walk,
        limit: usize,
        names: usize,
    ) -> Result<Vec<(Activity, ChatRecord)>, Problem> {
        let (store, call_of) = (self.store.clone(), call.clone());
        let read = async move {
            let (user, deadline) = (call_of.user(), call_of.deadline);
            store.chats_of(user, walk, limit, names, deadline).await
        };
        call.in_turn(turn.clone(), read).await
    }

    /// Where to go on behind the last chat, if some have become active since.
    async fn moved_up(
        &self,
        call: &Call,
        turn: &Arc<Places>,
        since: Activity,
    ) -> Result<Option<Place>, Problem> {
        let place = Place {
            walk: Walk::Up(since),
            since: None,
        };
        let moved = self.chats(call, turn, place.walk, 1, 0).await?;
        Ok((!moved.is_empty()).then_some(place))
    }
}

/// How many of the chats fit into one answer. At least one.
fn fitting_chats(chats: &[(Activity, ChatRecord)], size: usize) -> usize {
    /// Of a chat besides its names, and of a name besides its text, about.
    const CHAT: usize = 160;
    const NAME: usize = 2;
    let mut room = MAX_LIST_BYTES;
    let fits = |(_, chat): &&(Activity, ChatRecord)| {
        let names = chat.members.iter().map(|name| name.len() + NAME);
        room = room.saturating_sub(CHAT + names.sum::<usize>());
        room > 0
    };
    let count = chats.iter().take_while(fits).count();
    count.clamp(1, size).min(chats.len())
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
