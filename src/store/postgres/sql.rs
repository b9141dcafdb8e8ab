//! The statements of reads and changes. Public so that a test can hold them
//! against the planner.

use crate::cluster::NodeId;

/// A parameter of our own, given with a connection.
pub(super) const MARKER: &str = "chatd.session";

/// What every session is asked before it is used: whether it is a standby's,
/// whether it is read-only, which connection it was made for, and whose it is.
pub(super) const CHECK: &str = "SELECT pg_is_in_recovery(), \
    current_setting('transaction_read_only'), current_setting('chatd.session', true), \
    extract(epoch FROM pg_postmaster_start_time())";

/// Which database it is, and how often a standby of it was promoted. A server that is
/// like PostgreSQL may not know.
pub(super) const TIMELINE: &str = "
    SELECT system_identifier,
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint
      FROM pg_control_system()";

/// Whose a transaction is, as [`CHECK`] tells it: an error, if it is another's.
pub(super) fn is_server(server: &str) -> String {
    format!("SELECT 1 / (extract(epoch FROM pg_postmaster_start_time())::text = '{server}')::int")
}

/// Refuses the transaction if the node is not one of the cluster any more. It is to be
/// READ COMMITTED. The number is quoted because the smallest one, as a literal, is not a
/// bigint.
pub(super) fn fence(node: NodeId) -> String {
    format!("SELECT chatd_fence('{}')", node.0)
}

/// Which rows of `pg_stat_activity` hold the advisory lock of this key, in this mode.
/// Behind a pooler nothing else tells whose a session is: its `application_name` may be
/// that of a client before.
pub(super) fn holds_lock(key: i64, mode: &str) -> String {
    format!(
        "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 \
         AND granted AND mode = '{mode}' \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (classid::bigint << 32) | objid::bigint = '{key}')"
    )
}

/// A reading session. The tables' statistics may be missing or old, and the
/// planner then takes a bitmap scan and a sort for a page of a large chat; there
/// is an index for every read here, so it is told so. Plans are generic: with a
/// plan per execution, planning 16 partitions costs more than reading a page.
/// The statement timeout is the net below the callers' deadlines. Who waits for a lock
/// for longer asks again, and goes around it.
pub const SESSION: &str = "
    SET statement_timeout = '60s';
    SET lock_timeout = '250ms';
    SET default_transaction_isolation = 'read committed';
    SET plan_cache_mode = force_generic_plan;
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET jit = off";

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
            " AS stamp, (extract(epoch FROM now()) * 1000000)::bigint AS clock) AS times)"
        )
    };
}
pub(super) use active_at;

