//! The chat page in a real browser.

use std::{net::TcpListener, path::Path};

use serde_json::{Value, json};

use super::browser::{Browser, Page};
use crate::{
    examples::{self, Example},
    server::{Client, Server},
};

const N: i32 = 78;
const M: i32 = 77;
const DOWN: i32 = 40;

/// A server whose page has the same origin after a restart.
async fn server() -> (Server, String) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let server = Server::start(&["--http-port", &port]).await;
    let url = format!("http://{}/chat", server.http_address());
    (server, url)
}

async fn sign_in<'a>(browser: &'a Browser, url: &str, name: &str) -> Page<'a> {
    let page = browser.open(url).await;
    page.until("document.activeElement?.id === 'name'").await;
    page.insert(name).await;
    page.enter().await;
    page.until("document.querySelector('#chats')").await;
    page
}

/// Opens the first chat of the list, by keyboard.
async fn open_first(page: &Page<'_>) {
    page.until("document.querySelector('.chat')").await;
    page.alt("ArrowDown", DOWN).await;
    page.until(&in_state("live")).await;
}

fn in_state(state: &str) -> String {
    format!("document.querySelector('#state')?.dataset.state === '{state}'")
}

async fn say(page: &Page<'_>, text: &str) {
    page.until("document.activeElement?.id === 'field'").await;
    page.insert(text).await;
    page.enter().await;
}

const ROWS: &str = "[...document.querySelectorAll('[data-seq]')]\
    .map(row => [Number(row.dataset.seq), row.querySelector('.text').textContent])";
const PENDING: &str = "document.querySelectorAll('.row[data-state]').length";

/// What the page shows is the chat, from its first message to its last.
async fn shows(page: &Page<'_>, history: &Value) {
    let count = history.as_array().unwrap().len();
    page.until(&format!("{ROWS}.length >= {count} && {PENDING} === 0"))
        .await;
    assert_eq!(page.eval(ROWS).await, *history);
}

async fn history(client: &Client, chat: i64) -> Value {
    let all = client.history(chat).await;
    let rows = all.iter().map(|message| json!([message.seq, message.text]));
    rows.collect()
}

#[tokio::test]
async fn p4_two_pages_and_a_client_agree_across_a_kill() {
    let (mut server, url) = server().await;
    let browser = Browser::start();
    let carol = server.client("carol").await;
    let chat = carol.create(&["alice", "bob", "dave"]).await;
    carol.send(chat, "welcome", "").await.unwrap();
    // A client in another language, where there is one.
    let address = server.address().to_string();
    let dave = examples::python().or_else(examples::go);
    let mut dave = dave.map(|command| Example::start(command, &address, chat, "dave"));
    if let Some(dave) = &mut dave {
        dave.until("carol: welcome").await;
    }
    let alice = sign_in(&browser, &url, "alice").await;
    let bob = sign_in(&browser, &url, "bob").await;
    alice
        .until("document.querySelector('.unread')?.textContent === '1'")
        .await;
    for page in [&alice, &bob] {
        open_first(page).await;
        page.until("!document.querySelector('.unread')").await;
    }

    // All at once: everybody sees the same order (P2).
    let pages = async {
        for n in 1..=3 {
            say(&alice, &format!("alice {n}")).await;
            say(&bob, &format!("bob {n}")).await;
        }
    };
    let client = async {
        for n in 1..=3 {
            carol.send(chat, &format!("carol {n}"), "").await.unwrap();
        }
    };
    let example = async {
        if let Some(dave) = &mut dave {
            dave.type_in("dave 1\ndave 2\n").await;
            dave.until("dave: dave 2").await;
        }
    };
    tokio::join!(pages, client, example);
    let others = if dave.is_some() { 2 } else { 0 };
    let count = 10 + others;
    bob.until(&format!("{ROWS}.length === {count}")).await;
    let so_far = history(&carol, chat).await;
    for page in [&alice, &bob] {
        shows(page, &so_far).await;
    }

    // The server is killed; what is typed meanwhile waits.
    server.kill9();
    for (page, text) in [(&alice, "alice, while it is down"), (&bob, "bob, as well")] {
        page.until(&in_state("reconnecting")).await;
        say(page, text).await;
        page.until("document.querySelector('.row[data-state=waiting]')")
            .await;
    }
    let mut expected = vec!["alice, while it is down", "bob, as well"];
    if let Some(dave) = &mut dave {
        assert!(dave.complaint().await.starts_with("reconnecting:"));
        dave.type_in("dave, too\n").await;
        expected.push("dave, too");
    }
    server.restart_here().await;
    for page in [&alice, &bob] {
        page.until(&in_state("live")).await;
    }
    let carol = server.client("carol").await;
    let (_, mut frames) = carol.open(chat, Some(count)).await;
    let mut texts = Vec::new();
    for _ in &expected {
        texts.push(frames.next().await.unwrap().text);
    }
    texts.sort();
    assert_eq!(texts, expected);
    carol.send(chat, "after", "").await.unwrap();
    let all = history(&carol, chat).await;
    let rows = all.as_array().unwrap();
    assert_eq!(
        rows.len() as i64,
        count + expected.len() as i64 + 1,
        "sent once each"
    );
    for page in [&alice, &bob] {
        shows(page, &all).await;
    }
    if let Some(mut dave) = dave {
        dave.until("carol: after").await;
        let printed = dave.end("carol: after").await;
        let seq_and_text = |line: &String| {
            let (seq, rest) = line.split_once(' ').unwrap();
            json!([
                seq.parse::<i64>().unwrap(),
                rest.split_once(": ").unwrap().1
            ])
        };
        assert_eq!(printed.iter().map(seq_and_text).collect::<Value>(), all);
    }
}

