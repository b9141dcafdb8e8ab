//! Partitions that come to this node and leave it.
//!
//! Of a partition that leaves, nothing more is begun: what waits is sent on, and what is
//! under way is waited for. Then its chats leave memory, and their feeds, with the
//! readers, are given to whoever follows them from here.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::oneshot;

use super::{Shard, adjust};
use crate::{
    domain::{ChatError, ChatId, Partition},
    feed::{End, Feed},
    shard::{
        active::{Active, Change, Place, refuse},
        askers::{Asked, Waiting},
        elsewhere::Partitions,
        queue::Queue,
    },
    store::ChatRecord,
};

/// Partitions on their way out.
pub(super) struct Leaving {
    /// Chats of which something is under way.
    blocked: Vec<ChatId>,
    feeds: Vec<Arc<Feed>>,
    done: oneshot::Sender<Vec<Arc<Feed>>>,
}

impl Shard {
    pub(super) fn serves(&self, id: ChatId) -> bool {
        let partitions = self.state.partitions.as_ref();
        partitions.is_none_or(|partitions| partitions.serves(id))
    }

    /// Answers for the partitions from now on, and goes on with these feeds of theirs.
    pub(super) fn serve(&mut self, partitions: &[Partition], feeds: Vec<Arc<Feed>>) {
        let Some(served) = &mut self.state.partitions else {
            return;
        };
        partitions.iter().for_each(|one| served.set(*one, true));
        for feed in feeds {
            let id = feed.chat();
            let Some(served) = &mut self.state.partitions else {
                return;
            };
            served.adopted.insert(id, feed);
            self.read_adopted(id);
        }
    }

    /// Reads the chat of a feed that has readers already.
    pub(super) fn read_adopted(&mut self, id: ChatId) {
        let place = self.state.chats.entry(id);
        if let Place::Loading(waiting) = place.or_insert_with(|| Place::Loading(Waiting::default()))
            && matches!(waiting.asked, Asked::NotYet)
        {
            self.begin_asking(id, None);
        }
    }

    /// The same, if it could not be read or somebody else has asked for it.
    pub(super) fn read_adopted_again(&mut self, id: ChatId) {
        let is_adopted = |partitions: &Partitions| partitions.adopted.contains_key(&id);
        if self.state.partitions.as_ref().is_some_and(is_adopted) {
            self.read_adopted(id);
        }
    }

    pub(super) fn adopted(&mut self, id: ChatId) -> Option<Arc<Feed>> {
        self.state.partitions.as_mut()?.adopted.remove(&id)
    }

    /// There is no such chat any more, if it was asked for itself and not for somebody
    /// who is no member.
    pub(super) fn end_adopted(&mut self, id: ChatId, for_itself: bool) {
        if for_itself && let Some(feed) = self.adopted(id) {
            feed.end(End::Deleted);
            self.wakes.wake(self.core, std::iter::once(&feed));
        }
    }

    /// Ends the streams of those who have been removed since the feed was followed.
    pub(super) fn end_strangers(feed: &Feed, record: &ChatRecord) {
        let members: BTreeSet<_> = record.members.iter().collect();
        let users = feed.users();
        let strangers = users.iter().filter(|user| !members.contains(user));
        strangers.for_each(|user| feed.end_user(user, End::Removed));
    }

    /// Begins nothing more for the partitions; once nothing is under way, `done` gets
    /// the feeds that are read.
    pub(super) fn leave(&mut self, left: &[Partition], done: oneshot::Sender<Vec<Arc<Feed>>>) {
        let Some(partitions) = &mut self.state.partitions else {
            return;
        };
        left.iter().for_each(|one| partitions.set(*one, false));
        let left: BTreeSet<Partition> = left.iter().copied().collect();
        let is_left = |id: &ChatId| left.contains(&Partition::of(*id));
        let adopted = partitions.adopted.extract_if(|id, _| is_left(id));
        let feeds = adopted.map(|(_, feed)| feed).collect();
        let strangers = self.state.strangers.keys().copied().filter(is_left);
        for id in strangers.collect::<Vec<_>>() {
            let waiting = self.state.strangers.get_mut(&id).map(drain);
            self.send_on(id, waiting);
        }
        let mut blocked: Vec<ChatId> = self.state.chats.keys().copied().filter(is_left).collect();
        // So that it can be played again.
        blocked.sort_unstable();
        for id in &blocked {
            let waiting = match self.state.chats.get_mut(id) {
                Some(Place::Loading(waiting)) => {
                    waiting.doubted = !matches!(waiting.asked, Asked::NotYet);
                    Some(drain(waiting))
                }
                Some(Place::Active(active)) => Some(Waiting {
                    commands: std::mem::take(&mut active.waiting),
                    ..Waiting::default()
                }),
                None => None,
            };
            self.send_on(*id, waiting);
        }
        self.state.leaving.push(Leaving {
            blocked,
            feeds,
            done,
        });
    }

    /// Lets go of what has come to its end in partitions that leave.
    pub(super) fn finish_leaving(&mut self) {
        for mut one in std::mem::take(&mut self.state.leaving) {
            one.blocked.retain(|id| !self.has_left(*id, &mut one.feeds));
            match one.blocked.is_empty() {
                true => _ = one.done.send(one.feeds),
                false => self.state.leaving.push(one),
            }
        }
    }

    fn has_left(&mut self, id: ChatId, feeds: &mut Vec<Arc<Feed>>) -> bool {
        let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
            // What is being read is let go of once it has been.
            return true;
        };
        let before = active.chat.load();
        let posts = active.chat.take_queued();
        adjust(&mut self.state.load, before, active.chat.load());
        let is_busy = is_busy(active);
        if let Some(partitions) = &self.state.partitions {
            posts
                .into_iter()
                .for_each(|post| partitions.elsewhere.moved(id, post));
        }
        if is_busy {
            return false;
        }
        if let Some(Place::Active(active)) = self.remove(id) {
            self.history.metrics.chat_let_go();
            let commands = active.waiting;
            let waiting = Waiting {
                commands,
                ..Waiting::default()
            };
            self.send_on(id, Some(waiting));
            if active.feed.readers() > 0 && active.feed.ended().is_none() {
                feeds.push(active.feed);
            }
        }
        self.settle_doubt(id);
        true
    }

    /// What waited here is to be asked elsewhere.
    pub(super) fn send_on(&mut self, id: ChatId, waiting: Option<Waiting>) {
        let Some(waiting) = waiting else { return };
        self.settle(&waiting);
        for command in waiting.commands {
            refuse(command, |_| ChatError::Moved);
        }
        if let Some(partitions) = &self.state.partitions {
            let posts = waiting.posts.into_iter();
            posts.for_each(|post| partitions.elsewhere.moved(id, post));
        }
    }
}

fn drain(waiting: &mut Waiting) -> Waiting {
    Waiting {
        posts: std::mem::take(&mut waiting.posts),
        commands: std::mem::take::<Queue>(&mut waiting.commands),
        ..Waiting::default()
    }
}

/// Something of the chat is with the writer or the store that may yet change it.
fn is_busy(active: &Active) -> bool {
    let is_read = |change: &Change| matches!(change, Change::Reload { .. });
    active.chat.has_in_flight() || active.change.as_ref().is_some_and(|one| !is_read(one))
}
