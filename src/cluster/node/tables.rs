//! What the database says of nodes and partitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Done, Node};
use crate::{
    cluster::{
        nodes::{NodeRow, State},
        ownership::PartitionRow,
        status::{NodeStatus, Status},
        table::{Label, Table},
    },
    domain::{NodeId, PARTITIONS, Partition},
    proto::cluster::{self as wire, item::Item},
};

/// A node that is fenced and says nothing for so long is forgotten: one that stops is
/// answered to the end, and its link goes on as it was.
const FORGET: Duration = Duration::from_secs(30);

/// The newest of it.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Known {
    nodes: Vec<NodeRow>,
    labels: Vec<Label>,
    owners: BTreeMap<Partition, (Option<NodeId>, i64)>,
    /// Changes of owners that were seen.
    moves: u64,
    shown: Option<Shown>,
    /// Of the store when it was read.
    lineage: u64,
}

/// What the metrics have been told.
#[derive(Debug, Clone, Copy)]
struct Shown {
    owned: usize,
    without_owner: usize,
    waiting: usize,
    at: Instant,
}

impl Known {
    pub fn owner(&self, partition: Partition) -> Option<NodeId> {
        self.owners.get(&partition).and_then(|(owner, _)| *owner)
    }

    /// The node that an operator names, by its id or its name.
    ///
    /// # Errors
    /// If there is none of that name, or several, in words.
    pub fn named(&self, name: &str) -> Result<NodeId, String> {
        let living = self.nodes.iter().zip(&self.labels);
        let living = living.filter(|(row, _)| row.state.is_alive());
        let mut found = living
            .filter(|(row, label)| row.id.to_string() == name || label.name == name)
            .map(|(row, _)| row.id);
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(format!("several nodes are called {name}: give an id")),
            (None, _) => Err(format!("no node that runs is called {name}")),
        }
    }

    /// What is read from now on counts, older epochs too.
    fn forget_epochs(&mut self) {
        for (_, epoch) in self.owners.values_mut() {
            *epoch = i64::MIN;
        }
    }

    /// Takes in the rows; the partitions whose owner is another now.
    fn take(&mut self, rows: &[PartitionRow]) -> BTreeSet<Partition> {
        let mut changed = BTreeSet::new();
        for row in rows {
            let known = self.owners.entry(row.partition).or_insert((None, -1));
            if row.epoch > known.1 {
                if known.0 != row.owner {
                    changed.insert(row.partition);
                    self.moves += u64::from(known.1 >= 0);
                }
                *known = (row.owner, row.epoch);
            }
        }
        changed
    }
}

impl Node {
    /// Takes in what one statement has read that was begun in this lineage of the store; a
    /// beat of ours, if it was one.
    pub(super) fn take_table(&mut self, table: Table, lineage: u64, is_beat: bool) {
        let now = self.now();
        if lineage < self.known.lineage {
            return;
        }
        // Another server of the database answers, which may have less.
        if lineage > self.known.lineage {
            self.known.lineage = lineage;
            self.known.forget_epochs();
            self.ownership.forget_epochs();
        }
        let rows = table.nodes;
        if is_beat {
            for verdict in self.observer.beat(&rows, now) {
                tracing::warn!(node = %verdict.node, "a node's beat stands still, it is declared gone");
                let registry = self.plan.registry.clone();
                self.run_beside(async move { Done::Declared(registry.declare(verdict).await) });
            }
        }
        for row in &rows {
            if row.id == self.id {
                continue;
            }
            if row.state != State::Fenced {
                self.peer(row.id);
            } else if !self.hears(row.id, FORGET) {
                self.peers.remove(&row.id);
            }
            if row.state == State::Fenced {
                self.watchers.forget(row.id);
            }
        }
        self.known.labels = table.labels;
        let changed = self.known.take(&table.partitions);
        let effects = self.ownership.table(&rows, &table.partitions);
        self.known.nodes = rows;
        self.act(effects);
        self.owners_changed(&changed);
        self.show_status();
    }

