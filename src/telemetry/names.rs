//! Every metric: its name, its kind, its labels and what it says. The README's
//! table has the same; a test holds the two against each other.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows. Its name on `/metrics` ends in `_total`.
    Counter,
    Gauge,
    /// On `/metrics`: `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// One metric as it is described on `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Without the `_total` of a counter.
    pub name: &'static str,
    pub kind: Kind,
    /// Ends without a full stop: the exposition adds it.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal $help:literal;)*) => {
        $(pub const $id: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*

        /// All of them, in the order of `/metrics`.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    CALLS: Counter "chat_calls" "Calls of chat_v1.ChatV1 that ended, by method and gRPC code";
    CALL_SECONDS: Histogram "chat_call_duration_seconds" "From a call's headers to its answer, by method; of ConnectChat, how long the stream was open";
    REFUSALS: Counter "chat_refusals" "Connections, calls, streams and posts on streams that were refused, by reason as in ErrorInfo";
    DELIVERIES: Counter "chat_deliveries" "Messages handed to readers' connections";
    READERS: Gauge "chat_readers" "Streams that read a chat";
    KEYS_UNUSABLE: Counter "chat_keys_unusable" "Times that a changed file of --jwt-keys or --jwt-secret-file could not be used; the last good keys count";
    CLOCK_AHEAD: Gauge "chat_clock_ahead_seconds" "How far the newest time of a message is ahead of this machine's clock: the clock was ahead, and new messages of the chat have that time until it is there";
    LOG_LINES_DROPPED: Counter "chat_log_lines_dropped" "Lines of the log that were dropped because nobody read those before them";
    RESUMES: Counter "chat_stream_resumes" "Streams that went on behind a message their client had seen";
    CHATS_ACTIVE: Gauge "chat_chats_active" "Chats in memory";
    MEMORY_BUDGET: Gauge "chat_memory_budget_bytes" "What --memory allows for chats, posts, pages of history, answers and requests";
    MEMORY_HELD: Gauge "chat_memory_held_bytes" "What chats hold of it, about";
    PAGES_HELD: Gauge "chat_memory_pages_bytes" "What readers hold of it in pages of history, and connections of users with many streams, about";
    ANSWERS_HELD: Gauge "chat_memory_answers_bytes" "What answers hold of it that clients have asked for and not read, or may hold when they are there";
    REQUESTS_HELD: Gauge "chat_memory_requests_bytes" "What requests and posts hold of it, or may hold when they are there, whose rest is waited for";
    RINGS_CUT: Counter "chat_rings_cut" "Times that a chat's newest messages were dropped from memory to keep to the budget; its readers are fed from the store";
    MAILBOX_DEPTH: Gauge "chat_mailbox_depth" "Sends that wait for their shard, all shards together";
    LANE_DEPTH: Gauge "chat_lane_depth" "Batches that wait for their writer lane or are with it, all lanes together";
    STORED: Counter "chat_messages_stored" "Messages committed for callers of this server";
    BATCH_ROWS: Histogram "chat_batch_rows" "Messages in a batch";
    BATCH_BYTES: Histogram "chat_batch_bytes" "Bytes in a batch, about";
    BATCH_SECONDS: Histogram "chat_batch_duration_seconds" "From a lane's taking a batch up to its outcome, retries and look-ups included";
    COMMIT_SECONDS: Histogram "chat_commit_duration_seconds" "One attempt of the store to commit a batch, whatever came of it";
    LANE_RETRIES: Counter "chat_lane_retries" "Batches tried again because the store was away";
    LANE_CONFLICTS: Counter "chat_lane_conflicts" "Batches that found another writer's messages in their place";
    LANE_UNKNOWN: Counter "chat_lane_outcomes_unknown" "Commits whose answer was lost and that were looked up";
    LANE_CONNECTS: Counter "chat_lane_connects" "Connections that writer lanes opened to PostgreSQL, the first ones included";
    RING_READS: Counter "chat_ring_reads" "Chunks of messages that readers took from a chat's ring";
    HISTORY_READS: Counter "chat_history_reads" "Pages of messages that readers took from the store because they were behind the ring";
    MESSAGES_MISSING: Counter "chat_messages_missing" "Messages that readers were led past because the store no longer has them, counted for each reader";
    MESSAGES_LOST: Counter "chat_messages_lost" "Acknowledged messages of chats in memory, at least, that the store had no more when another server of the database took over";
    CURSOR_LAG: Histogram "chat_cursor_lag_messages" "How many messages a reader was behind its chat's newest when it was given some";
    AUTH: Counter "chat_auth_checks" "Checks of tokens by outcome: hit and miss of the cache, refused, failed to ask";
    FAILED_EXPORTS: Counter "chat_traces_failed_exports" "Exports of traces that failed; traffic does not notice";
    PARTITIONS: Gauge "chat_cluster_partitions" "Partitions of chats that this node answers for";
    WITHOUT_OWNER: Gauge "chat_cluster_partitions_without_owner" "Partitions of the whole cluster that no living node answers for, as this node knows it";
    WITHOUT_OWNER_SECONDS: Counter "chat_cluster_without_owner_seconds" "How long partitions had no owner, all together, as this node knows it";
    HANDOVERS: Counter "chat_cluster_handovers" "Partitions that this node has given to another";
    TAKEOVERS: Counter "chat_cluster_takeovers" "Partitions of nobody, or of a node that is gone, that this node has taken";
    DECLARED_GONE: Counter "chat_cluster_nodes_declared_gone" "Times that this node has declared another one gone";
    REJOINS: Counter "chat_cluster_rejoins" "Times that this node was declared gone and has joined again";
    WRITES_REFUSED: Counter "chat_cluster_writes_refused" "Batches that the database refused because this node had been declared gone";
    BATCHES_SENT: Counter "chat_cluster_batches_sent" "Batches sent to other nodes";
    BYTES_SENT: Counter "chat_cluster_bytes_sent" "Bytes of those batches";
    BATCHES_RECEIVED: Counter "chat_cluster_batches_received" "Batches of other nodes that were taken in";
    RESYNCS: Counter "chat_cluster_resyncs" "Times that something of another node was lost on its way and asked for again";
    ASKS: Gauge "chat_cluster_asks_waiting" "Posts and calls of this node's clients that wait for other nodes";
    OWNER_SECONDS: Histogram "chat_cluster_owner_seconds" "From when another node was asked for its chat to its answer, the commit included";
    LOOKS: Counter "chat_cluster_chats_looked_for" "Times that a chat was looked for in the store because its node could not be heard";
    CPU_SECONDS: Counter "process_cpu_seconds" "Processor time, user and system";
    RESIDENT: Gauge "process_resident_memory_bytes" "Memory in use";
    OPEN_FDS: Gauge "process_open_fds" "Open files and sockets";
    START_TIME: Gauge "process_start_time_seconds" "When the server started, in seconds since the Unix epoch";
}

