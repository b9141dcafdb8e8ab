-- Chats, their members and their messages. Times are microseconds since the
-- Unix epoch.

CREATE TABLE chats (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_by text NOT NULL,
    created_at bigint NOT NULL
);

-- `position` is the order of joining. It comes from one sequence for all chats,
-- so that two servers adding at once need no lock, and who comes back after
-- having left is last.
CREATE TABLE members (
    chat_id bigint NOT NULL REFERENCES chats ON DELETE CASCADE,
    user_name text NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (chat_id, user_name)
);

CREATE INDEX members_by_user ON members (user_name, chat_id);

-- The primary key is the fence against a second writer and the path of every
-- read. Nothing else is to be maintained for a message: no foreign key, no
-- second index, no row of the chat to update.
CREATE TABLE messages (
    chat_id bigint NOT NULL,
    seq bigint NOT NULL,
    id bigint NOT NULL,
    sender text NOT NULL,
    text text NOT NULL,
    client_message_id text,
    created_at bigint NOT NULL,
    PRIMARY KEY (chat_id, seq)
) PARTITION BY HASH (chat_id);

-- Sixteen partitions, because their smaller indexes are touched in fewer places
-- by a batch. Through the lanes, 10,000 chats, thousand rows/s with and without
-- (bench/postgres_lanes.rs, two cores for everything, medians):
--     1,000 rows a batch:  one lane 193 / 140   two lanes 405 / 324
--     5,000 rows a batch:  one lane 341 / 334   two lanes 555 / 553
DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE messages_%s PARTITION OF messages FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
            lpad(i::text, 2, '0'), i);
    END LOOP;
END $$;

-- Chats that are gone but whose messages are still being removed, from seq 1
-- upwards: everything through `purged_through` is gone. A tombstone is looked at
-- when `next_look` has come.
CREATE TABLE deleted_chats (
    chat_id bigint PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    purged_through bigint NOT NULL DEFAULT 0,
    next_look timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX deleted_chats_by_look ON deleted_chats (next_look);
