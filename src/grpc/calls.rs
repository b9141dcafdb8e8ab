mod adding;
mod changes;
mod create;
mod lists;
mod messages;

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::TryFutureExt as _;
use tokio::sync::{Mutex, oneshot};

use super::{measure::CallId, status::Problem, validate};
use crate::{
    auth::{Identity, Role},
    chats::{Callers, Chats, Places, Slot},
    config::WhoMayAdd,
    domain::{
        Attached, Caller, ChatId, Clock, Draft, MAX_EMOJI_BYTES, MAX_EMOJIS, Receipt, Timestamp,
        UserName,
    },
    proto,
    runtime::Spawner,
    store::{ChatRecord, Store, StoreError, StoreResult},
    telemetry::{SpanRef, chain, log_limited},
};

/// What a request may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Characters in a text.
    pub max_text: usize,
    /// Bytes of what a message carries for the embedder.
    pub max_data: usize,
    /// Users whom a message mentions.
    pub max_mentions: usize,
    /// Members of a chat.
    pub max_members: usize,
    /// Chats that one user has made and that are there; 0: any number.
    pub max_user_chats: usize,
    /// Whom users may make members.
    pub who_may_add: WhoMayAdd,
    /// How long a call may take; the caller's own deadline may be earlier.
    pub timeout: Duration,
    /// How long a stream may take to send its first frame and to join.
    pub first_frame: Duration,
}

impl Limits {
    /// The largest message that can be valid, in bytes, of those that hold no
    /// list: a text of the longest characters and all that it may carry, with room to
    /// spare.
    pub fn max_bytes(&self) -> usize {
        4 * self.max_text + Attached::max_bytes(self.max_data, self.max_mentions) + 1024
    }

    pub fn largest(&self) -> Largest {
        let reactions = MAX_EMOJIS * (MAX_EMOJI_BYTES + lists::REACTION);
        Largest {
            chat: self.max_list_bytes(),
            message: self.max_bytes() + reactions,
        }
    }

    /// … and of those that hold a list of users: a name for every member.
    pub fn max_list_bytes(&self) -> usize {
        (crate::domain::MAX_NAME_BYTES + 2) * self.max_members + 1024
    }
}

/// The most bytes that answers may have.
#[derive(Debug, Clone, Copy)]
pub struct Largest {
    /// A chat with all its members.
    pub chat: usize,
    message: usize,
}

impl Largest {
    /// A page of messages, of this size if it is a good one.
    pub fn messages(self, size: i32) -> usize {
        let size = validate::page_size(size).unwrap_or(1);
        (size * self.message).min(lists::MAX_PAGE_BYTES + self.message)
    }

    /// A page of chats.
    pub fn chats(self, size: i32) -> usize {
        let size = validate::page_size(size).unwrap_or(1);
        (size * self.chat).min(lists::MAX_LIST_BYTES + self.chat)
    }
}

/// The calls of `chat_v1.ChatV1`, on values that the wire has been taken off.
#[derive(Debug)]
pub struct Calls {
    chats: Chats,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Whose chats are counted takes one of them, by the user's name.
    turns: [Arc<Mutex<()>>; TURNS],
    turns_hash: ahash::RandomState,
    /// Those who have pages read.
    reading: Callers,
}

const TURNS: usize = 64;

/// Who calls, and until when the answer is wanted.
#[derive(Debug, Clone)]
pub struct Call {
    pub identity: Arc<Identity>,
    pub deadline: Instant,
    pub id: CallId,
    /// Runs what goes on when the caller is gone.
    pub spawner: Spawner,
}

impl Call {
    fn user(&self) -> &UserName {
        &self.identity.user
    }

    fn caller(&self) -> Caller {
        Caller {
            user: self.identity.user.clone(),
            admin: self.identity.role == Role::Admin,
        }
    }

    async fn within<T, E: Into<Problem>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Problem> {
        let work = tokio::time::timeout_at(self.deadline.into(), work);
        match work.await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(Problem::too_slow("the answer")),
        }
    }

    /// Has the store do something. The turn ends with that, also if the caller is gone
    /// before.
    async fn in_turn<T: Send + 'static>(
        &self,
        turn: impl Send + 'static,
        work: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> Result<T, Problem> {
        let (answer, done) = oneshot::channel();
        self.spawner.spawn(async move {
            let result = work.await;
            drop(turn);
            // Whoever has gone away does not want it any more.
            _ = answer.send(result);
        });
        let gone = |_| Err(StoreError::OutcomeUnknown("the server ends".into()));
        self.asked(done.unwrap_or_else(gone)).await
    }

    /// The same for a call of the store itself, whose reason is for the log: no
    /// client is told it.
    async fn asked<T>(&self, work: impl Future<Output = StoreResult<T>>) -> Result<T, Problem> {
        let logged = work.inspect_err(|error| {
            log_limited!(WARN, error = %chain(error), user = %self.user(), request_id = %self.id.request,
                trace_id = self.id.trace_id(), "the store did not do what a call asked for");
        });
        self.within(logged).await
    }
}

