//! What a node asks of the database that decides who owns what.

use std::fmt;

use async_trait::async_trait;

use super::{Given, Label, Table, Verdict};
use crate::{
    domain::{NodeId, Partition},
    store::StoreResult,
};

/// Each call is one transaction, bounded in time, and as durable as messages are.
#[async_trait]
pub trait Registry: fmt::Debug + Send + Sync + 'static {
    /// Adds this node, which is up. From now on the store writes as this node, and only
    /// as long as it is one of the cluster.
    async fn join(&self, label: &Label) -> StoreResult<()>;

    /// Adds one to the node's beat, says whether it leaves and has the bus, and reads
    /// the table.
    async fn beat(&self, id: NodeId, leaving: bool, on_bus: bool) -> StoreResult<Table>;

    async fn table(&self) -> StoreResult<Table>;

    /// Declares a node gone if its beat is still the same. Whether it is now.
    async fn declare(&self, verdict: Verdict) -> StoreResult<bool>;

    /// Waits for what a node that is gone has under way, or ends it, and writes down that
    /// it is fenced.
    async fn fence(&self, node: NodeId) -> StoreResult<()>;

    /// Becomes the owner of those that are free and still in these epochs; of how many.
    async fn claim(&self, me: NodeId, free: &[(Partition, i64)]) -> StoreResult<usize>;

    /// Makes another the owner, if this node still is in this epoch.
    async fn give(&self, me: NodeId, partition: Partition, to: NodeId, epoch: i64) -> Given;

    /// Has these nodes hand over what they have as long as others can have it, or take
    /// their part again: of those that are up, or were drained.
    async fn set_drained(&self, nodes: &[NodeId], drained: bool) -> StoreResult<()>;

    /// Writes down that this node, which owns nothing, is fenced.
    async fn retire(&self, me: NodeId) -> StoreResult<()>;
}
