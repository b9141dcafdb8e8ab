-- The id that a client gives a chat, so that a Create that is sent again makes no second
-- one. NULL, as in all chats from before: none, and the index has nothing of it.
ALTER TABLE chats ADD COLUMN client_chat_id text;
CREATE UNIQUE INDEX chats_by_client_id ON chats (created_by, client_chat_id)
    WHERE client_chat_id IS NOT NULL;
