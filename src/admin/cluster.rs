//! The nodes of a cluster: shown, and moved, for `/cluster` and for `chatd cluster`.

use std::fmt::Write as _;

use super::ask::say;
use crate::{
    cluster::{Cluster, Move, Status},
    config::{ClusterAsk, ClusterMove},
};

/// What `PUT /cluster` takes: `drain NODE` or `rebalance`.
///
/// # Errors
/// What is wrong with it, or why it was not done.
pub(super) async fn moved(cluster: &Cluster, asked: &str) -> Result<String, String> {
    let what = match asked.trim().split_once(' ') {
        Some(("drain", node)) => Move::Drain(node.trim().to_owned()),
        None if asked.trim() == "rebalance" => Move::Rebalance,
        _ => return Err("neither drain NODE nor rebalance".to_owned()),
    };
    cluster.move_chats(what).await
}

/// Asks a server that runs about its cluster, and prints what it says.
///
/// # Errors
/// If it can't be reached, is alone, or refuses.
pub fn show_cluster(asked: &ClusterAsk) -> Result<(), String> {
    let said = match &asked.moved {
        Some(ClusterMove::Drain(node)) => {
            say(asked.address, "PUT", "/cluster", &format!("drain {node}"))?
        }
        Some(ClusterMove::Rebalance) => say(asked.address, "PUT", "/cluster", "rebalance")?,
        None => {
            let json = say(asked.address, "GET", "/cluster", "")?;
            match asked.json {
                true => json,
                false => {
                    let read: Result<Option<Status>, _> = serde_json::from_str(&json);
                    let read = read.map_err(|error| format!("{}: {error}", asked.address))?;
                    let alone =
                        || format!("{}: this server is alone; see --cluster", asked.address);
                    table(&read.ok_or_else(alone)?)
                }
            }
        }
    };
    println!("{}", said.trim_end());
    Ok(())
}

fn table(status: &Status) -> String {
    let name = status.nodes.iter().map(|node| node.name.len()).max();
    let name = name.unwrap_or(0).max(4);
    let at = status.nodes.iter().map(|node| node.address.len()).max();
    let at = at.unwrap_or(0).max(7);
    let mut out = String::new();
    // Writing to a text can't fail.
    _ = writeln!(
        out,
        "{:<16}  {:<name$}  {:<at$}  {:<8}  {:<7}  {:>10}  {:<3}  HEARD",
        "ID", "NAME", "ADDRESS", "VERSION", "STATE", "PARTITIONS", "BUS"
    );
    for node in &status.nodes {
        let heard = match node.heard_ms {
            _ if node.id == status.node => "this node".to_owned(),
            Some(ms) => format!("{ms} ms ago"),
            None => "never".to_owned(),
        };
        let bus = if node.on_bus { "yes" } else { "no" };
        _ = writeln!(
            out,
            "{:<16}  {:<name$}  {:<at$}  {:<8}  {:<7}  {:>10}  {:<3}  {heard}",
            node.id, node.name, node.address, node.version, node.state, node.partitions, bus
        );
    }
    _ = writeln!(
        out,
        "cluster {}: {} partitions without an owner, {} moves and {} resyncs of links since this \
         node started; it follows {} chats of others, {} of its own are followed",
        status.cluster,
        status.without_owner,
        status.moves,
        status.resyncs,
        status.followed,
        status.watched
    );
    out
}