    /// What was asked of the old owners is asked of the new ones.
    fn owners_changed(&mut self, changed: &BTreeSet<Partition>) {
        let mut theirs: BTreeMap<NodeId, BTreeSet<Partition>> = BTreeMap::new();
        for partition in changed {
            if let Some(owner) = self.known.owner(*partition) {
                theirs.entry(owner).or_default().insert(*partition);
            }
        }
        for (owner, partitions) in theirs {
            if owner != self.id {
                let is_theirs = |chat| partitions.contains(&Partition::of(chat));
                let effects = self.edge.owned(is_theirs, owner);
                self.follow_on(effects);
            }
            self.ask_elsewhere(&partitions);
        }
    }

    /// Tells the others what this node has changed, so that nobody waits for the table to
    /// be read.
    pub(super) fn tell_moved(&mut self, row: PartitionRow) {
        let moved = wire::Moved {
            partition: row.partition.number() as u32,
            owner: row.owner.map_or(0, |owner| owner.0),
            epoch: row.epoch,
        };
        self.tell_all(&Item::Moved(moved));
        self.take_row(row);
    }

    pub(super) fn take_moved(&mut self, moved: &wire::Moved) {
        let number = i16::try_from(moved.partition).ok();
        if let Some(partition) = number.and_then(Partition::from_number)
            && !self.rejoining
        {
            self.take_row(PartitionRow {
                partition,
                owner: Some(NodeId(moved.owner)),
                epoch: moved.epoch,
            });
        }
    }

    /// One row, as it was committed. An older one than is known says nothing.
    fn take_row(&mut self, row: PartitionRow) {
        // Before this node has read who there is, a row alone says nothing.
        if !self.known.nodes.iter().any(|node| node.id == self.id) {
            self.times.look = true;
            return;
        }
        let changed = self.known.take(&[row]);
        let effects = self.ownership.table(&self.known.nodes, &[row]);
        self.act(effects);
        self.owners_changed(&changed);
    }

    /// Tells the others that there is something to be read.
    pub(super) fn tell_of_table(&mut self) {
        self.times.look = true;
        self.tell_all(&Item::Table(wire::Nothing {}));
    }

    pub(super) fn show_status(&mut self) {
        let now = self.now();
        let mut owned: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (owner, _) in self.known.owners.values() {
            if let Some(owner) = owner {
                *owned.entry(*owner).or_default() += 1;
            }
        }
        let is_served = |id: &NodeId| {
            let node = self.known.nodes.iter().find(|one| one.id == *id);
            node.is_some_and(|one| one.state.is_alive())
        };
        let served = owned.iter().filter(|(id, _)| is_served(id));
        let with_owner: usize = served.map(|(_, count)| count).sum();
        let nodes = self.known.nodes.iter().zip(&self.known.labels);
        let nodes = nodes.map(|(row, label)| {
            let heard = self.peers.get(&row.id).and_then(|peer| peer.heard);
            NodeStatus {
                id: row.id.to_string(),
                name: label.name.clone(),
                version: label.version.clone(),
                address: label.address.clone(),
                state: row.state.name().to_owned(),
                on_bus: row.on_bus,
                partitions: owned.get(&row.id).copied().unwrap_or(0),
                heard_ms: heard.map(|heard| now.duration_since(heard).as_millis() as u64),
            }
        });
        let shown = Shown {
            owned: owned.get(&self.id).copied().unwrap_or(0),
            without_owner: usize::from(PARTITIONS) - with_owner,
            waiting: self.asks.len(),
            at: now,
        };
        let before = self.known.shown.replace(shown);
        let before = before.unwrap_or(Shown {
            owned: 0,
            without_owner: 0,
            waiting: 0,
            at: now,
        });
        let metrics = &self.plan.history.metrics;
        metrics.partitions_owned(before.owned, shown.owned);
        metrics.partitions_without_owner(before.without_owner, shown.without_owner);
        metrics.asks_waiting(before.waiting, shown.waiting);
        let time = now.duration_since(before.at);
        metrics.without_owner(time * before.without_owner as u32);
        let status = Status {
            node: self.id.to_string(),
            cluster: self.plan.cluster.clone(),
            on_bus: self.plan.bus.is_up(),
            nodes: nodes.collect(),
            without_owner: shown.without_owner,
            moves: self.known.moves,
            resyncs: self.resyncs,
            waiting: shown.waiting,
            followed: self.feeds.len(),
            watched: self.taps.len(),
        };
        let shown = self.state.status.write();
        *shown.unwrap_or_else(std::sync::PoisonError::into_inner) = status;
    }
}
