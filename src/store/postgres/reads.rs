use std::time::Instant;

use tokio_postgres::Row as PgRow;

use super::pool::{Params, Pool, Query};
use crate::{
    domain::{
        ChatId, ClientChatId, ClientMessageId, Invalid, MessageId, Row, Seq, Timestamp, UserName,
    },
    store::{
        Activity, ChatRecord, Page, StoreError, StoreResult, Walk,
        entries::{Columns, Since, change},
    },
};

impl Pool {
    pub async fn load_chat(
        &self,
        chat: ChatId,
        newest: usize,
        deadline: Instant,
    ) -> StoreResult<Option<(ChatRecord, Vec<Row>)>> {
        let limit = count(newest);
        let id = chat.get();
        // Both are on the way at once; the second sees what the first sees or more.
        let asked: [(Query, Params<'_>); 2] = [
            (Query::Chat, &[&id]),
            (Query::PageBefore, &[&id, &Seq::MAX, &limit]),
        ];
        let [record, rows] = self.read(deadline, asked).await?;
        let Some(record) = record.first() else {
            return Ok(None);
        };
        let mut record = chat_record(record)?;
        let rows = messages(chat, rows.iter().rev())?;
        if let Some(last) = rows.last() {
            record.last_seq = record.last_seq.max(last.seq);
        }
        Ok(Some((record, rows)))
    }

    pub async fn has_member(
        &self,
        chat: ChatId,
        users: &[UserName],
        deadline: Instant,
    ) -> StoreResult<bool> {
        let users: Vec<&str> = users.iter().map(|user| &**user).collect();
        let id = chat.get();
        let asked: Params<'_> = &[&id, &users];
        let [rows] = self.read(deadline, [(Query::HasMember, asked)]).await?;
        let found = rows.first().map(|row| row.try_get(0)).transpose();
        Ok(found.map_err(unreadable)?.unwrap_or(false))
    }

    pub async fn share_a_chat(
        &self,
        user: &UserName,
        other: &UserName,
        deadline: Instant,
    ) -> StoreResult<bool> {
        let (user, other): (&str, &str) = (user, other);
        let asked: Params<'_> = &[&user, &other];
        let [rows] = self.read(deadline, [(Query::ShareAChat, asked)]).await?;
        let found = rows.first().map(|row| row.try_get(0)).transpose();
        Ok(found.map_err(unreadable)?.unwrap_or(false))
    }

    pub async fn made_by(
        &self,
        user: &UserName,
        most: usize,
        deadline: Instant,
    ) -> StoreResult<usize> {
        let (user, most): (&str, i64) = (user, count(most));
        let asked: Params<'_> = &[&user, &most];
        let [rows] = self.read(deadline, [(Query::MadeBy, asked)]).await?;
        let made = rows.first().map(|row| row.try_get::<_, i64>(0)).transpose();
        Ok(made.map_err(unreadable)?.unwrap_or(0) as usize)
    }

    pub async fn made_as(
        &self,
        user: &UserName,
        id: &ClientChatId,
        deadline: Instant,
    ) -> StoreResult<Option<ChatId>> {
        let (user, id): (&str, &str) = (user, id);
        let asked: Params<'_> = &[&user, &id];
        let [rows] = self.read(deadline, [(Query::MadeAs, asked)]).await?;
        let made =
            |row: &PgRow| -> Result<ChatId, Unreadable> { Ok(ChatId::new(row.try_get(0)?)?) };
        rows.first().map(made).transpose().map_err(unreadable)
    }

    pub async fn page(
        &self,
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        let queries = [Query::PageAfter, Query::PageBefore];
        self.entries(queries, chat, page, limit, deadline).await
    }

    /// A page by one of the queries, of which the first is for what is behind a seq.
    pub(super) async fn entries(
        &self,
        [after, before]: [Query; 2],
        chat: ChatId,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Row>> {
        let (query, seq) = match page {
            Page::After(seq) => (after, seq),
            Page::Before(seq) => (before, seq),
        };
        let (id, limit) = (chat.get(), count(limit));
        let asked: Params<'_> = &[&id, &seq, &limit];
        let [rows] = self.read(deadline, [(query, asked)]).await?;
        match page {
            Page::After(_) => messages(chat, rows.iter()),
            Page::Before(_) => messages(chat, rows.iter().rev()),
        }
    }

    pub async fn chats_of(
        &self,
        user: &UserName,
        walk: Walk,
        limit: usize,
        names: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<(Activity, ChatRecord)>> {
        let (query, place) = match walk {
            Walk::Down(behind) => (Query::ChatsOf, behind),
            Walk::Up(above) => (Query::ChatsAbove, Some(above)),
        };
        let (at, id) = place.map_or((i64::MAX, i64::MAX), |p| (p.at.0, p.chat.get()));
        let (user, limit, names): (&str, i64, i64) = (user, count(limit), count(names));
        let asked: Params<'_> = &[&user, &at, &id, &limit, &names];
        let [rows] = self.read(deadline, [(query, asked)]).await?;
        rows.iter()
            .map(|row| {
                let mut record = chat_record(row)?;
                let count: i64 = row.try_get(5).map_err(unreadable)?;
                record.member_count = count as usize;
                let at = Timestamp(row.try_get(6).map_err(unreadable)?);
                let chat = record.id;
                Ok((Activity { at, chat }, record))
            })
            .collect()
    }

    pub async fn last_seqs(&self, chats: &[ChatId], deadline: Instant) -> StoreResult<Vec<Seq>> {
        let ids: Vec<i64> = chats.iter().map(|chat| chat.get()).collect();
        let asked: Params<'_> = &[&ids];
        let [rows] = self.read(deadline, [(Query::LastSeqs, asked)]).await?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(unreadable))
            .collect()
    }

    pub async fn strangers(
        &self,
        readers: &[(ChatId, UserName)],
        deadline: Instant,
    ) -> StoreResult<Vec<(ChatId, UserName)>> {
        let chats: Vec<i64> = readers.iter().map(|(chat, _)| chat.get()).collect();
        let users: Vec<&str> = readers.iter().map(|(_, user)| &**user).collect();
        let asked: Params<'_> = &[&chats, &users];
        let [rows] = self.read(deadline, [(Query::Strangers, asked)]).await?;
        let mut strangers = Vec::with_capacity(rows.len());
        for row in &rows {
            let place: i64 = row.try_get(0).map_err(unreadable)?;
            strangers.extend(readers.get(place as usize - 1).cloned());
        }
        Ok(strangers)
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn chat_record(row: &PgRow) -> StoreResult<ChatRecord> {
    let read = || -> Result<ChatRecord, Unreadable> {
        let members: Vec<&str> = row.try_get(3)?;
        Ok(ChatRecord {
            id: ChatId::new(row.try_get(0)?)?,
            created_by: UserName::new(row.try_get(1)?)?,
            created_at: Timestamp(row.try_get(2)?),
            member_count: members.len(),
            members: members
                .into_iter()
                .map(UserName::new)
                .collect::<Result<_, _>>()?,
            last_seq: row.try_get(4)?,
        })
    };
    read().map_err(unreadable)
}

pub(super) fn messages<'a>(
    chat: ChatId,
    rows: impl Iterator<Item = &'a PgRow>,
) -> StoreResult<Vec<Row>> {
    let read = |row: &PgRow| -> Result<Row, Unreadable> {
        let client_message_id: Option<&str> = row.try_get(4)?;
        let seq = row.try_get(0)?;
        let columns = Columns {
            number: row.try_get(6)?,
            kind: row.try_get(7)?,
            target: row.try_get(8)?,
            attached: row.try_get(12)?,
        };
        let since = Since {
            edited_text: row.try_get::<_, Option<&str>>(9)?.map(Into::into),
            edited_at: row.try_get(10)?,
            deleted: row.try_get::<_, Option<bool>>(11)?.unwrap_or(false),
        };
        Ok(Row {
            chat,
            seq,
            id: MessageId(row.try_get(1)?),
            from: UserName::new(row.try_get(2)?)?,
            text: row.try_get::<_, &str>(3)?.into(),
            client_message_id: ClientMessageId::from_wire(client_message_id.unwrap_or(""))?,
            created_at: Timestamp(row.try_get(5)?),
            number: columns.number.unwrap_or(seq),
            change: change(columns, since)?,
        })
    };
    rows.map(|row| read(row).map_err(unreadable)).collect()
}

/// Somebody else has written to our tables.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a stored row cannot be read")]
    Column(#[from] tokio_postgres::Error),
    #[error("a stored row breaks its rules")]
    Value(#[from] Invalid),
}

/// To ask again would give the same.
pub(super) fn unreadable(why: impl Into<Unreadable>) -> StoreError {
    StoreError::Refused(Box::new(why.into()))
}