#[tokio::test]
async fn p10_text_and_names_are_text_whatever_they_look_like() {
    const EVIL: &str = "<img src=x onerror=\"hacked=1\"><script>hacked=1</script>&lt;b&gt;";
    const NAME: &str = "<svg onload=hacked=1>";
    let (server, url) = server().await;
    let browser = Browser::start();
    let page = sign_in(&browser, &url, "alice").await;

    // A chat made, read and changed by keyboard alone.
    page.until("document.querySelector('#chats .hint')").await;
    page.alt("KeyN", N).await;
    page.until("document.activeElement?.id === 'with'").await;
    page.insert(&format!("{NAME}, dave")).await;
    page.enter().await;
    page.until(&in_state("live")).await;
    say(&page, EVIL).await;
    shows(&page, &json!([[1, EVIL]])).await;
    let mallory = server.client(NAME).await;
    mallory.send(1, EVIL, "").await.unwrap();
    shows(&page, &json!([[1, EVIL], [2, EVIL]])).await;
    page.until("document.querySelectorAll('.head b').length === 2")
        .await;
    let heads = "[...document.querySelectorAll('.head b')].map(b => b.textContent)";
    assert_eq!(page.eval(heads).await, json!(["alice", NAME]));
    let title = page
        .eval("document.querySelector('main h1').textContent")
        .await;
    // Each name is isolated from those beside it.
    assert_eq!(
        title,
        format!("\u{2068}{NAME}\u{2069}, \u{2068}dave\u{2069}")
    );
    let made = "document.querySelectorAll('img, svg, script:not([src]), .row b b').length";
    assert_eq!(page.eval(made).await, 0);
    assert_eq!(page.eval("typeof hacked").await, "undefined");
    // Even a mistake in the page could not make markup of a string, nor run one.
    for way in ["document.body.innerHTML = '<b>'", "document.write('<b>')"] {
        let refused = format!("(() => {{ try {{ {way} }} catch (e) {{ return e.name }} }})()");
        assert_eq!(page.eval(&refused).await, "TypeError", "{way}");
    }

    // Members go, and so does the chat.
    page.alt("KeyM", M).await;
    page.click("[aria-label='remove dave']").await;
    page.until("document.querySelectorAll('.people li').length === 2")
        .await;
    page.eval("document.querySelector('.add input').focus()")
        .await;
    page.insert("erin").await;
    page.enter().await;
    page.until("document.querySelectorAll('.people li').length === 3")
        .await;
    let members = mallory.get(1).await.unwrap().info.unwrap().usernames;
    assert_eq!(members, ["alice", NAME, "erin"]);
    let erin = sign_in(&browser, &url, "erin").await;
    open_first(&erin).await;
    page.click("#delete").await;
    page.click("#delete").await;
    page.until("document.querySelector('#chats .hint')").await;
    erin.until(&in_state("ended")).await;
    erin.until("document.querySelector('#chats .hint')").await;

    // Leaving needs nobody's leave.
    mallory.create(&["erin"]).await;
    erin.click(".chat").await;
    erin.until(&in_state("live")).await;
    erin.click("#members").await;
    erin.click("#leave").await;
    erin.until("document.querySelector('#chats .hint')").await;
    assert_eq!(
        mallory.get(2).await.unwrap().info.unwrap().usernames,
        [NAME]
    );
}

