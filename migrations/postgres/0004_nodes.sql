-- Several servers as the nodes of one cluster. A server that is none of a cluster's
-- touches nothing of this.

-- A row for each run of a node. `beat` grows by one with each sign of life. `state` only
-- goes forward: up (or drained, and back), leaving, gone (declared dead by another node), fenced (and nothing of
-- it is under way any more); `since` is when the node came into its state.
CREATE TABLE nodes (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    version text NOT NULL,
    address text NOT NULL DEFAULT '',
    beat bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'up' CHECK (state IN ('up', 'drained', 'leaving', 'gone', 'fenced')),
    on_bus boolean NOT NULL DEFAULT true,
    since timestamptz NOT NULL DEFAULT now()
);

-- Which node writes the chats of a partition. `epoch` grows by one with each change of
-- the owner. The owner need not be in `nodes`: what a forgotten node owned is free.
CREATE TABLE partitions (
    id smallint PRIMARY KEY,
    owner bigint,
    epoch bigint NOT NULL DEFAULT 0
);

INSERT INTO partitions (id) SELECT generate_series(0, 255);

-- The first thing that a node's transaction does before it writes a chat: it takes the
-- node's lock together with the node's other transactions, and fails if the node is not
-- one of the cluster any more. Whoever declares a node gone commits that first and then
-- takes the same lock exclusively, and so waits for every transaction that has not seen
-- it; those that begin later see it here.
--
-- For that, the state has to be read by a statement of its own, in a function that is
-- VOLATILE, in a transaction that is READ COMMITTED: only then does the statement have a
-- snapshot that was taken after the lock, and not one from before it was waited for.
CREATE FUNCTION chatd_fence(node bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    standing text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'chatd_fence needs a transaction that is READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(node);
    SELECT state INTO standing FROM nodes WHERE id = node;
    IF standing IS NULL OR standing NOT IN ('up', 'drained', 'leaving') THEN
        RAISE EXCEPTION 'this node is not one of the cluster any more'
            USING ERRCODE = 'CD001';
    END IF;
END $$;
