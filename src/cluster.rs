//! Several nodes over one database: who is alive, who owns which chats, and how a chat
//! changes its owner.
//!
//! What decides is the database; what carries is a bus, which may lose, delay and cut off
//! at will. The cores here are pure: an event with its time goes in, effects come out.
//!
//! Invariants:
//! 1. At any time at most one node may write a partition's chats, and what another has
//!    begun before is over: committed or never (P1, P2).
//! 2. A node is declared gone only by one that was answered by the database all the while,
//!    and nobody is for an outage of the database (P8).
//! 3. What was read of the database is fact; what is changed there is changed on the
//!    condition that it is as it was read.

mod bus;
mod edge;
mod handle;
mod link;
mod news;
mod node;
mod nodes;
mod ownership;
mod registry;
mod status;
mod table;
mod watch;
mod watchers;
mod wire;

#[cfg(test)]
mod tests;

pub use crate::domain::{NodeId, PARTITIONS, Partition};
pub use bus::{Bus, BusError, BusSettings};
pub use edge::Edge;
pub use handle::{Answered, Asked, Cluster, Move};
pub use link::{BATCH_BYTES, Batch, IDLE, Inbox, Outbox, Received};
pub use news::News;
pub use node::{JoinError, Node, NodePlan};
pub use nodes::{BEAT, BEATS, LATE, NodeRow, Observer, State, Verdict};
pub use ownership::{Effect, Given, MOVES, Ownership, PartitionRow};
pub use registry::Registry;
pub use status::{NodeStatus, Status};
pub use table::{Label, Table};
pub use watch::{Ask, Say};
pub use watchers::Watchers;
