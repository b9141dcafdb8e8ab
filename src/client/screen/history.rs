//! A chat's messages as far as they are loaded, and which of them are in sight.
//! Pure: what is to be loaded is said by [`History::wants`].
//!
//! Invariants:
//! 1. What is loaded has no gap but where the server has lost messages.
//! 2. At most [`MOST`] messages are loaded, whatever comes in.
//! 3. Where the reader has scrolled to, nothing moves by itself.

use std::collections::VecDeque;

use ratatui::text::Line;

use super::rows::{Pane, Place};
use crate::proto::Message;

/// Messages kept of a chat.
const MOST: usize = 4_000;

/// A part of the history to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Newest,
    Before(i64),
    After(i64),
}

#[derive(Debug, Default)]
pub(super) struct History {
    messages: VecDeque<Message>,
    /// The seq of the chat's newest message, loaded or not.
    newest: i64,
    /// The message at the pane's lower edge, and how many of its rows are below
    /// that; none: the newest, whichever that is.
    bottom: Option<(i64, usize)>,
    /// The first message that was new when the chat was opened.
    new_from: Option<i64>,
    asked: Option<Page>,
    /// A page could not be had: wait for the next tick.
    failed: bool,
}

impl History {
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// Messages below what is in sight.
    pub(super) fn below(&self) -> i64 {
        self.bottom.map_or(0, |(seq, _)| self.newest - seq)
    }

