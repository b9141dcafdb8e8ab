use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};

use super::{Fault, is_on, strikes, switched_on};
use crate::{
    domain::{ChatId, ClientChatId, Current, Row, Seq, Target, UserName},
    store::{Activity, ChatRecord, Lineage, NewChat, Page, Store, StoreError, StoreResult, Walk},
};

/// How long a commit takes under a fault that shows only if the server is killed
/// in it.
const COMMIT: Duration = Duration::from_millis(50);

/// A store between the server and the real one that does what [`Fault`] says of
/// the store, and else nothing.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    /// Batches that were said to be committed, by lane.
    held: Mutex<Vec<(usize, Arc<Vec<Row>>)>>,
    /// One row was left out, which is enough.
    lost: AtomicBool,
}

impl FaultyStore {
    /// `inner` itself while no fault is switched on.
    pub fn over(inner: Arc<dyn Store>) -> Arc<dyn Store> {
        match switched_on() {
            Some(_) => Arc::new(Self {
                inner,
                held: Mutex::default(),
                lost: AtomicBool::new(false),
            }),
            None => inner,
        }
    }

    /// Commits what was said to be committed.
    async fn let_go(&self) -> StoreResult<()> {
        let mut held = self.held.lock().await;
        while let Some((lane, rows)) = held.first() {
            match self.inner.append(*lane, rows.clone()).await {
                // It was done before by a caller that did not stay to note it.
                Ok(()) | Err(StoreError::Conflict) => held.remove(0),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// As `ON CONFLICT DO NOTHING` would have it.
    async fn append_what_is_free(&self, lane: usize, rows: &[Row]) -> StoreResult<()> {
        for row in rows {
            match self.inner.append(lane, Arc::new(vec![row.clone()])).await {
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The first two neighbours of one chat in each other's place.
fn swapped(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    let pair = rows
        .windows(2)
        .position(|pair| pair[0].chat == pair[1].chat);
    if let Some(at) = pair {
        let seq = rows[at].seq;
        rows[at].seq = rows[at + 1].seq;
        rows[at + 1].seq = seq;
        rows.swap(at, at + 1);
    }
    rows
}

#[async_trait]
impl Store for FaultyStore {
    async fn append(&self, lane: usize, rows: Arc<Vec<Row>>) -> StoreResult<()> {
        if is_on(Fault::AckBeforeCommit) {
            self.let_go().await?;
            self.held.lock().await.push((lane, rows));
            return Ok(());
        }
        if is_on(Fault::DeliverBeforeCommit) {
            tokio::time::sleep(COMMIT).await;
        }
        if is_on(Fault::ReuseASeq) {
            return self.append_what_is_free(lane, &rows).await;
        }
        if strikes(Fault::LoseARow) && !self.lost.swap(true, Ordering::Relaxed) {
            return self.inner.append(lane, Arc::new(rows[1..].to_vec())).await;
        }
        if strikes(Fault::SwapRows) {
            return self.inner.append(lane, Arc::new(swapped(&rows))).await;
        }
        self.inner.append(lane, rows).await
    }

    async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>> {
        self.let_go().await?;
        let mut found = self.inner.load_chat(chat, newest, deadline).await?;
        if let Some((record, rows)) = &mut found
            && is_on(Fault::ReuseASeq)
            && rows.pop().is_some()
        {
            record.last_seq -= 1;
        }
        Ok(found)
    }

    fn lineage(&self) -> Option<watch::Receiver<Lineage>> {
        self.inner.lineage()
    }

    async fn confirm(&self, lane: usize, row: &Row) -> StoreResult<bool> {
        self.inner.confirm(lane, row).await
    }

    async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        self.let_go().await?;
        self.inner.page(chat, page, limit, deadline).await
    }

    async fn current(
        &self,
        chat: ChatId,
        viewer: &UserName,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Current>> {
        self.let_go().await?;
        self.inner
            .current(chat, viewer, page, limit, deadline)
            .await
    }

    async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>> {
        self.let_go().await?;
        self.inner.targets(chat, seqs, deadline).await
    }

    async fn create_chat(&self, chat: NewChat) -> StoreResult<ChatId> {
        self.inner.create_chat(chat).await
    }

    async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool> {
        self.inner.has_member(chat, users, deadline).await
    }

    async fn share_a_chat(
        &self,
        user: &UserName,
        other: &UserName,
        deadline: Instant,
    ) -> StoreResult<bool> {
        self.inner.share_a_chat(user, other, deadline).await
    }

    async fn made_by(&self, user: &UserName, most: usize, deadline: Instant) -> StoreResult<usize> {
        self.inner.made_by(user, most, deadline).await
    }

    async fn made_as(
        &self,
        user: &UserName,
        id: &ClientChatId,
        deadline: Instant,
    ) -> StoreResult<Option<ChatId>> {
        self.inner.made_as(user, id, deadline).await
    }

    async fn delete_chat(&self, chat: ChatId, as_of: Option<u64>) -> StoreResult<bool> {
        self.inner.delete_chat(chat, as_of).await
    }

    async fn add_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        self.inner.add_members(chat, users, as_of).await
    }

    async fn remove_members(
        &self,
        chat: ChatId,
        users: Vec<UserName>,
        as_of: Option<u64>,
    ) -> StoreResult<()> {
        self.inner.remove_members(chat, users, as_of).await
    }

    async fn chats_of(
        &self,
        user: &UserName,
        walk: Walk,
        limit: usize,
        names: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<(Activity, ChatRecord)>> {
        self.inner
            .chats_of(user, walk, limit, names, deadline)
            .await
    }

    async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>> {
        self.inner.last_seqs(chats, deadline).await
    }

    async fn warm(&self, deadline: Instant) {
        self.inner.warm(deadline).await;
    }

    async fn ping(&self, deadline: Instant) -> StoreResult<()> {
        self.inner.ping(deadline).await
    }

    async fn close(&self) {
        // What was held is committed after all, unless the server is killed.
        _ = self.let_go().await;
        self.inner.close().await;
    }
}
