//! Pages of a user's chats.

use rusqlite::{Connection, Result};

use super::queries::{chat_id, members, sql_limit, user_name};
use crate::{
    domain::{Seq, Timestamp, UserName},
    store::{Activity, ChatRecord, Walk},
};

/// When a chat was active whose newest message is of this time. A clock that was ahead
/// by more than a minute is not believed: what was written before counts, which will be
/// the time at which the message was found.
macro_rules! active_at {
    ($time:literal, $written:literal) => {
        concat!(
            "(SELECT CASE WHEN stamp > clock + 60000000 THEN coalesce(",
            $written,
            ", clock) ELSE stamp END
                FROM (SELECT ",
            $time,
            " AS stamp, CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS clock))"
        )
    };
}
pub(super) use active_at;

/// A user's chats, from the newest activity or up to it. `few` may be all that
/// there are: then each one's newest message is looked up, and nothing else. Who is in
/// more chats than that is worth has it done for those that `members.active_at` may be
/// behind for; the rest is in the order of an index. Members of a deleted chat may still
/// be there.
macro_rules! listed {
    ($beyond:literal, $order:literal) => {
        concat!(
            "WITH few AS MATERIALIZED (SELECT chat_id, active_at FROM members
                                             WHERE user_name = ?1 LIMIT 201),
                  are_all AS MATERIALIZED (
                      SELECT count(*) <= 20 + (SELECT count(*) FROM (SELECT chat_id FROM active_chats LIMIT 720)
                                                  AS busy) / 4 AS yes FROM few),
                  behind AS MATERIALIZED (
                      SELECT chat_id, active_at FROM few WHERE (SELECT yes FROM are_all)
                       UNION
                      SELECT m.chat_id, m.active_at FROM active_chats a CROSS JOIN members m
                       WHERE m.user_name = ?1 AND m.chat_id = a.chat_id
                         AND NOT (SELECT yes FROM are_all)
                       UNION
                      SELECT chat_id, active_at FROM members
                       WHERE user_name = ?1 AND active_at IS NULL AND NOT (SELECT yes FROM are_all)),
                  found AS (
                      SELECT * FROM (
                          SELECT chat_id AS id, active_at FROM members
                           WHERE user_name = ?1 AND (active_at, chat_id) ",
            $beyond,
            " (?2, ?3) AND chat_id NOT IN (SELECT chat_id FROM behind)
                             AND EXISTS (SELECT 1 FROM chats WHERE chats.id = chat_id)
                           ORDER BY active_at ",
            $order,
            ", chat_id ",
            $order,
            " LIMIT ?4)
                       UNION ALL
                      SELECT c.id, ",
            active_at!(
                "coalesce((SELECT created_at FROM messages WHERE chat_id = c.id
                            ORDER BY seq DESC LIMIT 1), c.created_at)",
                "behind.active_at"
            ),
            "            FROM behind CROSS JOIN chats c WHERE c.id = behind.chat_id),
                  page AS MATERIALIZED (
                      SELECT id, active_at FROM found WHERE (active_at, id) ",
            $beyond,
            " (?2, ?3) ORDER BY active_at ",
            $order,
            ", id ",
            $order,
            " LIMIT ?4)
             SELECT c.id, c.created_by, c.created_at,
                    (SELECT max(seq) FROM messages WHERE chat_id = c.id), page.active_at,
                    (SELECT count(*) FROM members WHERE chat_id = c.id)
               FROM page CROSS JOIN chats c WHERE c.id = page.id
              ORDER BY page.active_at ",
            $order,
            ", page.id ",
            $order
        )
    };
}

pub(super) fn chats_of(
    conn: &Connection,
    user: &UserName,
    walk: Walk,
    limit: usize,
    names: usize,
) -> Result<Vec<(Activity, ChatRecord)>> {
    let (place, sql) = match walk {
        Walk::Down(behind) => (behind, listed!("<", "DESC")),
        Walk::Up(above) => (Some(above), listed!(">", "ASC")),
    };
    let (at, id) = place.map_or((i64::MAX, i64::MAX), |p| (p.at.0, p.chat.get()));
    let mut select = conn.prepare_cached(sql)?;
    let found = select.query_map((&**user, at, id, sql_limit(limit)), |row| {
        let record = ChatRecord {
            id: chat_id(row, 0)?,
            created_by: user_name(row, 1)?,
            created_at: Timestamp(row.get(2)?),
            members: Vec::new(),
            member_count: row.get::<_, i64>(5)? as usize,
            last_seq: row.get::<_, Option<Seq>>(3)?.unwrap_or(0),
        };
        let activity = Activity {
            at: Timestamp(row.get(4)?),
            chat: record.id,
        };
        Ok((activity, record))
    })?;
    let mut found = found.collect::<Result<Vec<_>>>()?;
    for (_, record) in &mut found {
        record.members = members(conn, record.id, names)?;
    }
    Ok(found)
}
