//! The user's chats, newest activity first, and what of them is unread. Pure.

use std::collections::HashMap;

use super::text;
use crate::{client::print, proto};

/// Chats asked for at first, and more each time the end is reached.
const STEP: i32 = 100;
/// Most that a page can have.
const MOST: i32 = 1_000;

/// Names in a title.
const NAMES: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chat {
    pub(super) id: i64,
    pub(super) title: String,
    pub(super) members: usize,
    /// The longest name of a member, in columns.
    pub(super) names: usize,
    pub(super) last_seq: i64,
}

#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) chats: Vec<Chat>,
    /// Why there is none, until there is one.
    pub(super) missing: String,
    /// The chat that the list is at, by its id: places change.
    cursor: i64,
    read: HashMap<i64, i64>,
    size: i32,
    more: bool,
}

impl List {
    /// An empty list of a user who has read so far.
    pub(super) fn new(read: HashMap<i64, i64>) -> Self {
        Self {
            missing: "loading …".into(),
            read,
            size: STEP,
            ..Self::default()
        }
    }

    pub(super) fn size(&self) -> i32 {
        self.size
    }

    pub(super) fn marks(&self) -> &HashMap<i64, i64> {
        &self.read
    }

    pub(super) fn listed(&mut self, chats: Vec<proto::Chat>, more: bool, me: &str) {
        self.chats = chats.into_iter().map(|chat| Chat::new(chat, me)).collect();
        self.more = more;
        self.missing = match self.chats.is_empty() {
            true => "no chats yet".into(),
            false => String::new(),
        };
    }

    /// The list could not be had. An old one is better than none.
    pub(super) fn failed(&mut self, why: &str) {
        if self.chats.is_empty() {
            self.missing = why.to_owned();
        }
    }

    pub(super) fn get(&self, id: i64) -> Option<&Chat> {
        self.chats.iter().find(|chat| chat.id == id)
    }

    /// A message came: the list need not be asked for to know.
    pub(super) fn active(&mut self, id: i64, seq: i64) {
        let Some(at) = self.chats.iter().position(|chat| chat.id == id) else {
            return;
        };
        if seq > self.chats[at].last_seq {
            self.chats[at].last_seq = seq;
            self.chats[..=at].rotate_right(1);
        }
    }

    pub(super) fn seen(&mut self, id: i64, seq: i64) {
        let read = self.read.entry(id).or_default();
        *read = (*read).max(seq);
    }

    pub(super) fn read_up_to(&self, id: i64) -> i64 {
        self.read.get(&id).copied().unwrap_or_default()
    }

    pub(super) fn unread(&self, chat: &Chat) -> i64 {
        (chat.last_seq - self.read_up_to(chat.id)).max(0)
    }

    pub(super) fn cursor(&self) -> Option<i64> {
        let at = self.get(self.cursor).or(self.chats.first())?;
        Some(at.id)
    }

    pub(super) fn set_cursor(&mut self, id: i64) {
        self.cursor = id;
    }

    /// Moves the cursor. True if the list has to be asked for, because there is
    /// more of it.
    pub(super) fn move_cursor(&mut self, by: isize) -> bool {
        let at = self.cursor().and_then(|at| self.beside(at, by));
        self.cursor = at.unwrap_or_default();
        let at_end = self.chats.last().is_some_and(|last| last.id == self.cursor);
        let ask = at_end && self.more && self.size < MOST;
        if ask {
            self.size = (self.size + STEP).min(MOST);
        }
        ask
    }

    /// The chat that is so many places further down, at most to the list's end;
    /// of one that is not there, the first.
    pub(super) fn beside(&self, id: i64, by: isize) -> Option<i64> {
        let last = self.chats.len().checked_sub(1)?;
        let at = match self.chats.iter().position(|chat| chat.id == id) {
            Some(at) => at.saturating_add_signed(by).min(last),
            None => 0,
        };
        Some(self.chats[at].id)
    }
}

impl Chat {
    fn new(chat: proto::Chat, me: &str) -> Self {
        let members = chat.info.unwrap_or_default().usernames;
        // An older server does not say how many there are, and names all.
        let count = members.len().max(chat.member_count.try_into().unwrap_or(0));
        Self {
            id: chat.id,
            title: title(&members, count, me),
            members: count,
            names: members
                .iter()
                .map(|name| text::width(&print::name(name)))
                .max()
                .unwrap_or(0),
            last_seq: chat.last_seq,
        }
    }
}

/// A chat goes by its other members; of `count` some are named.
fn title(members: &[String], count: usize, me: &str) -> String {
    let others: Vec<_> = members
        .iter()
        .filter(|name| *name != me)
        .map(|name| print::name(name))
        .collect();
    let named = others[..others.len().min(NAMES)].join(", ");
    match others.len() + count.saturating_sub(members.len()) {
        0 => "only you".into(),
        n if n > NAMES => format!("{named} and {} more", n - NAMES),
        _ => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(id: i64, members: &[&str], last_seq: i64) -> proto::Chat {
        let usernames = members.iter().map(|name| (*name).into()).collect();
        proto::Chat {
            id,
            info: Some(proto::ChatInfo { usernames }),
            last_seq,
            ..Default::default()
        }
    }

    fn ids(list: &List) -> Vec<i64> {
        list.chats.iter().map(|chat| chat.id).collect()
    }

    #[test]
    fn what_is_unread_is_what_came_behind_the_mark() {
        let mut list = List::new(HashMap::from([(1, 3)]));
        let chats = vec![chat(2, &["al", "bo"], 4), chat(1, &["al"], 5)];
        list.listed(chats, false, "al");
        let unread: Vec<i64> = list.chats.iter().map(|chat| list.unread(chat)).collect();
        assert_eq!(unread, [4, 2]);
        list.active(1, 6);
        assert_eq!(ids(&list), [1, 2]);
        list.seen(1, 6);
        list.seen(1, 2);
        assert_eq!(list.unread(&list.chats[0]), 0);
        // A message that the list knew of already is not news.
        list.active(2, 4);
        assert_eq!(ids(&list), [1, 2]);
    }

    #[test]
    fn the_cursor_stays_with_its_chat_and_asks_for_more_at_the_end() {
        let mut list = List::new(HashMap::new());
        assert_eq!(list.cursor(), None);
        assert!(!list.move_cursor(1));
        list.listed((1..=3).map(|id| chat(id, &[], 0)).collect(), true, "al");
        assert_eq!(list.cursor(), Some(1));
        assert!(!list.move_cursor(1) && list.move_cursor(1));
        assert_eq!((list.cursor(), list.size()), (Some(3), 2 * STEP));
        list.active(3, 1);
        assert_eq!(list.cursor(), Some(3));
        list.listed(vec![chat(1, &[], 0)], false, "al");
        assert_eq!(list.cursor(), Some(1));
    }

    #[test]
    fn a_chat_goes_by_its_other_members() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).into()).collect() };
        assert_eq!(title(&names(&["al"]), 1, "al"), "only you");
        assert_eq!(title(&names(&["bo", "al", "cy"]), 3, "al"), "bo, cy");
        assert_eq!(
            title(&names(&["a", "b", "c", "d", "e"]), 5, "al"),
            "a, b, c and 2 more"
        );
    }
}
