use crossterm::event::{KeyCode, KeyModifiers};

use super::*;
use crate::testing::for_seeds;

pub(in crate::client::screen) fn press(state: &mut State, code: KeyCode) -> Vec<Effect> {
    let key = KeyEvent::new(code, KeyModifiers::NONE);
    state.update(Event::Key(key), Instant::now())
}

pub(in crate::client::screen) fn control(state: &mut State, c: char) -> Vec<Effect> {
    let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    state.update(Event::Key(key), Instant::now())
}

pub(in crate::client::screen) fn type_in(state: &mut State, text: &str) -> Vec<Effect> {
    for c in text.chars() {
        press(state, KeyCode::Char(c));
    }
    press(state, KeyCode::Enter)
}

pub(in crate::client::screen) fn message(seq: i64, from: &str, text: &str) -> proto::Message {
    proto::Message {
        seq,
        from: from.into(),
        text: text.into(),
        created_at: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        ..Default::default()
    }
}

fn chat(id: i64, members: &[&str], last_seq: i64) -> proto::Chat {
    let usernames = members.iter().map(|name| (*name).into()).collect();
    proto::Chat {
        id,
        info: Some(proto::ChatInfo { usernames }),
        last_seq,
        ..Default::default()
    }
}

/// `al`, who has the chats 3 and 5 and has read two messages of 3.
pub(in crate::client::screen) fn al(size: (u16, u16)) -> State {
    let mut state = State::new("al", "here:1", HashMap::from([(3, 2)]), size);
    assert_eq!(state.begin(None), [Effect::List(100)]);
    let chats = vec![chat(3, &["al", "bo"], 4), chat(5, &["cy", "al"], 0)];
    state.update(Event::Chats(Ok((chats, false))), Instant::now());
    state
}

/// The same in chat 3, which is live and has four messages.
pub(in crate::client::screen) fn in_chat(size: (u16, u16)) -> State {
    let mut state = al(size);
    assert_eq!(press(&mut state, KeyCode::Enter), [Effect::Open(3)]);
    let page = (1..=4)
        .map(|seq| message(seq, "bo", &format!("m{seq}")))
        .collect();
    let now = Instant::now();
    state.update(Event::Page(3, Page::Newest, Ok(page)), now);
    let effects = state.update(Event::Live(3), now);
    assert_eq!(effects, [Effect::List(100)]);
    state
}

fn own(seq: i64, id: &str, text: &str) -> Event {
    let client_message_id = id.into();
    let message = proto::Message {
        client_message_id,
        ..message(seq, "al", text)
    };
    Event::Message(3, Box::new(message))
}

/// The one post among effects.
fn posted(effects: &[Effect]) -> (String, String) {
    match effects {
        [Effect::Post { chat: 3, id, text }] => (id.clone(), text.clone()),
        other => panic!("{other:?}"),
    }
}

fn unread(state: &State) -> Vec<(i64, i64)> {
    let chats = state.list.chats.iter();
    chats
        .map(|chat| (chat.id, state.list.unread(chat)))
        .collect()
}

#[test]
fn what_is_opened_is_read_and_what_comes_elsewhere_is_not() {
    let mut state = al((80, 24));
    assert_eq!(unread(&state), [(3, 2), (5, 0)]);
    state = in_chat((80, 24));
    assert_eq!(unread(&state), [(3, 0), (5, 0)]);
    assert_eq!(control(&mut state, 'n'), [Effect::Open(5)]);
    let now = Instant::now();
    state.update(Event::Page(5, Page::Newest, Ok(Vec::new())), now);
    // The chat with news comes first, and the other stays open.
    let news = Event::Message(3, Box::new(message(5, "bo", "again")));
    state.update(news, now);
    assert_eq!(
        (unread(&state), state.open),
        (vec![(3, 1), (5, 0)], Some(5))
    );
    // It is still there: nothing is asked for.
    assert_eq!(control(&mut state, 'p'), []);
    assert_eq!(
        (unread(&state), state.open),
        (vec![(3, 0), (5, 0)], Some(3))
    );
}

#[test]
fn a_message_is_pending_under_one_id_until_it_comes_back() {
    let mut state = in_chat((80, 24));
    let (id, text) = posted(&type_in(&mut state, "hello"));
    assert_eq!((text.as_str(), id.len()), ("hello", 32));
    assert!(state.room().unwrap().draft.is_empty());
    assert_eq!(state.unstored(), 1);
    let now = Instant::now();
    state.update(Event::Lost(3, "gone".into(), Duration::from_secs(2)), now);
    let (later, _) = posted(&type_in(&mut state, "meanwhile"));
    assert!(id != later);
    state.update(own(5, &id, "hello"), now);
    state.update(own(6, &later, "meanwhile"), now);
    assert_eq!(
        (state.unstored(), state.room().unwrap().history.newest()),
        (0, 6)
    );
    // A white message is none.
    assert_eq!(type_in(&mut state, "  "), []);
}

#[test]
fn what_failed_is_posted_again_under_its_id_or_taken_back() {
    let mut state = in_chat((80, 24));
    let (id, _) = posted(&type_in(&mut state, "hello"));
    let now = Instant::now();
    let refused = || Event::Refused(3, id.clone(), "too long".into());
    state.update(refused(), now);
    let failed = |state: &State| state.room().unwrap().pending[0].failed.clone();
    assert_eq!(failed(&state).as_deref(), Some("too long"));
    assert_eq!(
        posted(&control(&mut state, 'r')),
        (id.clone(), "hello".into())
    );
    assert_eq!(failed(&state), None);
    control(&mut state, 'x');
    assert_eq!(state.notice, "nothing has failed");
    state.update(refused(), now);
    control(&mut state, 'x');
    assert_eq!(
        (state.room().unwrap().draft.text(), state.unstored()),
        ("hello", 0)
    );
    // Edited, it is another message.
    assert!(posted(&press(&mut state, KeyCode::Enter)).0 != id);
    state.update(Event::Stored(3, id), now);
    assert_eq!(state.unstored(), 1);
}

