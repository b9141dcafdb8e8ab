//! What a node shows of its cluster to people and their tools.

use serde::{Deserialize, Serialize};

/// The cluster, as one of its nodes knows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// This node's id.
    pub node: String,
    pub cluster: String,
    /// It can be reached by the bus, as far as it knows.
    pub on_bus: bool,
    pub nodes: Vec<NodeStatus>,
    /// Partitions that nobody answers for.
    pub without_owner: usize,
    /// Of all since this node started, partitions that have changed their owner.
    pub moves: u64,
    /// Links that had to be set right again: something was lost.
    pub resyncs: u64,
    /// Posts and calls of this node's clients that wait for others.
    pub waiting: usize,
    /// Chats that are read here and live elsewhere.
    pub followed: usize,
    /// Chats that live here and are read elsewhere.
    pub watched: usize,
}

/// One of its nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    pub id: String,
    pub name: String,
    pub version: String,
    pub address: String,
    /// `up`, `drained`, `leaving`, `gone` or `fenced`.
    pub state: String,
    pub on_bus: bool,
    pub partitions: usize,
    /// Milliseconds since this node was last heard by way of the bus; none of itself.
    pub heard_ms: Option<u64>,
}
