//! Messages as they are now, and what is to be known before one is changed.

use std::time::Instant;

use tokio_postgres::Row as PgRow;

use super::{
    pool::{Params, Pool, Query},
    reads::{Unreadable, messages, unreadable},
};
use crate::{
    domain::{ChatId, Current, Reaction, ReactionCount, Seq, Target, Timestamp, UserName},
    store::{
        Page, StoreResult,
        entries::{REACTION, TAKEN_BACK, with_reactions},
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
        let queries = [Query::MessagesAfter, Query::MessagesBefore];
        let rows = self.entries(queries, chat, page, limit, deadline).await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(Vec::new());
        };
        let (id, viewer): (i64, &str) = (chat.get(), viewer);
        let asked: Params<'_> = &[&id, &first.seq, &last.seq, &viewer];
        let [counted] = self.read(deadline, [(Query::Reactions, asked)]).await?;
        let counted: Result<Vec<_>, Unreadable> = counted.iter().map(reaction_count).collect();
        let counted = counted.map_err(unreadable)?;
        Ok(with_reactions(rows, counted))
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
