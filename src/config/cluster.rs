//! What a server has to know to be one of several, and who asks it about that.

use std::path::PathBuf;

use clap::ArgMatches;

use super::{
    ClusterAsk, ClusterConfig, ClusterMove, Refusal, StoreChoice, health, sources::Sources,
    value::quote,
};

/// Longest name of a cluster or a node, in bytes.
const MAX_NAME: usize = 64;

pub(super) fn cluster(
    sources: &Sources<'_>,
    store: &StoreChoice,
) -> Result<Option<ClusterConfig>, Refusal> {
    let timeout = sources.need_time("node_timeout")?;
    let Some(given) = sources.get("cluster")? else {
        return Ok(None);
    };
    if !matches!(store, StoreChoice::Postgres(_)) {
        return Err(given.refuse(
            "needs a PostgreSQL store, which the nodes share: give --store postgres://… or PG_DSN",
        ));
    }
    let mut servers = Vec::new();
    for server in given.text.split(',').map(str::trim) {
        let is_address = |rest: &str| !rest.is_empty() && !rest.contains(char::is_whitespace);
        let schemes = ["nats://", "tls://"];
        let mut rest = schemes.iter().filter_map(|one| server.strip_prefix(one));
        if !rest.next().is_some_and(is_address) {
            // A mistyped address may hold a password.
            return Err(given.refuse("is not nats://HOST[:PORT] or tls://HOST[:PORT]"));
        }
        servers.push(server.to_owned());
    }
    let given = sources.need("cluster_name")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = (1..=MAX_NAME).contains(&given.text.len());
    if !fits || !given.text.chars().all(is_plain) {
        let shown = quote(&given.text);
        return Err(given.refuse(format!(
            "{shown} is not a name (1 to {MAX_NAME} letters, digits, - and _)"
        )));
    }
    let name = given.text;
    let node = match sources.get("node_name")? {
        Some(given) => {
            let fits = (1..=MAX_NAME).contains(&given.text.len());
            if !fits || given.text.contains(char::is_control) {
                return Err(given.refuse(format!(
                    "is not a name (1 to {MAX_NAME} bytes, no control characters)"
                )));
            }
            Some(given.text)
        }
        None => None,
    };
    let path = |id| -> Result<Option<PathBuf>, Refusal> {
        Ok(sources.get(id)?.map(|given| PathBuf::from(given.text)))
    };
    Ok(Some(ClusterConfig {
        servers,
        name,
        credentials: path("cluster_credentials")?,
        ca: path("cluster_ca")?,
        node,
        timeout,
    }))
}

/// What a server of the cluster is asked.
pub(super) fn ask(sources: &Sources<'_>, flags: &ArgMatches) -> Result<ClusterAsk, Refusal> {
    let moved = match flags.subcommand() {
        Some(("drain", flags)) => {
            let node = flags.get_one::<String>("node").cloned().unwrap_or_default();
            Some(ClusterMove::Drain(node))
        }
        Some(_) => Some(ClusterMove::Rebalance),
        None => None,
    };
    Ok(ClusterAsk {
        address: health::address(sources)?,
        moved,
        json: sources.switch("json"),
    })
}
