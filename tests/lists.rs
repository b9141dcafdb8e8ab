//! Pages of chats and of messages.

use std::collections::BTreeSet;

use chat_service::proto::{ListChatsRequest, ListMessagesRequest};
use prost::Message as _;
use tonic::Code;

use crate::server::{Client, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chats_come_newest_activity_first() {
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let bob = server.client("bob").await;
    let mut chats = Vec::new();
    for n in 0..7 {
        let with: &[&str] = if n == 3 { &[] } else { &["bob"] };
        chats.push(alice.create(with).await);
    }
    for at in [1, 5, 1, 0] {
        alice.send(chats[at], "x", "").await.unwrap();
    }
    let newest_first = [0, 1, 5, 6, 4, 3, 2].map(|at: usize| chats[at]);
    let bobs = [0, 1, 5, 6, 4, 2].map(|at: usize| chats[at]);
    assert_eq!(all(&alice, 0).await, newest_first);
    for size in [1, 2, 3, 6, 7, 1000] {
        assert_eq!(all(&alice, size).await, newest_first, "pages of {size}");
        assert_eq!(all(&bob, size).await, bobs, "pages of {size}");
    }
    let page = alice.chats(1, "").await.unwrap();
    let chat = &page.chats[0];
    assert_eq!((chat.last_seq, chat.created_by.as_str()), (1, "alice"));
    assert_eq!(chat.info.as_ref().unwrap().usernames, ["alice", "bob"]);

    // Chats that one has left, and those that are gone, are not listed.
    bob.remove(chats[5], &["bob"]).await.unwrap();
    alice.delete(chats[6]).await.unwrap();
    let bobs = [0, 1, 4, 2].map(|at: usize| chats[at]);
    assert_eq!(all(&bob, 3).await, bobs);
    server.kill9();
    server.restart().await;
    assert_eq!(all(&server.client("bob").await, 3).await, bobs);
    let stranger = server.client("stranger").await;
    assert!(all(&stranger, 0).await.is_empty());

    for (size, token) in [(1001, ""), (-1, ""), (0, "what"), (0, "1.1")] {
        let refused = stranger.chats(size, token).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

/// The caller's chats, over pages of a size.
async fn all(client: &Client, size: i32) -> Vec<i64> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let page = client.chats(size, &token).await.unwrap();
        assert!(size == 0 || page.chats.len() <= size as usize);
        all.extend(page.chats.iter().map(|chat| chat.id));
        token = page.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_in_pages_both_ways() {
    let server = Server::start(&["--ring", "16"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let page = async |before: Option<i64>, after: Option<i64>, size: i32| {
        let request = ListMessagesRequest {
            chat_id: chat,
            before_seq: before,
            after_seq: after,
            page_size: size,
            ..Default::default()
        };
        let page = alice.page(request).await?;
        let seqs: Vec<_> = page.messages.iter().map(|m| m.seq).collect();
        Ok::<_, tonic::Status>((seqs, page.has_more))
    };
    assert_eq!(page(None, None, 0).await.unwrap(), (vec![], false));
    for _ in 0..130 {
        alice.send(chat, "x", "").await.unwrap();
    }
    for (before, after, size, expected, has_more) in [
        (None, None, 0, 31..=130, true),
        (None, None, 1000, 1..=130, false),
        (None, None, 130, 1..=130, false),
        (None, None, 129, 2..=130, true),
        (Some(31), None, 10, 21..=30, true),
        (Some(11), None, 10, 1..=10, false),
        (Some(5), None, 10, 1..=4, false),
        (Some(i64::MAX), None, 1, 130..=130, true),
        (None, Some(0), 10, 1..=10, true),
        (None, Some(120), 10, 121..=130, false),
        (None, Some(119), 10, 120..=129, true),
        (None, Some(125), 10, 126..=130, false),
    ] {
        let found = page(before, after, size).await.unwrap();
        assert_eq!(
            found,
            (expected.collect(), has_more),
            "{before:?} {after:?} {size}"
        );
    }
    for (before, after) in [(Some(1), None), (None, Some(130)), (None, Some(i64::MAX))] {
        assert_eq!(page(before, after, 10).await.unwrap(), (vec![], false));
    }
    for (before, after, size) in [
        (Some(1), Some(1), 10),
        (Some(0), None, 10),
        (None, Some(-1), 10),
        (None, None, 1001),
        (None, None, -1),
    ] {
        let refused = page(before, after, size).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

/// A page of the longest messages is no larger than clients take by default,
/// and says that there is more.
#[tokio::test]
async fn p10_a_page_of_long_messages_ends_early() {
    let server = Server::start(&["--store", "memory"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let text = "\u{1F600}".repeat(4096);
    for _ in 0..300 {
        alice.send(chat, &text, "").await.unwrap();
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied().unwrap_or(0);
        let request = ListMessagesRequest {
            chat_id: chat,
            after_seq: Some(after),
            page_size: 1000,
            ..Default::default()
        };
        let page = alice.page(request).await.unwrap();
        assert!(page.messages.len() < 300 && !page.messages.is_empty());
        seen.extend(page.messages.iter().map(|message| message.seq));
        if !page.has_more {
            break;
        }
    }
    assert_eq!(seen, (1..=300).collect::<Vec<_>>());
}

/// While the list is read, chats that have not come yet become active and go to its
/// front, where the reader has been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_chat_gets_away_from_who_reads_the_list() {
    const CHATS: usize = 30;
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let mut left = BTreeSet::new();
    let mut chats = Vec::new();
    for _ in 0..CHATS {
        let chat = alice.create(&[]).await;
        chats.push(chat);
        left.insert(chat);
    }
    let (mut token, mut pages) = (String::new(), 0);
    loop {
        let page = alice.chats(4, &token).await.unwrap();
        for chat in page.chats {
            left.remove(&chat.id);
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        pages += 1;
        assert!(pages < 3 * CHATS, "the list has no end");
        // The oldest first: those are still to come.
        if let Some(chat) = chats.get(pages - 1) {
            alice.send(*chat, "x", "").await.unwrap();
        }
    }
    assert!(left.is_empty(), "{left:?} have not come");
}

/// Of large chats a page has some names, and ends before a client would refuse it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_large_chats_fits_into_an_answer() {
    const CHATS: usize = 40;
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let names: Vec<String> = (0..999).map(|n| format!("{n:0>64}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..CHATS {
        alice.create(&names).await;
    }
    let page = alice.chats(1000, "").await.unwrap();
    assert_eq!(
        (page.chats.len(), page.next_page_token.as_str()),
        (CHATS, "")
    );
    let chat = &page.chats[0];
    assert_eq!(
        (
            chat.member_count,
            chat.info.as_ref().unwrap().usernames.len()
        ),
        (1_000, 100)
    );
    let (mut token, mut listed) = (String::new(), 0);
    loop {
        let request = ListChatsRequest {
            page_size: 1_000,
            page_token: token,
            max_usernames: Some(1_000),
        };
        let page = alice
            .grpc
            .clone()
            .list_chats(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.encoded_len() < 1_100_000, "{}", page.encoded_len());
        assert!(
            page.chats
                .iter()
                .all(|chat| chat.info.as_ref().unwrap().usernames.len() == 1_000)
        );
        listed += page.chats.len();
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, CHATS);
}
