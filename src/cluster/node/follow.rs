//! Chats that live on other nodes and are read here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Followed, Node};
use crate::{
    cluster::{
        edge::Effect,
        watch::{Ask, Say},
        wire as read,
    },
    domain::{ChatId, NodeId, Partition, Seq, UserName},
    feed::{self, End, Feed},
    proto::cluster::{self as wire, item::Item},
    telemetry::log_limited,
};

impl Node {
    /// Follows a feed that has readers, for as long as it has.
    ///
    /// Somebody may have joined the chat by way of its new owner before this one has left
    /// the shard. Then it is at another message than what is followed, and its streams
    /// end, to be resumed.
    pub(super) fn follow(&mut self, feed: Arc<Feed>) {
        let chat = feed.chat();
        let is_other = |one: &Followed| !Arc::ptr_eq(&one.feed, &feed);
        if self.feeds.get(&chat).is_some_and(is_other) {
            feed.end(End::Draining);
            return self.woken.push(feed);
        }
        let (followed, readers) = self.numbered(feed);
        if readers.is_empty() {
            return;
        }
        self.feeds.insert(chat, followed);
        for (user, streams) in readers {
            for _ in 0..streams {
                self.reader_joined(chat, user.clone());
            }
        }
    }

    /// The feed of a chat, for its first reader here or a further one; `last` is the
    /// newest message that is known of.
    pub(super) fn followed(&mut self, chat: ChatId, last: Seq) -> Arc<Feed> {
        if let Some(one) = self.feeds.get(&chat) {
            return one.feed.clone();
        }
        let cores = self.plan.wakes.cores();
        let feed = Arc::new(Feed::new(chat, last, self.plan.ring, cores));
        let (followed, _) = self.numbered(feed.clone());
        self.feeds.insert(chat, followed);
        feed
    }

    /// The feed, which says from now on who has gone, and its readers.
    fn numbered(&mut self, feed: Arc<Feed>) -> (Followed, BTreeMap<UserName, usize>) {
        self.follows += 1;
        let (chat, number) = (feed.chat(), self.follows);
        let news = self.plan.news.clone();
        let readers = feed.follow(move |user| news.left(chat, user, number));
        (Followed { feed, number }, readers)
    }

    pub(super) fn reader_joined(&mut self, chat: ChatId, user: UserName) {
        let owner = self.known.owner(Partition::of(chat)).unwrap_or(self.id);
        let effect = self.edge.join(chat, user, owner);
        self.follow_on(effect.into_iter().collect());
    }

    pub(super) fn reader_left(&mut self, chat: ChatId, user: &UserName, number: u64) {
        // It may be a shard's by now, or be followed anew.
        let is_this = |one: &Followed| one.number == number;
        if !self.feeds.get(&chat).is_some_and(is_this) {
            return;
        }
        let effect = self.edge.leave(chat, user);
        self.follow_on(effect.into_iter().collect());
        self.let_go(chat);
    }

    /// Lets go of a feed that nobody reads.
    fn let_go(&mut self, chat: ChatId) {
        if self.edge.owner(chat).is_none()
            && let Some(one) = self.feeds.get(&chat)
            && one.feed.readers() == 0
        {
            self.feeds.remove(&chat);
        }
    }

    /// Takes out the feeds of these chats, which are followed no more.
    pub(super) fn unfollow(&mut self, which: impl Fn(ChatId) -> bool) -> Vec<Arc<Feed>> {
        let gone = self.feeds.extract_if(|chat, _| which(*chat));
        let feeds: Vec<Arc<Feed>> = gone.map(|(_, one)| one.feed).collect();
        for feed in &feeds {
            self.edge.forget(feed.chat());
        }
        feeds
    }

    /// Does what following leads to, where no messages have come.
    pub(super) fn follow_on(&mut self, effects: Vec<Effect>) {
        self.follow_with(effects, 0, &[]);
    }

