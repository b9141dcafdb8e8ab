-- A user's chats in the order of their activity, which is kept with each member so
-- that a page is read from one index. It is written behind the messages:
-- `active_chats` names the chats that have had messages since, and NULL is what has
-- not been written yet.
ALTER TABLE members ADD COLUMN active_at INTEGER; -- microseconds since the Unix epoch
CREATE INDEX members_by_activity ON members (user_name, active_at, chat_id);
CREATE INDEX members_behind ON members (chat_id) WHERE active_at IS NULL;

CREATE TABLE active_chats (
    chat_id INTEGER PRIMARY KEY
) STRICT;
