use super::{
    nodes::{NodeRow, State},
    ownership::PartitionRow,
};
use crate::domain::NodeId;

/// What one statement has read of the database: all nodes and all partitions, as they
/// were at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub nodes: Vec<NodeRow>,
    pub partitions: Vec<PartitionRow>,
    /// One for each of the nodes, in the same order.
    pub labels: Vec<Label>,
}

impl Table {
    /// Nodes that hand over what they have.
    pub fn drained(&self) -> Vec<NodeId> {
        let drained = self.nodes.iter().filter(|row| row.state == State::Drained);
        drained.map(|row| row.id).collect()
    }
}

/// What a node says of itself when it joins. Nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub node: NodeId,
    /// For people; several nodes may have the same one.
    pub name: String,
    /// The release that it runs.
    pub version: String,
    /// Where it can be reached; empty if it does not say so.
    pub address: String,
}
