-- A user's chats in the order of their activity, which is kept with each member so
-- that a page is read from one index. It is written behind the messages (a row of a
-- chat to update for each message would halve their rate): `active_chats` names the
-- chats that have had messages since, and NULL is what has not been written yet.
ALTER TABLE members ADD COLUMN active_at bigint;
CREATE INDEX members_by_activity ON members (user_name, active_at, chat_id);
CREATE INDEX members_behind ON members (chat_id) WHERE active_at IS NULL;
DROP INDEX members_by_user;

-- A lane writes each chat's name once an epoch, in the transaction of the messages.
-- Once an epoch's row is gone, no transaction relies on its names any more. `lane` is
-- the key of the advisory lock that the lane's session holds.
CREATE TABLE activity_epochs (
    id bigint PRIMARY KEY,
    lane bigint NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE active_chats (
    epoch bigint NOT NULL,
    chat_id bigint NOT NULL,
    PRIMARY KEY (epoch, chat_id)
);
