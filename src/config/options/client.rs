//! The options of the terminal client's commands.

use clap::Args;

/// Whom to call, and as whom: the same for every call of the client.
#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
struct Peer {
    /// Server to call
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8083")]
    addr: String,

    /// Call with TLS [default: without, unless there is a --ca]
    #[arg(long)]
    tls: bool,

    /// Send a token without TLS to another machine too, where whoever is on the
    /// way can read it [default: only to a loopback address]
    #[arg(long, conflicts_with_all = ["tls", "ca"])]
    plaintext: bool,

    /// File (PEM) with who signed the server's certificate [default: who
    /// browsers trust]
    #[arg(long, value_name = "PATH")]
    ca: Option<String>,

    /// Your name; it is the token unless there is one (development mode)
    /// [default: none]
    #[arg(long = "as", value_name = "NAME")]
    as_user: Option<String>,

    /// Bearer token; better given by the environment, where no other user sees
    /// it, and then sent to no other address than a CHAT_ADDR beside it
    /// [default: the name of --as, else what chatd login left]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Where chatd login left the tokens [default: .config/chatd/tokens.json in
    /// the home directory]
    #[arg(long, value_name = "PATH")]
    token_file: Option<String>,
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Create {
    #[command(flatten)]
    peer: Peer,

    /// Members besides you, comma-separated [default: none]
    #[arg(long, value_name = "NAMES")]
    with: Option<String>,
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Connect {
    /// Id of the chat; only the full screen goes without, with the list of all
    /// your chats
    #[arg(value_name = "CHAT")]
    chat: Option<String>,

    #[command(flatten)]
    peer: Peer,

    /// A message a line, and each line of standard input posted, on a terminal
    /// too [default: only if standard input or output is not a terminal, or
    /// with --after-seq or --exit-on-eof]
    #[arg(long)]
    plain: bool,

    /// Begin behind this message; 0: from the first [default: with what comes
    /// from now on]
    #[arg(long, value_name = "SEQ")]
    after_seq: Option<String>,

    /// End when standard input has ended and every line has come back
    /// [default: go on reading until interrupted]
    #[arg(long)]
    exit_on_eof: bool,
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Send {
    /// Id of the chat
    #[arg(value_name = "CHAT")]
    chat: String,

    /// The message
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: String,

    #[command(flatten)]
    peer: Peer,

    /// client_message_id: the same one again is stored once. Up to 64 printable
    /// ASCII characters [default: a random one]
    #[arg(long, value_name = "KEY")]
    id: Option<String>,
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct History {
    /// Id of the chat
    #[arg(value_name = "CHAT")]
    chat: String,

    #[command(flatten)]
    peer: Peer,

    /// Messages before this seq [default: the newest]
    #[arg(long, value_name = "SEQ", conflicts_with = "after")]
    before: Option<String>,

    /// Messages behind this seq [default: the newest]
    #[arg(long, value_name = "SEQ")]
    after: Option<String>,

    /// Most messages to print
    #[arg(long, value_name = "N", default_value = "100")]
    limit: String,
}