    pub(super) fn is_loading(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn is_following(&self) -> bool {
        self.bottom.is_none()
    }

    /// The line above the first unseen message is drawn from here on.
    pub(super) fn mark_new(&mut self, from: Option<i64>) {
        self.new_from = from;
    }

    /// The page that has to be asked for now, if any: it is then on its way.
    pub(super) fn wants(&mut self, pane: Pane<'_>) -> Option<Page> {
        if self.asked.is_some() || self.failed {
            return None;
        }
        self.asked = self.missing(pane);
        self.asked
    }

    fn missing(&self, pane: Pane<'_>) -> Option<Page> {
        let (first, last) = (self.messages.front()?.seq, self.messages.back()?.seq);
        let at = self.bottom.map_or(last, |(seq, _)| seq);
        // A message takes a row at least, so that this is two panes ahead.
        let near = 3 * pane.rows as i64;
        if at + near > last && last < self.newest {
            return Some(Page::After(last));
        }
        (at - near < first && first > 1).then_some(Page::Before(first))
    }

    pub(super) fn failed(&mut self) {
        self.asked = None;
        self.failed = true;
    }

    /// What could not be had may be asked for again.
    pub(super) fn tick(&mut self) {
        self.failed = false;
    }

    /// A page has come, in ascending order.
    pub(super) fn loaded(&mut self, page: Page, messages: Vec<Message>) {
        self.asked = self.asked.filter(|asked| *asked != page);
        let Some((first, last)) = messages.first().zip(messages.last()) else {
            // There is less than was believed, as after a restored backup.
            self.newest = self.last().unwrap_or_default();
            self.failed = true;
            return;
        };
        let (first, last) = (first.seq, last.seq);
        self.newest = self.newest.max(last);
        match page {
            Page::Newest => {
                self.messages = messages.into();
                self.bottom = None;
            }
            Page::Before(seq) if self.first() == Some(seq) && last < seq => {
                for message in messages.into_iter().rev() {
                    self.messages.push_front(message);
                }
                self.messages.truncate(MOST);
            }
            Page::After(seq) if self.last() == Some(seq) && first > seq => {
                self.messages.extend(messages);
                self.forget_old();
            }
            // Asked for before something else came in between.
            Page::Before(_) | Page::After(_) => {}
        }
    }

    /// A new message.
    pub(super) fn live(&mut self, message: Message) {
        self.newest = self.newest.max(message.seq);
        let is_next = match self.last() {
            Some(last) => last + 1 == message.seq,
            None => message.seq == 1,
        };
        // A reader far up keeps what is there; the rest is loaded on the way down.
        if is_next && (self.bottom.is_none() || self.messages.len() < MOST) {
            self.messages.push_back(message);
            self.forget_old();
        }
    }

    fn forget_old(&mut self) {
        let excess = self.messages.len().saturating_sub(MOST);
        self.messages.drain(..excess);
    }

    /// Back to the newest. True if that page has to be asked for.
    pub(super) fn follow(&mut self) -> bool {
        self.bottom = None;
        let far = self.last().is_some_and(|last| last < self.newest);
        if far {
            self.asked = Some(Page::Newest);
        }
        far
    }

    pub(super) fn scroll_up(&mut self, rows: usize, pane: Pane<'_>) {
        let Some((mut at, mut hidden)) = self.bottom_index(pane) else {
            return;
        };
        hidden += rows;
        while at > 0 && hidden >= self.height(at, pane) {
            hidden -= self.height(at, pane);
            at -= 1;
        }
        self.settle(at, hidden.min(self.height(at, pane) - 1), pane);
    }

    pub(super) fn scroll_down(&mut self, rows: usize, pane: Pane<'_>) {
        let Some((mut at, hidden)) = self.bottom_index(pane) else {
            return;
        };
        let mut left = rows;
        let mut hidden = hidden;
        while left > hidden {
            left -= hidden;
            if at + 1 == self.messages.len() {
                self.bottom = match self.last() {
                    Some(last) if last < self.newest => Some((last, 0)),
                    _ => None,
                };
                return;
            }
            at += 1;
            hidden = self.height(at, pane);
        }
        self.settle(at, hidden - left, pane);
    }

    /// Puts this message at the lower edge, unless that would leave room above
    /// the first one.
    fn settle(&mut self, at: usize, hidden: usize, pane: Pane<'_>) {
        let mut above = self.height(at, pane) - hidden;
        let mut first = at;
        while above < pane.rows && first > 0 {
            first -= 1;
            above += self.height(first, pane);
        }
        if above >= pane.rows {
            self.bottom = Some((self.messages[at].seq, hidden));
            return;
        }
        // From the top.
        let mut below = 0;
        for at in 0..self.messages.len() {
            below += self.height(at, pane);
            if below >= pane.rows {
                self.bottom = Some((self.messages[at].seq, below - pane.rows));
                return;
            }
        }
        self.bottom = None;
    }

    /// The index of the message at the lower edge, and its hidden rows.
    fn bottom_index(&self, pane: Pane<'_>) -> Option<(usize, usize)> {
        let last = self.messages.len().checked_sub(1)?;
        let Some((seq, hidden)) = self.bottom else {
            return Some((last, 0));
        };
        let at = self
            .messages
            .partition_point(|message| message.seq < seq)
            .min(last);
        // In a narrower or wider pane it has another height.
        Some((at, hidden.min(self.height(at, pane) - 1)))
    }

    /// The rows in sight, from the upper one down; fewer if there are no more.
    pub(super) fn visible(&self, pane: Pane<'_>) -> Vec<Line<'static>> {
        let Some((bottom, hidden)) = self.bottom_index(pane) else {
            return Vec::new();
        };
        let mut rows: VecDeque<Line<'static>> = VecDeque::new();
        for at in (0..=bottom).rev() {
            let mut lines = pane.draw(self.place(at), &self.messages[at]);
            if at == bottom {
                lines.truncate(lines.len() - hidden);
            }
            for line in lines.into_iter().rev() {
                if rows.len() == pane.rows {
                    return rows.into();
                }
                rows.push_front(line);
            }
        }
        rows.into()
    }

    fn height(&self, at: usize, pane: Pane<'_>) -> usize {
        pane.height(self.place(at), &self.messages[at])
    }

    fn place(&self, at: usize) -> Place<'_> {
        Place {
            before: at.checked_sub(1).map(|before| &self.messages[before]),
            is_new: self.new_from == Some(self.messages[at].seq),
        }
    }

    fn first(&self) -> Option<i64> {
        self.messages.front().map(|message| message.seq)
    }

    fn last(&self) -> Option<i64> {
        self.messages.back().map(|message| message.seq)
    }
}

#[cfg(test)]
mod tests;
