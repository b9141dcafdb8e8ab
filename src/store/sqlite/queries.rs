//! What the readers do inside a transaction.

use rusqlite::{Connection, OptionalExtension, Result, Row as SqlRow, types::Type};

use crate::{
    domain::{ChatId, ClientMessageId, Invalid, MessageId, Row, Seq, Timestamp, UserName},
    store::{ChatRecord, Page},
};

pub(super) fn load_chat(
    conn: &Connection,
    id: ChatId,
    newest: usize,
) -> Result<Option<(ChatRecord, Vec<Row>)>> {
    let chat = conn
        .prepare_cached("SELECT created_by, created_at FROM chats WHERE id = ?1")?
        .query_row([id.get()], |row| {
            Ok((user_name(row, 0)?, Timestamp(row.get(1)?)))
        })
        .optional()?;
    let Some((created_by, created_at)) = chat else {
        return Ok(None);
    };
    let members = members(conn, id, usize::MAX)?;
    let record = ChatRecord {
        id,
        created_by,
        created_at,
        member_count: members.len(),
        members,
        last_seq: last_seq(conn, id)?,
    };
    let rows = page(conn, id, Page::Before(Seq::MAX), newest)?;
    Ok(Some((record, rows)))
}

pub(super) fn has_member(conn: &Connection, chat: ChatId, users: &[UserName]) -> Result<bool> {
    // Members of a deleted chat may still be there. The cross join has whoever is no
    // member found out first, with the same work whether or not there is a chat.
    let mut select = conn.prepare_cached(
        "SELECT 1 FROM members CROSS JOIN chats ON chats.id = members.chat_id
          WHERE members.user_name = ?1 AND members.chat_id = ?2",
    )?;
    for user in users {
        if select.exists((&**user, chat.get()))? {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn share_a_chat(conn: &Connection, user: &UserName, other: &UserName) -> Result<bool> {
    conn.prepare_cached(
        "SELECT 1 FROM members AS theirs
           CROSS JOIN members AS own ON own.user_name = ?1 AND own.chat_id = theirs.chat_id
           CROSS JOIN chats ON chats.id = theirs.chat_id
          WHERE theirs.user_name = ?2",
    )?
    .exists((&**user, &**other))
}

pub(super) fn made_by(conn: &Connection, user: &UserName, most: usize) -> Result<usize> {
    let mut count = conn.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM chats WHERE created_by = ?1 LIMIT ?2)",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let made: i64 = count.query_row((&**user, most), |row| row.get(0))?;
    Ok(made as usize)
}

/// Messages of a deleted chat may still be there, so all begins at the chat. The
/// cross join keeps SQLite from beginning elsewhere.
pub(super) fn page(conn: &Connection, chat: ChatId, page: Page, limit: usize) -> Result<Vec<Row>> {
    let (sql, bound) = match page {
        Page::After(seq) => (
            "SELECT seq, message_id, sender, body, client_message_id, messages.created_at \
             FROM chats CROSS JOIN messages ON chat_id = id \
             WHERE id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
            seq,
        ),
        Page::Before(seq) => (
            "SELECT seq, message_id, sender, body, client_message_id, messages.created_at \
             FROM chats CROSS JOIN messages ON chat_id = id \
             WHERE id = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
            seq,
        ),
    };
    let mut select = conn.prepare_cached(sql)?;
    let rows = select.query_map((chat.get(), bound, sql_limit(limit)), |row| {
        Ok(Row {
            chat,
            seq: row.get(0)?,
            id: MessageId(row.get(1)?),
            from: user_name(row, 2)?,
            text: row.get(3)?,
            client_message_id: client_message_id(row, 4)?,
            created_at: Timestamp(row.get(5)?),
        })
    })?;
    let mut rows = rows.collect::<Result<Vec<_>>>()?;
    if matches!(page, Page::Before(_)) {
        rows.reverse();
    }
    Ok(rows)
}

pub(super) fn last_seqs(conn: &Connection, chats: &[ChatId]) -> Result<Vec<Seq>> {
    chats.iter().map(|chat| last_seq(conn, *chat)).collect()
}

fn last_seq(conn: &Connection, chat: ChatId) -> Result<Seq> {
    let found = conn
        .prepare_cached(
            "SELECT (SELECT max(seq) FROM messages WHERE chat_id = chats.id) \
             FROM chats WHERE id = ?1",
        )?
        .query_row([chat.get()], |row| row.get::<_, Option<Seq>>(0))
        .optional()?;
    Ok(found.flatten().unwrap_or(0))
}

pub(super) fn ping(conn: &Connection) -> Result<()> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM chats)")?
        .query_row([], |_| Ok(()))
}

/// The first so many who have joined.
pub(super) fn members(conn: &Connection, chat: ChatId, most: usize) -> Result<Vec<UserName>> {
    conn.prepare_cached(
        "SELECT user_name FROM members WHERE chat_id = ?1 ORDER BY position LIMIT ?2",
    )?
    .query_map([chat.get(), sql_limit(most)], |row| user_name(row, 0))?
    .collect()
}

pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn user_name(row: &SqlRow<'_>, column: usize) -> Result<UserName> {
    let name = row.get_ref(column)?.as_str()?;
    UserName::new(name).map_err(|e| not_ours(column, Type::Text, e))
}

pub(super) fn chat_id(row: &SqlRow<'_>, column: usize) -> Result<ChatId> {
    ChatId::new(row.get(column)?).map_err(|e| not_ours(column, Type::Integer, e))
}

fn client_message_id(row: &SqlRow<'_>, column: usize) -> Result<Option<ClientMessageId>> {
    let id = row.get_ref(column)?.as_str_or_null()?.unwrap_or("");
    ClientMessageId::from_wire(id).map_err(|e| not_ours(column, Type::Text, e))
}

/// Somebody else has written to the file.
fn not_ours(column: usize, kind: Type, error: Invalid) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, error.into())
}
