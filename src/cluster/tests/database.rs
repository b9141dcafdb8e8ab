//! The database of the simulation: rows, and transactions whose steps may be far apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Given, NodeId, NodeRow, Partition, PartitionRow, State, Verdict};

pub type Txn = u64;

#[derive(Debug, Default)]
pub struct Database {
    pub nodes: Vec<NodeRow>,
    pub partitions: Vec<PartitionRow>,
    /// Who wrote the messages of a partition, one after the other.
    pub rows: BTreeMap<Partition, Vec<NodeId>>,
    pub open: BTreeMap<Txn, Transaction>,
    /// Nodes whose lock somebody waits for exclusively.
    pub wanted: BTreeSet<NodeId>,
}

/// A write of a partition's chats.
#[derive(Debug)]
pub struct Transaction {
    node: NodeId,
    partition: Partition,
    seq: usize,
    has_lock: bool,
}

/// Why a step was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody has ended the session.
    Ended,
    /// Who writes is gone.
    Stale,
}

impl Database {
    pub fn row(&self, node: NodeId) -> Option<&NodeRow> {
        self.nodes.iter().find(|row| row.id == node)
    }

    fn row_mut(&mut self, node: NodeId) -> Option<&mut NodeRow> {
        self.nodes.iter_mut().find(|row| row.id == node)
    }

    fn is_stale(&self, node: NodeId) -> bool {
        let row = self.row(node);
        row.is_none_or(|row| matches!(row.state, State::Gone | State::Fenced))
    }

    pub fn beat(&mut self, node: NodeId, state: State, on_bus: bool) {
        if let Some(row) = self.row_mut(node) {
            row.beat += 1;
            row.on_bus = on_bus;
            if row.state == State::Up {
                row.state = state;
            }
        }
    }

    /// Whether the node is gone because of this.
    pub fn declare(&mut self, verdict: Verdict) -> bool {
        let row = self.row_mut(verdict.node);
        let Some(row) = row.filter(|row| row.beat == verdict.beat) else {
            return false;
        };
        let is_alive = matches!(row.state, State::Up | State::Leaving);
        if is_alive {
            row.state = State::Gone;
        }
        is_alive
    }

    /// Takes the node's lock exclusively, and writes down that it is fenced. False if
    /// somebody holds the lock.
    pub fn fence(&mut self, node: NodeId) -> bool {
        let is_held = |one: &Transaction| one.node == node && one.has_lock;
        if self.open.values().any(is_held) {
            self.wanted.insert(node);
            return false;
        }
        self.wanted.remove(&node);
        self.mark_fenced(node);
        true
    }

    pub fn mark_fenced(&mut self, node: NodeId) {
        if let Some(row) = self.row_mut(node) {
            row.state = State::Fenced;
        }
    }

    /// Ends whoever holds the node's lock.
    pub fn end_holders(&mut self, node: NodeId) {
        self.open.retain(|_, one| one.node != node || !one.has_lock);
    }

    pub fn claim(&mut self, node: NodeId, partition: Partition, epoch: i64) {
        if self.is_stale(node) || self.wanted.contains(&node) {
            return;
        }
        let at = self.place(partition);
        let row = self.partitions[at];
        let owner = row.owner.and_then(|owner| self.row(owner));
        let is_free = owner.is_none_or(|owner| owner.state == State::Fenced);
        if row.epoch == epoch && is_free {
            self.partitions[at].owner = Some(node);
            self.partitions[at].epoch += 1;
        }
    }

    pub fn give(&mut self, node: NodeId, partition: Partition, to: NodeId, epoch: i64) -> Given {
        if self.is_stale(node) || self.wanted.contains(&node) {
            return Given::Refused;
        }
        let at = self.place(partition);
        let row = &mut self.partitions[at];
        if row.owner != Some(node) || row.epoch != epoch {
            return Given::Refused;
        }
        row.owner = Some(to);
        row.epoch += 1;
        Given::Done
    }

    fn place(&self, partition: Partition) -> usize {
        let mut rows = self.partitions.iter();
        rows.position(|row| row.partition == partition).unwrap()
    }

    pub fn newest(&self, partition: Partition) -> usize {
        self.rows.get(&partition).map_or(0, Vec::len)
    }

    pub fn begin(&mut self, txn: Txn, node: NodeId, partition: Partition, seq: usize) {
        let transaction = Transaction {
            node,
            partition,
            seq,
            has_lock: false,
        };
        self.open.insert(txn, transaction);
    }

    /// Takes the lock of the node that writes. False if it has to wait.
    pub fn lock(&mut self, txn: Txn) -> Result<bool, Refusal> {
        let one = self.open.get_mut(&txn).ok_or(Refusal::Ended)?;
        one.has_lock = !self.wanted.contains(&one.node);
        Ok(one.has_lock)
    }

    pub fn check(&mut self, txn: Txn) -> Result<(), Refusal> {
        let node = self.open.get(&txn).ok_or(Refusal::Ended)?.node;
        match self.is_stale(node) {
            true => {
                self.open.remove(&txn);
                Err(Refusal::Stale)
            }
            false => Ok(()),
        }
    }

    /// The outcome, and what is wrong with it if something is.
    pub fn commit(&mut self, txn: Txn) -> Result<Option<String>, Refusal> {
        let one = self.open.remove(&txn).ok_or(Refusal::Ended)?;
        let owner = self.partitions[self.place(one.partition)].owner;
        let rows = self.rows.entry(one.partition).or_default();
        rows.push(one.node);
        let wrong = if owner != Some(one.node) {
            Some(format!(
                "P1: {} has written to {:?}, which is {owner:?}'s",
                one.node, one.partition
            ))
        } else if rows.len() != one.seq {
            Some(format!("P2: {:?} has seq {} twice", one.partition, one.seq))
        } else {
            None
        };
        Ok(wrong)
    }

    pub fn abort(&mut self, txn: Txn) {
        self.open.remove(&txn);
    }
}