/// A user's chats, from the newest activity or up to it. `few` may be all that
/// there are: then each one's newest message is looked up (7 µs), and nothing else. Who
/// is in more chats than that is worth has it done for those that `members.active_at`
/// may be behind for ([`super::activity`]); the rest is in the order of an index.
macro_rules! listed {
    ($beyond:literal, $order:literal) => {
        concat!(
            "
    WITH few AS MATERIALIZED (SELECT chat_id, active_at FROM members WHERE user_name = $1 LIMIT 201),
         are_all AS MATERIALIZED (
             SELECT count(*) <= 20 + (SELECT count(*) FROM (SELECT chat_id FROM active_chats LIMIT 720)
                                         AS busy) / 4 AS yes FROM few),
         behind AS MATERIALIZED (
             SELECT chat_id, active_at FROM few WHERE (SELECT yes FROM are_all)
              UNION
             SELECT m.chat_id, m.active_at FROM active_chats a JOIN members m ON m.chat_id = a.chat_id
              WHERE m.user_name = $1 AND NOT (SELECT yes FROM are_all)
              UNION
             SELECT chat_id, active_at FROM members
              WHERE user_name = $1 AND active_at IS NULL AND NOT (SELECT yes FROM are_all)),
         found AS (
             (SELECT chat_id AS id, active_at FROM members
               WHERE user_name = $1 AND (active_at, chat_id) ",
            $beyond,
            " ($2, $3) AND chat_id NOT IN (SELECT chat_id FROM behind)
               ORDER BY active_at ",
            $order,
            ", chat_id ",
            $order,
            " LIMIT $4)
              UNION ALL
             SELECT c.id, ",
            active_at!(
                "coalesce((SELECT created_at FROM messages WHERE chat_id = c.id
                            ORDER BY seq DESC LIMIT 1), c.created_at)",
                "behind.active_at"
            ),
            " FROM behind JOIN chats c ON c.id = behind.chat_id),
         page AS (
             SELECT id, active_at FROM found WHERE (active_at, id) ",
            $beyond,
            " ($2, $3) ORDER BY active_at ",
            $order,
            ", id ",
            $order,
            " LIMIT $4)
    SELECT c.id, c.created_by, c.created_at,
           ARRAY(SELECT user_name FROM members WHERE chat_id = c.id ORDER BY position LIMIT $5),
           coalesce((SELECT seq FROM messages WHERE chat_id = c.id ORDER BY seq DESC LIMIT 1), 0),
           (SELECT count(*) FROM members WHERE chat_id = c.id), page.active_at
      FROM page JOIN chats c ON c.id = page.id ORDER BY page.active_at ",
            $order,
            ", page.id ",
            $order
        )
    };
}

/// Entries of a chat, `$1`, by their seq.
macro_rules! entries {
    ($which:literal) => {
        concat!(
            "
    SELECT seq, id, sender, text, client_message_id, created_at,
           number, kind, target, edited_text, edited_at, deleted, attached FROM messages
     WHERE chat_id = $1 AND seq ",
            $which,
            " AND EXISTS (SELECT FROM chats WHERE chats.id = $1)"
        )
    };
}

/// Those that are beyond a seq, `$2`, at most `$3`.
macro_rules! page {
    ($which:literal, $order:literal) => {
        concat!(
            entries!($which),
            "\n     ORDER BY seq ",
            $order,
            " LIMIT $3"
        )
    };
}

/// `$1` chat, `$2` seq, `$3` limit.
pub const PAGE_AFTER: &str = page!("> $2", "ASC");

/// The same before it, in descending order.
pub const PAGE_BEFORE: &str = page!("< $2", "DESC");

/// The same of messages alone.
pub const MESSAGES_AFTER: &str = page!("> $2 AND kind IS NULL", "ASC");
pub const MESSAGES_BEFORE: &str = page!("< $2 AND kind IS NULL", "DESC");

/// `$1` chat, `$2` and `$3` the first and the last message, `$4` a user: with what emoji
/// how many react to each, and whether the user is one of them. Of a user's reactions to
/// a message with one emoji the last counts. That is one range of an index.
pub const REACTIONS: &str = "
    SELECT target, text, count(*), bool_or(sender = $4)
      FROM (SELECT DISTINCT ON (target, sender, text) target, sender, text, kind, seq
              FROM messages
             WHERE chat_id = $1 AND target >= $2 AND target <= $3 AND kind IN (3, 4)
             ORDER BY target, sender, text, seq DESC) AS last
     WHERE kind = 3 GROUP BY target, text ORDER BY target, min(seq)";

/// `$1` chat, `$2` seqs.
pub const TARGETS: &str = entries!("= ANY($2)");

/// The same of what has happened to them; of what is no reaction without its text.
pub const ABOUT: &str = "
    SELECT target, seq, sender, CASE WHEN kind IN (3, 4) THEN text END, kind, created_at
      FROM messages WHERE chat_id = $1 AND target = ANY($2) ORDER BY seq";

/// `$1` chat.
pub const CHAT: &str = "
    SELECT id, created_by, created_at,
           ARRAY(SELECT user_name FROM members WHERE chat_id = $1 ORDER BY position),
           coalesce((SELECT seq FROM messages WHERE chat_id = $1 ORDER BY seq DESC LIMIT 1), 0)
      FROM chats WHERE id = $1";

/// `$1` chat, `$2` users. One probe of the primary key a user, and the same one for
/// a chat that does not exist.
pub const HAS_MEMBER: &str = "
    SELECT EXISTS (SELECT FROM members WHERE chat_id = $1 AND user_name = ANY($2))";

/// `$1` chats and `$2` users, of whom each reads the chat beside it: the places of those
/// who are no members, from 1 on.
pub const STRANGERS: &str = "
    SELECT n FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS readers (chat, name, n)
     WHERE NOT EXISTS (SELECT FROM members
                         JOIN chats ON chats.id = members.chat_id
                        WHERE members.chat_id = readers.chat AND members.user_name = readers.name)";

/// `$1` and `$2` users. Members of a deleted chat may still be there.
pub const SHARE_A_CHAT: &str = "
    SELECT EXISTS (
        SELECT FROM members AS theirs
          JOIN members AS own ON own.chat_id = theirs.chat_id AND own.user_name = $1
          JOIN chats ON chats.id = theirs.chat_id
         WHERE theirs.user_name = $2)";

/// `$1` user, `$2` most that are counted.
pub const MADE_BY: &str = "
    SELECT count(*) FROM (SELECT FROM chats WHERE created_by = $1 LIMIT $2) AS made";

/// `$1` user, `$2` the client's id of a chat.
pub const MADE_AS: &str = "
    SELECT id FROM chats WHERE created_by = $1 AND client_chat_id = $2";

/// `$1` user, `$2` and `$3` the activity that the list goes on behind, `$4` limit, `$5`
/// names.
pub const CHATS_OF: &str = listed!("<", "DESC");

/// The same in the other direction.
pub const CHATS_ABOVE: &str = listed!(">", "ASC");

/// `$1` chats.
pub const LAST_SEQS: &str = "
    SELECT coalesce((SELECT seq FROM messages WHERE chat_id = asked.id
                        AND EXISTS (SELECT FROM chats WHERE chats.id = asked.id)
                      ORDER BY seq DESC LIMIT 1), 0)
      FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (id, n) ORDER BY n";

/// Opens a transaction of reads where the session is not ours to set: what
/// [`SESSION`] says, for this transaction alone.
pub(super) const BEGIN_READ: &str = "
    BEGIN;
    SET LOCAL statement_timeout = '60s';
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_bitmapscan = off;
    SET LOCAL jit = off";

/// Opens a read that takes the locks of those partitions alone that it needs.
pub(super) const BEGIN_AROUND: &str = "
    BEGIN;
    SET LOCAL plan_cache_mode = force_custom_plan";

/// How long a read waits for a lock; one that has met it waits for as long as its
/// caller does.
pub(super) const BRIEFLY: &str = "250ms";
pub(super) const BLOCKED: &str = "0";

/// What the role must be allowed and is not, a row each. To lock a row takes UPDATE.
pub(super) const RIGHTS: &str = "
    SELECT what || ' on ' || name AS missing
      FROM (VALUES ('chats'), ('members'), ('messages'), ('deleted_chats'),
                   ('activity_epochs'), ('active_chats')) AS tables (name),
           unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS what
     WHERE NOT has_table_privilege(name, what)
       AND (what <> 'UPDATE' OR name <> 'activity_epochs')
    UNION ALL
    SELECT 'EXECUTE on ' || name
      FROM (VALUES ('pg_terminate_backend(integer, bigint)'),
                   ('pg_logical_emit_message(boolean, text, text)'),
                   ('set_config(text, text, boolean)')) AS functions (name)
     WHERE NOT has_function_privilege(name, 'EXECUTE')";

/// Whether changes would go through: rights that are missing, a row each, and a
/// record in the log of a transaction, which nobody waits for to reach the disk. It is
/// left open.
pub(super) const READY: &str = "
    BEGIN;
    SET LOCAL synchronous_commit = off;
    SELECT what || ' on ' || name AS missing
      FROM (VALUES ('chats'), ('members'), ('messages'), ('activity_epochs'),
                   ('active_chats')) AS tables (name),
           unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS what
     WHERE NOT has_table_privilege(name, what);
    SELECT pg_logical_emit_message(true, 'chatd', '')";

/// Opens the transaction of a change of a chat. A role's or a database's defaults
/// must not weaken P1. The message makes the commit wait for disk and standby
/// even if nothing is left to be changed: an earlier try, whose commit did not get
/// that far, may be what is found.
pub(super) const BEGIN_CHANGE: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = 0;
    SELECT set_config('synchronous_commit', 'on', true)
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
    SELECT pg_logical_emit_message(true, 'chatd', '')";

/// `$1` created by, `$2` created at, `$3` members, `$4` the client's id, if it has one. The
/// order of the rows is the order in which `members.position` counts. Of a chat that there
/// is under this id, the id; nothing, if that was being made just then.
pub(super) const CREATE_CHAT: &str = concat!(
    "
    WITH made AS (INSERT INTO chats (created_by, created_at, client_chat_id) VALUES ($1, $2, $4)
                      ON CONFLICT (created_by, client_chat_id)
                         WHERE client_chat_id IS NOT NULL DO NOTHING
                  RETURNING id),
         joined AS (INSERT INTO members (chat_id, user_name, active_at)
                    SELECT made.id, u.name, ",
    active_at!("$2", "NULL"),
    " FROM made, unnest($3::text[]) WITH ORDINALITY AS u (name, n)
                     ORDER BY u.n)
    SELECT id FROM made
     UNION ALL
    SELECT id FROM chats WHERE created_by = $1 AND client_chat_id = $4"
);

/// `$1` chat, `$2` users. The lock keeps the chat from being deleted meanwhile. When
/// the chat was last active is written later: messages may be under way.
pub(super) const ADD_MEMBERS: &str = "
    INSERT INTO members (chat_id, user_name)
    SELECT c.id, u.name
      FROM (SELECT id FROM chats WHERE id = $1 FOR KEY SHARE) c,
           unnest($2::text[]) WITH ORDINALITY AS u (name, n)
     ORDER BY u.n
        ON CONFLICT DO NOTHING";

/// `$1` chat, `$2` users.
pub(super) const REMOVE_MEMBERS: &str =
    "DELETE FROM members WHERE chat_id = $1 AND user_name = ANY($2)";

/// `$1` chat. Every read asks for the chat's row, so the messages are out of
/// sight at once; [`super::purge`] removes them.
pub(super) const DELETE_CHAT: &str = "
    WITH gone AS (DELETE FROM chats WHERE id = $1 RETURNING id)
    INSERT INTO deleted_chats (chat_id) SELECT id FROM gone";
