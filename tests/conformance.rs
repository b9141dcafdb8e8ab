//! What every store keeps to, run against every backend.
//!
//! A backend implements [`Backend`] and is named in a line of its own at the end
//! of `backends.rs`. Cases share nothing, so they may share a database: each
//! makes its own chats and its own users, and says nothing about others.

mod backends;
mod chats;
mod durability;
mod entries;
mod lists;
mod making;
mod messages;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    domain::{ChatId, MessageId, Row, Seq, Timestamp, UserName},
    store::{NewChat, Page, Store, StoreResult, Walk},
};

/// A backend and whatever lives as long as its store: a folder, a database.
trait Backend: Sized {
    async fn start() -> Self;
    fn store(&self) -> Arc<dyn Store>;
    async fn end(self) {
        self.store().close().await;
    }
}

/// A backend that keeps what it has over a restart.
trait Durable: Backend {
    /// Closes the store and opens what it has left behind.
    async fn reopen(&mut self);
}

/// Makes a module of tests of a backend, one for each case.
macro_rules! conformance {
    ($name:ident, $backend:ty) => {
        mod $name {
            use super::*;
            conformance!(@store $backend, chats:
                a_chat_is_found_as_it_was_made,
                members_stand_in_the_order_of_joining,
                a_member_who_returns_comes_last,
                members_of_one_chat_are_not_those_of_another,
                membership_is_known_without_the_chat,
                who_shares_a_chat_is_known,
                a_deleted_chat_is_not_found,
                a_missing_chat_is_not_an_error,
                ids_are_not_given_twice,
                many_chats_are_made_at_once,
            );
            conformance!(@store $backend, messages:
                a_message_comes_back_as_it_was,
                an_append_of_nothing_changes_nothing,
                an_append_is_all_or_nothing,
                a_conflict_inside_a_batch_writes_nothing,
                pages_go_both_ways,
                pages_end_where_the_chat_ends,
                the_newest_messages_come_with_the_chat,
                last_seqs_are_in_the_order_asked_for,
                lanes_append_side_by_side,
                a_conflict_in_a_lane_does_not_touch_another,
                a_deadline_in_the_past_is_unavailable,
                a_closed_store_is_unavailable,
            );
            conformance!(@store $backend, making:
                a_chat_is_made_once_under_its_creators_id,
                a_chat_that_is_made_twice_at_once_is_made_once,
            );
            conformance!(@store $backend, entries:
                entries_come_back_as_they_were,
                the_last_edit_of_a_message_is_current,
                p12_a_deletion_leaves_no_text,
                reactions_are_counted,
                pages_of_messages_pass_over_other_entries,
                what_is_to_be_changed_is_found_or_not,
            );
            conformance!(@store $backend, lists:
                the_newest_activity_comes_first,
                a_list_is_read_in_pages,
                a_list_is_read_upwards,
                chats_of_one_instant_are_in_the_order_of_ids,
                a_list_holds_only_chats_of_the_user,
                a_list_shows_a_chat_as_it_is,
                a_user_of_many_chats_finds_them_by_activity,
            );
        }
    };
    (@store $backend:ty, $module:ident: $($case:ident,)*) => {
        $(#[tokio::test]
        async fn $case() {
            let backend = <$backend>::start().await;
            $module::$case(&*backend.store()).await;
            backend.end().await;
        })*
    };
}
use conformance;

/// The same for what only a [`Durable`] backend can keep to.
macro_rules! durable_conformance {
    ($name:ident, $backend:ty) => {
        mod $name {
            use super::*;
            durable_conformance!(@reopen $backend, durability:
                a_restart_changes_nothing,
                ids_are_not_given_twice_over_a_restart,
                a_deleted_chat_stays_deleted,
            );
            durable_conformance!(@reopen $backend, entries:
                p12_a_restart_brings_no_text_back,
            );
        }
    };
    (@reopen $backend:ty, $module:ident: $($case:ident,)*) => {
        $(#[tokio::test]
        async fn $case() {
            let mut backend = <$backend>::start().await;
            $module::$case(&mut backend).await;
            backend.end().await;
        })*
    };
}
use durable_conformance;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A user nobody else has.
fn user(name: &str) -> UserName {
    UserName::new(&format!("{name}-{:016x}", fastrand::u64(..))).unwrap()
}

fn new_chat(members: &[&UserName]) -> NewChat {
    NewChat {
        client_chat_id: None,
        created_by: members[0].clone(),
        created_at: Timestamp(1_000),
        members: members.iter().copied().cloned().collect(),
    }
}

async fn chat(store: &dyn Store, members: &[&UserName]) -> ChatId {
    store.create_chat(new_chat(members)).await.unwrap()
}

async fn chat_of_one(store: &dyn Store) -> ChatId {
    chat(store, &[&user("owner")]).await
}

/// A message that was written at `seq` milliseconds.
fn row(chat: ChatId, seq: Seq) -> Row {
    Row {
        chat,
        seq,
        id: MessageId(fastrand::i64(..)),
        from: UserName::new("owner").unwrap(),
        text: format!("message {seq}").into(),
        client_message_id: None,
        created_at: Timestamp(seq * 1_000),
        number: seq,
        change: None,
    }
}

fn rows(chat: ChatId, seqs: std::ops::RangeInclusive<Seq>) -> Vec<Row> {
    seqs.map(|seq| row(chat, seq)).collect()
}

async fn append(store: &dyn Store, rows: Vec<Row>) -> StoreResult<()> {
    append_on(store, 0, rows).await
}

async fn append_on(store: &dyn Store, lane: usize, rows: Vec<Row>) -> StoreResult<()> {
    store.append(lane, Arc::new(rows)).await
}

/// All messages of a chat.
async fn history(store: &dyn Store, chat: ChatId) -> Vec<Row> {
    let all = Page::After(0);
    store.page(chat, all, 100_000, soon()).await.unwrap()
}

async fn seqs(store: &dyn Store, chat: ChatId, page: Page, limit: usize) -> Vec<Seq> {
    let rows = store.page(chat, page, limit, soon()).await.unwrap();
    rows.iter().map(|row| row.seq).collect()
}
