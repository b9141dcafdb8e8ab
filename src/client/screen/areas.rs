//! Where on the screen things stand. Whatever its size, what is left out is what
//! can best be done without, and the line that is typed is the last to go.

use ratatui::layout::Rect;

/// Narrower, and the list of chats is a screen of its own.
const ROOM_FOR_LIST: u16 = 62;
const LIST: u16 = 24;
const MAX_INPUT_ROWS: u16 = 6;

/// An area that there is no room for is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Areas {
    pub(super) title: Rect,
    pub(super) list: Rect,
    /// The chat's name.
    pub(super) head: Rect,
    pub(super) history: Rect,
    /// One's own messages that are not stored yet.
    pub(super) pending: Rect,
    pub(super) rule: Rect,
    pub(super) input: Rect,
    pub(super) help: Rect,
}

/// What asks for room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) size: (u16, u16),
    pub(super) in_list: bool,
    pub(super) input_rows: usize,
    pub(super) pending_rows: usize,
}

impl Areas {
    pub(super) fn new(wanted: Wanted) -> Self {
        let (width, height) = wanted.size;
        let row_if = |enough: bool| u16::from(enough);
        let title = row_if(height >= 6);
        let help = row_if(height >= 5);
        let middle = height - title - help;
        let list = match (width >= ROOM_FOR_LIST, wanted.in_list) {
            (true, _) => LIST,
            (false, true) => width,
            (false, false) => 0,
        };
        let (x, main) = (list, width - list);

        let head = row_if(middle >= 8);
        let rule = row_if(middle >= 4);
        let most = (middle / 3).clamp(1, MAX_INPUT_ROWS).min(middle);
        let input = clamped(wanted.input_rows, 1, most);
        let free = middle - head - rule.min(middle) - input;
        let pending = clamped(wanted.pending_rows, 0, free / 2);
        let history = free - pending;

        let mut y = title;
        let mut next = |rows: u16| {
            y += rows;
            Rect::new(x, y - rows, main, rows)
        };
        Self {
            title: Rect::new(0, 0, width, title),
            list: Rect::new(0, title, list, middle),
            head: next(head),
            history: next(history),
            pending: next(pending),
            rule: next(rule),
            input: next(input),
            help: Rect::new(0, height - help, width, help),
        }
    }
}

fn clamped(rows: usize, least: u16, most: u16) -> u16 {
    u16::try_from(rows).unwrap_or(u16::MAX).max(least).min(most)
}

/// What a margin of a column leaves at the sides.
pub(super) fn inside(area: Rect) -> Rect {
    if area.width < 4 {
        return area;
    }
    Rect::new(area.x + 1, area.y, area.width - 2, area.height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_fill_every_screen_and_the_line_goes_last() {
        for width in 0..100 {
            for height in 0..40 {
                for (rows, in_list) in [(0, false), (3, true), (100, false)] {
                    let areas = Areas::new(Wanted {
                        size: (width, height),
                        in_list,
                        input_rows: rows,
                        pending_rows: rows,
                    });
                    let column = [
                        areas.title,
                        areas.head,
                        areas.history,
                        areas.pending,
                        areas.rule,
                        areas.input,
                        areas.help,
                    ];
                    let sum: u16 = column.iter().map(|area| area.height).sum();
                    assert_eq!(sum, height, "{width}x{height}");
                    assert_eq!(areas.list.width + areas.history.width, width);
                    assert!(height == 0 || areas.input.height > 0, "{width}x{height}");
                    let tall = height < 12 || areas.history.height >= 3;
                    assert!(tall, "{width}x{height}: {areas:?}");
                }
            }
        }
    }
}
