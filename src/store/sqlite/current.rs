//! Messages as they are now, and what is to be known before one is changed.

use rusqlite::{Connection, Result, Row as SqlRow};

use super::queries::{entry, messages, user_name};
use crate::{
    domain::{ChatId, Current, Reaction, ReactionCount, Row, Seq, Target, Timestamp, UserName},
    store::{
        Page,
        entries::{REACTION, TAKEN_BACK, with_reactions},
    },
};

pub(super) fn current(
    conn: &Connection,
    chat: ChatId,
    viewer: &UserName,
    page: Page,
    limit: usize,
) -> Result<Vec<Current>> {
    let rows = messages(conn, chat, page, limit)?;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(Vec::new());
    };
    let counted = counted(conn, chat, viewer, (first.seq, last.seq))?;
    Ok(with_reactions(rows, counted))
}

/// Of a user's reactions to a message with one emoji the last counts: SQLite takes the
/// other columns from the row that has the greatest seq.
fn counted(
    conn: &Connection,
    chat: ChatId,
    viewer: &UserName,
    (first, last): (Seq, Seq),
) -> Result<Vec<(Seq, ReactionCount)>> {
    let mut select = conn.prepare_cached(
        "SELECT target, body, count(*), max(sender = ?4) \
           FROM (SELECT target, sender, body, kind, max(seq) AS seq FROM messages \
                  WHERE chat_id = ?1 AND target >= ?2 AND target <= ?3 AND kind IN (3, 4) \
                  GROUP BY target, sender, body) \
          WHERE kind = 3 GROUP BY target, body ORDER BY target, min(seq)",
    )?;
    let counted = select.query_map((chat.get(), first, last, &**viewer), |row| {
        let one = ReactionCount {
            emoji: row.get(1)?,
            count: row.get::<_, i64>(2)? as usize,
            mine: row.get(3)?,
        };
        Ok((row.get(0)?, one))
    })?;
    counted.collect()
}

pub(super) fn targets(conn: &Connection, chat: ChatId, seqs: &[Seq]) -> Result<Vec<Target>> {
    let mut targets = Vec::with_capacity(seqs.len());
    for seq in seqs {
        if let Some(row) = entry(conn, chat, *seq)? {
            targets.push(target(conn, chat, row)?);
        }
    }
    Ok(targets)
}

fn target(conn: &Connection, chat: ChatId, row: Row) -> Result<Target> {
    let mut target = Target {
        row,
        edits: 0,
        reactions: Vec::new(),
    };
    let mut select = conn.prepare_cached(
        "SELECT seq, sender, CASE WHEN kind IN (3, 4) THEN body END, kind, created_at \
         FROM messages WHERE chat_id = ?1 AND target = ?2 ORDER BY seq",
    )?;
    let mut about = select.query((chat.get(), target.row.seq))?;
    while let Some(row) = about.next()? {
        match reaction(row)? {
            Some(reaction) => target.reactions.push(reaction),
            None => target.edits += 1,
        }
    }
    Ok(target)
}

/// `None` for what is none.
fn reaction(row: &SqlRow<'_>) -> Result<Option<Reaction>> {
    let kind: i16 = row.get(3)?;
    let emoji: Option<Box<str>> = row.get(2)?;
    let Some(emoji) = emoji.filter(|_| kind == REACTION || kind == TAKEN_BACK) else {
        return Ok(None);
    };
    Ok(Some(Reaction {
        seq: row.get(0)?,
        from: user_name(row, 1)?,
        emoji,
        removed: kind == TAKEN_BACK,
        created_at: Timestamp(row.get(4)?),
    }))
}
