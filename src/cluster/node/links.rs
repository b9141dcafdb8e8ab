//! Batches of other nodes, and for them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;

use super::Node;
use crate::{
    cluster::{
        link::{Batch, Inbox, Outbox, Received},
        wire as read,
    },
    domain::NodeId,
    proto::cluster::{self as wire, item::Item},
    telemetry::log_limited,
};

/// Bytes that wait for one other node. Over it, requests wait where they are, and what
/// the other finds out by itself is left out.
const ROOM: usize = 16 << 20;

/// A node whose batches are all out of turn for so long is heard anew.
const DEAF: Duration = Duration::from_secs(2);

/// What is said of another node's link.
pub(in crate::cluster) struct Peer {
    outbox: Outbox<wire::Item>,
    inbox: Inbox,
    pub heard: Option<Instant>,
}

impl Node {
    pub(super) fn peer(&mut self, node: NodeId) -> &mut Peer {
        let (me, now) = (self.id, self.plan.history.clock.now());
        self.peers.entry(node).or_insert_with(|| Peer {
            outbox: Outbox::new(me, ROOM, now),
            inbox: Inbox::default(),
            heard: None,
        })
    }

    /// Says something to the node that it would have to ask for again if it got lost.
    pub(super) fn tell(&mut self, to: NodeId, item: Item) {
        if to == self.id {
            return;
        }
        let item = read::item(item);
        let bytes = item.encoded_len();
        if !self.peer(to).outbox.tell(item, bytes) {
            log_limited!(WARN, node = %to, "too much waits for a node, it is left out");
        }
    }

    pub(super) fn tell_all(&mut self, item: &Item) {
        let all: Vec<NodeId> = self.peers.keys().copied().collect();
        all.into_iter().for_each(|to| self.tell(to, item.clone()));
    }

    /// Whether the node was heard within this time.
    pub(super) fn hears(&self, node: NodeId, within: Duration) -> bool {
        let heard = self.peers.get(&node).and_then(|peer| peer.heard);
        heard.is_some_and(|heard| self.now().duration_since(heard) < within)
    }

    /// Sends what waits, and the numbers of links that are silent.
    pub(super) fn flush(&mut self) {
        let now = self.now();
        for (to, peer) in &mut self.peers {
            while let Some(batch) = peer.outbox.next(now) {
                let batch = wire::Batch {
                    from: batch.from.0,
                    number: batch.number,
                    items: batch.items,
                    to: to.0,
                };
                let batch = Bytes::from(batch.encode_to_vec());
                self.plan.history.metrics.batch_sent(batch.len());
                self.plan.bus.send(*to, batch);
            }
        }
    }

    pub(super) fn receive(&mut self, bytes: Bytes) {
        let batch = match wire::Batch::decode(bytes) {
            Ok(batch) => batch,
            Err(error) => {
                log_limited!(WARN, error = %error, "what came by the bus is no batch of a node");
                return;
            }
        };
        let from = NodeId(batch.from);
        if from == self.id || NodeId(batch.to) != self.id {
            return;
        }
        let now = self.now();
        let Some(peer) = self.peers.get_mut(&from) else {
            // One that has come a moment ago is in the table, whoever else says so is not.
            self.times.look_soon(now);
            return;
        };
        let is_known = peer.heard.is_some();
        let received = peer.inbox.receive(&Batch::<()> {
            from,
            number: batch.number,
            items: Vec::new(),
        });
        if received == Received::Stale {
            // A damaged number may be far ahead of all that follow.
            if peer
                .heard
                .is_none_or(|heard| now.duration_since(heard) > DEAF)
            {
                peer.inbox = Inbox::default();
            }
            return;
        }
        peer.heard = Some(now);
        self.plan.history.metrics.batch_received();
        if received == Received::BehindAGap {
            if is_known {
                self.resyncs += 1;
                self.plan.history.metrics.link_resynced();
            }
            self.resync(from);
            self.tell(from, Item::Resync(wire::Nothing {}));
        }
        for item in batch.items.into_iter().filter_map(|item| item.item) {
            self.take(from, item);
        }
    }

    /// Something may be missing between this node and that one.
    fn resync(&mut self, with: NodeId) {
        let effects = self.edge.resync(with);
        self.follow_on(effects);
        self.ask_again(with);
    }

    fn take(&mut self, from: NodeId, item: Item) {
        match item {
            Item::Post(post) | Item::Change(post) => self.take_post(from, post),
            Item::Call(call) => self.take_call(from, call),
            Item::Watch(watch) => self.take_watch(from, watch),
            Item::Unwatch(chat) => self.take_unwatch(from, chat),
            Item::Outcome(outcome) => self.take_outcome(from, outcome),
            Item::Answer(answer) => self.take_answer(from, answer),
            Item::Watching(watching) => self.take_watching(&watching),
            Item::Entries(entries) => self.take_entries(from, entries),
            Item::Removed(removed) => self.take_removed(&removed),
            Item::Ended(ended) => self.take_ended(&ended),
            Item::NotMine(chat) => self.take_not_mine(chat),
            Item::Resync(_) => self.resync(from),
            Item::Table(_) => self.times.look = true,
            Item::Moved(moved) => self.take_moved(&moved),
        }
    }
}
