//! What has come of that which ran beside the rounds.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::{Node, draw, label};
use crate::{
    cluster::{
        bus::Incoming,
        nodes::Observer,
        ownership::{Given, Ownership, PartitionRow},
        table::Table,
        watchers::Watchers,
    },
    domain::{ChatError, ChatId, NodeId, Partition, Seq, UserName},
    feed::Feed,
    proto::cluster as wire,
    shard::Watched,
    store::StoreResult,
    telemetry::{chain, log_limited},
};

/// Before a node that could not join tries again.
const JOIN_AGAIN: Duration = Duration::from_millis(500);

/// Something that took time.
pub(in crate::cluster) enum Done {
    /// The table was read by this node, with a beat or without.
    /// As of a lineage of the store.
    Table(NodeId, u64, StoreResult<Table>, bool),
    /// Whether a node was declared gone.
    Declared(StoreResult<bool>),
    /// Nodes were told to hand over what they have, or to take it back.
    Marked(StoreResult<()>),
    Fenced(NodeId, StoreResult<()>),
    Claimed(StoreResult<usize>),
    /// What became of a partition that was to be another node's from the next epoch on.
    Given(PartitionRow, Given),
    Served(Vec<Partition>),
    Left {
        partitions: Vec<Partition>,
        feeds: Vec<Arc<Feed>>,
        quiesced: bool,
    },
    Retired(StoreResult<()>),
    /// Nothing is left of this node's former self.
    Emptied(Vec<Arc<Feed>>),
    Rejoined(NodeId, Incoming),
    /// For a node that asked.
    Answered(NodeId, u64, Result<wire::answer::Answer, ChatError>),
    Watched(NodeId, wire::Watch, Result<Watched, ChatError>),
    /// It is to be asked for again.
    WatchAgain(NodeId, wire::Watch),
    /// What the store has of followed chats: the newest message of each, and who of its
    /// readers is no member.
    Looked(Vec<(ChatId, Seq, Vec<UserName>)>),
}

impl Node {
    /// Runs it beside the rounds.
    pub(super) fn run_beside(&self, what: impl Future<Output = Done> + Send + 'static) {
        self.todo.push(what.boxed());
    }

    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Table(id, lineage, read, is_beat) => {
                self.times.read_ended(is_beat);
                match read {
                    // What was read before says nothing of who this node is now.
                    _ if self.rejoining || id != self.id => {}
                    Ok(table) => self.take_table(table, lineage, is_beat),
                    Err(error) => {
                        log_limited!(WARN, error = %chain(&error), "the table of nodes can't be read");
                    }
                }
            }
            Done::Declared(declared) => {
                if let Ok(true) = declared {
                    self.plan.history.metrics.node_declared_gone();
                }
                self.note(declared.map(|_| ()));
                self.tell_of_table();
            }
            Done::Marked(marked) => {
                self.note(marked);
                self.tell_of_table();
            }
            Done::Fenced(node, fenced) => {
                self.fencing.remove(&node);
                self.note(fenced);
                self.tell_of_table();
            }
            Done::Claimed(claimed) => {
                self.claiming = false;
                let count = claimed.as_ref().copied().unwrap_or(0);
                self.plan.history.metrics.partitions_claimed(count);
                self.note(claimed.map(|_| ()));
                self.tell_of_table();
            }
            Done::Given(row, given) => {
                let effects = self.ownership.given(row.partition, given);
                self.act(effects.into_iter().collect());
                match given {
                    Given::Done => {
                        self.plan.history.metrics.partition_given();
                        self.tell_moved(row);
                    }
                    Given::Refused | Given::Unknown => self.tell_of_table(),
                }
            }
            Done::Served(partitions) => {
                for partition in partitions {
                    if self.here.contains(&partition) {
                        self.state.serve(partition, true);
                        self.send_unsent(partition);
                    }
                }
            }
            Done::Left {
                partitions,
                feeds,
                quiesced,
            } => self.left(partitions, feeds, quiesced),
            Done::Retired(retired) => {
                self.note(retired);
                self.tell_of_table();
                if let Some(left) = self.leaving.take() {
                    tracing::info!(node = %self.id, "everything is handed over");
                    _ = left.send(());
                }
            }
            Done::Emptied(feeds) => self.emptied(feeds),
            Done::Rejoined(id, incoming) => self.rejoined(id, incoming),
            Done::Answered(node, ask, answer) => self.answer_call(node, ask, answer),
            Done::Watched(node, watch, watched) => self.watched(node, watch, watched),
            Done::WatchAgain(node, watch) => self.take_watch(node, watch),
            Done::Looked(found) => self.looked(found),
        }
    }

    fn note(&self, changed: StoreResult<()>) {
        if let Err(error) = changed {
            log_limited!(WARN, error = %chain(&error), "the table of nodes was not changed");
        }
    }

    /// Joins under another id, as soon as the database lets it.
    fn emptied(&mut self, feeds: Vec<Arc<Feed>>) {
        self.taps.clear();
        self.watchers = Watchers::default();
        feeds.into_iter().for_each(|feed| self.follow(feed));
        let (registry, bus) = (self.plan.registry.clone(), self.plan.bus.clone());
        let id = draw();
        let label = label(&self.plan, id);
        self.run_beside(async move {
            loop {
                match registry.join(&label).await {
                    Ok(()) => break,
                    Err(error) => {
                        log_limited!(WARN, error = %chain(&error), "cannot join the cluster again");
                    }
                }
                tokio::time::sleep(JOIN_AGAIN).await;
            }
            loop {
                match bus.listen(id).await {
                    Ok(incoming) => return Done::Rejoined(id, incoming),
                    Err(error) => {
                        log_limited!(WARN, error = %chain(&error), "cannot listen for other nodes");
                    }
                }
                tokio::time::sleep(JOIN_AGAIN).await;
            }
        });
    }

    fn rejoined(&mut self, id: NodeId, incoming: Incoming) {
        tracing::info!(node = %id, before = %self.id, "joined the cluster again");
        self.plan.history.metrics.node_rejoined();
        self.id = id;
        self.incoming = incoming;
        self.rejoining = false;
        self.observer = Observer::new(id, self.plan.timeout);
        self.ownership = Ownership::new(id);
        if self.leaving.is_some() {
            self.ownership.leave();
        }
        self.peers.clear();
        self.forget_where_asked();
        self.times.beat_now();
        self.tell_of_table();
    }
}
