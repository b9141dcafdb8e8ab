//! The statements of reads and changes. Public so that a test can hold them
//! against the planner.

/// A parameter of our own, given with a connection.
pub(super) const MARKER: &str = "chatd.session";

/// What every session is asked before it is used: whether it is a standby's,
/// whether it is read-only, which connection it was made for, and whose it is.
pub(super) const CHECK: &str = "SELECT pg_is_in_recovery(), \
    current_setting('transaction_read_only'), current_setting('chatd.session', true), \
    extract(epoch FROM pg_postmaster_start_time())";

/// Whose a transaction is, as [`CHECK`] tells it: an error, if it is another's.
pub(super) fn is_server(server: &str) -> String {
    format!("SELECT 1 / (extract(epoch FROM pg_postmaster_start_time())::text = '{server}')::int")
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

/// A user's chats with their activity.
macro_rules! listed {
    () => {
        "
    SELECT id, created_by, created_at,
           ARRAY(SELECT user_name FROM members WHERE chat_id = a.id ORDER BY position LIMIT $5),
           last_seq, (SELECT count(*) FROM members WHERE chat_id = a.id), active_at
      FROM (SELECT c.id, c.created_by, c.created_at, coalesce(newest.seq, 0) AS last_seq,
                   coalesce(newest.created_at, c.created_at) AS active_at
              FROM members
              JOIN chats c ON c.id = members.chat_id
              LEFT JOIN LATERAL (SELECT seq, created_at FROM messages
                                  WHERE chat_id = c.id ORDER BY seq DESC LIMIT 1) newest ON true
             WHERE members.user_name = $1) a "
    };
}

/// `$1` chat, `$2` seq, `$3` limit.
pub const PAGE_AFTER: &str = "
    SELECT seq, id, sender, text, client_message_id, created_at FROM messages
     WHERE chat_id = $1 AND seq > $2 AND EXISTS (SELECT FROM chats WHERE chats.id = $1)
     ORDER BY seq LIMIT $3";

/// `$1` chat, `$2` seq, `$3` limit. In descending order.
pub const PAGE_BEFORE: &str = "
    SELECT seq, id, sender, text, client_message_id, created_at FROM messages
     WHERE chat_id = $1 AND seq < $2 AND EXISTS (SELECT FROM chats WHERE chats.id = $1)
     ORDER BY seq DESC LIMIT $3";

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

/// `$1` user, `$2` most that are counted.
pub const MADE_BY: &str = "
    SELECT count(*) FROM (SELECT FROM chats WHERE created_by = $1 LIMIT $2) AS made";

/// `$1` user, `$2` and `$3` the activity that the list goes on behind, `$4` limit, `$5`
/// names. One probe of the newest message for each of the user's chats (7 µs a chat:
/// 1 ms for a user of 100, 70 ms for one of 10,000) is what it costs to have no row of
/// the chat to update for each message; the members are only read for the chats that
/// are returned.
pub const CHATS_OF: &str = concat!(
    listed!(),
    "WHERE (active_at, id) < ($2, $3) ORDER BY active_at DESC, id DESC LIMIT $4"
);

/// The same in the other direction.
pub const CHATS_ABOVE: &str = concat!(
    listed!(),
    "WHERE (active_at, id) > ($2, $3) ORDER BY active_at, id LIMIT $4"
);

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

/// What the role must be allowed and is not, a row each. To lock a chat's row
/// against its deletion takes UPDATE.
pub(super) const RIGHTS: &str = "
    SELECT what || ' on ' || name AS missing
      FROM (VALUES ('chats'), ('members'), ('messages'), ('deleted_chats')) AS tables (name),
           unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS what
     WHERE NOT has_table_privilege(name, what)
       AND (what <> 'UPDATE' OR name IN ('chats', 'deleted_chats'))
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
      FROM (VALUES ('chats'), ('members'), ('messages')) AS tables (name),
           unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS what
     WHERE NOT has_table_privilege(name, what);
    SELECT pg_logical_emit_message(true, 'chatd', '')";

/// Opens the transaction of a change of a chat. A role's or a database's defaults
/// must not weaken P1. The message makes the commit wait for disk and standby
/// even if nothing is left to be changed: an earlier try, whose commit did not get
/// that far, may be what is found.
pub(super) const BEGIN_CHANGE: &str = "
    BEGIN;
    SET LOCAL lock_timeout = 0;
    SELECT set_config('synchronous_commit', 'on', true)
     WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
    SELECT pg_logical_emit_message(true, 'chatd', '')";

/// `$1` created by, `$2` created at, `$3` members. The order of the rows is the
/// order in which `members.position` counts.
pub(super) const CREATE_CHAT: &str = "
    WITH made AS (INSERT INTO chats (created_by, created_at) VALUES ($1, $2) RETURNING id),
         joined AS (INSERT INTO members (chat_id, user_name)
                    SELECT made.id, u.name FROM made, unnest($3::text[]) WITH ORDINALITY AS u (name, n)
                     ORDER BY u.n)
    SELECT id FROM made";

/// `$1` chat, `$2` users. The lock keeps the chat from being deleted meanwhile.
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