/// The calls, and `other` for what is none. A method's number is its place.
pub const METHODS: [&str; 13] = [
    "SendMessage",
    "ConnectChat",
    "Create",
    "Get",
    "Delete",
    "ListMessages",
    "ListChats",
    "AddMembers",
    "RemoveMembers",
    "EditMessage",
    "DeleteMessage",
    "React",
    "other",
];

/// gRPC's codes by number.
pub const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `ErrorInfo` reasons that are counted, and `OTHER` for one not listed here.
pub const REASONS: [&str; 50] = [
    "INVALID_FIELD",
    "MALFORMED_MESSAGE",
    "MESSAGE_REFUSED",
    "REQUEST_REFUSED",
    "TOKEN_MISSING",
    "TOKEN_INVALID",
    "TOKEN_EXPIRED",
    "TOKEN_REVOKED",
    "NOT_A_MEMBER",
    "NOT_THE_CREATOR",
    "NOT_YOURSELF",
    "NOT_ALLOWED",
    "MAY_NOT_ADD",
    "ORIGIN_NOT_ALLOWED",
    "CHAT_DELETED",
    "CHAT_NOT_FOUND",
    "DUPLICATE",
    "TOO_MANY_MEMBERS",
    "AFTER_SEQ_AHEAD",
    "OVERLOADED",
    "MESSAGE_TOO_LARGE",
    "HEADERS_TOO_LARGE",
    "STORE_UNAVAILABLE",
    "NOT_STORED_IN_TIME",
    "MESSAGES_LOST",
    "OUTCOME_UNKNOWN",
    "SHUTTING_DOWN",
    "AUTH_UNAVAILABLE",
    "REQUEST_TOO_SLOW",
    "NO_SUCH_METHOD",
    "COMPRESSED_MESSAGE",
    "TOO_MANY_CONNECTIONS",
    "TOO_MANY_STREAMS",
    "TOO_MANY_SENDS",
    "TOO_MANY_CHANGES",
    "TOO_MANY_READS",
    "TOO_MANY_CHATS",
    "TOO_MANY_CALLS",
    "TOO_MANY_OPEN_CALLS",
    "TOO_MANY_FRAMES",
    "MESSAGE_NOT_FOUND",
    "NOT_A_MESSAGE",
    "MESSAGE_DELETED",
    "NOT_THE_SENDER",
    "MAY_NOT_DELETE",
    "EDIT_WINDOW_OVER",
    "TOO_MANY_EDITS",
    "TOO_MANY_REACTIONS",
    "NO_SUCH_REACTION",
    "OTHER",
];

/// Outcomes of the check of a token.
pub const AUTH_OUTCOMES: [&str; 4] = ["hit", "miss", "refused", "failed"];