impl Calls {
    pub fn new(chats: Chats, store: Arc<dyn Store>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self {
            chats,
            store,
            clock,
            limits,
            turns: std::array::from_fn(|_| Arc::default()),
            turns_hash: ahash::RandomState::new(),
            reading: Callers::new(lists::READS, lists::READS_WAITING),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn way(&self) -> &Chats {
        &self.chats
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub async fn get(
        self: Arc<Self>,
        call: Call,
        request: proto::GetRequest,
    ) -> Result<proto::GetResponse, Problem> {
        let chat = validate::chat_id("id", request.id)?;
        let (record, _) = call.within(self.chats.get(chat, call.caller())).await?;
        Ok(proto::GetResponse {
            chat: Some(to_chat(record)),
        })
    }

    pub async fn delete(
        self: Arc<Self>,
        call: Call,
        request: proto::DeleteRequest,
    ) -> Result<(), Problem> {
        let chat = validate::chat_id("id", request.id)?;
        call.within(self.chats.delete(chat, call.caller())).await?;
        log_limited!(INFO, %chat, user = %call.user(), request_id = %call.id.request,
            trace_id = call.id.trace_id(), "chat deleted");
        Ok(())
    }

    /// The message is on its way to its chat when this returns; its future is the answer.
    pub fn send_message(
        &self,
        identity: &Identity,
        deadline: Instant,
        span: Option<SpanRef>,
        request: validate::SendMessageRequest,
    ) -> impl Future<Output = Result<proto::SendMessageResponse, Problem>> + use<> {
        let valid = validate::send(request, &identity.user, &self.limits);
        let posted = self.post(identity, deadline, span, valid);
        async move {
            let receipt = posted.await?;
            Ok(proto::SendMessageResponse {
                seq: receipt.seq,
                created_at: Some(to_timestamp(receipt.created_at)),
                duplicate: receipt.duplicate,
            })
        }
    }

    /// Posts a message, or what changes one, if it is valid.
    fn post(
        &self,
        identity: &Identity,
        deadline: Instant,
        span: Option<SpanRef>,
        valid: Result<(ChatId, Draft), Problem>,
    ) -> impl Future<Output = Result<Receipt, Problem>> + use<> {
        let posted = valid.map(|(chat, draft)| {
            let from = identity.user.clone();
            self.chats.post(chat, from, draft, deadline, span)
        });
        async move { Ok(posted?.await?) }
    }

    pub async fn post_on_stream(
        &self,
        chat: ChatId,
        slot: &Arc<Slot>,
        draft: Draft,
        span: Option<SpanRef>,
    ) {
        let now = || self.clock.now();
        self.chats
            .post_on_stream(chat, slot, draft, self.limits.timeout, span, now)
            .await;
    }

    /// Waits until it is the caller's turn to make or change a chat by so many names.
    async fn turn_to_change(&self, call: &Call, names: usize) -> Result<Places, Problem> {
        let turn = self.chats.turn_to_change(call.user(), names);
        call.within(turn).await
    }

    pub async fn add_members(
        self: Arc<Self>,
        call: Call,
        request: proto::AddMembersRequest,
    ) -> Result<proto::AddMembersResponse, Problem> {
        let chat = validate::chat_id("chat_id", request.chat_id)?;
        let turn = self.turn_to_change(&call, request.usernames.len()).await?;
        let users = validate::some_users(&request.usernames, self.limits.max_members)?;
        drop(request);
        validate::new_names("usernames", &users)?;
        let field = "usernames";
        self.may_add(&call, Some(chat), field, &users).await?;
        let changed = self.chats.add_members(chat, call.caller(), users, turn);
        let (record, count) = call.within(changed).await?;
        match count {
            0 => log_limited!(DEBUG, %chat, user = %call.user(), "no members added"),
            _ => log_limited!(INFO, %chat, user = %call.user(), count,
                request_id = %call.id.request, trace_id = call.id.trace_id(), "members added"),
        }
        let chat = Some(to_chat(record));
        Ok(proto::AddMembersResponse { chat })
    }

    pub async fn remove_members(
        self: Arc<Self>,
        call: Call,
        request: proto::RemoveMembersRequest,
    ) -> Result<proto::RemoveMembersResponse, Problem> {
        let chat = validate::chat_id("chat_id", request.chat_id)?;
        let turn = self.turn_to_change(&call, request.usernames.len()).await?;
        let users = validate::some_users(&request.usernames, self.limits.max_members)?;
        drop(request);
        let changed = self.chats.remove_members(chat, call.caller(), users, turn);
        let (record, count) = call.within(changed).await?;
        match count {
            0 => log_limited!(DEBUG, %chat, user = %call.user(), "no members removed"),
            _ => log_limited!(INFO, %chat, user = %call.user(), count,
                request_id = %call.id.request, trace_id = call.id.trace_id(), "members removed"),
        }
        let chat = Some(to_chat(record));
        Ok(proto::RemoveMembersResponse { chat })
    }
}

fn to_chat(record: ChatRecord) -> proto::Chat {
    let usernames = record.members.iter().map(|user| user.to_string());
    proto::Chat {
        id: record.id.get(),
        info: Some(proto::ChatInfo {
            usernames: usernames.collect(),
        }),
        member_count: i32::try_from(record.member_count).unwrap_or(i32::MAX),
        created_by: record.created_by.to_string(),
        created_at: Some(to_timestamp(record.created_at)),
        last_seq: record.last_seq,
    }
}

fn to_timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}
