//! What other nodes ask of chats that live here.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Done, Node};
use crate::{
    cluster::{
        link::BATCH_BYTES,
        watch::{Ask, Say},
        wire as read,
    },
    domain::{
        ChatError, ChatId, ClientMessageId, Draft, GivenId, Invalid, MessageId, NodeId, Partition,
        PostResult, Refusal, Seq, UserName,
    },
    feed::{self, Feed, Tap, Tapped},
    proto::cluster::{self as wire, answer::Answer, call::Call, item::Item},
    shard::{Asking, AskingNode, Post, Reply, ShardHandle, Watched},
    telemetry::SpanRef,
};

/// Codes of gRPC, as they are in spans.
const OK: i32 = 0;
const UNKNOWN: i32 = 2;

/// Before a chat that the store could not give is asked for again.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

impl Node {
    fn lives_here(&self, chat: ChatId) -> bool {
        self.here.contains(&Partition::of(chat))
    }

    pub(super) fn take_post(&mut self, from: NodeId, post: wire::Post) {
        let ask = post.ask;
        let parent = post.traceparent.as_deref();
        let parent = parent.and_then(SpanRef::from_traceparent);
        match self.read_post(from, post) {
            Ok((chat, mut post)) if self.lives_here(chat) => {
                let span = parent.and_then(|parent| self.plan.traces.passed(parent));
                if let Some(span) = span {
                    post.span = Some(Box::new(span.reference()));
                    self.spans.insert((from, ask), span);
                }
                self.plan.shards.of(chat).pass(chat, post);
            }
            Ok(_) => self.moved_post(from, ask),
            Err(why) => {
                let field = "text";
                let refusal = Refusal::Invalid { field, why };
                self.answer_post(from, ask, Err(refusal));
            }
        }
    }

    fn read_post(&self, from: NodeId, post: wire::Post) -> Result<(ChatId, Post<Reply>), Invalid> {
        let id = post.client_message_id.as_deref().unwrap_or_default();
        let draft = Draft {
            client_message_id: ClientMessageId::from_wire(id)?,
            change: read::read_change(post.kind(), post.target, post.attached.as_deref())?,
            text: post.text.into(),
            admin: post.admin,
        };
        let read = Post {
            from: UserName::new(&post.from)?,
            draft,
            id: GivenId::of(MessageId(post.id)),
            span: None,
            deadline: self.now() + Duration::from_micros(post.left_micros),
            reply: Reply::Call(Asking::Node(Box::new(AskingNode {
                way: self.plan.news.clone(),
                node: from,
                ask: post.ask,
            }))),
        };
        Ok((ChatId::new(post.chat)?, read))
    }

    /// The post is to be sent elsewhere.
    pub(super) fn moved_post(&mut self, to: NodeId, ask: u64) {
        self.answer_post(to, ask, Err(Refusal::Draining));
    }

    /// A post that another node has asked for has left its shard.
    pub(super) fn answer_post(&mut self, to: NodeId, ask: u64, result: PostResult) {
        if let Some(span) = self.spans.remove(&(to, ask)) {
            span.end(result.as_ref().map_or(UNKNOWN, |_| OK));
        }
        self.tell(to, read::outcome(ask, result));
    }

    pub(super) fn take_call(&mut self, from: NodeId, call: wire::Call) {
        let ask = call.ask;
        let (Ok(chat), Ok(caller), Some(what)) = (
            ChatId::new(call.chat),
            read::caller(&call.user, call.admin),
            call.call,
        ) else {
            // Of a later release, whose clients try again.
            return self.answer_call(from, ask, Err(ChatError::Unavailable));
        };
        if !self.lives_here(chat) {
            return self.answer_call(from, ask, Err(ChatError::Moved));
        }
        let shard = self.plan.shards.of(chat).clone();
        self.run_beside(async move {
            let described = |(record, count)| Answer::Described(read::described(record, count));
            let answer = match what {
                Call::Get(_) => shard.get(chat, caller).await.map(described),
                Call::Add(users) => {
                    let users: Vec<UserName> = read::users(&users.users);
                    let added = shard.add_members(chat, caller, users, None).await;
                    added.map(described)
                }
                Call::Remove(users) => {
                    let users: Vec<UserName> = read::users(&users.users);
                    let removed = shard.remove_members(chat, caller, users, None).await;
                    removed.map(described)
                }
                Call::Delete(_) => {
                    let deleted = shard.delete(chat, caller, None).await;
                    deleted.map(|()| Answer::Done(wire::Nothing {}))
                }
                Call::Join(join) => may_join(&shard, chat, caller.user, join.after_seq).await,
            };
            Done::Answered(from, ask, answer)
        });
    }

