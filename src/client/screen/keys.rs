//! Which key does what.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::input::Edit;

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Edit(Edit),
    /// Post what is typed, or open the chat that the list is at.
    Enter,
    /// A row up or down: of what is typed, of the list, else of the history.
    Up,
    Down,
    PageUp,
    PageDown,
    /// To the newest message.
    Newest,
    PreviousChat,
    NextChat,
    /// Between the list and the line.
    Switch,
    Retry,
    TakeBack,
    Redraw,
    Help,
    Quit,
}

/// The keys, as the help names them.
pub(super) const HELP: [(&str, &str); 14] = [
    ("Enter", "post the message"),
    ("Alt-Enter, Ctrl-J", "a new line in the message"),
    (
        "Ctrl-N, Ctrl-P",
        "next chat, previous chat (also Alt-↓, Alt-↑)",
    ),
    ("Tab", "to the list of chats, and back"),
    ("PgUp, PgDn", "through the history; ↑ and ↓ by a row"),
    ("Esc", "back to the newest message"),
    ("Ctrl-R", "post again what failed"),
    ("Ctrl-X", "take back what failed"),
    ("Ctrl-←, Ctrl-→", "by a word (also Alt-B, Alt-F)"),
    ("Home, End", "of the line (also Ctrl-A, Ctrl-E)"),
    ("Ctrl-W, Alt-D", "delete a word, to the left, to the right"),
    (
        "Ctrl-U, Ctrl-K",
        "delete to the start, to the end of the line",
    ),
    ("Ctrl-L", "draw the screen anew"),
    ("Ctrl-C, Ctrl-Q", "quit"),
];

pub(super) fn action(key: KeyEvent) -> Option<Action> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    let word = control || alt;
    let edit = |edit| Some(Action::Edit(edit));
    match key.code {
        KeyCode::Enter if word || key.modifiers.contains(KeyModifiers::SHIFT) => {
            edit(Edit::Insert('\n'))
        }
        KeyCode::Enter => Some(Action::Enter),
        KeyCode::Up if alt => Some(Action::PreviousChat),
        KeyCode::Down if alt => Some(Action::NextChat),
        KeyCode::Up => Some(Action::Up),
        KeyCode::Down => Some(Action::Down),
        KeyCode::PageUp => Some(Action::PageUp),
        KeyCode::PageDown => Some(Action::PageDown),
        KeyCode::End if control => Some(Action::Newest),
        KeyCode::Esc => Some(Action::Newest),
        KeyCode::Tab | KeyCode::BackTab => Some(Action::Switch),
        KeyCode::F(1) => Some(Action::Help),
        KeyCode::Left if word => edit(Edit::WordLeft),
        KeyCode::Right if word => edit(Edit::WordRight),
        KeyCode::Left => edit(Edit::Left),
        KeyCode::Right => edit(Edit::Right),
        KeyCode::Home => edit(Edit::Home),
        KeyCode::End => edit(Edit::End),
        KeyCode::Backspace if word => edit(Edit::DeleteWordLeft),
        KeyCode::Backspace => edit(Edit::DeleteLeft),
        KeyCode::Delete if word => edit(Edit::DeleteWordRight),
        KeyCode::Delete => edit(Edit::DeleteRight),
        // AltGr is both, and types a letter.
        KeyCode::Char(c) if control != alt => match (control, c.to_ascii_lowercase()) {
            (true, c) => with_control(c),
            (false, 'b') => edit(Edit::WordLeft),
            (false, 'f') => edit(Edit::WordRight),
            (false, 'd') => edit(Edit::DeleteWordRight),
            (false, _) => None,
        },
        KeyCode::Char(c) => edit(Edit::Insert(c)),
        _ => None,
    }
}

fn with_control(c: char) -> Option<Action> {
    Some(match c {
        'a' => Action::Edit(Edit::Home),
        'b' => Action::Edit(Edit::Left),
        'c' | 'q' => Action::Quit,
        'd' => Action::Edit(Edit::DeleteRight),
        'e' => Action::Edit(Edit::End),
        'f' => Action::Edit(Edit::Right),
        'g' => Action::Help,
        'h' => Action::Edit(Edit::DeleteLeft),
        'j' => Action::Edit(Edit::Insert('\n')),
        'k' => Action::Edit(Edit::DeleteToEnd),
        'l' => Action::Redraw,
        'n' => Action::NextChat,
        'p' => Action::PreviousChat,
        'r' => Action::Retry,
        'u' => Action::Edit(Edit::DeleteToStart),
        'w' => Action::Edit(Edit::DeleteWordLeft),
        'x' => Action::TakeBack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_typed_and_chords_are_not() {
        let none = KeyModifiers::NONE;
        let (control, alt) = (KeyModifiers::CONTROL, KeyModifiers::ALT);
        for (code, modifiers, expected) in [
            ('x', none, Some(Action::Edit(Edit::Insert('x')))),
            (
                'X',
                KeyModifiers::SHIFT,
                Some(Action::Edit(Edit::Insert('X'))),
            ),
            ('@', control | alt, Some(Action::Edit(Edit::Insert('@')))),
            ('w', control, Some(Action::Edit(Edit::DeleteWordLeft))),
            ('z', control, None),
            ('z', alt, None),
        ] {
            let key = KeyEvent::new(KeyCode::Char(code), modifiers);
            assert_eq!(action(key), expected, "{key:?}");
        }
        let enter = |modifiers| action(KeyEvent::new(KeyCode::Enter, modifiers));
        assert_eq!(enter(none), Some(Action::Enter));
        assert_eq!(enter(alt), Some(Action::Edit(Edit::Insert('\n'))));
    }
}
