//! What the full screen shows and does, without a terminal, a clock or a server:
//! events in, effects out. `press.rs` has what keys do, `view.rs` draws it all,
//! and `screen.rs` performs the effects.
//!
//! Invariants:
//! 1. What is typed is in a draft, or pending under one id, or stored.
//! 2. At most [`MAX_ROOMS`] chats are open on the server, besides those with
//!    something pending.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crossterm::event::KeyEvent;

use super::{
    areas::{Areas, Wanted, inside},
    history::Page,
    list::List,
    room::{Link, Room},
    rows::Pane,
    text,
};
use crate::proto;

const MAX_ROOMS: usize = 32;

/// Columns for names while the members are not known.
const UNKNOWN_NAMES: usize = 8;

#[derive(Debug)]
pub(super) enum Event {
    Key(KeyEvent),
    Paste(String),
    Resize(u16, u16),
    /// About every second.
    Tick,
    /// The user's chats, and whether there are more.
    Chats(Result<(Vec<proto::Chat>, bool), String>),
    Page(i64, Page, Result<Vec<proto::Message>, String>),
    Live(i64),
    Lost(i64, String, Duration),
    Message(i64, Box<proto::Message>),
    /// This post is among the messages that came already.
    Stored(i64, String),
    /// This post will never be stored.
    Refused(i64, String, String),
    /// The chat can't be read any more.
    Ended(i64, String),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Load the newest page, then read on from there.
    Open(i64),
    Close(i64),
    Load(i64, Page),
    Post {
        chat: i64,
        id: String,
        text: String,
    },
    /// Ask for so many chats.
    List(i32),
    Redraw,
    Quit,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) me: String,
    pub(super) server: String,
    pub(super) list: List,
    pub(super) rooms: BTreeMap<i64, Room>,
    pub(super) open: Option<i64>,
    pub(super) in_list: bool,
    pub(super) help: bool,
    /// Said until the next key.
    pub(super) notice: String,
    /// Why the list of chats could not be had at the last try.
    pub(super) offline: Option<String>,
    /// A key that quits asks for itself again.
    pub(super) quit_asked: bool,
    size: (u16, u16),
    ticks: u64,
}

impl State {
    pub(super) fn new(me: &str, server: &str, read: HashMap<i64, i64>, size: (u16, u16)) -> Self {
        Self {
            me: me.to_owned(),
            server: server.to_owned(),
            list: List::new(read),
            rooms: BTreeMap::new(),
            open: None,
            in_list: true,
            help: false,
            notice: String::new(),
            offline: None,
            quit_asked: false,
            size,
            ticks: 0,
        }
    }

    /// What to do at the start.
    pub(super) fn begin(&mut self, chat: Option<i64>) -> Vec<Effect> {
        let mut effects = vec![Effect::List(self.list.size())];
        if let Some(chat) = chat {
            self.open(chat, &mut effects);
        }
        effects
    }

    pub(super) fn room(&self) -> Option<&Room> {
        self.rooms.get(&self.open?)
    }

    pub(super) fn resize(&mut self, size: (u16, u16)) {
        self.size = size;
    }

    /// Messages that were posted and have not come back.
    pub(super) fn unstored(&self) -> usize {
        self.rooms.values().map(|room| room.pending.len()).sum()
    }

    pub(super) fn areas(&self) -> Areas {
        let wanted = Wanted {
            size: self.size,
            in_list: self.in_list,
            input_rows: 1,
            pending_rows: 0,
        };
        let areas = Areas::new(wanted);
        let Some(room) = self.room() else {
            return areas;
        };
        let pane = self.pane(&areas);
        Areas::new(Wanted {
            input_rows: text::rows(room.draft.text(), input_columns(&areas)).len(),
            pending_rows: room.pending_rows(pane).len(),
            ..wanted
        })
    }

