//! Options of a server that is one of several.

use clap::{Args, Subcommand};

use super::super::value::Bounds::{self, Time};

const SECOND: u64 = 1_000;

/// The bounds of an option, by its id.
pub(in crate::config) fn bounds(id: &str) -> Option<Bounds> {
    match id {
        "node_timeout" => Some(Time(SECOND, 600 * SECOND)),
        _ => None,
    }
}

#[derive(Args)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(in crate::config) struct Cluster {
    /// NATS servers that carry what the nodes of a cluster say to each other:
    /// nats://[USER:PASSWORD@]HOST[:PORT] or tls://…, comma-separated. The nodes
    /// share one PostgreSQL database [default: this server is alone]
    #[arg(long, value_name = "URLS")]
    cluster: Option<String>,

    /// With --cluster: nodes of the same name are one cluster. Letters, digits,
    /// - and _
    #[arg(long, value_name = "NAME", default_value = "chat")]
    cluster_name: String,

    /// With --cluster: a file with the credentials of a NATS user (.creds)
    /// [default: none]
    #[arg(long, value_name = "PATH")]
    cluster_credentials: Option<String>,

    /// With --cluster: certificates (PEM) of who signed those of the NATS
    /// servers, besides whom this machine trusts [default: none]
    #[arg(long, value_name = "PATH")]
    cluster_ca: Option<String>,

    /// With --cluster: what people call this node [default: the name of the
    /// machine]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// With --cluster: a node that has given no sign of life for so long is
    /// declared gone, and others take over its chats
    #[arg(long, value_name = "TIME", default_value = "2500ms")]
    node_timeout: String,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
#[allow(dead_code, reason = "values are read by id, see sources.rs")]
pub(in crate::config) struct Ask {
    /// Address of the server's HTTP port
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", global = true)]
    http_host: String,

    /// The server's HTTP port
    #[arg(long, value_name = "PORT", default_value = "8093", global = true)]
    http_port: String,

    /// Print what GET /cluster answers [default: a table]
    #[arg(long)]
    json: bool,

    #[command(subcommand)]
    command: Option<AskSub>,
}

#[derive(Subcommand)]
pub(in crate::config) enum AskSub {
    /// Have a node hand over all its chats; it goes on to serve its clients
    Drain {
        /// Its id, or its name if only one node has it
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Have all nodes that run share the chats again, those that were drained too
    Rebalance,
}
