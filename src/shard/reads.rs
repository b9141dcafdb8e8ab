//! What a shard asks of the store: reads of a chat that go on until the store answers,
//! and the form in which the answers come back.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    domain::{ChatId, Clock, MessageId, Row, Seq, Target, UserName},
    store::{ChatRecord, Page, Store, StoreError, StoreResult, retry_delays},
    telemetry::{chain, log_limited},
};

/// How long one read of a chat may take before it is tried again.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What the store said.
pub(super) enum StoreAnswer {
    Loaded(ChatId, StoreResult<Option<(ChatRecord, Vec<Row>)>>),
    /// Whether one of those who asked is a member.
    LookedUp(ChatId, StoreResult<bool>),
    Changed(ChatId, StoreResult<()>),
    /// Messages that are to be changed, under the number of the question.
    Targets(ChatId, u64, StoreResult<Vec<Target>>),
}

pub(super) type StoreCall = Pin<Box<dyn Future<Output = StoreAnswer> + Send>>;

/// Reads a chat. Where `asking` names users, it is only read if one of them is a
/// member: a refusal must cost no more than the look-up, whether or not there is
/// such a chat (P6, P7).
pub(super) fn load(
    chat: ChatId,
    newest: usize,
    asking: Option<Arc<[UserName]>>,
    patience: Option<Duration>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
) -> StoreCall {
    let read = move |deadline| {
        let (store, asking) = (store.clone(), asking.clone());
        async move {
            if let Some(users) = asking
                && !store.has_member(chat, &users, deadline).await?
            {
                return Ok(None);
            }
            store.load_chat(chat, newest, deadline).await
        }
    };
    let found = until_read(chat, patience, clock, read);
    Box::pin(async move { StoreAnswer::Loaded(chat, found.await) })
}

/// Reads a chat that is active, and what the store has in the place of its newest
/// message.
pub(super) fn reread(
    chat: ChatId,
    newest: Option<(Seq, MessageId)>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
) -> StoreCall {
    let read = move |deadline| {
        let store = store.clone();
        async move {
            let Some((record, _)) = store.load_chat(chat, 0, deadline).await? else {
                return Ok(None);
            };
            let rows = match newest {
                Some((seq, _)) => store.page(chat, Page::After(seq - 1), 1, deadline).await?,
                None => Vec::new(),
            };
            Ok(Some((record, rows)))
        }
    };
    let found = until_read(chat, None, clock, read);
    Box::pin(async move { StoreAnswer::Loaded(chat, found.await) })
}

/// Asks whether one of the users is a member of the chat.
pub(super) fn look_up(
    chat: ChatId,
    users: Arc<[UserName]>,
    patience: Duration,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
) -> StoreCall {
    let read = move |deadline| {
        let (store, users) = (store.clone(), users.clone());
        async move { store.has_member(chat, &users, deadline).await }
    };
    let found = until_read(chat, Some(patience), clock, read);
    Box::pin(async move { StoreAnswer::LookedUp(chat, found.await) })
}

/// Reads messages that are to be changed.
pub(super) fn targets(
    chat: ChatId,
    (number, seqs): (u64, Vec<Seq>),
    patience: Duration,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
) -> StoreCall {
    let seqs: Arc<[Seq]> = seqs.into();
    let read = move |deadline| {
        let (store, seqs) = (store.clone(), seqs.clone());
        async move { store.targets(chat, &seqs, deadline).await }
    };
    let found = until_read(chat, Some(patience), clock, read);
    Box::pin(async move { StoreAnswer::Targets(chat, number, found.await) })
}

/// Reads again and again while the store is away, for as long as `patience` says
/// (for ever, if it says nothing).
async fn until_read<T, F: Future<Output = StoreResult<T>>>(
    chat: ChatId,
    patience: Option<Duration>,
    clock: Arc<dyn Clock>,
    read: impl Fn(Instant) -> F,
) -> StoreResult<T> {
    let give_up = patience.map(|patience| clock.now() + patience);
    let mut delay = retry_delays(RETRY_MIN, RETRY_MAX);
    loop {
        let deadline = clock.now() + LOAD_TIMEOUT;
        let found = read(give_up.map_or(deadline, |at| at.min(deadline))).await;
        let late = give_up.is_some_and(|at| at <= clock.now());
        match found {
            Err(StoreError::Unavailable(error)) if !late => {
                log_limited!(WARN, %chat, error = %chain(&*error), "chat not read, trying again");
                tokio::time::sleep(delay()).await;
            }
            found => return found,
        }
    }
}
