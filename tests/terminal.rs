//! The full-screen client in a pseudo-terminal, with a terminal emulator behind
//! it, against a real server.

mod picture;
mod pty;

use std::time::Duration;

use chat_service::client::FullScreen;
use pty::{Keys, Tty};

use crate::server::{Client, Server, assert_dense, soon};

const SIZE: (u16, u16) = (80, 24);

/// `alice` and whom she chats with.
async fn chat(server: &Server) -> (Client, i64) {
    let carol = server.client("carol").await;
    let chat = carol.create(&["alice"]).await;
    (carol, chat)
}

fn connect(server: &Server, size: (u16, u16), args: &[&str]) -> Tty {
    let addr = server.address().to_string();
    let args = [&["connect", "--as", "alice", "--addr", &addr], args].concat();
    Tty::start(server.folder(), size, &args)
}

/// The messages on the screen, from the upper one down.
fn shown(tty: &Tty) -> Vec<String> {
    let rows = tty.rows();
    let texts = rows.iter().filter_map(|row| row.split(" │ ").nth(2));
    texts.map(|text| text.trim_end().to_owned()).collect()
}

async fn stored(client: &Client, chat: i64) -> Vec<String> {
    let all = client.history(chat).await;
    assert_dense(&all, 1);
    all.into_iter().map(|message| message.text).collect()
}

#[tokio::test]
async fn p4_the_full_screen_goes_on_across_a_kill() {
    let mut server = Server::start(&[]).await;
    let (carol, chat) = chat(&server).await;
    carol.send(chat, "welcome", "").await.unwrap();
    let mut alice = connect(&server, SIZE, &[&chat.to_string()]);
    alice.until_row("● live").await;
    alice.until_row("welcome").await;

    // Both at once: the screen shows the one order (P2).
    let typing = async {
        for n in 1..=4 {
            alice.type_in(&format!("alice {n}\r"));
            alice.until_row(&format!("alice {n}")).await;
        }
    };
    let client = async {
        for n in 1..=4 {
            carol.send(chat, &format!("carol {n}"), "").await.unwrap();
        }
    };
    tokio::join!(typing, client);
    alice
        .until(|tty| shown(tty).len() == 9 && !tty.says("send…"))
        .await;
    assert_eq!(shown(&alice), stored(&carol, chat).await);

    // The server is killed; what is typed meanwhile waits, and is sent once.
    server.kill9();
    alice.until_row("reconnecting").await;
    alice.type_in("while it is down\r");
    alice.until_row("wait…").await;
    server.restart_here().await;
    alice.until_row("● live").await;
    alice
        .until(|tty| !tty.says("wait…") && !tty.says("send…"))
        .await;
    let carol = server.client("carol").await;
    carol.send(chat, "after", "").await.unwrap();
    alice.until_row("after").await;
    let all = stored(&carol, chat).await;
    assert_eq!(all[9..], ["while it is down", "after"]);
    assert_eq!(shown(&alice), all);

    // Nobody is asked twice who leaves nothing behind.
    alice.press(Keys::CONTROL_Q);
    assert_eq!(alice.end().await, (Some(0), String::new()));
}

#[tokio::test]
async fn chats_are_listed_with_what_is_unread_and_opened_by_keyboard() {
    let server = Server::start(&[]).await;
    let (carol, old) = chat(&server).await;
    let dave = server.client("dave").await;
    let new = dave.create(&["alice", "erin"]).await;
    carol.send(old, "one", "").await.unwrap();
    for text in ["two", "three"] {
        dave.send(new, text, "").await.unwrap();
    }
    let mut alice = connect(&server, SIZE, &[]);
    alice.until_row("choose a chat").await;
    let entry = |tty: &Tty, row: usize| tty.rows()[row][..].chars().take(23).collect::<String>();
    assert_eq!(entry(&alice, 1), "• dave, erin         2 ");
    assert_eq!(entry(&alice, 2), "• carol              1 ");
    alice.press(Keys::DOWN);
    alice.press(Keys::ENTER);
    alice.until_row("│ one").await;
    alice
        .until(|tty| entry(tty, 2) == "▌ carol                ")
        .await;

    // News elsewhere is told, and its chat comes first.
    carol.send(old, "seen", "").await.unwrap();
    alice.until_row("│ seen").await;
    alice
        .until(|tty| entry(tty, 1) == "▌ carol                ")
        .await;
    dave.send(new, "four", "").await.unwrap();
    alice
        .until(|tty| entry(tty, 1) == "• dave, erin         3 ")
        .await;
    alice.press(Keys::CONTROL_P);
    alice.until_row("│ four").await;
    alice
        .until(|tty| entry(tty, 1) == "▌ dave, erin           ")
        .await;
    alice.press(Keys::CONTROL_Q);
    alice.end().await;

    // What was read stays so.
    carol.send(old, "unseen", "").await.unwrap();
    let mut alice = connect(&server, SIZE, &[]);
    alice.until_row("choose a chat").await;
    alice
        .until(|tty| entry(tty, 1) == "• carol              1 ")
        .await;
    assert_eq!(entry(&alice, 2), "  dave, erin           ");
    alice.press(Keys::ENTER);
    alice.until_row(" new ").await;
    alice.press(Keys::CONTROL_Q);
    alice.end().await;
}

