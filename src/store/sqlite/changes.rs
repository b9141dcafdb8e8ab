//! What the writer does inside a transaction.

use std::sync::LazyLock;

use rusqlite::{Connection, Result, Statement};

use super::{lists::active_at, queries};
use crate::{
    domain::{ChatId, Row, UserName},
    store::{
        NewChat,
        entries::{Columns, Effects},
    },
};

const COLUMNS: usize = 11;

/// Rows to a statement; 1 and 64 were slower by a tenth to a fifth.
const WIDE: usize = 16;

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert_sql(1));
static INSERT_WIDE: LazyLock<String> = LazyLock::new(|| insert_sql(WIDE));

fn insert_sql(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS].join(","));
    format!(
        "INSERT INTO messages \
         (chat_id, seq, message_id, sender, body, client_message_id, created_at, \
          number, kind, target, attached) VALUES {}",
        vec![row; rows].join(",")
    )
}

/// The order is free; a page of the index is written once a transaction if its
/// chat's rows stand together.
pub(super) fn insert_rows(conn: &Connection, rows: &[&Row]) -> Result<()> {
    let (wide, rest) = rows.as_chunks::<WIDE>();
    if !wide.is_empty() {
        let mut insert = conn.prepare_cached(&INSERT_WIDE)?;
        for rows in wide {
            bind_rows(&mut insert, rows)?;
            insert.raw_execute()?;
        }
    }
    if !rest.is_empty() {
        let mut insert = conn.prepare_cached(&INSERT_ONE)?;
        for row in rest {
            bind_rows(&mut insert, &[row])?;
            insert.raw_execute()?;
        }
    }
    Ok(())
}

fn bind_rows(insert: &mut Statement<'_>, rows: &[&Row]) -> Result<()> {
    for (i, row) in rows.iter().enumerate() {
        let first = i * COLUMNS + 1;
        insert.raw_bind_parameter(first, row.chat.get())?;
        insert.raw_bind_parameter(first + 1, row.seq)?;
        insert.raw_bind_parameter(first + 2, row.id.0)?;
        insert.raw_bind_parameter(first + 3, &*row.from)?;
        insert.raw_bind_parameter(first + 4, &*row.text)?;
        insert.raw_bind_parameter(first + 5, row.client_message_id.as_deref())?;
        insert.raw_bind_parameter(first + 6, row.created_at.0)?;
        let columns = Columns::of(row);
        insert.raw_bind_parameter(first + 7, columns.number)?;
        insert.raw_bind_parameter(first + 8, columns.kind)?;
        insert.raw_bind_parameter(first + 9, columns.target)?;
        insert.raw_bind_parameter(first + 10, columns.attached)?;
    }
    Ok(())
}

/// What the rows, which have been inserted, change in messages from before them. True if
/// texts are gone by it.
pub(super) fn change_messages(conn: &Connection, rows: &[&Row]) -> Result<bool> {
    let Some(Effects { edits, deletions }) = Effects::of(rows.iter().copied()) else {
        return Ok(false);
    };
    for ((chat, target), seq) in edits {
        // A deletion stands.
        conn.prepare_cached(
            "UPDATE messages AS message SET edited_body = edit.body, edited_at = edit.created_at \
             FROM messages AS edit \
             WHERE message.chat_id = ?1 AND message.seq = ?2 AND message.deleted IS NULL \
             AND edit.chat_id = ?1 AND edit.seq = ?3",
        )?
        .execute((chat.get(), target, seq))?;
    }
    for (chat, target) in &deletions {
        conn.prepare_cached(
            "UPDATE messages SET body = '', edited_body = NULL, edited_at = NULL, \
             attached = NULL, deleted = 1 \
             WHERE chat_id = ?1 AND seq = ?2",
        )?
        .execute((chat.get(), target))?;
        conn.prepare_cached(
            "UPDATE messages SET body = '' WHERE chat_id = ?1 AND target = ?2 AND kind = 1",
        )?
        .execute((chat.get(), target))?;
    }
    Ok(!deletions.is_empty())
}

