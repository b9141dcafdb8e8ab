use std::time::Instant;

use super::{count, seeded, server::Chatd};
use crate::pg::{Pg, fresh_database_on, sql};

const MEMBER: &str = "ann";
const SMALL: i64 = 50;

/// Prints how long a page of 100 takes anywhere in a table of ten million
/// messages, half of them in one chat.
///
///     cargo test --release --test promises ten_million -- --ignored --nocapture
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and gigabytes; run by hand"]
async fn a_page_anywhere_in_ten_million_messages() {
    let rows = count("FAULT_HISTORY_ROWS", 10_000_000) as i64;
    let mut random = seeded("history");
    let pg = tokio::task::block_in_place(|| {
        Pg::start_with(&["max_wal_size=16GB", "shared_buffers=256MB"], |_| {})
    });
    let dsn = fresh_database_on(&pg).await;
    let chatd = Chatd::start(&dsn, &[]);
    let mut ann = chatd.peer(MEMBER);
    // The first has half of all, the others share the rest.
    let mut chats = vec![(ann.create(&[]).await, rows / 2)];
    for _ in 0..SMALL {
        chats.push((ann.create(&[]).await, rows / 2 / SMALL));
    }
    let start = Instant::now();
    for (chat, messages) in &chats {
        sql(
            &dsn,
            &format!(
                "INSERT INTO messages SELECT {chat}, n, n, '{MEMBER}',
                        'a message of about the length that messages have, and a little more', NULL, n
                   FROM generate_series(1, {messages}) n"
            ),
        )
        .await;
    }
    println!("{rows} rows in {:?}", start.elapsed());
    // Neither VACUUM nor ANALYZE: the worst that a running table is in.
    for (what, huge) in [("the chat of half of all", true), ("any other chat", false)] {
        let mut times = Vec::new();
        for _ in 0..3_000 {
            let (chat, messages) = if huge {
                chats[0]
            } else {
                chats[random.usize(1..chats.len())]
            };
            let after = random.i64(0..messages - 100);
            let start = Instant::now();
            let page = ann.page(chat, after, 100).await.unwrap();
            times.push(start.elapsed());
            let seqs = page.messages.iter().map(|message| message.seq);
            assert!(seqs.eq(after + 1..=after + 100));
        }
        times.sort();
        let at = |of: usize| times[times.len() * of / 1_000];
        println!(
            "page of 100 at random places of {what}: p50 {:?} p99 {:?} p99.9 {:?}",
            at(500),
            at(990),
            at(999)
        );
    }
}