    /// … or these, from `first` on.
    fn follow_with(&mut self, effects: Vec<Effect>, first: Seq, entries: &[feed::Item]) {
        for effect in effects {
            match effect {
                Effect::Ask(owner, ask) => self.ask_watch(owner, ask),
                Effect::Begin { chat, newest } => self.on_feed(chat, |feed| feed.begin(newest)),
                Effect::Append {
                    chat,
                    first: from,
                    count,
                } => {
                    let at = (from - first) as usize;
                    let new = &entries[at..at + count as usize];
                    self.on_feed(chat, |feed| feed.append(new.iter().cloned()));
                }
                Effect::End { chat, user } => {
                    if let Some(one) = self.feeds.get(&chat) {
                        one.feed.end_user(&user, End::Removed);
                    }
                }
            }
        }
    }

    fn on_feed(&mut self, chat: ChatId, act: impl FnOnce(&Feed)) {
        if let Some(one) = self.feeds.get(&chat) {
            act(&one.feed);
            self.woken.push(one.feed.clone());
        }
    }

    /// Once a round, whatever the round asks: the last says it all.
    fn ask_watch(&mut self, owner: NodeId, ask: Ask) {
        match ask {
            Ask::Watch {
                chat,
                newest,
                users,
                number,
            } => {
                let watch = wire::Watch {
                    chat: chat.get(),
                    newest,
                    users: read::names(&users),
                    number,
                };
                self.watches.insert((owner, chat), watch);
            }
            Ask::Leave(chat) => {
                self.watches.remove(&(owner, chat));
                self.tell(owner, Item::Unwatch(chat.get()));
            }
        }
    }

    pub(super) fn send_watches(&mut self) {
        for ((owner, _), watch) in std::mem::take(&mut self.watches) {
            self.tell(owner, Item::Watch(watch));
        }
    }

    pub(super) fn take_watching(&mut self, watching: &wire::Watching) {
        if let Ok(chat) = ChatId::new(watching.chat) {
            let effects = self.edge.said(Say::Watching {
                chat,
                newest: watching.newest,
                refused: read::users(&watching.refused),
                number: watching.number,
            });
            self.follow_on(effects);
        }
    }

    pub(super) fn take_entries(&mut self, from: NodeId, entries: wire::Entries) {
        let Ok(chat) = ChatId::new(entries.chat) else {
            return;
        };
        if !self.feeds.contains_key(&chat) {
            // A question may have come behind the word that nobody reads it here any more.
            return self.tell(from, Item::Unwatch(entries.chat));
        }
        let read: Result<Vec<feed::Item>, _> =
            entries.entries.into_iter().map(read::read_entry).collect();
        match read {
            Ok(read) if !read.is_empty() => {
                let (first, count) = (entries.first, read.len() as Seq);
                let effects = self.edge.said(Say::Entries { chat, first, count });
                self.follow_with(effects, first, &read);
            }
            Ok(_) => {}
            // They are found in the store.
            Err(error) => {
                log_limited!(WARN, %chat, error = %error, "another node's messages can't be read");
                let effects = self.edge.looked(chat, entries.first, BTreeSet::new());
                self.follow_on(effects);
            }
        }
    }

    pub(super) fn take_removed(&mut self, removed: &wire::Removed) {
        if let Ok(chat) = ChatId::new(removed.chat) {
            let users = read::users(&removed.users);
            let effects = self.edge.said(Say::Removed { chat, users });
            self.follow_on(effects);
        }
    }

    pub(super) fn take_ended(&mut self, ended: &wire::Ended) {
        let Ok(chat) = ChatId::new(ended.chat) else {
            return;
        };
        self.edge.forget(chat);
        if let Some(one) = self.feeds.remove(&chat) {
            one.feed.end(read::read_end(ended));
            self.woken.push(one.feed);
        }
    }

    pub(super) fn take_not_mine(&mut self, chat: i64) {
        if let Ok(chat) = ChatId::new(chat) {
            let effects = self.edge.said(Say::NotMine(chat));
            self.follow_on(effects);
            self.times.look = true;
        }
    }

    pub(super) fn looked(&mut self, found: Vec<(ChatId, Seq, Vec<UserName>)>) {
        self.looking_ended();
        for (chat, newest, strangers) in found {
            let strangers = strangers.into_iter().collect();
            let effects = self.edge.looked(chat, newest, strangers);
            self.follow_on(effects);
        }
    }
}
