//! What is asked too much.

use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::servers;
use crate::server::{Client, Server, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_p10_ten_thousand_reactions_to_one_message_are_bounded_and_answered() {
    const USERS: usize = 500;
    for server in servers(&["--max-reactions", "300"]).await {
        let alice = server.client("alice").await;
        let names: Vec<String> = (0..USERS).map(|n| format!("user{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let chat = alice.create(&names).await;
        alice.send(chat, "one", "").await.unwrap();
        let channel = server.connect().await;
        let mut users = JoinSet::new();
        for name in &names {
            let user = Client::new(channel.clone(), name);
            users.spawn(async move {
                let mut outcomes = [0, 0, 0];
                for n in 0..20 {
                    let emoji = ["👍", "-👍"][n % 2];
                    match user.react(chat, 1, emoji).await {
                        Ok(_) => outcomes[0] += 1,
                        Err(status) if status.code() == Code::FailedPrecondition => {
                            outcomes[1] += 1;
                        }
                        Err(status) if status.code() == Code::NotFound => outcomes[2] += 1,
                        Err(status) => panic!("{status:?}"),
                    }
                }
                outcomes
            });
        }
        let outcomes = soon("all reactions", users.join_all()).await;
        let of = |at: usize| outcomes.iter().map(|one| one[at]).sum::<usize>();
        assert_eq!(of(0) + of(1) + of(2), 20 * USERS);
        assert!((300..=600).contains(&of(0)), "{}", of(0));
        // Others of the chat go on as if nothing had been.
        alice.send(chat, "two", "").await.unwrap();
        let page = alice.history(chat).await;
        let counted = page[0].reactions.iter().map(|one| one.count).sum::<i32>();
        assert!(counted <= 300);
        assert!(alice.log(chat).await.len() <= 602);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_nobody_uses_up_the_reactions_of_others() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let bob = server.client("bob").await;
    let chat = alice.create(&["bob"]).await;
    alice.send(chat, "one", "").await.unwrap();
    // Fifty times on, and each time off again.
    for n in 0..100 {
        bob.react(chat, 1, ["👍", "-👍"][n % 2]).await.unwrap();
    }
    let status = bob.react(chat, 1, "👍").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_REACTIONS");
    alice.react(chat, 1, "👍").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_what_is_no_emoji_is_refused_by_its_field() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "one", "").await.unwrap();
    let long = format!("👍{}", "\u{200d}👍".repeat(20));
    for emoji in ["", "👍👍", "ok", "\u{200b}", "a\0", "\u{301}", &long] {
        let status = alice.react(chat, 1, emoji).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{emoji:?}");
        let details = status.get_error_details();
        let field = &details.bad_request().unwrap().field_violations[0].field;
        assert_eq!(field, "emoji", "{emoji:?}");
    }
    for emoji in ["👍", "❤\u{fe0f}", "🇩🇪", "👨‍👩‍👧"] {
        alice.react(chat, 1, emoji).await.unwrap();
    }
    let again = alice.react(chat, 1, "👍").await.unwrap();
    assert_eq!((again.seq, again.duplicate), (2, true), "it stands already");
    let none = alice.react(chat, 1, "-🦀").await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);
    let counted = alice.history(chat).await[0].reactions.len();
    assert_eq!(counted, 4);
    // A text is checked as that of a message.
    for text in ["", " ", "a\0b", &"x".repeat(5_000)] {
        let status = alice.edit(chat, 1, text).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "text"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_message_is_edited_so_often_and_no_more() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "one", "").await.unwrap();
    let mut edits = JoinSet::new();
    for n in 0..1_100 {
        let alice = alice.clone();
        edits.spawn(async move { alice.edit(chat, 1, &format!("edit {n}")).await });
    }
    let edits = soon("all edits", edits.join_all()).await;
    let refused: Vec<_> = edits.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 100);
    for status in refused {
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_EDITS");
    }
    let page = alice.history(chat).await;
    assert!(page.len() == 1 && page[0].text.starts_with("edit "));
    alice.delete_message(chat, 1).await.unwrap();
    let log = alice.log(chat).await;
    assert_eq!(log.len(), 1_002);
    assert!(
        log.iter()
            .all(|entry| !super::said(entry).contains("edit 7")),
        "P12"
    );
}
