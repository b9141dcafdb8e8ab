//! The options of `chatd auth`, which gives tokens out, and `chatd login`, which
//! gets them.

use clap::{Args, Subcommand};

use super::{Bounds, Count, HOUR, SECOND, Time};

pub(super) fn bounds(id: &str) -> Option<Bounds> {
    Some(match id {
        "auth_port" => Count(0, 65_535),
        "access_ttl" => Time(SECOND, 24 * HOUR),
        "refresh_ttl" => Time(SECOND, 90 * 24 * HOUR),
        "login_ttl" => Time(SECOND, 365 * 24 * HOUR),
        "max_logins" => Count(1, 10_000),
        _ => return None,
    })
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Auth {
    #[command(subcommand)]
    command: Option<AuthSub>,

    /// Address to listen on: an IP address or localhost
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    auth_host: String,

    /// TCP port to listen on; 0: any free one, which the log names
    #[arg(long, value_name = "PORT", default_value = "8080")]
    auth_port: String,

    /// Users (TOML): a table [users.NAME] each, with password, a line that
    /// chatd auth hash has printed, and admin, true or false [default:
    /// ./users.toml]
    #[arg(long, value_name = "PATH")]
    users: Option<String>,

    /// File with the secret that tokens are signed with, at least 32 bytes; made
    /// if it is missing [default: ./token.secret]
    #[arg(long, value_name = "PATH")]
    token_secret: Option<String>,

    /// How long an access token counts
    #[arg(long, value_name = "TIME", default_value = "15m")]
    access_ttl: String,

    /// How long a refresh token counts
    #[arg(long, value_name = "TIME", default_value = "24h")]
    refresh_ttl: String,

    /// How long a login counts at most, however often its refresh token is
    /// exchanged for a new one; then the password is asked for again
    #[arg(long, value_name = "TIME", default_value = "720h")]
    login_ttl: String,

    /// Logins tried a minute for one name from one address; ten times as many for
    /// all names from one address
    #[arg(long, value_name = "N", default_value = "10")]
    max_logins: String,

    /// Chat servers and proxies, comma-separated, whose word counts for where a
    /// login comes from (x-forwarded-for)
    #[arg(long, value_name = "IPS", default_value = "127.0.0.1,::1")]
    login_proxies: String,

    /// What is logged: trace, debug, info, warn, error, or a filter
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    log_level: String,

    /// Form of the log on standard error: pretty, json, or auto (pretty on a
    /// terminal, else json)
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: String,
}

#[derive(Subcommand)]
enum AuthSub {
    /// Read a password from standard input and print its hash for the users'
    /// file
    Hash,
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Login {
    /// Your name
    #[arg(value_name = "NAME")]
    name: String,

    /// Auth Service to call
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    auth_addr: String,

    /// Chat server that the tokens are for; the other commands send them to no
    /// other
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8083")]
    addr: String,

    /// Call the Auth Service with TLS [default: without, unless there is a --ca]
    #[arg(long)]
    tls: bool,

    /// Send the password without TLS to another machine too, where whoever is on
    /// the way can read it [default: only to a loopback address]
    #[arg(long, conflicts_with_all = ["tls", "ca"])]
    plaintext: bool,

    /// File (PEM) with who signed the Auth Service's certificate [default: who
    /// browsers trust]
    #[arg(long, value_name = "PATH")]
    ca: Option<String>,

    /// Where to leave the tokens; only you may read it [default:
    /// .config/chatd/tokens.json in the home directory]
    #[arg(long, value_name = "PATH")]
    token_file: Option<String>,
}
