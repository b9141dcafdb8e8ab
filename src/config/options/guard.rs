//! The options of `chatd serve` about who may come in, and how much they may
//! ask for.

use clap::Args;

use super::{Bounds, Count, HOUR, KIB, MINUTE, Size, Time};

pub(super) fn bounds(id: &str) -> Option<Bounds> {
    Some(match id {
        "access_client_port" => Count(1, 65_535),
        "auth_timeout" => Time(10, MINUTE),
        "jwt_leeway" => Time(0, 5 * MINUTE),
        "auth_cache_ttl" => Time(100, HOUR),
        "auth_refusal_ttl" => Time(0, 5 * MINUTE),
        "auth_stale" => Time(0, 24 * HOUR),
        "auth_cache_entries" => Count(100, 10_000_000),
        "max_connections" => Count(1, 1_000_000),
        "max_connection_streams" => Count(1, 1_000_000),
        "max_user_streams" => Count(1, 1_000_000),
        "max_user_sends" | "max_user_changes" | "max_user_reads" => Count(0, 1_000_000),
        "max_user_chats" => Count(0, 1_000_000_000),
        "max_inflight" => Count(1, 10_000_000),
        "max_header" => Size(KIB, 1024 * KIB),
        "max_pending_resets" => Count(1, 10_000),
        "max_error_resets" => Count(1, 1_000_000),
        "keep_alive_interval" | "keep_alive_timeout" => Time(100, HOUR),
        "handshake_timeout" | "first_frame_timeout" => Time(100, 10 * MINUTE),
        _ => return None,
    })
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Guard {
    /// The Auth Service's host name or address, for --auth service [default:
    /// none]
    #[arg(long, value_name = "HOST")]
    access_client_host: Option<String>,

    /// The Auth Service's TCP port
    #[arg(long, value_name = "PORT", default_value = "8080")]
    access_client_port: String,

    /// Whether the Auth Service is called with TLS: on or off [default: on if
    /// its CA is named, else off]
    #[arg(long, value_name = "ON|OFF")]
    access_client_tls: Option<String>,

    /// File (PEM) with who signed the Auth Service's certificate [default: who
    /// browsers trust]
    #[arg(long, value_name = "PATH")]
    access_client_ca: Option<String>,

    /// Longest a check by the Auth Service may take, with its one retry; then
    /// UNAVAILABLE
    #[arg(long, value_name = "TIME", default_value = "2s")]
    auth_timeout: String,

    /// Keys that tokens are signed with, for --auth jwt: a JWKS or public keys
    /// in PEM; read again when it changes [default: none]
    #[arg(long, value_name = "PATH")]
    jwt_keys: Option<String>,

    /// File with the secret of HS256, if tokens are signed with one, for --auth
    /// jwt in place of keys: one word of at least 16 bytes, better 32; read
    /// again when it changes [default: none]
    #[arg(long, value_name = "PATH")]
    jwt_secret_file: Option<String>,

    /// What a token's iss has to be, for --auth jwt [default: anything]
    #[arg(long, value_name = "TEXT")]
    jwt_iss: Option<String>,

    /// What a token's aud has to hold, for --auth jwt [default: anything]
    #[arg(long, value_name = "TEXT")]
    jwt_aud: Option<String>,

    /// How far the clock of who made a token may be off, for --auth jwt
    #[arg(long, value_name = "TIME", default_value = "5s")]
    jwt_leeway: String,

    /// How long a token that was allowed is not checked again, for one method;
    /// also how soon a revoked one ends its streams
    #[arg(long, value_name = "TIME", default_value = "30s")]
    auth_cache_ttl: String,

    /// How long a token that was refused is not checked again
    #[arg(long, value_name = "TIME", default_value = "2s")]
    auth_refusal_ttl: String,

    /// How much longer a token that was allowed counts while the Auth Service
    /// can't be asked; never past its own end
    #[arg(long, value_name = "TIME", default_value = "0s")]
    auth_stale: String,

    /// Answers about tokens that are remembered; the least used go first
    #[arg(long, value_name = "N", default_value = "100000")]
    auth_cache_entries: String,

    /// Certificate chain (PEM) to serve TLS with; read again when it changes,
    /// for new connections [default: no TLS]
    #[arg(long, value_name = "PATH")]
    tls_cert: Option<String>,

    /// Its private key (PEM) [default: none]
    #[arg(long, value_name = "PATH")]
    tls_key: Option<String>,

    /// Who signed the certificates (PEM) that clients then have to show
    /// [default: none, and they need not]
    #[arg(long, value_name = "PATH")]
    tls_client_ca: Option<String>,

    /// Where pages come from that may call over gRPC-Web, comma-separated, as
    /// https://chat.example.org; at most 32. The chat page on a loopback address
    /// may in any case [default: none]
    #[arg(long, value_name = "ORIGINS")]
    cors_origins: Option<String>,

    /// Names that the HTTP port is reached by, with commas between, as
    /// chat.example.org. Addresses and localhost are always answered; on a
    /// loopback address no other name is, elsewhere any is if none is given
    /// [default: none]
    #[arg(long, value_name = "NAMES")]
    http_hosts: Option<String>,

    /// Where the chat page finds gRPC-Web, as https://chat.example.org [default:
    /// the host that the page came from, at the gRPC port]
    #[arg(long, value_name = "URL")]
    grpc_web_url: Option<String>,

    /// Connections open at a time; further ones get RESOURCE_EXHAUSTED for a
    /// second and are closed, of more than 64 at a time at once
    #[arg(long, value_name = "N", default_value = "20000")]
    max_connections: String,

    /// Calls and streams open at a time, per connection; its client is told and
    /// waits by itself, as HTTP/2 has it
    #[arg(long, value_name = "N", default_value = "16384")]
    max_connection_streams: String,

    /// ConnectChat streams open at a time, per user
    #[arg(long, value_name = "N", default_value = "16384")]
    max_user_streams: String,

    /// Messages a second, per user; 0: any number
    #[arg(long, value_name = "N", default_value = "0")]
    max_user_sends: String,

    /// Chats made, changed or deleted a second, per user; each ten names in a
    /// request count as a change more; 0: any number
    #[arg(long, value_name = "N", default_value = "0")]
    max_user_changes: String,

    /// Chats, pages of messages and lists of chats read a second, per user; each
    /// hundred of a page's size count as a read more; 0: any number
    #[arg(long, value_name = "N", default_value = "0")]
    max_user_reads: String,

    /// Chats that a user has made and not deleted; 0: any number
    #[arg(long, value_name = "N", default_value = "0")]
    max_user_chats: String,

    /// Whom a user may make a member of a chat, be it a new one or their own:
    /// anyone; shares-a-chat: who is in a chat with the user already; or admin:
    /// nobody, only admins may. Admins may add anyone in any case
    #[arg(long, value_name = "WHO", default_value = "anyone")]
    who_may_add: String,

    /// Calls being answered at a time, without ConnectChat streams
    #[arg(long, value_name = "N", default_value = "65536")]
    max_inflight: String,

    /// Most bytes of a request's headers, which hold the token
    #[arg(long, value_name = "SIZE", default_value = "16KiB")]
    max_header: String,

    /// Longest a client may take to open a connection: the TLS handshake and its
    /// first words; over HTTP/1.1 also for the head of each request
    #[arg(long, value_name = "TIME", default_value = "10s")]
    handshake_timeout: String,

    /// Longest a ConnectChat stream may take to send its first frame
    #[arg(long, value_name = "TIME", default_value = "10s")]
    first_frame_timeout: String,

    /// Calls that their client has taken back before work on them began, per
    /// connection, which is then closed (rapid reset)
    #[arg(long, value_name = "N", default_value = "64")]
    max_pending_resets: String,

    /// Calls that were broken off for breaches of HTTP/2, per connection, which
    /// is then closed
    #[arg(long, value_name = "N", default_value = "1024")]
    max_error_resets: String,

    /// How often a connection's client is asked whether it is still there (a
    /// PING of HTTP/2)
    #[arg(long, value_name = "TIME", default_value = "30s")]
    keep_alive_interval: String,

    /// Longest it may take to answer that; then the connection is closed, and
    /// its streams with it
    #[arg(long, value_name = "TIME", default_value = "20s")]
    keep_alive_timeout: String,
}