    pub(super) fn answer_call(&mut self, to: NodeId, ask: u64, answer: Result<Answer, ChatError>) {
        let answer = answer.unwrap_or_else(|error| Answer::Refused(read::error(error)));
        self.tell(
            to,
            Item::Answer(wire::Answer {
                ask,
                answer: Some(answer),
            }),
        );
    }

    pub(super) fn take_watch(&mut self, from: NodeId, watch: wire::Watch) {
        let Ok(chat) = ChatId::new(watch.chat) else {
            return;
        };
        if !self.lives_here(chat) {
            return self.tell(from, Item::NotMine(watch.chat));
        }
        let shard = self.plan.shards.of(chat).clone();
        let users: Vec<UserName> = read::users(&watch.users);
        let news = self.plan.news.clone();
        self.run_beside(async move {
            let call = feed::Call::new(move || news.tapped(chat));
            let watched = shard.watch(chat, None, users, call).await;
            if let Err(ChatError::Unavailable | ChatError::Busy { .. }) = watched {
                tokio::time::sleep(WATCH_AGAIN).await;
                return Done::WatchAgain(from, watch);
            }
            Done::Watched(from, watch, watched)
        });
    }

    pub(super) fn watched(
        &mut self,
        from: NodeId,
        watch: wire::Watch,
        watched: Result<Watched, ChatError>,
    ) {
        let Ok(chat) = ChatId::new(watch.chat) else {
            return;
        };
        let users: BTreeSet<UserName> = read::users(&watch.users);
        match watched {
            Ok(watched) if self.lives_here(chat) => {
                // What was tapped before is told first, so that the removals of which its
                // tap tells later are those behind what this one has heard.
                self.pump(chat);
                let mut tap = watched.tap;
                let mut refused: BTreeSet<UserName> = watched.refused.into_iter().collect();
                refused.extend(tap.removed());
                let (newest, feed) = self.tap(chat, tap);
                let ask = Ask::Watch {
                    chat,
                    newest: watch.newest,
                    users,
                    number: watch.number,
                };
                let may_read = |user: &UserName| !refused.contains(user);
                let says = self
                    .watchers
                    .watch(from, ask, newest, feed.first(), may_read);
                for say in says {
                    self.say(from, say, Some(&feed));
                }
                self.untap(chat);
                // A tap calls only once it has been looked at and had nothing.
                self.pump(chat);
            }
            Ok(_) | Err(ChatError::Moved | ChatError::Draining) => {
                self.tell(from, Item::NotMine(watch.chat));
            }
            // There is no such chat any more.
            Err(_) => {
                let ended = read::ended(chat, crate::feed::End::Deleted);
                ended.into_iter().for_each(|item| self.tell(from, item));
            }
        }
    }

    pub(super) fn take_unwatch(&mut self, from: NodeId, chat: i64) {
        if let Ok(chat) = ChatId::new(chat) {
            let leave = Ask::Leave(chat);
            self.watchers.watch(from, leave, 0, 0, |_| false);
            self.untap(chat);
        }
    }

    /// Taps the chat's feed, unless it is tapped: where the tap is, and the feed.
    fn tap(&mut self, chat: ChatId, tap: Tap) -> (Seq, Arc<Feed>) {
        let is_this = |one: &Tap| Arc::ptr_eq(one.feed(), tap.feed());
        if !self.taps.get(&chat).is_some_and(is_this) {
            self.taps.insert(chat, tap);
        }
        let tap = &self.taps[&chat];
        (tap.cursor(), tap.feed().clone())
    }

