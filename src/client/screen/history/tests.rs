use super::*;
use crate::testing::for_seeds;

const PANE: Pane<'_> = Pane {
    columns: 60,
    rows: 10,
    me: "al",
    names: 4,
};

/// Message `seq` of every chat: each minute one, of a few rows.
fn message(seq: i64) -> Message {
    let words = "words ".repeat((seq * 7 % 20) as usize);
    Message {
        seq,
        from: format!("u{}", seq % 3),
        text: format!("m{seq} {words}"),
        created_at: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + seq * 60,
            nanos: 0,
        }),
        ..Default::default()
    }
}

fn messages(seqs: impl Iterator<Item = i64>) -> Vec<Message> {
    seqs.map(message).collect()
}

/// What a server with so many messages answers.
fn answer(page: Page, newest: i64) -> Vec<Message> {
    const SIZE: i64 = 50;
    match page {
        Page::Newest => messages((newest - SIZE + 1).max(1)..=newest),
        Page::Before(seq) => messages((seq - SIZE).max(1)..seq),
        Page::After(seq) => messages(seq + 1..=(seq + SIZE).min(newest)),
    }
}

fn opened(newest: i64) -> History {
    let mut history = History::default();
    history.loaded(Page::Newest, answer(Page::Newest, newest));
    history
}

fn load_all(history: &mut History, newest: i64) {
    for _ in 0..1000 {
        let Some(page) = history.wants(PANE) else {
            return;
        };
        history.loaded(page, answer(page, newest));
    }
    panic!("it never has enough");
}

fn text(history: &History, pane: Pane<'_>) -> Vec<String> {
    let rows = history.visible(pane);
    rows.iter().map(ToString::to_string).collect()
}

fn check(history: &History) {
    let seqs: Vec<i64> = history.messages.iter().map(|m| m.seq).collect();
    assert!(seqs.windows(2).all(|two| two[0] + 1 == two[1]), "a gap");
    assert!(seqs.len() <= MOST);
    assert!(history.last().unwrap_or_default() <= history.newest);
}

#[test]
fn the_newest_are_in_sight_and_older_ones_come_on_demand() {
    let mut history = opened(500);
    assert!(text(&history, PANE).last().unwrap().contains("m500"));
    assert_eq!(history.wants(PANE), None, "a page is enough at first");
    let mut asked = Vec::new();
    for _ in 0..1000 {
        history.scroll_up(5, PANE);
        if let Some(page) = history.wants(PANE) {
            asked.push(page);
            history.loaded(page, answer(page, 500));
        }
        check(&history);
    }
    assert_eq!(asked.len(), 9);
    assert_eq!(asked[0], Page::Before(451));
    let top = text(&history, PANE);
    assert!(top[0].contains("2023-11-14"), "{top:?}");
    assert!(top[1].contains("m1 "), "{top:?}");
}

#[test]
fn a_reader_who_scrolled_up_stays_where_they_are() {
    let mut history = opened(100);
    history.scroll_up(7, PANE);
    let (was, below) = (text(&history, PANE), history.below());
    for seq in 101..=120 {
        history.live(message(seq));
    }
    assert_eq!(
        (text(&history, PANE), history.below()),
        (was.clone(), below + 20)
    );
    history.loaded(Page::Before(51), answer(Page::Before(51), 120));
    assert_eq!(text(&history, PANE), was);
    assert!(!history.follow());
    assert!(history.is_following() && text(&history, PANE) != was);
}

#[test]
fn what_is_kept_is_bounded_and_loaded_again_on_the_way_down() {
    let mut history = opened(100);
    for seq in 101..=10_000 {
        history.live(message(seq));
        check(&history);
    }
    assert_eq!(history.messages.len(), MOST);
    // All the way up, while more comes in.
    let mut newest = 10_000;
    while history.first() != Some(1) {
        history.scroll_up(500, PANE);
        load_all(&mut history, newest);
        newest += 1;
        history.live(message(newest));
        check(&history);
    }
    assert_eq!((history.messages.len(), history.newest()), (MOST, newest));
    // And down again, row by row at the seams.
    for _ in 0..100_000 {
        history.scroll_down(97, PANE);
        load_all(&mut history, newest);
        check(&history);
        if history.is_following() {
            break;
        }
    }
    assert!(history.is_following());
    assert_eq!(history.last(), Some(newest));
    // Or at once.
    history.scroll_up(1_000_000, PANE);
    for seq in newest + 1..newest + 2 * MOST as i64 {
        history.live(message(seq));
    }
    assert!(history.follow());
    history.loaded(Page::Newest, answer(Page::Newest, newest + 2 * MOST as i64));
    load_all(&mut history, newest + 2 * MOST as i64);
    assert_eq!(history.last(), Some(newest + 2 * MOST as i64));
}

#[test]
fn a_page_that_fails_is_asked_for_again_at_the_next_tick() {
    let mut history = opened(100);
    history.scroll_up(1_000, PANE);
    assert!(history.wants(PANE).is_some() && history.is_loading());
    assert_eq!(history.wants(PANE), None);
    history.failed();
    assert_eq!(history.wants(PANE), None);
    history.tick();
    assert_eq!(history.wants(PANE), Some(Page::Before(51)));
    // A server that has less than it said is asked once a tick.
    let mut history = opened(10);
    history.live(message(12));
    assert_eq!(history.wants(PANE), Some(Page::After(10)));
    history.loaded(Page::After(10), Vec::new());
    assert_eq!((history.wants(PANE), history.newest()), (None, 10));
}

#[test]
fn random_readers_see_a_part_of_the_one_history() {
    for_seeds(60, |rng| {
        let mut newest = rng.i64(0..300);
        let mut history = opened(newest);
        for _ in 0..200 {
            let pane = Pane {
                columns: rng.usize(1..90),
                rows: rng.usize(0..30),
                ..PANE
            };
            match rng.usize(..6) {
                0 => history.scroll_up(rng.usize(..80), pane),
                1 => history.scroll_down(rng.usize(..80), pane),
                2 => {
                    newest += 1;
                    history.live(message(newest));
                }
                // Some messages are lost on the way.
                3 if rng.usize(..10) == 0 => newest += 1,
                4 if rng.usize(..10) == 0 && history.follow() => {
                    history.loaded(Page::Newest, answer(Page::Newest, newest));
                }
                _ => {
                    history.tick();
                    if let Some(page) = history.wants(pane) {
                        match rng.bool() {
                            true => history.loaded(page, answer(page, newest)),
                            false => history.failed(),
                        }
                    }
                }
            }
            check(&history);
            let rows = history.visible(pane);
            let total: usize = (0..history.messages.len())
                .map(|at| history.height(at, pane))
                .sum();
            assert!(rows.len() <= pane.rows.min(total));
            if history.is_following() {
                assert_eq!(rows.len(), pane.rows.min(total));
            }
        }
    });
}
