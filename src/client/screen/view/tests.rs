use std::time::Duration;

use crossterm::event::KeyCode;
use ratatui::{Terminal, backend::TestBackend};

use super::{
    super::{
        history::Page,
        keys::HELP,
        state::{
            Event,
            tests::{al, control, in_chat, message, press, type_in},
        },
    },
    *,
};

/// The screen, without white space at the ends of its rows.
fn screen(state: &State, size: (u16, u16), now: Instant) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(state, frame, now)).unwrap();
    let cells = &terminal.backend().buffer().content;
    let rows = cells.chunks(size.0.into());
    rows.map(|row| {
        let mut skip = 0;
        let mut text = String::new();
        for cell in row {
            // A wide one takes the place of the cell behind it.
            if skip == 0 {
                text += cell.symbol();
                skip = width(cell.symbol()).max(1);
            }
            skip -= 1;
        }
        text.trim_end().to_owned()
    })
    .collect()
}

#[test]
fn a_chat_on_a_usual_screen() {
    let size = (80, 16);
    let mut state = in_chat(size);
    let now = Instant::now();
    let words = "日本語 and then some more words than go in one row";
    let news = Event::Message(3, Box::new(message(5, "bo", words)));
    state.update(news, now);
    state.update(Event::Paste("half a li\nne".into()), now);
    let expected = "
 chatd al at here:1                                                      ● live
▌ bo                   │ bo                                       #3  2 members
  cy                   │
                       │
                       │ ────────────────── 2023-11-14, UTC ───────────────────
                       │ 22:13  bo │ m1
                       │           │ m2
                       │ ──────────────────────── new ─────────────────────────
                       │ 22:13  bo │ m3
                       │           │ m4
                       │           │ 日本語 and then some more words than go in
                       │           │ one row
                       ├────────────────────────────────────────────────────────
                       │ › half a li
                       │   ne
 Enter post   PgUp history   Ctrl-N/P chats   Ctrl-G keys   Ctrl-Q quit";
    let shown = screen(&state, size, now).join("\n");
    assert_eq!(shown, expected.trim_start_matches('\n'), "\n{shown}");
}

#[test]
fn what_is_not_stored_yet_says_so() {
    let size = (80, 14);
    let mut state = in_chat(size);
    let now = Instant::now();
    let rows = |state: &State| {
        let rows = screen(state, size, now);
        rows[7..11]
            .iter()
            .map(|row| row[27..].to_owned())
            .collect::<Vec<_>>()
    };
    type_in(&mut state, "hello");
    assert_eq!(rows(&state)[3], "send…  al │ hello");
    state.update(Event::Lost(3, "gone".into(), Duration::from_secs(2)), now);
    assert_eq!(rows(&state)[3], "wait…  al │ hello");
    let id = state.room().unwrap().pending[0].id.clone();
    state.update(Event::Refused(3, id, "too long".into()), now);
    let failed = [
        "fail!  al │ hello",
        "          │ not stored: too long. Ctrl-R retries,",
        "          │ Ctrl-X takes it back",
    ];
    assert_eq!(rows(&state)[1..], failed);
}

#[test]
fn what_the_server_says_is_shown_in_letters() {
    let size = (80, 16);
    let mut state = in_chat(size);
    let evil = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}";
    let now = Instant::now();
    let news = Event::Message(3, Box::new(message(5, evil, evil)));
    state.update(news, now);
    state.update(Event::Lost(3, evil.into(), Duration::from_secs(3)), now);
    let chat = crate::proto::Chat {
        id: 9,
        info: Some(crate::proto::ChatInfo {
            usernames: vec![evil.into()],
        }),
        ..Default::default()
    };
    state.update(Event::Chats(Ok((vec![chat], false))), now);
    type_in(&mut state, "x");
    let id = state.room().unwrap().pending[0].id.clone();
    state.update(Event::Refused(3, id, evil.into()), now);
    let shown = screen(&state, size, now).join("\n");
    assert!(
        !shown.replace('\n', "").contains(char::is_control),
        "{shown}"
    );
    assert!(!shown.contains('\u{202e}'), "{shown}");
    assert!(shown.contains(r"│ \u{1b}[2J\u{1b}]0;x"), "{shown}");
    assert!(shown.contains("reconnecting in 3 s: "), "{shown}");
    assert!(shown.contains("not stored:"), "{shown}");
}

#[test]
fn a_narrow_screen_has_the_list_or_the_chat() {
    let size = (30, 12);
    let mut state = al(size);
    let now = Instant::now();
    let shown = screen(&state, size, now);
    assert_eq!(shown[1], "• bo                       2 │", "{shown:?}");
    state = in_chat(size);
    let shown = screen(&state, size, now);
    assert!(
        shown.iter().any(|row| row.trim() == "22:13 bo"),
        "{shown:?}"
    );
    press(&mut state, KeyCode::Tab);
    let shown = screen(&state, size, now);
    assert_eq!(shown[1], "▌ bo                         │", "{shown:?}");
}

#[test]
fn keys_are_helped_with_and_a_key_closes_the_help() {
    let size = (80, 24);
    let mut state = in_chat(size);
    let now = Instant::now();
    control(&mut state, 'g');
    let shown = screen(&state, size, now).join("\n");
    for (key, what) in HELP {
        assert!(
            shown.contains(key) && shown.contains(what),
            "{key}\n{shown}"
        );
    }
    press(&mut state, KeyCode::Enter);
    assert!(!state.help && !screen(&state, size, now).join("\n").contains("keys ─"));
}

#[test]
fn who_scrolled_up_is_told_what_is_below() {
    let size = (80, 12);
    let mut state = in_chat(size);
    let now = Instant::now();
    let page = (1..=60).map(|seq| message(seq, "bo", &format!("m{seq}")));
    state.update(Event::Page(3, Page::Newest, Ok(page.collect())), now);
    press(&mut state, KeyCode::PageUp);
    let shown = screen(&state, size, now).join("\n");
    assert!(
        shown.contains("↓ 6 newer · Esc") && !shown.contains("m60"),
        "{shown}"
    );
    press(&mut state, KeyCode::Esc);
    let shown = screen(&state, size, now).join("\n");
    assert!(shown.contains("m60"), "{shown}");
}
