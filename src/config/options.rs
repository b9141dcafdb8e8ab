//! The command line: every option with its meaning, and the bounds that both
//! `--help` and the check of a value use.
//!
//! All values are plain text here. `sources.rs` overlays the four sources, and
//! only then is a value read, so that a bad one is refused by the name under
//! which it was given.

mod client;
mod cluster;
mod guard;
mod tokens;
mod tools;

use std::collections::HashSet;

use clap::{Args, Command, CommandFactory as _, Parser, Subcommand};

use super::value::{
    Bounds::{self, Count, Size, Time},
    GIB, KIB, MIB,
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// The bounds of an option, by its id (the flag with `_` for `-`).
///
/// The lower ends are what still works, the upper ones what no machine that
/// this runs on has a use for: beyond them a value is a slip of the pen.
pub(super) fn bounds(id: &str) -> Option<Bounds> {
    Some(match id {
        "grpc_port" | "http_port" => Count(0, 65_535),
        "cores" => Count(1, 256),
        "store_readers" => Count(1, 1024),
        "store_stall" => Time(100, 600 * SECOND),
        "shards" => Count(1, 4096),
        "writer_lanes" => Count(1, 64),
        "batch_rows" => Count(1, 100_000),
        "batch_bytes" => Size(64 * KIB, 64 * MIB),
        "mailbox" => Count(64, 1_048_576),
        "pending_rows" => Count(64, 4_194_304),
        "pending_bytes" => Size(MIB, 4 * GIB),
        "ring" => Count(16, 65_536),
        "ring_bytes" => Size(16 * KIB, 64 * MIB),
        "chat_idle" => Time(100, 24 * HOUR),
        "max_text" => Count(1, 65_536),
        "max_data" => Size(0, MIB),
        "max_mentions" => Count(0, 1_000),
        "max_members" => Count(1, 100_000),
        "edit_window" => Time(0, 87_600 * HOUR),
        "max_reactions" => Count(1, 100_000),
        "send_timeout" => Time(10, 600 * SECOND),
        "drain_timeout" => Time(100, HOUR),
        "stream_posts" => Count(1, 65_536),
        "stream_buffer" => Size(4 * KIB, 16 * MIB),
        "limit" => Count(1, 100_000),
        "before" => Count(1, i64::MAX as u64),
        "after" | "after_seq" => Count(0, i64::MAX as u64),
        _ => {
            return guard::bounds(id)
                .or_else(|| tokens::bounds(id))
                .or_else(|| cluster::bounds(id));
        }
    })
}

/// The environment variable of an option: the flag in UPPER_SNAKE_CASE. What
/// says what to do in one call (`--as`, `--limit` …) has none.
pub(super) fn env_name(id: &str) -> Option<String> {
    match id {
        "help" | "version" | "as_user" | "with" | "chat" | "text" | "id" | "before" | "after"
        | "limit" | "after_seq" | "exit_on_eof" | "plain" | "name" | "tls" | "plaintext"
        | "ready" | "json" | "node" => None,
        // The bare words would mean something else in most environments.
        "addr" => Some("CHAT_ADDR".into()),
        "token" => Some("CHAT_TOKEN".into()),
        "ca" => Some("CHAT_CA".into()),
        "token_file" => Some("CHAT_TOKEN_FILE".into()),
        _ => Some(id.to_ascii_uppercase()),
    }
}

/// The names that an environment file may say: options of the server, of the
/// Auth Service and of clients.
pub(super) fn env_names() -> HashSet<String> {
    let command = Cli::command();
    let arguments = command.get_subcommands().flat_map(Command::get_arguments);
    let options = arguments.filter_map(|arg| env_name(arg.get_id().as_str()));
    options.chain(["PG_DSN".into()]).collect()
}

/// The command line as clap knows it, with the environment names and bounds
/// added to the help of each option.
pub(super) fn command() -> Command {
    let mut command = Cli::command().mut_args(annotate);
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| sub.mut_args(annotate));
    }
    command
}

