//! What the core of ownership wants done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Done, Node};
use crate::{
    cluster::{
        handle::Move,
        ownership::{Effect, PartitionRow},
    },
    domain::{NodeId, PARTITIONS, Partition},
    feed::Feed,
    telemetry::chain,
};

impl Node {
    pub(super) fn act(&mut self, effects: Vec<Effect>) {
        if effects.contains(&Effect::Rejoin) {
            return self.rejoin();
        }
        let (mut claims, mut served) = (Vec::new(), Vec::new());
        let (mut quiesced, mut dropped) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Fence(node) => self.fence(node),
                Effect::Claim { partition, epoch } => claims.push((partition, epoch)),
                Effect::Serve { partition, .. } | Effect::Resume(partition) => {
                    served.push(partition);
                }
                Effect::Quiesce(partition) => quiesced.push(partition),
                Effect::Give {
                    partition,
                    to,
                    epoch,
                } => self.give(partition, to, epoch),
                Effect::Drop(partition) => dropped.push(partition),
                Effect::Retire => self.retire(),
                // See above.
                Effect::Rejoin => {}
            }
        }
        // What was dropped may come back at once, and what has come may be another's.
        self.leave(dropped, false);
        self.serve(served);
        self.leave(quiesced, true);
        self.claim(claims);
    }

    fn fence(&mut self, node: NodeId) {
        if !self.fencing.insert(node) {
            return;
        }
        let registry = self.plan.registry.clone();
        self.run_beside(async move { Done::Fenced(node, registry.fence(node).await) });
    }

    fn claim(&mut self, free: Vec<(Partition, i64)>) {
        if free.is_empty() || self.claiming {
            return;
        }
        self.claiming = true;
        let (registry, me) = (self.plan.registry.clone(), self.id);
        self.run_beside(async move { Done::Claimed(registry.claim(me, &free).await) });
    }

    fn give(&mut self, partition: Partition, to: NodeId, epoch: i64) {
        let (registry, me) = (self.plan.registry.clone(), self.id);
        self.run_beside(async move {
            let given = registry.give(me, partition, to, epoch).await;
            let row = PartitionRow {
                partition,
                owner: Some(to),
                epoch: epoch + 1,
            };
            Done::Given(row, given)
        });
    }

    fn retire(&mut self) {
        let (registry, me) = (self.plan.registry.clone(), self.id);
        self.run_beside(async move { Done::Retired(registry.retire(me).await) });
    }

    /// Has the shards answer for the partitions, and go on with the feeds that have
    /// followed their chats.
    pub(super) fn serve(&mut self, partitions: Vec<Partition>) {
        if partitions.is_empty() {
            return;
        }
        self.here.extend(&partitions);
        let is_here = |partition| partitions.contains(&partition);
        let feeds = self.unfollow(|chat| is_here(Partition::of(chat)));
        self.give_to_shards(partitions, feeds);
    }

    /// Gives feeds of partitions that are served to the shards.
    pub(super) fn give_to_shards(&mut self, partitions: Vec<Partition>, feeds: Vec<Arc<Feed>>) {
        let shards = self.plan.shards.clone();
        let mut parts: BTreeMap<usize, Vec<Arc<Feed>>> = BTreeMap::new();
        for feed in feeds {
            parts
                .entry(shards.place(feed.chat()))
                .or_default()
                .push(feed);
        }
        self.run_beside(async move {
            let serving = shards.all().iter().enumerate().map(|(at, shard)| {
                let feeds = parts.remove(&at).unwrap_or_default();
                shard.serve(partitions.clone(), feeds)
            });
            join_all(serving).await;
            Done::Served(partitions)
        });
    }

    /// As an operator says. What was begun, in words.
    pub(super) fn move_chats(
        &mut self,
        what: &Move,
        done: oneshot::Sender<Result<String, String>>,
    ) {
        let (node, said) = match what {
            Move::Drain(node) => match self.known.named(node) {
                Ok(id) => (Some(id), format!("{node} hands over what it has")),
                Err(why) => return drop(done.send(Err(why))),
            },
            Move::Rebalance => {
                let said = "all nodes that run share the chats again".to_owned();
                (None, said)
            }
        };
        let registry = self.plan.registry.clone();
        self.run_beside(async move {
            let set = async {
                match node {
                    Some(node) => registry.set_drained(&[node], true).await,
                    // Another node may have been asked a moment ago to drain one.
                    None => {
                        let drained = registry.table().await?.drained();
                        registry.set_drained(&drained, false).await
                    }
                }
            };
            let set = set.await;
            let answer = match &set {
                Ok(()) => Ok(said),
                Err(error) => Err(chain(error).to_string()),
            };
            // Whoever has gone away does not want to know.
            _ = done.send(answer);
            Done::Marked(set)
        });
    }

    /// Has the shards begin nothing more for the partitions, and give up their chats once
    /// nothing is under way; `quiesced` if the core waits for that.
    fn leave(&mut self, partitions: Vec<Partition>, quiesced: bool) {
        // What is dropped may have been quiesced, and has left then.
        let is_to_leave = |one: &Partition| self.here.remove(one) || quiesced;
        let partitions: Vec<Partition> = partitions.into_iter().filter(is_to_leave).collect();
        if partitions.is_empty() {
            return;
        }
        for partition in &partitions {
            self.state.serve(*partition, false);
        }
        let shards = self.plan.shards.clone();
        self.run_beside(async move {
            let leaving = shards.all().iter().map(|one| one.leave(partitions.clone()));
            let feeds = join_all(leaving).await.into_iter().flatten().collect();
            Done::Left {
                partitions,
                feeds,
                quiesced,
            }
        });
    }

    /// Their chats have left the shards.
    pub(super) fn left(
        &mut self,
        partitions: Vec<Partition>,
        feeds: Vec<Arc<Feed>>,
        quiesced: bool,
    ) {
        let left: BTreeSet<Partition> = partitions.iter().copied().collect();
        let is_left = |chat| {
            let partition = Partition::of(chat);
            left.contains(&partition) && !self.here.contains(&partition)
        };
        self.taps.retain(|chat, _| !is_left(*chat));
        let told = self.watchers.give_up(is_left);
        self.say_all(told);
        let (back, gone): (Vec<_>, Vec<_>) = feeds
            .into_iter()
            .partition(|feed| self.here.contains(&Partition::of(feed.chat())));
        gone.into_iter().for_each(|feed| self.follow(feed));
        if !back.is_empty() {
            self.give_to_shards(Vec::new(), back);
        }
        if quiesced {
            let effects = partitions
                .iter()
                .filter_map(|one| self.ownership.quiet(*one));
            let effects = effects.collect();
            self.act(effects);
        }
    }

    /// This node was declared gone, and whatever it writes is refused: it gives up what it
    /// has under way, and comes back under another id.
    fn rejoin(&mut self) {
        if self.rejoining {
            return;
        }
        tracing::warn!(node = %self.id, "this node was declared gone, it joins again");
        self.rejoining = true;
        self.here.clear();
        let all: Vec<Partition> = Partition::all().collect();
        debug_assert_eq!(all.len(), usize::from(PARTITIONS));
        for partition in &all {
            self.state.serve(*partition, false);
        }
        let shards = self.plan.shards.clone();
        self.run_beside(async move {
            let leaving = shards.all().iter().map(|one| one.leave(all.clone()));
            let feeds = join_all(leaving).await.into_iter().flatten().collect();
            Done::Emptied(feeds)
        });
    }
}
