//! What the store says: chats that are read, changes that are made.

use std::sync::Arc;

use super::{Shard, adjust, refuse_posts};
use crate::{
    domain::{ChatId, Row, Seq},
    shard::{
        active::{Active, Place, Waiting, refuse, refuse_missing},
        change::{Next, StoreAnswer, load},
        chat::Chat,
        cursor::History,
        feed::Feed,
        handle::ShardError,
        post::{Load, Refusal},
        ring::Entry,
    },
    store::{ChatRecord, StoreResult},
    telemetry::log_limited,
};

impl Shard {
    pub(super) fn store_answered(&mut self, answer: StoreAnswer) {
        let (id, next) = match answer {
            StoreAnswer::Loaded(id, found) => match self.state.chats.get_mut(&id) {
                Some(Place::Active(active)) => {
                    // Reloading never gives up, so an error here is a refusal
                    // to read what was written: as good as gone.
                    let record = found.ok().flatten().map(|(record, _)| record);
                    (id, active.reloaded(record, &self.history.store))
                }
                _ => return self.loaded(id, found),
            },
            StoreAnswer::Changed(id, result) => match self.state.chats.get_mut(&id) {
                Some(Place::Active(active)) => {
                    let History { store, clock, .. } = &*self.history;
                    (id, active.changed(result, store, clock))
                }
                _ => return,
            },
        };
        self.go_on(id, next);
        self.take_waiting(id);
    }

    /// Goes on with the commands that waited for a change, until the next change.
    pub(super) fn take_waiting(&mut self, id: ChatId) {
        while let Some(Place::Active(active)) = self.state.chats.get_mut(&id)
            && active.change.is_none()
            && let Some(command) = active.waiting.pop()
        {
            self.state.waiting_calls -= command.calls();
            self.chat_command(id, command);
        }
    }

    pub(super) fn go_on(&mut self, id: ChatId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Call(call) => self.state.store_calls.push(call),
            Next::Gone => {
                let Some(Place::Active(mut active)) = self.state.chats.remove(&id) else {
                    return;
                };
                self.history.metrics.chat_let_go();
                let before = active.chat.load();
                let effects = &mut self.state.effects;
                active.chat.refuse_queued(Refusal::NotMember, effects);
                adjust(&mut self.state.load, before, active.chat.load());
                self.answer_effects();
                self.wakes.wake(self.core, std::iter::once(&active.feed));
                // They find no chat now, and are answered so.
                self.state.waiting_calls -= active.waiting.calls();
                for command in active.waiting {
                    self.chat_command(id, command);
                }
            }
        }
    }

    /// The chat's place, which begins to load if it had none.
    pub(super) fn place(&mut self, id: ChatId) -> &mut Place {
        self.state.chats.entry(id).or_insert_with(|| {
            let History { store, clock, .. } = &*self.history;
            let patience = Some(self.settings.patience);
            let newest = self.settings.ring.messages;
            let call = load(id, newest, patience, store.clone(), clock.clone());
            self.state.store_calls.push(call);
            Place::Loading(Waiting::default())
        })
    }

    fn loaded(&mut self, id: ChatId, found: StoreResult<Option<(ChatRecord, Vec<Row>)>>) {
        let Some(Place::Loading(waiting)) = self.state.chats.remove(&id) else {
            return;
        };
        adjust(&mut self.state.load, waiting.load(), Load::default());
        self.state.waiting_calls -= waiting.commands.calls();
        match found {
            Ok(Some((record, newest))) => {
                self.activate(record, &newest);
                for command in waiting.commands {
                    self.chat_command(id, command);
                }
                let now = self.history.clock.now();
                for post in waiting.posts {
                    self.accept(id, post, now);
                }
            }
            Ok(None) => {
                waiting.commands.into_iter().for_each(refuse_missing);
                refuse_posts(waiting.posts, &Refusal::NotMember);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                log_limited!(WARN, chat = %id, error, "chat could not be loaded");
                for command in waiting.commands {
                    refuse(command, |_| ShardError::Unavailable);
                }
                refuse_posts(waiting.posts, &Refusal::Unavailable);
            }
        }
    }

    fn activate(&mut self, record: ChatRecord, newest: &[Row]) {
        let id = record.id;
        let before = record.last_seq - newest.len() as Seq;
        let cores = self.wakes.cores();
        let feed = Feed::new(id, before, self.settings.ring, cores);
        feed.append(newest.iter().map(Entry::new));
        let touched = self.history.clock.now();
        let active = Active {
            chat: Chat::new(record, newest, self.settings.ring.messages),
            feed: Arc::new(feed),
            touched,
            listed: false,
            change: None,
            waiting: Default::default(),
        };
        self.state.chats.insert(id, Place::Active(Box::new(active)));
        self.state.idle.push(touched, id);
        self.history.metrics.chat_activated();
    }
}
