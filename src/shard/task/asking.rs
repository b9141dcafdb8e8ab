//! Chats that are asked for by users who are not known to be members: the store is
//! asked on their behalf, and the chat is read if one of them is a member.

use super::{Shard, adjust, refuse_posts};
use crate::{
    domain::{ChatError, ChatId, Refusal, Row, UserName},
    feed::History,
    shard::{
        active::{Place, refuse, refuse_missing},
        askers::{Asked, Waiting},
        handle::{ChatCommand, Reply},
        post::{Load, Post},
        reads::{load, look_up},
    },
    store::{ChatRecord, StoreError, StoreResult},
    telemetry::{chain, log_limited},
};

const CHATS_OF_ONE_USER: &str = "chats that one user asks for";

impl Shard {
    pub(super) fn ask_command(&mut self, id: ChatId, command: ChatCommand) {
        let asker = command.asker().cloned();
        let full = |asker: &UserName| self.state.askers.is_full(asker);
        if command.calls() > 0 && asker.as_ref().is_some_and(full) {
            let queue = CHATS_OF_ONE_USER;
            return refuse(command, |_| ChatError::Busy { queue });
        }
        self.state.waiting_calls += command.calls();
        self.waiting(id).commands.push(command);
        self.ask(id, asker);
    }

    pub(super) fn ask_post(&mut self, id: ChatId, post: Post<Reply>) {
        let asker = post.asker().cloned();
        let full = |asker: &UserName| self.state.askers.is_full(asker);
        if asker.as_ref().is_some_and(full) {
            let queue = CHATS_OF_ONE_USER;
            return post.reply.send(Err(Refusal::Busy { queue }));
        }
        self.state.load.posts += 1;
        self.state.load.bytes += post.draft.weight();
        self.waiting(id).posts.push(post);
        self.ask(id, asker);
    }

    /// Where those wait who are not known to be members.
    fn waiting(&mut self, id: ChatId) -> &mut Waiting {
        let place = self.state.chats.entry(id);
        match place.or_insert_with(|| Place::Loading(Waiting::default())) {
            Place::Loading(waiting) => waiting,
            Place::Active(_) => self.state.strangers.entry(id).or_default(),
        }
    }

    /// Where they wait, if somebody does.
    fn waiting_now(&mut self, id: ChatId) -> Option<&mut Waiting> {
        match self.state.chats.get_mut(&id) {
            Some(Place::Loading(waiting)) => Some(waiting),
            _ => self.state.strangers.get_mut(&id),
        }
    }

    /// Asks the store on behalf of `asker`, who waits (none: an admin), unless that
    /// has begun.
    fn ask(&mut self, id: ChatId, asker: Option<UserName>) {
        match self.waiting_now(id) {
            Some(waiting) if matches!(waiting.asked, Asked::NotYet) => {}
            _ => return,
        }
        match asker {
            None => self.begin_asking(id, None),
            Some(user) if self.state.askers.begin(&user) => self.begin_asking(id, Some(user)),
            Some(user) => self.state.askers.wait(&user, id),
        }
    }

    /// Asks on behalf of all who wait; it counts for `first`.
    pub(super) fn begin_asking(&mut self, id: ChatId, first: Option<UserName>) {
        let patience = self.settings.patience;
        let newest = self.settings.ring.messages;
        let History { store, clock, .. } = &*self.history;
        let (store, clock) = (store.clone(), clock.clone());
        let active = matches!(self.state.chats.get(&id), Some(Place::Active(_)));
        let Some(waiting) = self.waiting_now(id) else {
            return;
        };
        let call = match first {
            None => {
                waiting.asked = Asked::ForAdmin;
                load(id, newest, None, Some(patience), store, clock)
            }
            Some(first) => {
                let users = waiting.users_behind(first);
                waiting.asked = Asked::For(users.clone());
                match active {
                    true => look_up(id, users, patience, store, clock),
                    false => load(id, newest, Some(users), Some(patience), store, clock),
                }
            }
        };
        self.state.store_calls.push(call);
    }

