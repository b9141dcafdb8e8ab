//! What an operator asks of the nodes: how their cluster stands, and to move chats,
//! which may be done at any time and must be noticed by nobody.

use std::{net::SocketAddr, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::Result;

/// A node that stands still does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long nodes may take to share the partitions.
const SETTLED: Duration = Duration::from_secs(30);

const PARTITIONS: u64 = 256;

/// What a node answers on `/cluster`, if it answers with success.
async fn ask(node: SocketAddr, method: &str, body: &str) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(node).await.ok()?;
        let length = body.len();
        let request = format!(
            "{method} /cluster HTTP/1.1\r\nhost: {node}\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
    };
    timeout(PATIENCE, asking).await.ok()?
}

/// Waits until every node says that all share the partitions.
pub async fn settled(nodes: &[SocketAddr]) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut said = Vec::new();
        for node in nodes {
            said.push(ask(*node, "GET", "").await.unwrap_or_default());
        }
        if said.iter().all(|text| is_shared(text, nodes.len())) {
            return Ok(());
        }
        if begun.elapsed() > SETTLED {
            return Err(format!("the nodes do not share the partitions: {said:?}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn is_shared(said: &str, count: usize) -> bool {
    let said: Value = serde_json::from_str(said).unwrap_or_default();
    let nodes = said["nodes"].as_array().into_iter().flatten();
    let up = nodes.filter(|node| node["state"] == "up");
    let owned: Vec<u64> = up.filter_map(|node| node["partitions"].as_u64()).collect();
    owned.len() == count && !owned.contains(&0) && owned.iter().sum::<u64>() == PARTITIONS
}

/// Drains nodes and has all share the partitions again, until it is over; `seed` says
/// which and when. A node that is asked meanwhile may be broken: then nothing is done.
pub async fn move_partitions(nodes: Vec<SocketAddr>, seed: u64, over: watch::Receiver<bool>) {
    let mut random = StdRng::seed_from_u64(seed);
    // What is asked last is waited for, or a drain might come behind the rebalance.
    while !*over.borrow() {
        sleep(Duration::from_millis(random.random_range(50..1_500))).await;
        let asked = nodes[random.random_range(0..nodes.len())];
        let drained = random.random_range(0..nodes.len());
        let what = match random.random_range(0..3) {
            0 => "rebalance".into(),
            _ => format!("drain node{drained}"),
        };
        ask(asked, "PUT", &what).await;
    }
}

/// Has all nodes share the partitions again, and waits until they do.
pub async fn rebalance(nodes: &[SocketAddr]) -> Result<()> {
    let begun = Instant::now();
    let mut turns = nodes.iter().cycle();
    while let Some(node) = turns.next()
        && ask(*node, "PUT", "rebalance").await.is_none()
    {
        if begun.elapsed() > SETTLED {
            return Err("no node takes a rebalance".into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    settled(nodes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(partitions: [u64; 3], states: [&str; 3]) -> String {
        let nodes = partitions.iter().zip(states);
        let nodes: Vec<Value> = nodes
            .map(|(count, state)| serde_json::json!({"state": state, "partitions": count}))
            .collect();
        serde_json::json!({ "nodes": nodes }).to_string()
    }

    #[test]
    fn partitions_are_shared_once_each_node_that_is_up_has_some() {
        let up = ["up"; 3];
        assert!(is_shared(&said([80, 90, 86], up), 3));
        assert!(!is_shared(&said([80, 90, 85], up), 3));
        assert!(!is_shared(&said([170, 0, 86], up), 3));
        assert!(!is_shared(&said([170, 0, 86], ["up", "drained", "up"]), 3));
        assert!(is_shared(&said([170, 0, 86], ["up", "fenced", "up"]), 2));
        assert!(!is_shared("", 3));
    }
}
