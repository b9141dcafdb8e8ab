//! Pages: of a chat's messages, and of a user's chats.

use std::{future::Future, sync::Arc};

use super::{
    Call, Calls,
    messages::{to_current, to_entry},
    to_chat,
};
use crate::{
    chats::Places,
    domain::{ChatId, Current, Invalid, Row, Seq, UserName},
    grpc::{
        place::Place,
        status::Problem,
        validate::{self, page_size},
    },
    proto::{self, list_messages_request::View},
    store::{Activity, ChatRecord, Page, StoreResult, Walk},
};

/// Most bytes of messages in one page of history: gRPC clients refuse answers
/// above 4 MiB unless told otherwise.
pub const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024;

/// What a count of reactions takes besides its emoji, about.
pub(super) const REACTION: usize = 16;

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
        let view = View::try_from(request.view).map_err(|_| {
            let why = Invalid("must be CURRENT or LOG".into());
            Problem::invalid("view", &why)
        })?;
        let turn = self.turn_to_read(&call, 1 + size as u32 / 100).await?;
        let (store, deadline, viewer) = (&self.store, call.deadline, call.user());
        // One more than is wanted tells whether there is more.
        let more = size + 1;
        match view {
            View::Current => {
                let read = |page| {
                    let (store, viewer) = (store.clone(), viewer.clone());
                    async move { store.current(chat, &viewer, page, more, deadline).await }
                };
                let found = self.page(&call, &turn, chat, page, read).await?;
                Ok(answer(found, page, size, to_current, viewer))
            }
            View::Log => {
                let read = |page| {
                    let store = store.clone();
                    async move { store.page(chat, page, more, deadline).await }
                };
                let found = self.page(&call, &turn, chat, page, read).await?;
                Ok(answer(found, page, size, to_entry, viewer))
            }
        }
    }

    /// A page of a chat of which the caller is a member. Another server of the database
    /// may take over in between, and have another chat by this id.
    async fn page<T: Paged, F>(
        &self,
        call: &Call,
        turn: &Arc<Places>,
        chat: ChatId,
        page: Page,
        read: impl Fn(Page) -> F,
    ) -> Result<Vec<T>, Problem>
    where
        F: Future<Output = StoreResult<Vec<T>>> + Send + 'static,
    {
        loop {
            let lineage = self.store.lineage_number();
            let found = self.page_of_member(call, turn, chat, page, &read).await?;
            if self.store.lineage_number() == lineage {
                return Ok(found);
            }
        }
    }

    /// A page as the store has it, without entries that are still with the writer:
    /// the store may show these already, and a failover of the database may undo
    /// them (P3).
    async fn page_of_member<T: Paged, F>(
        &self,
        call: &Call,
        turn: &Arc<Places>,
        chat: ChatId,
        page: Page,
        read: impl Fn(Page) -> F,
    ) -> Result<Vec<T>, Problem>
    where
        F: Future<Output = StoreResult<Vec<T>>> + Send + 'static,
    {
        let (seen, _) = call.within(self.chats.get(chat, call.caller())).await?;
        let mut found = call.in_turn(turn.clone(), read(page)).await?;
        if found.last().is_none_or(|one| one.seq() <= seen.last_seq) {
            return Ok(found);
        }
        let (seen, in_flight) = call.within(self.chats.get(chat, call.caller())).await?;
        let newest = seen.last_seq;
        match page {
            // What is behind has been written by another server.
            _ if in_flight == 0 => {}
            Page::After(_) => found.retain(|one| one.seq() <= newest),
            Page::Before(seq) => {
                let before = read(Page::Before(seq.min(newest + 1)));
                found = call.in_turn(turn.clone(), before).await?;
            }
        }
        Ok(found)
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

/// What stands in a page.
trait Paged: Send + 'static {
    fn seq(&self) -> Seq;
    /// About what it takes in an answer, in bytes.
    fn weight(&self) -> usize;
}

impl Paged for Row {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn weight(&self) -> usize {
        self.weight()
    }
}

impl Paged for Current {
    fn seq(&self) -> Seq {
        self.row.seq
    }

    fn weight(&self) -> usize {
        let reactions = self.reactions.iter();
        let reactions = reactions.map(|one| one.emoji.len() + REACTION);
        self.row.weight() + reactions.sum::<usize>()
    }
}

/// As much of what was found as was asked for, and fits.
fn answer<T: Paged>(
    mut found: Vec<T>,
    page: Page,
    size: usize,
    to_message: impl Fn(T, &UserName) -> proto::Message,
    viewer: &UserName,
) -> proto::ListMessagesResponse {
    let fitting = fitting(&found, page, size);
    let has_more = found.len() > fitting;
    match page {
        Page::After(_) => found.truncate(fitting),
        Page::Before(_) => drop(found.drain(..found.len() - fitting)),
    }
    let messages = found.into_iter().map(|one| to_message(one, viewer));
    proto::ListMessagesResponse {
        messages: messages.collect(),
        has_more,
    }
}

/// How many of those that a page asked for fit into one answer, counted from
/// where the page begins. At least one.
fn fitting<T: Paged>(found: &[T], page: Page, size: usize) -> usize {
    let mut room = MAX_PAGE_BYTES;
    let mut fits = |one: &&T| {
        room = room.saturating_sub(one.weight());
        room > 0
    };
    let count = match page {
        Page::After(_) => found.iter().take_while(&mut fits).count(),
        Page::Before(_) => found.iter().rev().take_while(&mut fits).count(),
    };
    count.clamp(1, size).min(found.len())
}