    /// Goes on with the next of what `user` has asked for.
    fn asking_ended(&mut self, user: Option<UserName>) {
        let Some(user) = user else {
            return;
        };
        self.state.askers.end(&user);
        while let Some(id) = self.state.askers.next(&user) {
            // Somebody else may have asked meanwhile, or all may have gone.
            match self.waiting_now(id) {
                Some(waiting) if matches!(waiting.asked, Asked::NotYet) => {
                    return self.ask(id, Some(user));
                }
                _ => {}
            }
        }
    }

    /// Takes what no longer waits out of the shard's accounts.
    pub(super) fn settle(&mut self, waiting: &Waiting) {
        adjust(&mut self.state.load, waiting.load(), Load::default());
        self.state.waiting_calls -= waiting.commands.calls();
    }

    pub(super) fn loaded(
        &mut self,
        id: ChatId,
        found: StoreResult<Option<(ChatRecord, Vec<Row>)>>,
    ) {
        let Some(Place::Loading(mut waiting)) = self.state.chats.remove(&id) else {
            return;
        };
        let first = waiting.first_asked();
        if !self.serves(id) {
            self.send_on(id, Some(waiting));
            return self.asking_ended(first);
        }
        if std::mem::take(&mut waiting.doubted) {
            self.state.chats.insert(id, Place::Loading(waiting));
            return self.begin_asking(id, first);
        }
        self.settle(&waiting);
        let rest = match found {
            Ok(None) => waiting.split_unasked(),
            _ => Waiting::default(),
        };
        match found {
            Ok(Some((record, newest))) => {
                self.activate(record, &newest);
                self.take_again(id, waiting);
            }
            Ok(None) => {
                self.end_adopted(id, first.is_none());
                refuse_waiting(waiting, true);
            }
            Err(error) => {
                log_unread(id, &error);
                refuse_waiting(waiting, false);
            }
        }
        self.take_again(id, rest);
        self.asking_ended(first);
        self.read_adopted_again(id);
    }

    /// What the store says of those who asked for an active chat. The chat's own
    /// list of members is what counts; the look-up is for its time (P7).
    pub(super) fn looked_up(&mut self, id: ChatId, found: StoreResult<bool>) {
        let Some(mut waiting) = self.state.strangers.remove(&id) else {
            return;
        };
        let first = waiting.first_asked();
        self.settle(&waiting);
        let rest = waiting.split_unasked();
        match found {
            // It has been let go meanwhile.
            Ok(true) if !self.state.chats.contains_key(&id) => self.take_again(id, waiting),
            Ok(_) => refuse_waiting(waiting, true),
            Err(error) => {
                log_unread(id, &error);
                refuse_waiting(waiting, false);
            }
        }
        self.take_again(id, rest);
        self.asking_ended(first);
    }

    /// Takes in what those have asked for who have become members meanwhile, before
    /// anything that they ask for from now on (P2).
    pub(super) fn take_new_members(&mut self, id: ChatId) {
        let Some(Place::Active(active)) = self.state.chats.get(&id) else {
            return;
        };
        let Some(strangers) = self.state.strangers.get_mut(&id) else {
            return;
        };
        let members = strangers.split_off(|asker| active.knows(asker));
        self.settle(&members);
        self.take_again(id, members);
    }

    /// As if it came now.
    fn take_again(&mut self, id: ChatId, waiting: Waiting) {
        for command in waiting.commands {
            self.chat_command(id, command);
        }
        let now = self.history.clock.now();
        for post in waiting.posts {
            self.post(id, post, now);
        }
    }
}

fn log_unread(id: ChatId, error: &StoreError) {
    log_limited!(WARN, chat = %id, error = %chain(error), "chat could not be loaded");
}

/// Answers what waited for a chat of which nobody who asked is a member, or which
/// could not be read.
fn refuse_waiting(waiting: Waiting, known: bool) {
    for command in waiting.commands {
        match known {
            true => refuse_missing(command),
            false => refuse(command, |_| ChatError::Unavailable),
        }
    }
    let refusal = match known {
        true => Refusal::NotMember,
        false => Refusal::Unavailable,
    };
    refuse_posts(waiting.posts, &refusal);
}
