//! What a node of a cluster counts.

use std::time::Duration;

use super::{
    metrics::{Metrics, micros},
    sheet::{Histogram, Layout, Sum},
};

#[derive(Debug)]
pub(super) struct Places {
    pub partitions: Sum,
    pub without_owner: Sum,
    pub without_owner_micros: Sum,
    pub handovers: Sum,
    pub takeovers: Sum,
    pub declared: Sum,
    pub rejoins: Sum,
    pub writes_refused: Sum,
    pub batches_sent: Sum,
    pub bytes_sent: Sum,
    pub batches_received: Sum,
    pub resyncs: Sum,
    pub waiting: Sum,
    pub owner_micros: Histogram,
    pub looks: Sum,
}

impl Places {
    pub fn new(layout: &mut Layout) -> Self {
        Self {
            partitions: layout.counter(),
            without_owner: layout.counter(),
            without_owner_micros: layout.counter(),
            handovers: layout.counter(),
            takeovers: layout.counter(),
            declared: layout.counter(),
            rejoins: layout.counter(),
            writes_refused: layout.counter(),
            batches_sent: layout.counter(),
            bytes_sent: layout.counter(),
            batches_received: layout.counter(),
            resyncs: layout.counter(),
            waiting: layout.counter(),
            owner_micros: layout.histogram(),
            looks: layout.counter(),
        }
    }
}

impl Metrics {
    /// Partitions that this node answers for: so many `before`, so many `now`.
    pub fn partitions_owned(&self, before: usize, now: usize) {
        self.change(self.places.cluster.partitions, before, now);
    }

    /// Partitions of the whole cluster that nobody answers for.
    pub fn partitions_without_owner(&self, before: usize, now: usize) {
        self.change(self.places.cluster.without_owner, before, now);
    }

    /// Partitions had no owner for so long, all together.
    pub fn without_owner(&self, time: Duration) {
        let place = self.places.cluster.without_owner_micros;
        self.sheet.add(place, micros(time));
    }

    /// This node has given a partition to another.
    pub fn partition_given(&self) {
        self.sheet.add(self.places.cluster.handovers, 1);
    }

    /// This node has taken over partitions that were nobody's.
    pub fn partitions_claimed(&self, partitions: usize) {
        let place = self.places.cluster.takeovers;
        self.sheet.add(place, partitions as u64);
    }

    /// This node has declared another one gone.
    pub fn node_declared_gone(&self) {
        self.sheet.add(self.places.cluster.declared, 1);
    }

    /// This node was declared gone, and joins again.
    pub fn node_rejoined(&self) {
        self.sheet.add(self.places.cluster.rejoins, 1);
    }

    /// A write was refused because this node was declared gone.
    pub fn write_refused(&self) {
        self.sheet.add(self.places.cluster.writes_refused, 1);
    }

    pub fn batch_sent(&self, bytes: usize) {
        self.sheet.add(self.places.cluster.batches_sent, 1);
        let place = self.places.cluster.bytes_sent;
        self.sheet.add(place, bytes as u64);
    }

    pub fn batch_received(&self) {
        self.sheet.add(self.places.cluster.batches_received, 1);
    }

    /// Something of another node was lost on its way.
    pub fn link_resynced(&self) {
        self.sheet.add(self.places.cluster.resyncs, 1);
    }

    /// Posts and calls that wait for other nodes: so many `before`, so many `now`.
    pub fn asks_waiting(&self, before: usize, now: usize) {
        self.change(self.places.cluster.waiting, before, now);
    }

    /// From when an owner was asked to its answer.
    pub fn owner_answered(&self, took: Duration) {
        let place = self.places.cluster.owner_micros;
        self.sheet.observe(place, micros(took));
    }

    /// Chats were looked for in the store because their owner was not heard.
    pub fn chats_looked_for(&self, chats: usize) {
        self.sheet.add(self.places.cluster.looks, chats as u64);
    }
}