    /// Nobody watches the chat any more.
    fn untap(&mut self, chat: ChatId) {
        if self.watchers.of(chat).next().is_none() {
            self.taps.remove(&chat);
        }
    }

    /// Tells what has become of a chat to those who watch it.
    pub(super) fn pump(&mut self, chat: ChatId) {
        while let Some(tap) = self.taps.get_mut(&chat) {
            let after = tap.cursor();
            match tap.next(BATCH_BYTES) {
                Tapped::Nothing => return,
                Tapped::Entries(entries) => {
                    let entries = wire::Entries {
                        chat: chat.get(),
                        first: after + 1,
                        entries: entries.iter().map(read::entry).collect(),
                    };
                    self.tell_watchers(chat, &Item::Entries(entries));
                }
                Tapped::Behind(newest) => {
                    let watching = wire::Watching {
                        chat: chat.get(),
                        newest,
                        refused: Vec::new(),
                        number: 0,
                    };
                    self.tell_watchers(chat, &Item::Watching(watching));
                }
                Tapped::Removed(users) => {
                    let told = self.watchers.remove(chat, &users.into_iter().collect());
                    self.say_all(told);
                }
                Tapped::End(end) => {
                    if let Some(ended) = read::ended(chat, end) {
                        self.tell_watchers(chat, &ended);
                        self.watchers.give_up(|one| one == chat);
                    }
                    self.taps.remove(&chat);
                }
            }
        }
    }

    fn tell_watchers(&mut self, chat: ChatId, item: &Item) {
        let to: Vec<NodeId> = self.watchers.of(chat).collect();
        to.into_iter().for_each(|to| self.tell(to, item.clone()));
    }

    pub(super) fn say_all(&mut self, told: Vec<(NodeId, Say)>) {
        for (to, say) in told {
            self.say(to, say, None);
        }
    }

    /// Says something; of messages, those that the feed still has.
    fn say(&mut self, to: NodeId, say: Say, feed: Option<&Feed>) {
        let item = match say {
            Say::Watching {
                chat,
                newest,
                refused,
                number,
            } => Item::Watching(wire::Watching {
                chat: chat.get(),
                newest,
                refused: read::names(&refused),
                number,
            }),
            Say::Entries { chat, first, count } => {
                // In pieces, since the bus takes messages up to a size.
                let (mut next, last) = (first, first + count - 1);
                while next <= last {
                    let found = feed.and_then(|feed| feed.entries(next - 1, BATCH_BYTES));
                    let Some(found) = found.filter(|found| !found.is_empty()) else {
                        return;
                    };
                    let entries = found.iter().take((last - next + 1) as usize);
                    let entries: Vec<_> = entries.map(read::entry).collect();
                    let piece = wire::Entries {
                        chat: chat.get(),
                        first: next,
                        entries,
                    };
                    next += piece.entries.len() as Seq;
                    self.tell(to, Item::Entries(piece));
                }
                return;
            }
            Say::Removed { chat, users } => Item::Removed(wire::Removed {
                chat: chat.get(),
                users: read::names(&users),
            }),
            Say::NotMine(chat) => Item::NotMine(chat.get()),
        };
        self.tell(to, item);
    }
}

/// Whether the user may read the chat from there.
async fn may_join(
    shard: &ShardHandle,
    chat: ChatId,
    user: UserName,
    after_seq: Option<Seq>,
) -> Result<Answer, ChatError> {
    let (asker, call) = (Some(user.clone()), feed::Call::new(|| ()));
    let watched = shard.watch(chat, asker, vec![user], call).await?;
    if !watched.refused.is_empty() {
        return Err(ChatError::NotMember);
    }
    let last_seq = watched.last_seq;
    if after_seq.is_some_and(|after| after > last_seq + watched.in_flight as Seq) {
        return Err(ChatError::AheadOfChat { last_seq });
    }
    Ok(Answer::Joined(last_seq))
}