fn annotate(arg: clap::Arg) -> clap::Arg {
    let id = arg.get_id().as_str();
    let mut notes = String::new();
    if let Some(bounds) = bounds(id) {
        notes += &format!(" [bounds: {bounds}]");
    }
    if let Some(name) = env_name(id) {
        notes += &format!(" [env: {name}]");
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help}{notes}"))
}

/// Ordered, durable, real-time chat over gRPC: server and terminal client.
///
/// An option is taken from the command line, else from the environment, else
/// from the .env file, else its default counts. A variable that is set but
/// empty counts as not set.
#[derive(Parser)]
#[command(
    name = "chatd",
    version,
    flatten_help = true,
    arg_required_else_help = false
)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
struct Cli {
    /// File with NAME=value lines, the third source of options. The default may
    /// be missing, and clients do not read it; a named file may not
    #[arg(long, value_name = "PATH", default_value = ".env", global = true)]
    config_path: String,

    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Start the server
    Serve(Box<Serve>),
    /// Say what would keep a server with these options from working, and how to
    /// mend it; exit code 1 if something would
    Doctor(Box<Serve>),
    /// Ask the server that runs on this machine whether it lives; exit code 1 if
    /// it does not
    Health(tools::Health),
    /// Show the nodes of the cluster that the server on this machine is one of, and
    /// move its chats
    Cluster(cluster::Ask),
    /// Bring the database of --store or PG_DSN up to date, as a start of the server would
    Migrate(tools::Migrate),
    /// Make a chat; its id is printed
    Create(client::Create),
    /// Read your chats and write to them: full screen on a terminal, lines of one
    /// chat elsewhere
    Connect(client::Connect),
    /// Post one message; its seq is printed
    Send(client::Send),
    /// Print messages of a chat, oldest first
    History(client::History),
    /// Get tokens from the Auth Service for a name and a password, which is
    /// read from standard input, and keep them for the other commands
    Login(tokens::Login),
    /// Start the reference Auth Service, which gives tokens out and checks them
    Auth(tokens::Auth),
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
struct Serve {
    /// Address to listen on: an IP address or localhost
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    grpc_host: String,

    /// TCP port to listen on; 0: any free one, which the log names
    #[arg(long, value_name = "PORT", default_value = "8083")]
    grpc_port: String,

    /// Address of the HTTP port: an IP address or localhost. Whoever can reach
    /// it can see the metrics
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    http_host: String,

    /// TCP port of /live, /ready, /metrics and the page of live plots; 0: any
    /// free one, which the log names; off: none [default: 8093, or 0 if
    /// --grpc-port is 0]
    #[arg(long, value_name = "PORT")]
    http_port: Option<String>,

    /// Where messages are kept: sqlite:PATH (file and folder are made), memory
    /// (nothing survives the process) or a postgres:// URL. Without it the
    /// variable PG_DSN counts: a PostgreSQL URL or key=value pairs, by
    /// environment or .env file only [default: sqlite:./data/chat.db]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,

    /// Connections to PostgreSQL for reads and changes of chats; each writer
    /// lane has one of its own besides
    #[arg(long, value_name = "N", default_value = "8")]
    store_readers: String,

    /// A writer lane's connection to PostgreSQL on which nothing moves for so
    /// long is given up for a new one
    #[arg(long, value_name = "TIME", default_value = "10s")]
    store_stall: String,

    /// How tokens are checked. dev: the token is the user's name and anybody is
    /// believed, so it is refused unless --grpc-host is a loopback address.
    /// service: the Auth Service is asked. jwt: by their signatures [default:
    /// service if there is an --access-client-host, else dev on a loopback
    /// address, else none, and no start]
    #[arg(long, value_name = "MODE")]
    auth: Option<String>,

    /// With --auth dev: users who have the admin role, comma-separated
    /// [default: none]
    #[arg(long, value_name = "NAMES")]
    dev_admins: Option<String>,

    #[command(flatten)]
    cluster: cluster::Cluster,

    #[command(flatten)]
    guard: guard::Guard,