#[tokio::test]
async fn history_comes_while_scrolling_and_sizes_do_no_harm() {
    const COUNT: i64 = 1_000;
    let server = Server::start(&[]).await;
    let (carol, chat) = chat(&server).await;
    let sends = (1..=COUNT).map(|n| {
        let carol = carol.clone();
        async move { carol.send(chat, &format!("m{n}"), "").await }
    });
    let sent = futures_util::future::join_all(sends).await;
    assert!(sent.iter().all(Result::is_ok));
    let order = stored(&carol, chat).await;
    let mut alice = connect(&server, SIZE, &[&chat.to_string()]);
    let newest = &order[order.len() - 5..];
    alice.until(|tty| shown(tty).ends_with(newest)).await;
    let mut screens = 0;
    while shown(&alice).first() != order.first() {
        let was = shown(&alice);
        alice.press(Keys::PAGE_UP);
        alice.until(|tty| shown(tty) != was).await;
        // Whatever is in sight is a piece of the history, without a gap.
        let rows = shown(&alice);
        let at = order.iter().position(|text| *text == rows[0]).unwrap();
        assert_eq!(rows, order[at..at + rows.len()]);
        screens += 1;
        assert!(screens < 1_000);
    }
    alice.until_row("newer · Esc").await;
    carol.send(chat, "news", "").await.unwrap();
    alice
        .until_row(&format!(
            "{} newer",
            COUNT as usize + 1 - shown(&alice).len()
        ))
        .await;
    assert_eq!(shown(&alice).first(), order.first());
    alice.press(Keys::ESC);
    alice.until_row("│ news").await;

    for size in [(200, 50), (40, 12), (12, 5), (3, 2), (1, 1), SIZE] {
        alice.resize(size);
        alice.press(Keys::CONTROL_L);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    alice.type_in("still here\r");
    alice.until_row("│ still here").await;
    alice.press(Keys::CONTROL_Q);
    assert_eq!(alice.end().await.0, Some(0));
}

#[tokio::test]
async fn a_line_is_edited_and_a_paste_is_one_message() {
    let server = Server::start(&[]).await;
    let (carol, chat) = chat(&server).await;
    let mut alice = connect(&server, SIZE, &[&chat.to_string()]);
    alice.until_row("● live").await;
    alice.type_in("wörld 日本語");
    alice.press(Keys::CONTROL_A);
    alice.type_in("hello  ");
    alice.press(Keys::BACKSPACE);
    alice.press(Keys::CONTROL_E);
    alice.press(Keys::CONTROL_W);
    alice.type_in("🦀!\r");
    alice.paste("a paste\rof two lines");
    alice.until_row("of two lines").await;
    alice.press(Keys::ENTER);
    alice
        .until(|tty| !tty.says("send…") && tty.says("│ of two lines"))
        .await;
    assert_eq!(
        stored(&carol, chat).await,
        ["hello wörld 日本🦀!", "a paste\nof two lines"]
    );
    // What would be lost is asked about.
    alice.type_in("half");
    alice.press(Keys::CONTROL_C);
    alice.until_row("what you typed is not posted").await;
    alice.press(Keys::CONTROL_C);
    assert_eq!(alice.end().await.0, Some(0));
}

#[tokio::test]
async fn what_is_refused_says_why_and_is_taken_back() {
    let server = Server::start(&["--max-text", "10"]).await;
    let (carol, chat) = chat(&server).await;
    let alice = connect(&server, SIZE, &[&chat.to_string()]);
    alice.until_row("● live").await;
    alice.type_in("much too long\r");
    alice.until_row("fail! alice │ much too long").await;
    alice.until_row("not stored: InvalidArgument").await;
    alice.press(Keys::CONTROL_X);
    alice.until_row("› much too long").await;
    alice.press(Keys::CONTROL_W);
    alice.type_in("big\r");
    alice.until_row("fail!").await;
    alice.press(Keys::CONTROL_X);
    alice.press(Keys::CONTROL_A);
    alice.type_in("\x1bd\x1bd so\r");
    alice
        .until(|tty| tty.says("│  so big") && !tty.says("send…"))
        .await;
    assert_eq!(stored(&carol, chat).await, [" so big"]);
}

#[tokio::test]
async fn p10_nothing_that_others_write_is_obeyed_by_the_terminal() {
    const EVIL: &str = "\u{1b}[2J\u{1b}]0;hacked\u{7}\u{9b}31m\u{1b}[?1049l\u{202e}\u{8}";
    let server = Server::start(&[]).await;
    let mallory = server.client("mallory").await;
    let chat = mallory.create(&["alice", "eve"]).await;
    mallory.send(chat, EVIL, "").await.unwrap();
    let mut alice = connect(&server, SIZE, &[&chat.to_string()]);
    let shown = r"\u{1b}[2J\u{1b}]0;hacked\u{7}";
    alice.until_row(shown).await;
    mallory
        .send(chat, &format!("{EVIL}again"), "")
        .await
        .unwrap();
    alice.until_row("again").await;
    alice.press(Keys::CONTROL_Q);
    alice.end().await;
    let raw = alice.raw();
    let evil = [
        "\u{1b}[2J\u{1b}]",
        "\u{1b}]0;",
        "hacked\u{7}",
        "\u{9b}",
        "\u{202e}",
        "\u{8}",
    ];
    for evil in evil {
        let found = raw.windows(evil.len()).any(|part| part == evil.as_bytes());
        assert!(!found, "{evil:?} has reached the terminal");
    }
    // The terminal is left once, at the end.
    let leave = b"\x1b[?1049l";
    let left = raw.windows(leave.len()).filter(|part| part == leave);
    assert_eq!(left.count(), 1);
}

#[tokio::test]
async fn the_terminal_is_given_back_by_a_signal_and_by_a_panic() {
    let server = Server::start(&[]).await;
    let (_, chat) = chat(&server).await;
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let mut alice = connect(&server, SIZE, &[&chat.to_string()]);
        alice.until_row("● live").await;
        assert!(alice.is_taken_over());
        alice.signal(signal);
        assert_eq!(alice.end().await.0, Some(0), "signal {signal}");
        assert!(!alice.is_taken_over(), "signal {signal}");
    }
    let test = "terminal::panics_on_the_full_screen";
    let mut tty = Tty::again(
        server.folder(),
        SIZE,
        &["--exact", test, "--ignored", "--nocapture"],
    );
    let (code, printed) = tty.end().await;
    assert_eq!(code, Some(101), "{printed}");
    assert!(printed.contains("on purpose"), "{printed}");
    assert!(!tty.is_taken_over());
    let entered = b"\x1b[?1049h";
    assert!(tty.raw().windows(entered.len()).any(|part| part == entered));
}

