//! What keys do to the state.

use crossterm::event::KeyEvent;

use super::{
    history::Page,
    input::Edit,
    keys::{self, Action},
    rows::Pane,
    state::{Effect, State, input_columns},
};
use crate::client::outbox::random_id;

/// Chats that a page of the list goes by.
const LIST_PAGE: isize = 10;

impl State {
    pub(super) fn key(&mut self, key: KeyEvent, effects: &mut Vec<Effect>) {
        let Some(action) = keys::action(key) else {
            return;
        };
        self.notice.clear();
        let asked = std::mem::take(&mut self.quit_asked);
        let was_help = std::mem::take(&mut self.help);
        match action {
            Action::Quit => self.quit(asked, effects),
            Action::Redraw => effects.push(Effect::Redraw),
            Action::Help => self.help = !was_help,
            // Any key closes the help, and that is all it does.
            _ if was_help => {}
            Action::Switch => self.in_list = !self.in_list || self.open.is_none(),
            Action::PreviousChat => self.open_beside(-1, effects),
            Action::NextChat => self.open_beside(1, effects),
            Action::Newest if self.in_list => self.in_list = self.open.is_none(),
            _ if self.in_list => self.key_in_list(action, effects),
            action => self.key_in_room(action, effects),
        }
    }

    fn key_in_list(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let by = match action {
            Action::Up => -1,
            Action::Down => 1,
            Action::PageUp => -LIST_PAGE,
            Action::PageDown => LIST_PAGE,
            Action::Edit(Edit::Home) => isize::MIN,
            Action::Edit(Edit::End) => isize::MAX,
            Action::Enter => {
                if let Some(chat) = self.list.cursor() {
                    self.open(chat, effects);
                }
                return;
            }
            // Who types means the line.
            Action::Edit(Edit::Insert(_)) if self.open.is_some() => {
                self.in_list = false;
                return self.key_in_room(action, effects);
            }
            _ => return,
        };
        if self.list.move_cursor(by) {
            effects.push(Effect::List(self.list.size()));
        }
    }

    fn key_in_room(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let Some(chat) = self.open else { return };
        let areas = self.areas();
        let pane = Pane::new(areas.history, self.names(), &self.me);
        let columns = input_columns(&areas);
        let page = pane.rows.saturating_sub(1).max(1);
        if let Some(room) = self.rooms.get_mut(&chat) {
            match action {
                Action::Edit(edit) => room.draft.edit(edit),
                Action::Enter => self.notice = room.submit(chat, random_id(), effects),
                Action::Up if room.draft.move_row(false, columns) => {}
                Action::Down if room.draft.move_row(true, columns) => {}
                Action::Up => room.history.scroll_up(1, pane),
                Action::Down => room.history.scroll_down(1, pane),
                Action::PageUp => room.history.scroll_up(page, pane),
                Action::PageDown => room.history.scroll_down(page, pane),
                Action::Newest if room.history.follow() => {
                    effects.push(Effect::Load(chat, Page::Newest));
                }
                Action::Retry => room.retry(chat, effects),
                Action::TakeBack => self.notice = room.take_back(),
                _ => {}
            }
        }
    }

    /// Quits at once if nothing is lost by it, else at the second time of asking.
    fn quit(&mut self, asked: bool, effects: &mut Vec<Effect>) {
        let drafts = self.rooms.values().filter(|room| !room.draft.is_empty());
        self.notice = match (self.unstored(), drafts.count()) {
            (0, 0) => String::new(),
            (0, _) => "what you typed is not posted".into(),
            (1, _) => "a message is not stored yet".into(),
            (n, _) => format!("{n} messages are not stored yet"),
        };
        if asked || self.notice.is_empty() {
            effects.push(Effect::Quit);
        } else {
            self.notice += ": the same key again quits all the same";
            self.quit_asked = true;
        }
    }
}
