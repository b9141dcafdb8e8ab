//! The keys, drawn.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, BorderType, Clear, Widget as _},
};

use super::{
    super::{
        areas::inside,
        keys::HELP,
        state::State,
        text::{self, width},
    },
    DIM, KEY, NOTE, put,
};

/// The lowest row: what happened, else the keys that are needed most.
pub(super) fn line(state: &State, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    if !state.notice.is_empty() {
        let notice = text::shown(&state.notice);
        put(area.x + 1, area.y, &notice, area, NOTE, buffer);
        return;
    }
    let keys: &[(&str, &str)] = match state.in_list {
        true => &[
            ("↑ ↓", "choose"),
            ("Enter", "open"),
            ("Tab", "back"),
            ("Ctrl-G", "keys"),
            ("Ctrl-Q", "quit"),
        ],
        false => &[
            ("Enter", "post"),
            ("PgUp", "history"),
            ("Ctrl-N/P", "chats"),
            ("Ctrl-G", "keys"),
            ("Ctrl-Q", "quit"),
        ],
    };
    let mut x = area.x + 1;
    for (key, what) in keys {
        if usize::from(x) + width(key) + width(what) + 1 > area.right().into() {
            break;
        }
        x = put(x, area.y, key, area, KEY, buffer);
        x = put(x + 1, area.y, what, area, DIM, buffer) + 3;
    }
}

/// All keys, over everything else.
pub(super) fn keys(screen: Rect, buffer: &mut Buffer) {
    let keys = HELP.iter().map(|(key, _)| width(key)).max().unwrap_or(0);
    let what = HELP.iter().map(|(_, what)| width(what)).max().unwrap_or(0);
    let wide = (keys + what + 6) as u16;
    let tall = HELP.len() as u16 + 2;
    let (width, height) = (wide.min(screen.width), tall.min(screen.height));
    let x = screen.x + (screen.width - width) / 2;
    let y = screen.y + (screen.height - height) / 2;
    let area = Rect::new(x, y, width, height);
    Clear.render(area, buffer);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .title(" keys ");
    let inner = inside(block.inner(area));
    block.render(area, buffer);
    for ((key, what), y) in HELP.iter().zip(inner.top()..inner.bottom()) {
        let line = Line::from(vec![
            Span::styled(format!("{key:keys$}"), KEY),
            Span::from(format!("  {what}")),
        ]);
        buffer.set_line(inner.x, y, &line, inner.width);
    }
}
