//! Messages as they are now, and what is to be known before one is changed.

use std::time::Instant;

use tokio_postgres::Row as PgRow;

use super::{
    pool::{Params, Pool, Query},
    reads::{Unreadable, count, messages, unreadable},
};
use crate::{
    domain::{
        Change, ChatId, Current, Reaction, ReactionCount, Row, Seq, Target, Timestamp, UserName,
    },
    store::{
        Page, StoreResult,
        entries::{REACTION, TAKEN_BACK},
    },
};

impl Pool {
    pub async fn current(
        &self,
        chat: ChatId,
        viewer: &UserName,
        page: Page,
        limit: usize,
        deadline: Instant,
    ) -> StoreResult<Vec<Current>> {
        let (id, limit) = (chat.get(), count(limit));
        let rows = match page {
            Page::After(seq) => {
                let asked: Params<'_> = &[&id, &seq, &limit];
                let [rows] = self.read(deadline, [(Query::MessagesAfter, asked)]).await?;
                messages(chat, rows.iter())?
            }
            Page::Before(seq) => {
                let asked: Params<'_> = &[&id, &seq, &limit];
                let [rows] = self
                    .read(deadline, [(Query::MessagesBefore, asked)])
                    .await?;
                messages(chat, rows.iter().rev())?
            }
        };
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(Vec::new());
        };
        let viewer: &str = viewer;
        let asked: Params<'_> = &[&id, &first.seq, &last.seq, &viewer];
        let [counted] = self.read(deadline, [(Query::Reactions, asked)]).await?;
        let counted: Result<Vec<_>, Unreadable> = counted.iter().map(reaction_count).collect();
        let counted = counted.map_err(unreadable)?;
        Ok(join(rows, counted))
    }

    pub async fn targets(
        &self,
        chat: ChatId,
        seqs: &[Seq],
        deadline: Instant,
    ) -> StoreResult<Vec<Target>> {
        let id = chat.get();
        let asked: Params<'_> = &[&id, &seqs];
        let both = [(Query::Targets, asked), (Query::About, asked)];
        // The second sees what the first sees, or more.
        let [rows, about] = self.read(deadline, both).await?;
        let rows = messages(chat, rows.iter())?;
        let target = |row| Target {
            row,
            edits: 0,
            reactions: Vec::new(),
        };
        let mut targets: Vec<Target> = rows.into_iter().map(target).collect();
        for row in &about {
            add(&mut targets, row).map_err(unreadable)?;
        }
        Ok(targets)
    }
}

/// Each message with what is counted of it; of those that were deleted, nothing is.
fn join(rows: Vec<Row>, counted: Vec<(Seq, ReactionCount)>) -> Vec<Current> {
    let mut counted = counted.into_iter().peekable();
    let current = |row: Row| {
        let is_deleted = row.change.as_deref() == Some(&Change::Deleted);
        let mut reactions = Vec::new();
        while let Some((seq, one)) = counted.next_if(|(seq, _)| *seq <= row.seq) {
            reactions.extend((seq == row.seq && !is_deleted).then_some(one));
        }
        Current { row, reactions }
    };
    rows.into_iter().map(current).collect()
}

fn reaction_count(row: &PgRow) -> Result<(Seq, ReactionCount), Unreadable> {
    let one = ReactionCount {
        emoji: row.try_get::<_, &str>(1)?.into(),
        count: row.try_get::<_, i64>(2)? as usize,
        mine: row.try_get(3)?,
    };
    Ok((row.try_get(0)?, one))
}

fn add(targets: &mut [Target], row: &PgRow) -> Result<(), Unreadable> {
    let (seq, kind): (Seq, i16) = (row.try_get(0)?, row.try_get(4)?);
    let Some(target) = targets.iter_mut().find(|one| one.row.seq == seq) else {
        return Ok(());
    };
    match row.try_get::<_, Option<&str>>(3)? {
        Some(emoji) if kind == REACTION || kind == TAKEN_BACK => {
            target.reactions.push(Reaction {
                seq: row.try_get(1)?,
                from: UserName::new(row.try_get(2)?)?,
                emoji: emoji.into(),
                removed: kind == TAKEN_BACK,
                created_at: Timestamp(row.try_get(5)?),
            });
        }
        _ => target.edits += 1,
    }
    Ok(())
}
