-- How many chats somebody has made is asked where --max-user-chats is set.
CREATE INDEX chats_by_creator ON chats (created_by);
