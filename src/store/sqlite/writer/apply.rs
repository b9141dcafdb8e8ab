//! What a transaction does.

use rusqlite::Connection;

use super::{Change, Job};
use crate::{
    domain::{ChatId, Row},
    store::sqlite::{activity::Activity, changes},
};

/// What a transaction has done.
pub(super) struct Applied {
    pub answers: Vec<i64>,
    /// Chats that are named as active for the first time.
    pub named: Vec<ChatId>,
    /// Texts were erased.
    pub erased: bool,
}

/// All jobs of a batch are under way at the same time, so that any order of
/// them is right. Rows of many lanes go in together, sorted: a page of the
/// index is then written once.
pub(super) fn apply(
    conn: &Connection,
    activity: &Activity,
    batch: &[Job],
) -> rusqlite::Result<Applied> {
    let mut rows: Vec<&Row> = batch.iter().flat_map(|job| job.change.rows()).collect();
    rows.sort_by_key(|row| row.chat);
    changes::insert_rows(conn, &rows)?;
    let erased = changes::change_messages(conn, &rows)?;
    let named = activity.name(conn, &rows)?;
    let answer = |job: &Job| match &job.change {
        Change::Append(rows) => Ok(rows.len() as i64),
        Change::Create(chat) => changes::create_chat(conn, chat),
        Change::Delete(chat) => changes::delete_chat(conn, *chat),
        Change::AddMembers(chat, users) => changes::add_members(conn, *chat, users),
        Change::RemoveMembers(chat, users) => changes::remove_members(conn, *chat, users),
    };
    let answers: rusqlite::Result<Vec<i64>> = batch.iter().map(answer).collect();
    Ok(Applied {
        answers: answers?,
        named,
        erased,
    })
}