    /// Threads that serve connections, each with its own listener on the port
    /// [default: as many as this process may use]
    #[arg(long, value_name = "N")]
    cores: Option<String>,

    /// Tasks among which all chats are divided [default: one a core]
    #[arg(long, value_name = "N")]
    shards: Option<String>,

    /// Commits that are under way at a time, for the whole server [default: one
    /// a core, at most 64]
    #[arg(long, value_name = "N")]
    writer_lanes: Option<String>,

    /// Most messages of one commit, per writer lane
    #[arg(long, value_name = "N", default_value = "5000")]
    batch_rows: String,

    /// Most text of one commit in bytes, per writer lane; one message always
    /// fits
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    batch_bytes: String,

    /// Sends that wait for a shard, per shard; the next one is refused
    /// (RESOURCE_EXHAUSTED)
    #[arg(long, value_name = "N", default_value = "8192")]
    mailbox: String,

    /// Messages between acceptance and commit, per shard
    #[arg(long, value_name = "N", default_value = "65536")]
    pending_rows: String,

    /// Bytes of messages between acceptance and commit, per shard
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pending_bytes: String,

    /// Newest messages kept in memory for readers, per active chat; also the
    /// least window in which a retried send is recognised
    #[arg(long, value_name = "N", default_value = "256")]
    ring: String,

    /// Most bytes of those messages, per active chat; readers further behind
    /// are fed from the store
    #[arg(long, value_name = "SIZE", default_value = "256KiB")]
    ring_bytes: String,

    /// What chats, posts that are not stored yet and pages of history may take in
    /// memory: a size, or a share of what the machine (or the control group) lets
    /// the process have. Over it, chats used longest ago are cut: their readers are
    /// fed from the store
    #[arg(long, value_name = "SIZE|SHARE%", default_value = "50%")]
    memory: String,

    /// After this time without readers and sends a chat leaves memory, per chat
    #[arg(long, value_name = "TIME", default_value = "60s")]
    chat_idle: String,

    /// Longest text of a message, in Unicode characters
    #[arg(long, value_name = "N", default_value = "4096")]
    max_text: String,

    /// Most bytes of an application's data that a message carries; 0: none
    #[arg(long, value_name = "SIZE", default_value = "16KiB")]
    max_data: String,

    /// Most users whom a message mentions; 0: none
    #[arg(long, value_name = "N", default_value = "100")]
    max_mentions: String,

    /// Most members, per chat
    #[arg(long, value_name = "N", default_value = "1000")]
    max_members: String,

    /// How long after it was posted its sender may edit a message; 0s: not at all
    #[arg(long, value_name = "TIME", default_value = "24h")]
    edit_window: String,

    /// Most reactions to a message, those that were taken back included
    #[arg(long, value_name = "N", default_value = "1000")]
    max_reactions: String,

    /// Longest a send waits for its commit if its caller set no nearer
    /// deadline; then UNAVAILABLE. Also the longest that a request, or the rest of
    /// a post that has begun on a stream, may take to come
    #[arg(long, value_name = "TIME", default_value = "10s")]
    send_timeout: String,

    /// Longest a stop (SIGTERM, SIGINT) waits for accepted work to be committed
    #[arg(long, value_name = "TIME", default_value = "30s")]
    drain_timeout: String,

    /// Posts under way at a time, per stream; then the stream is not read
    #[arg(long, value_name = "N", default_value = "1024")]
    stream_posts: String,

    /// Bytes that may wait in the connection for a slow reader, per stream
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    stream_buffer: String,

    /// What is logged: trace, debug, info, warn, error, or a filter such as
    /// chat_service=debug,info
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    log_level: String,

    /// Form of the log on standard error: pretty, json, or auto (pretty on a
    /// terminal, else json)
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: String,

    /// OpenTelemetry collector to which traces are sent over OTLP/gRPC, without
    /// TLS, as http://127.0.0.1:4317 [default: none, and no traces]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// Share of the calls to trace, 0 to 1, of those whose caller has not
    /// decided it (traceparent)
    #[arg(long, value_name = "SHARE", default_value = "0.01")]
    trace_sample: String,
}
