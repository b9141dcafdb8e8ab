//! What the process was asked to do: one typed, checked value made of the
//! command line, the environment, the `.env` file and the defaults, in this
//! order of precedence.
//!
//! Only `main` (and a test) calls this room, once. Invariants:
//! 1. What comes out is within its bounds; no other room checks an option.
//! 2. A refusal is one line, names the option and never shows a secret.
//! 3. The process environment is read once and never changed.

mod client;
mod cluster;
mod dotenv;
mod guard;
mod health;
mod options;
mod read;
mod shown;
mod sources;
#[cfg(test)]
mod tests;
mod tokens;
mod value;

use std::{
    ffi::OsString,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use client::is_loopback;
pub use guard::{
    AccessConfig, AuthCacheConfig, AuthChoice, JwtConfig, JwtKeys, LimitConfig, TlsConfig,
    WebConfig, WhoMayAdd,
};
pub use health::HealthConfig;
pub use read::{command, process_environment, read_log_level, serve_from};
pub use shown::shown;
pub use tokens::{Credentials, LoginConfig, TokenServerConfig};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Serve(Box<ServeConfig>),
    /// Say what keeps a server with this configuration from working, be it the
    /// configuration itself.
    Doctor(Result<Box<ServeConfig>, Refusal>),
    /// Ask a server that runs.
    Health(HealthConfig),
    /// Ask one about its cluster.
    Cluster(ClusterAsk),
    /// Bring the database up to date.
    Migrate(StoreChoice),
    Create(CreateConfig),
    Connect(ConnectConfig),
    Send(SendConfig),
    History(HistoryConfig),
    Login(LoginConfig),
    Auth(TokenServerConfig),
    /// Read a password and print its hash.
    HashPassword,
    /// Print this on standard output and be done: `--help`, `--version`.
    Print(String),
}

/// The server's options. `--help` has the meaning of each in more words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeConfig {
    pub grpc_host: IpAddr,
    /// 0: any free port.
    pub grpc_port: u16,
    pub http_host: IpAddr,
    /// None: no HTTP. 0: any free port.
    pub http_port: Option<u16>,
    pub store: StoreChoice,
    /// None: this server is alone.
    pub cluster: Option<ClusterConfig>,
    /// Connections to PostgreSQL besides the writer lanes'.
    pub store_readers: usize,
    /// A lane's connection to PostgreSQL that stands still so long is given up.
    pub store_stall: Duration,
    pub auth: AuthChoice,
    pub auth_cache: AuthCacheConfig,
    pub tls: Option<TlsConfig>,
    pub limits: LimitConfig,
    pub web: WebConfig,
    /// Users who are admins in development mode.
    pub dev_admins: Vec<String>,
    pub cores: usize,
    pub shards: usize,
    pub writer_lanes: usize,
    /// Per writer lane.
    pub batch_rows: usize,
    /// Per writer lane.
    pub batch_bytes: usize,
    /// Sends waiting for a shard, per shard.
    pub mailbox: usize,
    /// Messages between acceptance and commit, per shard.
    pub pending_rows: usize,
    /// Bytes between acceptance and commit, per shard.
    pub pending_bytes: usize,
    /// Messages, per active chat; also the least duplicate window.
    pub ring: usize,
    /// Per active chat.
    pub ring_bytes: usize,
    /// What chats, posts and pages of history may take.
    pub memory: MemoryChoice,
    /// A chat without readers and sends for this long is let go.
    pub chat_idle: Duration,
    /// In Unicode scalar values.
    pub max_text: usize,
    /// Bytes, per message.
    pub max_data: usize,
    /// Users, per message.
    pub max_mentions: usize,
    /// Per chat.
    pub max_members: usize,
    /// Zero: nobody may edit a message.
    pub edit_window: Duration,
    /// Per message.
    pub max_reactions: usize,
    pub send_timeout: Duration,
    pub drain_timeout: Duration,
    /// Posts of one stream under way.
    pub stream_posts: u32,
    /// Bytes that h2 may buffer for one stream.
    pub stream_buffer: usize,
    /// A filter that `tracing` has accepted.
    pub log_level: String,
    pub log_format: LogFormat,
    /// Where traces go; none if there is no such place.
    pub otlp_endpoint: Option<String>,
    /// Of a million calls without a `traceparent`, so many are traced.
    pub trace_sample: u32,
    /// What is odd about the options and yet no reason not to start.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChoice {
    Sqlite(PathBuf),
    Memory,
    Postgres(Secret),
}

/// What a server is asked about its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAsk {
    /// Of its HTTP port.
    pub address: SocketAddr,
    /// None: to show it.
    pub moved: Option<ClusterMove>,
    /// As it comes.
    pub json: bool,
}

/// What is to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterMove {
    /// All that the node has; by its id or its name.
    Drain(String),
    /// So that all nodes that run have their share.
    Rebalance,
}

/// The cluster that the server is a node of.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Of NATS. One may hold a password.
    pub servers: Vec<String>,
    pub name: String,
    pub credentials: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    /// What people call the node; none: as its machine.
    pub node: Option<String>,
    /// A node without a sign of life for so long is gone.
    pub timeout: Duration,
}

/// Leaves out the addresses, which may hold passwords.
impl fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterConfig")
            .field("name", &self.name)
            .field("node", &self.node)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryChoice {
    /// In bytes.
    Size(u64),
    /// Of what the machine, or the control group, lets the process have; in percent.
    Share(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, else JSON.
    Auto,
    Pretty,
    Json,
}

/// Whom a client calls, and with which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// `HOST:PORT`.
    pub addr: String,
    pub credentials: Credentials,
    pub tls: bool,
    /// Who signed the server's certificate; `None`: whom browsers trust.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateConfig {
    pub peer: PeerConfig,
    pub with: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectConfig {
    pub peer: PeerConfig,
    /// The full screen can do without.
    pub chat: Option<i64>,
    /// Lines, on a terminal too.
    pub plain: bool,
    pub after_seq: Option<i64>,
    pub exit_on_eof: bool,
    /// Where the full screen keeps how far each chat was read; without a home
    /// directory, nowhere.
    pub marks: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendConfig {
    pub peer: PeerConfig,
    pub chat: i64,
    pub text: String,
    /// The client_message_id, if the caller chose one.
    pub id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    pub peer: PeerConfig,
    pub chat: i64,
    pub page: HistoryPage,
    pub limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryPage {
    Newest,
    Before(i64),
    After(i64),
}

/// A text that no log and no error may show: a DSN with its password, a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why the process cannot do what it was asked: one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    fn new(why: impl Into<String>) -> Self {
        // Whatever was quoted on the way here, a refusal stays one line.
        let why: String = why.into();
        Self(why.replace(char::is_control, " "))
    }
}

/// Reads the command line of this process, its environment and its `.env` file.
///
/// # Errors
/// If an option is unknown, out of its bounds or cannot be read.
pub fn from_process(args: impl IntoIterator<Item = OsString>) -> Result<Command, Refusal> {
    command(args, &process_environment())
}
