//! `make screenshots`: the picture of the full screen in the README.

use std::{fmt::Write as _, path::Path, time::Duration};

use super::{Keys, connect};
use crate::{server::Server, web::browser::Browser};

const SIZE: (u16, u16) = (92, 21);

/// Pixels of a cell.
const CELL: (f64, u32) = (9.6, 22);

const TEXT: &str = "#c8d3f5";
const GROUND: &str = "#1e2030";
const DIM: &str = "#545c7e";
/// The sixteen colours of a terminal, as people choose them.
const PALETTE: [&str; 16] = [
    "#1b1d2b", "#ff757f", "#c3e88d", "#ffc777", "#82aaff", "#c099ff", "#86e1fc", "#c8d3f5",
    "#444a73", "#ff8d94", "#c7fb6d", "#ffd8ab", "#9ab8ff", "#caabff", "#b2ebff", "#ffffff",
];

const STYLE: &str = "
    body { margin: 0; background: transparent; font: 16px/22px 'DejaVu Sans Mono', monospace }
    #window { margin: 24px; border-radius: 10px; overflow: hidden; width: max-content;
        box-shadow: 0 8px 22px rgb(0 0 0 / 45%) }
    #bar { height: 34px; background: #2f334d; display: flex; align-items: center; gap: 8px;
        padding-left: 14px }
    #bar i { width: 12px; height: 12px; border-radius: 50% }
    #screen { position: relative; margin: 10px 12px }
    .v { border-left: 1px solid } .h { border-top: 1px solid }
    #screen span { position: absolute; height: 22px; white-space: pre; text-align: center }
";

fn colour(colour: vt100::Color, default: &str) -> String {
    match colour {
        vt100::Color::Default => default.into(),
        vt100::Color::Idx(at) => PALETTE[usize::from(at) % PALETTE.len()].into(),
        vt100::Color::Rgb(r, g, b) => format!("rgb({r} {g} {b})"),
    }
}

/// Lines are drawn: letters of them would not meet.
fn line_of(contents: &str, (x, y): (f64, f64)) -> Option<String> {
    let (width, height) = (CELL.0, f64::from(CELL.1));
    let (left, middle) = (x + (width / 2.0).floor(), y + height / 2.0);
    let line = |class: &str, x: f64, y: f64, width: f64, height: f64| {
        format!(
            "<span class={class} style='left:{x}px;top:{y}px;width:{width}px;height:{height}px;color:{DIM}'></span>"
        )
    };
    match contents {
        "│" => Some(line("v", left, y, 0.0, height)),
        "─" => Some(line("h", x, middle, width, 0.0)),
        "├" => {
            Some(line("v", left, y, 0.0, height) + &line("h", left, middle, x + width - left, 0.0))
        }
        _ => None,
    }
}

/// The screen as a page: each cell where it is on the terminal, so that no font
/// can move another.
fn page(screen: &vt100::Screen) -> String {
    let (width, height) = CELL;
    let mut cells = String::new();
    let at = |column: u16| f64::from(column) * width;
    for row in 0..SIZE.1 {
        for column in 0..SIZE.0 {
            let Some(cell) = screen.cell(row, column) else {
                continue;
            };
            if cell.is_wide_continuation() {
                continue;
            }
            let mut front = colour(cell.fgcolor(), TEXT);
            let mut back = colour(cell.bgcolor(), GROUND);
            if cell.inverse() {
                // A bar in letters of full strength would shout.
                (front, back) = match cell.fgcolor() {
                    vt100::Color::Default => (TEXT.into(), PALETTE[8].into()),
                    _ => (front, PALETTE[8].into()),
                };
            }
            let wide = if cell.is_wide() { 2.0 } else { 1.0 };
            let (x, y) = (at(column), u32::from(row) * height);
            let contents = cell.contents().replace('&', "&amp;").replace('<', "&lt;");
            if contents.trim().is_empty() && back == GROUND {
                continue;
            }
            if let Some(line) = line_of(cell.contents(), (x, f64::from(y))) {
                write!(cells, "{line}").unwrap();
                continue;
            }
            let weight = if cell.bold() { ";font-weight:bold" } else { "" };
            let (dim, own) = if cell.dim() {
                (";opacity:.5", "")
            } else {
                ("", &back[..])
            };
            write!(
                cells,
                "<span style='left:{x}px;top:{y}px;width:{}px;color:{front};background:{own}{weight}{dim}'>{contents}</span>",
                wide * width
            )
            .unwrap();
        }
    }
    let (row, column) = screen.cursor_position();
    if !screen.hide_cursor() {
        let (x, y) = (at(column), u32::from(row) * height);
        write!(
            cells,
            "<span style='left:{x}px;top:{y}px;width:{width}px;background:{TEXT};opacity:.8'></span>"
        )
        .unwrap();
    }
    let (wide, tall) = (at(SIZE.0), u32::from(SIZE.1) * height);
    let lights =
        ["#ff757f", "#ffc777", "#c3e88d"].map(|c| format!("<i style='background:{c}'></i>"));
    format!(
        "<!doctype html><meta charset=utf-8><style>{STYLE}</style>\
         <div id=window style='background:{GROUND}'><div id=bar>{}</div>\
         <div id=screen style='width:{wide}px;height:{tall}px'>{cells}</div></div>",
        lights.concat()
    )
}

#[tokio::test]
#[ignore = "writes into docs/"]
async fn screenshots_of_the_terminal() {
    let mut server = Server::start(&[]).await;
    let bob = server.client("bob").await;
    let carol = server.client("carol").await;
    let dave = server.client("dave").await;
    let alice = server.client("alice").await;
    dave.create(&["alice"]).await;
    let lunch = carol
        .create(&["alice", "dave", "erin", "frank", "grace"])
        .await;
    for text in ["Lunch?", "At one, the usual place."] {
        carol.send(lunch, text, "").await.unwrap();
    }
    let chat = bob.create(&["alice", "carol"]).await;
    for (who, text) in [
        (
            &bob,
            "The deploy is through. I restarted the server in the middle of it, sorry!",
        ),
        (&carol, "Did you? I saw nothing of it."),
        (
            &alice,
            "Mine said “reconnecting in 1 s” for a moment, and then went on where it was.",
        ),
        (&carol, "And what I typed meanwhile?"),
        (&alice, "It was sent once it was back. Once."),
        (
            &bob,
            "Then I’ll do it again tomorrow. Привет and χαῖρε to the night shift!",
        ),
    ] {
        who.send(chat, text, "").await.unwrap();
    }
    let tty = connect(&server, SIZE, &[&chat.to_string()]);
    tty.until_row("night shift").await;
    dave.send(1, "Got a minute?", "").await.unwrap();
    tty.until(|tty| tty.rows()[1].starts_with("• dave")).await;
    server.kill9();
    tty.until_row("reconnecting").await;
    tty.type_in("Please do. I am typing this while it is down:\r");
    tty.until_row("wait…").await;
    tty.type_in("what is not stored yet says so");
    tty.until_row("says so").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let screen = tty.screen();

    let browser = Browser::start();
    let path = server.folder().join("terminal.html");
    std::fs::write(&path, page(&screen)).unwrap();
    let page = browser.open(&format!("file://{}", path.display())).await;
    let width = f64::from(SIZE.0) * CELL.0 + 72.0;
    let height = u32::from(SIZE.1) * CELL.1 + 54 + 48;
    page.look(width as u32, height, true).await;
    page.transparent().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    page.shot(&folder.join("terminal.png")).await;
    tty.press(Keys::CONTROL_C);
    tty.press(Keys::CONTROL_C);
}
