//! The state, drawn. Everything shown that came from a server goes through
//! `text`, which leaves nothing in it that a terminal would obey.

mod help;

use std::time::Instant;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Position, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
};

use super::{
    areas::{Areas, inside},
    input::Input,
    list::Chat,
    room::{Link, Room},
    rows::OWN,
    state::{State, input_columns},
    text::{self, cut, width},
};

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const KEY: Style = Style::new().fg(OWN);
const NOTE: Style = Style::new().fg(Color::Yellow);
const BAR: Style = Style::new().add_modifier(Modifier::REVERSED);

pub(super) fn draw(state: &State, frame: &mut Frame<'_>, now: Instant) {
    let areas = state.areas();
    let screen = frame.area();
    let cursor = {
        let buffer = frame.buffer_mut();
        title(state, areas.title, buffer, now);
        list(state, areas.list, buffer);
        let cursor = match state.room() {
            Some(room) => draw_room(state, room, &areas, buffer),
            None => {
                welcome(state, areas.history, buffer);
                None
            }
        };
        help::line(state, areas.help, buffer);
        if state.help {
            help::keys(screen, buffer);
        }
        cursor
    };
    if let Some(cursor) = cursor.filter(|_| !state.help && !state.in_list) {
        frame.set_cursor_position(cursor);
    }
}

/// A text in one row of an area, cut at its end. Gives back the column behind it.
fn put(x: u16, y: u16, text: &str, area: Rect, style: Style, buffer: &mut Buffer) -> u16 {
    if !area.contains(Position::new(x, y)) {
        return x;
    }
    let room = usize::from(area.right() - x);
    buffer.set_stringn(x, y, text, room, style).0
}

/// A line from one end to the other, and another at its right, if both fit.
fn ends(left: Line<'_>, right: Line<'_>, area: Rect, buffer: &mut Buffer) {
    let room = usize::from(area.width);
    if left.width() + right.width() < room {
        let at = room - right.width();
        buffer.set_line(area.x + at as u16, area.y, &right, right.width() as u16);
    }
    buffer.set_line(area.x, area.y, &left, area.width);
}

fn title(state: &State, area: Rect, buffer: &mut Buffer, now: Instant) {
    if area.is_empty() {
        return;
    }
    buffer.set_style(area, BAR);
    let who = format!(
        "{} at {}",
        text::shown(&state.me),
        text::shown(&state.server)
    );
    let (mark, what, colour) = status(state, now);
    let status = Line::from(vec![
        Span::styled(mark, Style::new().fg(colour).bold()),
        Span::from(format!(" {what} ")).bold(),
    ]);
    // What goes wrong is worth more than who one is.
    let room = usize::from(area.width).saturating_sub(status.width() + 2);
    let left = Line::from(vec![
        Span::from(" chatd ").bold(),
        Span::from(cut(&who, room.saturating_sub(7))),
    ]);
    ends(left, status, area, buffer);
    if room < 7 {
        let (_, what, _) = self::status(state, now);
        put(area.x, area.y, &what, area, BAR, buffer);
    }
}

/// The state of the connection, in a mark, in words and in a colour.
fn status(state: &State, now: Instant) -> (&'static str, String, Color) {
    let away = |why: &str, next: String| {
        let why = cut(why, 40);
        ("○", format!("reconnecting{next}: {why}"), Color::Yellow)
    };
    match (state.room().map(|room| &room.link), &state.offline) {
        (Some(Link::Live), _) => ("●", "live".into(), Color::Green),
        (Some(Link::Ended(_)), _) => ("×", "ended".into(), Color::Red),
        (Some(Link::Lost { why, until }), _) => {
            let seconds = until.saturating_duration_since(now).as_secs_f64().ceil();
            away(why, format!(" in {seconds:.0} s"))
        }
        (Some(Link::Opening), None) => ("○", "connecting".into(), Color::Yellow),
        (_, Some(why)) => away(why, String::new()),
        (Some(Link::Closed) | None, None) => ("●", "connected".into(), Color::Green),
    }
}

fn list(state: &State, area: Rect, buffer: &mut Buffer) {
    if area.width < 4 || area.height == 0 {
        return;
    }
    let columns = area.width - 1;
    for y in area.top()..area.bottom() {
        put(area.x + columns, y, "│", area, DIM, buffer);
    }
    let chats = &state.list.chats;
    if chats.is_empty() {
        let why = text::rows(&state.list.missing, usize::from(columns).saturating_sub(2));
        for (row, y) in why.into_iter().zip(area.top()..area.bottom()) {
            let why = text::shown(&state.list.missing[row]);
            put(area.x + 1, y, &why, area, DIM, buffer);
        }
        return;
    }
    let at = |id| chats.iter().position(|chat| Some(chat.id) == id);
    let cursor = match state.in_list {
        true => at(state.list.cursor()),
        false => at(state.open),
    };
    let rows = usize::from(area.height);
    let first = cursor.map_or(0, |at| (at + 1).saturating_sub(rows));
    for (chat, y) in chats.iter().skip(first).zip(area.top()..area.bottom()) {
        let row = Rect::new(area.x, y, columns, 1);
        let is_at = state.in_list && Some(chat.id) == state.list.cursor();
        entry(state, chat, is_at, row, buffer);
    }
}

