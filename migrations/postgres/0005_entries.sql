-- A row of `messages` is an entry of a chat: a message, or what happens to one. None of
-- the columns has a default, so that no row is rewritten, and a plain message has NULL in
-- all of them.
--
-- `number` says how many messages there are up to and with the entry; NULL: as many as
-- its seq says. `kind` is NULL for a message, else 1 an edit, 2 a deletion, 3 a reaction,
-- 4 a reaction that is taken back; `target` is the message that it is about.
ALTER TABLE messages
    ADD COLUMN number bigint,
    ADD COLUMN kind smallint,
    ADD COLUMN target bigint,
    -- What a message carries besides its text: fields of chat_v1.Message, encoded.
    ADD COLUMN attached bytea,
    -- Of a message, what has become of it since: `text` stays what it was at first,
    -- unless it was deleted.
    ADD COLUMN edited_text text,
    ADD COLUMN edited_at bigint,
    ADD COLUMN deleted boolean;

-- For the page that counts reactions, for who wants to change a message, and for the
-- deletion that has the texts of all edits to erase. A plain message is not in it.
CREATE INDEX messages_by_target ON messages (chat_id, target) WHERE target IS NOT NULL;