/// Not a test: what the one above starts.
#[test]
#[ignore = "takes over the terminal"]
fn panics_on_the_full_screen() {
    let _full = FullScreen::enter().unwrap();
    panic!("on purpose");
}

#[tokio::test]
async fn plain_lines_are_to_be_had_on_a_terminal_too() {
    let server = Server::start(&[]).await;
    let (carol, chat) = chat(&server).await;
    let chat_id = chat.to_string();
    for flags in [&["--plain"][..], &["--after-seq", "0"]] {
        let last = stored(&carol, chat).await.len();
        let mut alice = connect(&server, SIZE, &[&[&chat_id[..]], flags].concat());
        let sent = async {
            // It begins with what comes from now on: it may not be there yet.
            loop {
                carol.send(chat, "hello", "").await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                if alice.says("carol: hello") {
                    return;
                }
            }
        };
        soon("a line", sent).await;
        assert!(!alice.is_taken_over() && alice.says("Z  carol: hello"));
        alice.type_in("from a terminal\n");
        alice.until_row("alice: from a terminal").await;
        alice.signal(libc::SIGINT);
        assert_eq!(alice.end().await.0, None);
        assert!(stored(&carol, chat).await.len() > last);
    }
    // Without a chat there are no lines to be had.
    let mut alice = connect(&server, SIZE, &["--plain"]);
    let (code, printed) = alice.end().await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(
        printed.contains("chatd: CHAT: a chat id is needed"),
        "{printed}"
    );
}