fn entry(state: &State, chat: &Chat, is_at: bool, row: Rect, buffer: &mut Buffer) {
    let is_open = Some(chat.id) == state.open;
    let unread = match state.list.unread(chat) {
        0 => String::new(),
        n if n > 99 => "99+ ".into(),
        n => format!("{n} "),
    };
    let mark = match (is_open, unread.is_empty()) {
        (true, _) => "▌",
        (false, false) => "•",
        (false, true) => " ",
    };
    let room = usize::from(row.width).saturating_sub(3 + width(&unread));
    let mut name = Span::from(cut(&chat.title, room));
    if is_open || !unread.is_empty() {
        name = name.bold();
    }
    let left = Line::from(vec![Span::from(mark).fg(OWN), Span::from(" "), name]);
    let right = Line::from(unread).style(Style::new().fg(Color::Yellow).bold());
    ends(left, right, row, buffer);
    if is_at {
        buffer.set_style(row, BAR);
    }
}

fn draw_room(state: &State, room: &Room, areas: &Areas, buffer: &mut Buffer) -> Option<Position> {
    head(state, areas.head, buffer);
    let pane = state.pane(areas);
    let history = inside(areas.history);
    let rows = room.history.visible(pane);
    // At the lower edge, where what is typed will come.
    let top = history.bottom() - rows.len() as u16;
    for (line, y) in rows.iter().zip(top..) {
        buffer.set_line(history.x, y, line, history.width);
    }
    if rows.is_empty() && !history.is_empty() {
        let what = match (&room.link, room.loaded) {
            (Link::Ended(why), _) => text::shown(why),
            (_, true) => "no messages yet".into(),
            (_, false) => "loading …".into(),
        };
        centred(&what, history, buffer);
    } else if room.history.is_loading() && rows.len() == pane.rows && !room.history.is_following() {
        let y = history.top();
        put(history.x, y, " loading … ", history, DIM, buffer);
    }
    let pending = inside(areas.pending);
    let all = room.pending_rows(pane);
    for (line, y) in all.iter().zip(pending.top()..pending.bottom()) {
        buffer.set_line(pending.x, y, line, pending.width);
    }
    rule(room, all.len() > pending.height.into(), areas.rule, buffer);
    line(&room.draft, areas, buffer)
}

fn head(state: &State, area: Rect, buffer: &mut Buffer) {
    let Some(id) = state.open.filter(|_| !area.is_empty()) else {
        return;
    };
    let area = inside(area);
    let number = format!("#{id}");
    let (title, count) = match state.list.get(id) {
        Some(chat) if chat.members == 1 => (&chat.title[..], "1 member".into()),
        Some(chat) => (&chat.title[..], format!("{} members", chat.members)),
        None => ("", String::new()),
    };
    let room = usize::from(area.width).saturating_sub(number.len() + count.len() + 3);
    let left = Span::from(cut(title, room)).bold();
    let right = Span::from(format!("{number}  {count}").trim_end().to_owned()).dim();
    ends(Line::from(left), Line::from(right), area, buffer);
}

/// The line above the input; it says what is not in sight.
fn rule(room: &Room, more_pending: bool, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let dashes = "─".repeat(area.width.into());
    put(area.x, area.y, &dashes, area, DIM, buffer);
    if let Some(x) = area.x.checked_sub(1) {
        put(x, area.y, "├", *buffer.area(), DIM, buffer);
    }
    let notes = [
        match room.history.is_following() {
            true => None,
            false if room.history.below() > 0 => {
                Some(format!(" ↓ {} newer · Esc ", room.history.below()))
            }
            false => Some(" ↓ Esc: the newest ".into()),
        },
        more_pending.then(|| format!(" {} not stored yet ", room.pending.len())),
        match &room.link {
            Link::Ended(why) => Some(format!(" {} ", text::shown(why))),
            _ => None,
        },
    ];
    let mut x = inside(area).x;
    for note in notes.into_iter().flatten() {
        x = 1 + put(x, area.y, &note, area, NOTE, buffer);
    }
}

/// What is typed, and where its cursor is.
fn line(draft: &Input, areas: &Areas, buffer: &mut Buffer) -> Option<Position> {
    let area = inside(areas.input);
    if area.is_empty() {
        return None;
    }
    let columns = input_columns(areas);
    let (row, column) = draft.position(columns);
    let height = usize::from(area.height);
    let first = (row + 1).saturating_sub(height);
    put(area.x, area.y, "› ", area, KEY.bold(), buffer);
    let x = area.x + 2;
    let rows = text::rows(draft.text(), columns);
    for (row, y) in rows.into_iter().skip(first).zip(area.top()..area.bottom()) {
        let shown = text::shown(&draft.text()[row]);
        put(x, y, &shown, area, Style::new(), buffer);
    }
    if draft.is_empty() {
        put(x, area.y, "write a message", area, DIM, buffer);
    }
    let x = (usize::from(x) + column).min(usize::from(area.right() - 1));
    Some(Position::new(x as u16, area.y + (row - first) as u16))
}

fn welcome(state: &State, area: Rect, buffer: &mut Buffer) {
    let what = match state.list.chats.is_empty() {
        true if state.list.missing == "no chats yet" => "chatd create --with bob makes a chat",
        true => "",
        false => "choose a chat with ↑ and ↓, open it with Enter",
    };
    centred(what, area, buffer);
}

fn centred(what: &str, area: Rect, buffer: &mut Buffer) {
    let rows = text::rows(what, area.width.into());
    let top = area.y + (usize::from(area.height).saturating_sub(rows.len()) / 2) as u16;
    for (row, y) in rows.into_iter().zip(top..area.bottom()) {
        let line = Line::from(what[row].trim_end().to_owned()).dim();
        let x = area.x + (usize::from(area.width).saturating_sub(line.width()) / 2) as u16;
        buffer.set_line(x, y, &line, area.right() - x);
    }
}

#[cfg(test)]
mod tests;
