//! What edits and deletions change in the messages that they are about: statements of the
//! transaction in which they are stored, behind their rows. A batch without any has none.

use std::fmt::Write as _;

use crate::{
    domain::{ChatId, Row, Seq},
    store::entries::Effects,
};

/// For each row there is an index, whatever the statistics say. That ends with the
/// transaction.
const PLAN: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// What the transaction of these rows says besides them, with what their changes need.
pub(super) fn with_changes(mut sql: String, rows: &[Row]) -> String {
    let Some(Effects { edits, deletions }) = Effects::of(rows) else {
        return sql;
    };
    if !sql.is_empty() {
        sql.push_str("; ");
    }
    sql.push_str(PLAN);
    if !edits.is_empty() {
        let chats = array(edits.keys().map(|(chat, _)| chat.get()));
        let targets = array(edits.keys().map(|(_, target)| *target));
        let seqs = array(edits.values().copied());
        // A deletion stands, whoever has stored it. In one join of all three, PostgreSQL
        // may look for the message among all those of its chat.
        add(
            &mut sql,
            format_args!(
                "WITH edits AS MATERIALIZED (\
                 SELECT changed.chat, changed.target, edit.text, edit.created_at \
                 FROM unnest({chats}, {targets}, {seqs}) AS changed (chat, target, seq) \
                 JOIN messages AS edit ON edit.chat_id = changed.chat AND edit.seq = changed.seq) \
                 UPDATE messages AS message \
                 SET edited_text = edits.text, edited_at = edits.created_at FROM edits \
                 WHERE message.chat_id = edits.chat AND message.seq = edits.target \
                 AND message.deleted IS NULL"
            ),
        );
    }
    if !deletions.is_empty() {
        let changed = pairs(&deletions);
        add(
            &mut sql,
            format_args!(
                "UPDATE messages AS message SET text = '', edited_text = NULL, edited_at = NULL, \
                 attached = NULL, deleted = true FROM {changed} \
                 WHERE message.chat_id = changed.chat AND message.seq = changed.target"
            ),
        );
        add(
            &mut sql,
            format_args!(
                "UPDATE messages AS edit SET text = '' FROM {changed} \
                 WHERE edit.chat_id = changed.chat AND edit.target = changed.target \
                 AND edit.kind = 1"
            ),
        );
    }
    sql
}

fn pairs(deletions: &[(ChatId, Seq)]) -> String {
    let chats = array(deletions.iter().map(|(chat, _)| chat.get()));
    let targets = array(deletions.iter().map(|(_, target)| *target));
    format!("unnest({chats}, {targets}) AS changed (chat, target)")
}

fn array(numbers: impl Iterator<Item = i64>) -> String {
    let numbers: Vec<String> = numbers.map(|number| number.to_string()).collect();
    format!("'{{{}}}'::bigint[]", numbers.join(","))
}

fn add(sql: &mut String, statement: std::fmt::Arguments<'_>) {
    // A String takes all that it is given.
    _ = write!(sql, "; {statement}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Change,
        testing::{chat_id, row},
    };

    #[test]
    fn plain_messages_have_nothing_to_say() {
        let rows = [row(chat_id(1), 1, "bo", "hello")];
        assert_eq!(with_changes(String::new(), &rows), "");
        assert_eq!(with_changes("SELECT 1".into(), &rows), "SELECT 1");
    }

    #[test]
    fn of_several_edits_of_a_message_the_last_one_counts() {
        let edit = |seq| Row {
            change: Some(Box::new(Change::Edit { target: 1 })),
            ..row(chat_id(7), seq, "bo", "better")
        };
        let sql = with_changes("SELECT 1".into(), &[edit(2), edit(3)]);
        assert!(sql.starts_with("SELECT 1; SET LOCAL"), "{sql}");
        let arrays = "unnest('{7}'::bigint[], '{1}'::bigint[], '{3}'::bigint[])";
        assert!(sql.contains(arrays), "{sql}");
        assert!(!sql.contains("text = ''"), "{sql}");
    }
}
