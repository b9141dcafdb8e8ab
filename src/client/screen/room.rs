//! A chat that is open: its history, what is typed in it, and what of that is
//! not stored yet. Pure.

use std::time::Instant;

use ratatui::text::Line;

use super::{
    history::History,
    input::Input,
    rows::{Pane, Pending},
    state::Effect,
};
use crate::client::outbox;

/// How a chat's stream is doing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// Not asked for yet.
    #[default]
    Closed,
    Opening,
    Live,
    Lost {
        why: String,
        until: Instant,
    },
    /// For good, unless it is opened anew.
    Ended(String),
}

#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) history: History,
    pub(super) draft: Input,
    /// In the order in which they were typed.
    pub(super) pending: Vec<Pending>,
    pub(super) link: Link,
    /// The first page is there.
    pub(super) loaded: bool,
    /// Grows with each time that the chat is opened.
    pub(super) used: u64,
}

impl Room {
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed | Link::Ended(_))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.draft.is_empty()
    }

    /// Posts what is typed, under an id of its own. Gives back why it can't, if so.
    pub(super) fn submit(&mut self, chat: i64, id: String, effects: &mut Vec<Effect>) -> String {
        if self.draft.text().trim().is_empty() {
            return String::new();
        }
        if let Link::Ended(why) = &self.link {
            return format!("not posted: {why}");
        }
        if self.pending.len() >= outbox::CAPACITY {
            return "too many messages wait to be stored".into();
        }
        let text = self.draft.take();
        self.pending.push(Pending {
            id: id.clone(),
            text: text.clone(),
            failed: None,
        });
        self.history.mark_new(None);
        if self.history.follow() {
            effects.push(Effect::Load(chat, super::history::Page::Newest));
        }
        effects.push(Effect::Post { chat, id, text });
        String::new()
    }

    /// Posts again what failed, under the same ids.
    pub(super) fn retry(&mut self, chat: i64, effects: &mut Vec<Effect>) {
        let failed = self.pending.iter_mut().filter(|post| post.failed.is_some());
        let mut posts = Vec::new();
        for post in failed {
            post.failed = None;
            let (id, text) = (post.id.clone(), post.text.clone());
            posts.push(Effect::Post { chat, id, text });
        }
        if self.is_closed() {
            self.link = Link::Opening;
            self.loaded = false;
            effects.push(Effect::Open(chat));
        }
        effects.append(&mut posts);
    }

    /// Takes the oldest message that failed back into the line. Gives back why
    /// it can't, if so.
    pub(super) fn take_back(&mut self) -> String {
        let failed = self.pending.iter().position(|post| post.failed.is_some());
        let Some(at) = failed else {
            return "nothing has failed".into();
        };
        if !self.draft.is_empty() {
            return "post or delete first what is typed".into();
        }
        self.draft.set(self.pending.remove(at).text);
        String::new()
    }

    pub(super) fn stored(&mut self, id: &str) {
        if !id.is_empty() {
            self.pending.retain(|post| post.id != id);
        }
    }

    pub(super) fn refused(&mut self, id: &str, why: &str) {
        if let Some(post) = self.pending.iter_mut().find(|post| post.id == id) {
            post.failed = Some(why.to_owned());
        }
    }

    pub(super) fn ended(&mut self, why: String) {
        for post in &mut self.pending {
            post.failed.get_or_insert_with(|| why.clone());
        }
        self.link = Link::Ended(why);
    }

    pub(super) fn pending_rows(&self, pane: Pane<'_>) -> Vec<Line<'static>> {
        let live = self.link == Link::Live;
        let rows = self
            .pending
            .iter()
            .map(|post| pane.draw_pending(post, live));
        rows.flatten().collect()
    }
}