/// The chat's id: the new one's, or that of the one which its creator has made with the same
/// id before.
pub(super) fn create_chat(conn: &Connection, chat: &NewChat) -> Result<i64> {
    if let Some(id) = &chat.client_chat_id
        && let Some(made) = queries::made_as(conn, &chat.created_by, id)?
    {
        return Ok(made.get());
    }
    conn.prepare_cached(
        "INSERT INTO chats (created_by, created_at, client_chat_id) VALUES (?1, ?2, ?3)",
    )?
    .execute((
        &*chat.created_by,
        chat.created_at.0,
        chat.client_chat_id.as_deref(),
    ))?;
    let id = conn.last_insert_rowid();
    let mut insert = conn.prepare_cached(concat!(
        "INSERT INTO members (chat_id, user_name, active_at) VALUES (?1, ?2, ",
        active_at!("?3", "NULL"),
        ") ON CONFLICT DO NOTHING"
    ))?;
    for user in &chat.members {
        insert.execute((id, &**user, chat.created_at.0))?;
    }
    Ok(id)
}

/// Nothing finds the chat any more; [`purge_step`] does the long work. Returns
/// the number of chats deleted.
pub(super) fn delete_chat(conn: &Connection, chat: ChatId) -> Result<i64> {
    let deleted = conn
        .prepare_cached("DELETE FROM chats WHERE id = ?1")?
        .execute([chat.get()])?;
    if deleted > 0 {
        conn.prepare_cached("INSERT INTO deleted_chats (chat_id) VALUES (?1)")?
            .execute([chat.get()])?;
    }
    Ok(deleted as i64)
}

/// Nothing happens to a chat that does not exist.
pub(super) fn add_members(conn: &Connection, chat: ChatId, users: &[UserName]) -> Result<i64> {
    let mut insert = conn.prepare_cached(concat!(
        "INSERT INTO members (chat_id, user_name, active_at) SELECT id, ?2, ",
        active_at!(
            "coalesce((SELECT created_at FROM messages WHERE chat_id = ?1
                        ORDER BY seq DESC LIMIT 1), chats.created_at)",
            "NULL"
        ),
        " FROM chats WHERE id = ?1 ON CONFLICT DO NOTHING"
    ))?;
    let mut added = 0;
    for user in users {
        added += insert.execute((chat.get(), &**user))?;
    }
    Ok(added as i64)
}

pub(super) fn remove_members(conn: &Connection, chat: ChatId, users: &[UserName]) -> Result<i64> {
    let mut delete =
        conn.prepare_cached("DELETE FROM members WHERE user_name = ?2 AND chat_id = ?1")?;
    let mut removed = 0;
    for user in users {
        removed += delete.execute((chat.get(), &**user))?;
    }
    Ok(removed as i64)
}

pub(super) fn has_deleted_chats(conn: &Connection) -> Result<bool> {
    conn.query_row("SELECT EXISTS (SELECT 1 FROM deleted_chats)", [], |row| {
        row.get(0)
    })
}

/// Removes at most `limit` rows of one deleted chat, and the chat's tombstone
/// behind the last of them. Returns false if there was nothing to do.
pub(super) fn purge_step(conn: &Connection, limit: usize) -> Result<bool> {
    let chat: Option<i64> = conn
        .prepare_cached("SELECT min(chat_id) FROM deleted_chats")?
        .query_row([], |row| row.get(0))?;
    let Some(chat) = chat else {
        return Ok(false);
    };
    let limit = limit as i64;
    let messages = conn
        .prepare_cached(
            "DELETE FROM messages WHERE row_id IN \
             (SELECT row_id FROM messages WHERE chat_id = ?1 ORDER BY seq LIMIT ?2)",
        )?
        .execute((chat, limit))? as i64;
    let members = conn
        .prepare_cached(
            "DELETE FROM members WHERE position IN \
             (SELECT position FROM members WHERE chat_id = ?1 LIMIT ?2)",
        )?
        .execute((chat, limit - messages))? as i64;
    if messages + members < limit {
        conn.prepare_cached("DELETE FROM deleted_chats WHERE chat_id = ?1")?
            .execute([chat])?;
    }
    Ok(true)
}
