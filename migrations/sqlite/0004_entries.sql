-- A row of `messages` is an entry of a chat: a message, or what happens to one. A plain
-- message has NULL in all of these columns.
--
-- `number` says how many messages there are up to and with the entry; NULL: as many as
-- its seq says. `kind` is NULL for a message, else 1 an edit, 2 a deletion, 3 a reaction,
-- 4 a reaction that is taken back; `target` is the message that it is about.
ALTER TABLE messages ADD COLUMN number INTEGER;
ALTER TABLE messages ADD COLUMN kind INTEGER;
ALTER TABLE messages ADD COLUMN target INTEGER;
-- What a message carries besides its text: fields of chat_v1.Message, encoded.
ALTER TABLE messages ADD COLUMN attached BLOB;
-- Of a message, what has become of it since: `body` stays what it was at first, unless
-- it was deleted.
ALTER TABLE messages ADD COLUMN edited_body TEXT;
ALTER TABLE messages ADD COLUMN edited_at INTEGER; -- microseconds since the Unix epoch
ALTER TABLE messages ADD COLUMN deleted INTEGER;

-- For the page that counts reactions, for who wants to change a message, and for the
-- deletion that has the texts of all edits to erase. A plain message is not in it.
CREATE INDEX messages_by_target ON messages (chat_id, target) WHERE target IS NOT NULL;