#[test]
fn a_chat_that_ended_keeps_what_was_typed_and_can_be_opened_anew() {
    let mut state = in_chat((80, 24));
    let (id, _) = posted(&type_in(&mut state, "hello"));
    let now = Instant::now();
    state.update(Event::Ended(3, "no member".into()), now);
    assert_eq!(type_in(&mut state, "more"), []);
    assert_eq!(state.notice, "not posted: no member");
    let text = "hello".to_owned();
    let again = [Effect::Open(3), Effect::Post { chat: 3, id, text }];
    assert_eq!(control(&mut state, 'r'), again);
    assert_eq!(state.room().unwrap().draft.text(), "more");
}

#[test]
fn quitting_asks_again_only_if_something_would_be_lost() {
    let mut state = in_chat((80, 24));
    assert_eq!(control(&mut state, 'q'), [Effect::Quit]);
    type_in(&mut state, "hello");
    assert_eq!(control(&mut state, 'c'), []);
    assert!(state.notice.starts_with("a message is not stored yet"));
    press(&mut state, KeyCode::Left);
    assert_eq!(control(&mut state, 'c'), []);
    assert_eq!(control(&mut state, 'c'), [Effect::Quit]);
    state.rooms.clear();
    assert_eq!(control(&mut state, 'c'), [Effect::Quit]);
}

#[test]
fn a_paste_of_several_lines_is_one_message() {
    let mut state = in_chat((80, 24));
    state.update(Event::Paste("one\r\ntwo\n".into()), Instant::now());
    assert_eq!(state.room().unwrap().draft.text(), "one\ntwo\n");
    let (_, text) = posted(&press(&mut state, KeyCode::Enter));
    assert_eq!(text, "one\ntwo\n");
}

#[test]
fn only_so_many_chats_are_open_on_the_server() {
    let mut state = State::new("al", "here:1", HashMap::new(), (80, 24));
    state.begin(None);
    let chats = (1..=50).map(|id| chat(id, &["al"], 0)).collect();
    state.update(Event::Chats(Ok((chats, false))), Instant::now());
    press(&mut state, KeyCode::Enter);
    state.update(Event::Live(1), Instant::now());
    // Something typed keeps a chat open.
    press(&mut state, KeyCode::Char('x'));
    let mut closed = Vec::new();
    for _ in 1..50 {
        closed.extend(control(&mut state, 'n'));
    }
    closed.retain(|effect| matches!(effect, Effect::Close(_)));
    let expected: Vec<Effect> = (2..=19).map(Effect::Close).collect();
    assert_eq!(closed, expected);
    assert_eq!(state.rooms.len(), MAX_ROOMS);
}

#[test]
fn any_events_on_any_screen_do_no_harm() {
    use ratatui::{Terminal, backend::TestBackend};
    const KEYS: [KeyCode; 16] = [
        KeyCode::Enter,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Esc,
        KeyCode::Tab,
        KeyCode::F(1),
        KeyCode::Home,
        KeyCode::Left,
        KeyCode::Backspace,
        KeyCode::Char('n'),
        KeyCode::Char('p'),
        KeyCode::Char('r'),
        KeyCode::Char('x'),
        KeyCode::Char('日'),
    ];
    const TEXTS: [&str; 4] = ["", "\u{1b}[2J\u{7}", "日本語 e\u{301} \u{202e}x", "a\n\tb"];
    for_seeds(60, |rng| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut state = al((80, 24));
        let mut seq = 0;
        let now = Instant::now();
        for _ in 0..150 {
            let chat = [3, 5, 7][rng.usize(..3)];
            let text = TEXTS[rng.usize(..TEXTS.len())].repeat(rng.usize(1..30));
            let event = match rng.usize(..14) {
                0..5 => {
                    let modifiers = [KeyModifiers::NONE, KeyModifiers::CONTROL, KeyModifiers::ALT];
                    let key = KEYS[rng.usize(..KEYS.len())];
                    Event::Key(KeyEvent::new(key, modifiers[rng.usize(..3)]))
                }
                5 => Event::Paste(text),
                6 => {
                    let size = (rng.u16(0..90), rng.u16(0..30));
                    terminal.backend_mut().resize(size.0, size.1);
                    Event::Resize(size.0, size.1)
                }
                7 => Event::Tick,
                8 => Event::Page(chat, Page::Newest, Err(text)),
                9 => Event::Lost(chat, text, Duration::from_secs(3)),
                10 => Event::Live(chat),
                11 => Event::Ended(chat, text),
                12 => {
                    let from = seq + 1;
                    seq += rng.i64(0..60);
                    let page = (from..=seq).map(|seq| message(seq, &text, &text));
                    Event::Page(chat, Page::Newest, Ok(page.collect()))
                }
                _ => {
                    seq += 1;
                    Event::Message(chat, Box::new(message(seq, "bo", &text)))
                }
            };
            state.update(event, now);
            terminal
                .draw(|frame| super::super::view::draw(&state, frame, now))
                .unwrap();
            let cells = &terminal.backend().buffer().content;
            let control = |cell: &ratatui::buffer::Cell| cell.symbol().contains(char::is_control);
            assert!(!cells.iter().any(control), "a control character");
        }
    });
}
