//! What the backends have in common about entries that are no messages: how they are
//! kept, and what a batch of them changes in the messages that they are about.

use std::collections::BTreeMap;

use crate::domain::{
    Attached, Change, ChatId, Current, Invalid, ReactionCount, Row, Seq, Timestamp,
};

/// What `kind` says in a database. NULL is a message.
const EDIT: i16 = 1;
const DELETION: i16 = 2;
pub(super) const REACTION: i16 = 3;
pub(super) const TAKEN_BACK: i16 = 4;

/// The columns that only entries besides plain messages have. All are NULL else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Columns<'a> {
    pub number: Option<i64>,
    pub kind: Option<i16>,
    pub target: Option<Seq>,
    pub attached: Option<&'a [u8]>,
}

impl<'a> Columns<'a> {
    pub fn of(row: &'a Row) -> Self {
        let kind = match row.change.as_deref() {
            None | Some(Change::Attached(_) | Change::Edited { .. } | Change::Deleted) => None,
            Some(Change::Edit { .. }) => Some(EDIT),
            Some(Change::Deletion { .. }) => Some(DELETION),
            Some(Change::Reaction { removed: false, .. }) => Some(REACTION),
            Some(Change::Reaction { removed: true, .. }) => Some(TAKEN_BACK),
        };
        Self {
            number: Some(row.number).filter(|number| *number != row.seq),
            kind,
            target: row.target(),
            attached: row
                .change
                .as_deref()
                .and_then(Change::attached)
                .map(Attached::as_bytes),
        }
    }
}

/// … and what has become of a message since it was stored.
#[derive(Debug, Default)]
pub(super) struct Since {
    pub edited_text: Option<Box<str>>,
    pub edited_at: Option<i64>,
    pub deleted: bool,
}

/// Reads what the columns say.
///
/// # Errors
/// If no release before this one has written them.
pub(super) fn change(columns: Columns<'_>, since: Since) -> Result<Option<Box<Change>>, Invalid> {
    let change = match (columns.kind, columns.target) {
        (None, _) if since.deleted => Change::Deleted,
        (None, _) => {
            let attached = columns.attached.map(Attached::read).transpose()?;
            match (since.edited_text, since.edited_at, attached) {
                (Some(text), Some(at), attached) => Change::Edited {
                    text,
                    at: Timestamp(at),
                    attached,
                },
                (_, _, Some(attached)) => Change::Attached(attached),
                (_, _, None) => return Ok(None),
            }
        }
        (Some(EDIT), Some(target)) => Change::Edit { target },
        (Some(DELETION), Some(target)) => Change::Deletion { target },
        (Some(kind @ (REACTION | TAKEN_BACK)), Some(target)) => Change::Reaction {
            target,
            removed: kind == TAKEN_BACK,
        },
        (Some(kind), _) => return Err(Invalid::new(format!("an entry of the kind {kind}"))),
    };
    Ok(Some(Box::new(change)))
}

/// Each message with what is counted of it, both in the order of their seqs; of those that
/// were deleted, nothing is.
pub(super) fn with_reactions(rows: Vec<Row>, counted: Vec<(Seq, ReactionCount)>) -> Vec<Current> {
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

/// What a batch changes in messages that were stored before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    /// The last edit of each message.
    pub edits: BTreeMap<(ChatId, Seq), Seq>,
    pub deletions: Vec<(ChatId, Seq)>,
}

impl Effects {
    /// `None` for a batch of nothing but messages, and of what changes none.
    pub fn of<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Option<Self> {
        let mut effects = Self::default();
        for row in rows {
            match row.change.as_deref() {
                None => {}
                Some(Change::Edit { target }) => {
                    effects.edits.insert((row.chat, *target), row.seq);
                }
                Some(Change::Deletion { target }) => effects.deletions.push((row.chat, *target)),
                Some(
                    Change::Reaction { .. }
                    | Change::Attached(_)
                    | Change::Edited { .. }
                    | Change::Deleted,
                ) => {}
            }
        }
        let some = !effects.edits.is_empty() || !effects.deletions.is_empty();
        some.then_some(effects)
    }
}
