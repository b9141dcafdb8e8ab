-- AUTOINCREMENT: the id of a deleted chat is never given again.
CREATE TABLE chats (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    created_by TEXT    NOT NULL,
    created_at INTEGER NOT NULL -- microseconds since the Unix epoch
) STRICT;

-- A new rowid is larger than all others, so `position` is the order of joining.
CREATE TABLE members (
    position  INTEGER PRIMARY KEY,
    chat_id   INTEGER NOT NULL,
    user_name TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX members_by_user ON members (user_name, chat_id);
CREATE INDEX members_by_chat ON members (chat_id);

-- Rows are stored in the order of their commits, and only the small index is
-- spread over the chats: a table clustered by chat writes a sixth of the rate
-- once many chats interleave.
CREATE TABLE messages (
    row_id            INTEGER PRIMARY KEY,
    chat_id           INTEGER NOT NULL,
    seq               INTEGER NOT NULL,
    message_id        INTEGER NOT NULL,
    sender            TEXT    NOT NULL,
    body              TEXT    NOT NULL,
    client_message_id TEXT,
    created_at        INTEGER NOT NULL -- microseconds since the Unix epoch
) STRICT;
CREATE UNIQUE INDEX messages_by_seq ON messages (chat_id, seq);

-- Chats that nothing finds any more and whose rows are yet to be removed.
CREATE TABLE deleted_chats (
    chat_id INTEGER PRIMARY KEY
) STRICT;