    pub(super) fn pane(&self, areas: &Areas) -> Pane<'_> {
        Pane::new(areas.history, self.names(), &self.me)
    }

    /// Columns of the longest name in the open chat.
    pub(super) fn names(&self) -> usize {
        let chat = self.open.and_then(|id| self.list.get(id));
        chat.map_or(UNKNOWN_NAMES, |chat| chat.names)
    }

    pub(super) fn update(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Key(key) => self.key(key, &mut effects),
            Event::Paste(text) => {
                if let Some(room) = self.open_room() {
                    room.draft.paste(&text);
                    self.in_list = false;
                }
            }
            Event::Resize(width, height) => self.resize((width, height)),
            Event::Tick => self.tick(&mut effects),
            Event::Chats(Ok((chats, more))) => {
                self.list.listed(chats, more, &self.me);
                self.offline = None;
            }
            Event::Chats(Err(why)) => {
                self.list.failed(&why);
                self.offline = Some(why);
            }
            Event::Page(chat, page, result) => self.page(chat, page, result),
            Event::Live(chat) => {
                self.link(chat, Link::Live);
                effects.push(Effect::List(self.list.size()));
            }
            Event::Lost(chat, why, pause) => {
                let until = now + pause;
                self.link(chat, Link::Lost { why, until });
            }
            Event::Message(chat, message) => {
                self.list.active(chat, message.seq);
                if let Some(room) = self.rooms.get_mut(&chat) {
                    room.stored(&message.client_message_id);
                    room.history.live(*message);
                }
            }
            Event::Stored(chat, id) => {
                if let Some(room) = self.rooms.get_mut(&chat) {
                    room.stored(&id);
                }
            }
            Event::Refused(chat, id, why) => {
                if let Some(room) = self.rooms.get_mut(&chat) {
                    room.refused(&id, &why);
                }
            }
            Event::Ended(chat, why) => {
                if let Some(room) = self.rooms.get_mut(&chat) {
                    room.ended(why);
                }
            }
        }
        self.settle(&mut effects);
        effects
    }

    /// What follows from whatever has happened: pages to load, what is read.
    fn settle(&mut self, effects: &mut Vec<Effect>) {
        let Some(chat) = self.open else { return };
        let areas = self.areas();
        let pane = Pane::new(areas.history, self.names(), &self.me);
        if let Some(room) = self.rooms.get_mut(&chat) {
            if let Some(page) = room.history.wants(pane) {
                effects.push(Effect::Load(chat, page));
            }
            if room.history.is_following() {
                self.list.seen(chat, room.history.newest());
            }
        }
    }

    fn tick(&mut self, effects: &mut Vec<Effect>) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(2) {
            effects.push(Effect::List(self.list.size()));
        }
        if let Some(room) = self.open_room() {
            room.history.tick();
        }
    }

    fn page(&mut self, chat: i64, page: Page, result: Result<Vec<proto::Message>, String>) {
        let read = self.list.read_up_to(chat);
        let Some(room) = self.rooms.get_mut(&chat) else {
            return;
        };
        match result {
            Ok(messages) => {
                for message in &messages {
                    room.stored(&message.client_message_id);
                }
                let newest = messages.last().map_or(0, |message| message.seq);
                if page == Page::Newest && !room.loaded {
                    room.loaded = true;
                    let is_new = read > 0 && newest > read;
                    room.history.mark_new(is_new.then_some(read + 1));
                }
                room.history.loaded(page, messages);
            }
            Err(_) => room.history.failed(),
        }
    }

    fn link(&mut self, chat: i64, link: Link) {
        if let Some(room) = self.rooms.get_mut(&chat) {
            room.link = link;
        }
    }

    fn open_room(&mut self) -> Option<&mut Room> {
        self.rooms.get_mut(&self.open?)
    }

    pub(super) fn open_beside(&mut self, by: isize, effects: &mut Vec<Effect>) {
        let at = self.open.unwrap_or_default();
        if let Some(chat) = self.list.beside(at, by) {
            self.open(chat, effects);
        }
    }

    pub(super) fn open(&mut self, chat: i64, effects: &mut Vec<Effect>) {
        self.in_list = false;
        self.open = Some(chat);
        self.list.set_cursor(chat);
        let now = self.rooms.values().map(|room| room.used).max().unwrap_or(0) + 1;
        let read = self.list.read_up_to(chat);
        let room = self.rooms.entry(chat).or_default();
        room.used = now;
        let newest = room.history.newest();
        if room.is_closed() {
            room.link = Link::Opening;
            room.loaded = false;
            effects.push(Effect::Open(chat));
        } else if read < newest {
            room.history.mark_new(Some(read + 1));
        }
        self.close_unused(effects);
    }

    fn close_unused(&mut self, effects: &mut Vec<Effect>) {
        while self.rooms.len() > MAX_ROOMS {
            let idle = self.rooms.iter().filter(|(_, room)| room.is_idle());
            let oldest = idle.min_by_key(|(_, room)| room.used).map(|(id, _)| *id);
            let Some(oldest) = oldest.filter(|id| Some(*id) != self.open) else {
                return;
            };
            self.rooms.remove(&oldest);
            effects.push(Effect::Close(oldest));
        }
    }
}

/// Columns of what is typed: behind the prompt, and with room for the cursor.
pub(super) fn input_columns(areas: &Areas) -> usize {
    usize::from(inside(areas.input).width)
        .saturating_sub(3)
        .max(1)
}

#[cfg(test)]
pub(in crate::client::screen) mod tests;
