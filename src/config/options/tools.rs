//! Options of those who look after a server.

use clap::Args;

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Migrate {
    /// The database: a postgres:// URL. Without it the variable PG_DSN counts
    /// [default: none]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(super) struct Health {
    /// Address of the server's HTTP port
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    http_host: String,

    /// The server's HTTP port
    #[arg(long, value_name = "PORT", default_value = "8093")]
    http_port: String,

    /// Ask also whether it should be sent work: whether the store answers, and
    /// the server is not draining [default: only whether it lives]
    #[arg(long)]
    ready: bool,
}
