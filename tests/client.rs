//! The terminal client against a server that loses streams, refuses posts and
//! forgets to answer, as real ones do on bad days.

mod fake;

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    time::Duration,
};

use fake::{Fake, start};
use tokio::{io::AsyncWriteExt as _, process::Command};

async fn chatd(addr: SocketAddr, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(args)
        .args(["--addr", &addr.to_string(), "--config-path", ""])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).await.unwrap();
    drop(input);
    let done = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output());
    done.await.expect("the client ends").unwrap()
}

fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Reads the chat from its start and posts what is typed, to its end.
const CONNECT: [&str; 7] = [
    "connect",
    "7",
    "--as",
    "bob",
    "--after-seq",
    "0",
    "--exit-on-eof",
];

#[tokio::test]
async fn connect_resumes_and_posts_each_line_once() {
    let fake = Fake::default();
    let (addr, _tasks) = start(fake.clone()).await;
    let output = chatd(addr, &CONNECT, "one\r\ntwo\n\nbad\nthree\nfour").await;

    let printed = stdout(&output);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..2], ["1  -  bob: one", "2  -  bob: two"]);
    assert_eq!(lines.len(), 4, "{printed}");
    let state = fake.0.lock().unwrap();
    let mut texts: Vec<&str> = state.stored.iter().map(|m| m.text.as_str()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["four", "one", "three", "two"]);
    assert_eq!(state.joins, [0, 1]);

    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("going away; trying again in"), "{notes}");
    assert!(
        notes.contains("not posted (InvalidArgument A_REASON: why\\u{7}): bad"),
        "{notes}"
    );
}

#[tokio::test]
async fn p5_a_line_that_was_stored_long_before_is_not_posted_again() {
    let fake = Fake::default();
    let (addr, _tasks) = start(fake.clone()).await;
    let output = chatd(addr, &CONNECT, "late\nnext").await;
    let printed = stdout(&output);
    assert!(printed.ends_with("bob: next\n"), "{printed}");
    let state = fake.0.lock().unwrap();
    let texts = state.stored.iter().map(|m| m.text.as_str());
    let typed: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    assert_eq!(typed, ["late", "next"]);
}

#[tokio::test]
async fn connect_begins_with_what_comes_from_now_on() {
    let fake = Fake::with_messages(5);
    let (addr, _tasks) = start(fake.clone()).await;
    let output = chatd(
        addr,
        &["connect", "7", "--as", "bob", "--exit-on-eof"],
        "new\n",
    )
    .await;
    assert_eq!(stdout(&output), "6  -  bob: new\n");
    assert_eq!(fake.0.lock().unwrap().joins, [5]);
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_client_with_one_line() {
    let (addr, _tasks) = start(Fake::default()).await;
    let output = chatd(addr, &["connect", "8", "--as", "bob"], "").await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "chatd: PermissionDenied: not a member\\nof it\n"
    );
}

#[tokio::test]
async fn create_prints_the_id_alone() {
    let (addr, _tasks) = start(Fake::default()).await;
    let output = chatd(addr, &["create", "--as", "Zoë", "--with", "bob,carol"], "").await;
    assert_eq!(stdout(&output), "7\n");
}

#[tokio::test]
async fn send_repeats_itself_under_one_key() {
    let fake = Fake::default();
    let (addr, _tasks) = start(fake.clone()).await;
    let output = chatd(addr, &["send", "7", "hello", "--as", "bob"], "").await;
    assert_eq!(stdout(&output), "42\n");
    let sends = &fake.0.lock().unwrap().sends;
    assert_eq!(sends.len(), 2);
    assert!(sends[0].len() == 32 && sends[0] == sends[1], "{sends:?}");
}

#[tokio::test]
async fn history_goes_over_pages_in_both_directions() {
    let (addr, _tasks) = start(Fake::with_messages(250)).await;
    for (flags, expected) in [
        (&["--limit", "220"][..], 31..=250),
        (&["--limit", "1000"], 1..=250),
        (&["--before", "200", "--limit", "150"], 50..=199),
        (&["--after", "100", "--limit", "120"], 101..=220),
        (&["--after", "240"], 241..=250),
    ] {
        let args = [&["history", "7", "--as", "bob"], flags].concat();
        let printed = stdout(&chatd(addr, &args, "").await);
        let seqs: Vec<i64> = printed
            .lines()
            .map(|line| line.split_once(' ').unwrap().0.parse().unwrap())
            .collect();
        assert_eq!(seqs, expected.collect::<Vec<i64>>(), "{flags:?}");
    }
}