/// Goes to the oldest loaded message, again and again; what is in sight then
/// stays where it is while older ones come in above. The worst move in pixels.
const CLIMB: &str = "(async () => {
    const log = document.querySelector('#log');
    const top = () => log.getBoundingClientRect().top;
    const frame = () => new Promise(requestAnimationFrame);
    const first = () => [...log.querySelectorAll('[data-seq]')]
        .find(row => row.getBoundingClientRect().bottom > top() + 1);
    let worst = 0, most = 0;
    for (let turn = 0; turn < 500; turn++) {
        const height = log.scrollHeight;
        log.scrollTop = 0;
        await frame();
        const row = first(), seq = row.dataset.seq;
        if (seq === '1') return { worst, most };
        const text = () => log.querySelector(`[data-seq='${seq}'] .text`).getBoundingClientRect().top;
        const was = text();
        for (let wait = 0; wait < 600 && log.scrollHeight === height; wait++) await frame();
        await frame();
        worst = Math.max(worst, Math.abs(text() - was));
        most = Math.max(most, log.querySelectorAll('.row').length);
    }
    throw new Error('the first message never came');
})()";

#[tokio::test]
async fn ten_thousand_messages_scroll_without_a_jump() {
    const COUNT: usize = 10_000;
    let (server, url) = server().await;
    let browser = Browser::start();
    let bob = server.client("bob").await;
    let chat = bob.create(&["alice"]).await;
    for from in (1..=COUNT).step_by(1_000) {
        let sends = (from..from + 1_000).map(|n| {
            let text = format!("{n}: {}", "many words ".repeat(n * 7 % 40));
            let bob = bob.clone();
            async move { bob.send(chat, &text, "").await }
        });
        let sent = futures_util::future::join_all(sends).await;
        assert!(sent.iter().all(Result::is_ok));
    }
    let page = sign_in(&browser, &url, "alice").await;
    page.until("document.querySelector('.unread')?.textContent === '99+'")
        .await;
    // As on a phone, in the dark.
    page.look(390, 800, true).await;
    page.click(".chat").await;
    page.until(&in_state("live")).await;
    page.until(&format!("document.querySelector('[data-seq=\"{COUNT}\"]')"))
        .await;
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(page.eval(fits).await, true);
    let climb = page.eval(CLIMB).await;
    assert!(climb["worst"].as_f64().unwrap() <= 2.0, "{climb}");
    assert!(climb["most"].as_f64().unwrap() <= 150.0, "{climb}");

    // Reading above, a new message neither moves anything nor is missed.
    let place = "document.querySelector('#log').scrollTop";
    let was = page.eval(place).await;
    bob.send(chat, "new", "").await.unwrap();
    page.until("!document.querySelector('#newer').hidden").await;
    assert_eq!(page.eval(place).await, was);
    page.click("#newer").await;
    page.until(&format!(
        "document.querySelector('[data-seq=\"{}\"]')",
        COUNT + 1
    ))
    .await;
}

/// `make screenshots`: the pictures of the README.
#[tokio::test]
#[ignore = "writes into docs/"]
async fn screenshots() {
    let (server, url) = server().await;
    let browser = Browser::start();
    let bob = server.client("bob").await;
    let carol = server.client("carol").await;
    bob.create(&["alice", "dave"]).await;
    carol
        .send(carol.create(&["alice"]).await, "Lunch?", "")
        .await
        .unwrap();
    let chat = bob.create(&["alice", "carol"]).await;
    let alice = server.client("alice").await;
    for (who, text) in [
        (
            &bob,
            "The deploy is through. I restarted the server in the middle of it, sorry!",
        ),
        (&carol, "Did you? I saw nothing of it."),
        (
            &alice,
            "Mine said “reconnecting …” for a moment, and then went on where it was.",
        ),
        (&carol, "And what I typed meanwhile?"),
        (&alice, "It was sent once it was back. Once."),
        (
            &bob,
            "Then I’ll do it again tomorrow. שלום and χαῖρε to the night shift!",
        ),
    ] {
        who.send(chat, text, "").await.unwrap();
    }
    let page = sign_in(&browser, &url, "alice").await;
    open_first(&page).await;
    page.until(&format!("{ROWS}.length === 6")).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, width, height, dark) in [
        ("chat-light", 900, 620, false),
        ("chat-dark", 900, 620, true),
        ("chat-phone", 390, 700, false),
    ] {
        page.look(width, height, dark).await;
        // Two frames: the new size, and the list that has noticed it.
        page.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            .await;
        page.shot(&folder.join(format!("{name}.png"))).await;
    }
}
