//! What the readers do inside a transaction.

use rusqlite::{Connection, OptionalExtension, Result, Row as SqlRow, types::Type};

use crate::{
    domain::{
        ChatId, ClientChatId, ClientMessageId, Invalid, MessageId, Row, Seq, Timestamp, UserName,
    },
    store::{
        ChatRecord, Page,
        entries::{Columns, Since, change},
    },
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

pub(super) fn made_as(
    conn: &Connection,
    user: &UserName,
    id: &ClientChatId,
) -> Result<Option<ChatId>> {
    conn.prepare_cached("SELECT id FROM chats WHERE created_by = ?1 AND client_chat_id = ?2")?
        .query_row((&**user, &**id), |row| chat_id(row, 0))
        .optional()
}

/// Entries of a deleted chat may still be there, so all begins at the chat. The cross
/// join keeps SQLite from beginning elsewhere.
macro_rules! page {
    ($beyond:literal, $order:literal) => {
        concat!(
            "SELECT seq, message_id, sender, body, client_message_id, messages.created_at, \
             number, kind, target, edited_body, edited_at, deleted, attached \
             FROM chats CROSS JOIN messages ON chat_id = id \
             WHERE id = ?1 AND ",
            $beyond,
            " ORDER BY seq ",
            $order,
            " LIMIT ?3"
        )
    };
}

pub(super) fn page(conn: &Connection, chat: ChatId, page: Page, limit: usize) -> Result<Vec<Row>> {
    let (after, before) = (page!("seq > ?2", "ASC"), page!("seq < ?2", "DESC"));
    entries(conn, [after, before], chat, page, limit)
}

/// The same of messages alone.
pub(super) fn messages(
    conn: &Connection,
    chat: ChatId,
    page: Page,
    limit: usize,
) -> Result<Vec<Row>> {
    let after = page!("seq > ?2 AND kind IS NULL", "ASC");
    let before = page!("seq < ?2 AND kind IS NULL", "DESC");
    entries(conn, [after, before], chat, page, limit)
}

fn entries(
    conn: &Connection,
    [after, before]: [&str; 2],
    chat: ChatId,
    page: Page,
    limit: usize,
) -> Result<Vec<Row>> {
    match page {
        Page::After(seq) => rows(conn, after, chat, seq, limit),
        Page::Before(seq) => {
            let mut rows = rows(conn, before, chat, seq, limit)?;
            rows.reverse();
            Ok(rows)
        }
    }
}

/// The entry with this seq.
pub(super) fn entry(conn: &Connection, chat: ChatId, seq: Seq) -> Result<Option<Row>> {
    let found = rows(conn, page!("seq = ?2", "ASC"), chat, seq, 1)?;
    Ok(found.into_iter().next())
}

fn rows(conn: &Connection, sql: &str, chat: ChatId, bound: Seq, limit: usize) -> Result<Vec<Row>> {
    let mut select = conn.prepare_cached(sql)?;
    let rows = select.query_map((chat.get(), bound, sql_limit(limit)), |row| {
        let seq = row.get(0)?;
        let columns = Columns {
            number: row.get(6)?,
            kind: row.get(7)?,
            target: row.get(8)?,
            attached: row.get_ref(12)?.as_blob_or_null()?,
        };
        let since = Since {
            edited_text: row.get(9)?,
            edited_at: row.get(10)?,
            deleted: row.get::<_, Option<bool>>(11)?.unwrap_or(false),
        };
        Ok(Row {
            chat,
            seq,
            id: MessageId(row.get(1)?),
            from: user_name(row, 2)?,
            text: row.get(3)?,
            client_message_id: client_message_id(row, 4)?,
            created_at: Timestamp(row.get(5)?),
            number: columns.number.unwrap_or(seq),
            change: change(columns, since).map_err(|e| not_ours(7, Type::Integer, e))?,
        })
    })?;
    rows.collect()
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
