//! Chats come and go; what they took comes back.

use std::time::Duration;

use chat_service::proto;
use tokio::task::JoinSet;

use crate::{
    hostile::raw::{Connection, HEADERS, hello, message, open},
    ops::{get, value},
    server::{Client, Server, soon},
};

const CHATS: usize = 10_000;
const AT_ONCE: usize = 64;
/// Long enough to activate all chats before the first is let go.
const IDLE: Duration = Duration::from_secs(3);
/// For the last of them to go, and their memory after them.
const SETTLE: Duration = Duration::from_millis(2_500);
const ROUNDS: usize = 6;

/// 10,000 chats with messages are activated by a call on each, and let go,
/// again and again. Measured is the anonymous memory (RssAnon) of a server that
/// was restarted on the data: its log is then empty and SQLite reads through
/// the memory map, so that its cache does not count as the chats'. The start is
/// an idle server that has done all this before, twice: its maps and its
/// allocator's pages have been in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_memory_of_10_000_chats_comes_back() {
    let mut server = Server::start(&["--chat-idle", "3s"]).await;
    let text = "x".repeat(200);
    let alice = server.client("alice").await;
    let chats = each(&alice, vec![0; CHATS], move |client, _| {
        let text = text.clone();
        async move {
            let chat = client.create(&["bob", "carol", "dave"]).await;
            client.send(chat, &text, "k").await.unwrap();
            client.send(chat, &text, "l").await.unwrap();
            chat
        }
    });
    let chats = chats.await;
    assert_eq!(server.terminate().await, Some(0));
    server.restart().await;
    // When the chats were active is still to be written, which fills the cache of the
    // connection that writes.
    let file = rusqlite::Connection::open(server.folder().join("data/chat.db")).unwrap();
    let named = "SELECT count(*) FROM active_chats";
    let written = async {
        while file
            .query_row(named, [], |row| row.get::<_, i64>(0))
            .unwrap()
            > 0
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written)
        .await
        .unwrap();
    drop(file);

    let alice = server.client("alice").await;
    let mut active = Vec::new();
    let mut idle = Vec::new();
    for _ in 0..ROUNDS {
        each(&alice, chats.clone(), |client, chat| async move {
            assert_eq!(client.get(chat).await.unwrap().last_seq, 2);
            chat
        })
        .await;
        active.push(server.memory_kb());
        tokio::time::sleep(IDLE + SETTLE).await;
        idle.push(server.memory_kb());
    }
    eprintln!("active {active:?} kB, let go {idle:?} kB");
    let start = idle[..2].iter().max().unwrap();
    let end = idle[2..].iter().max().unwrap();
    let bound = start + start / 10;
    assert!(*end <= bound, "P6: from {start} kB to {end} kB");
    // They were in memory, and most of it was theirs.
    let peak = active.iter().max().unwrap();
    assert!(end * 3 < *peak, "P6: {peak} kB, then {end} kB");
}

/// 64 KiB in each of so many chats.
const LARGE_CHATS: usize = 4_000;
const LARGE_MESSAGES: i64 = 4;
const BUDGET_KB: u64 = 64 * 1024;
/// What connections, the store and the allocator need besides.
const OTHER_KB: u64 = 96 * 1024;

/// All of it was used a moment ago, so that no chat leaves memory for being idle:
/// without a budget it would be all there, 256 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_p6_many_large_chats_keep_to_the_budget() {
    let chats = std::env::var("MEMORY_CHATS").map_or(LARGE_CHATS, |n| n.parse().unwrap());
    let server = Server::start(&["--memory", "64MiB"]).await;
    let alice = server.client("alice").await;
    let before = server.memory_kb();
    let chats = each(&alice, vec![0; chats], |client, _| async move {
        client.create(&[]).await
    });
    let chats = chats.await;
    // They do not read yet.
    let mut readers = Vec::new();
    for chat in &chats[..20] {
        readers.push(alice.read(*chat, Some(0)).await);
    }
    // Four bytes a character.
    let text = "\u{1f980}".repeat(4_096);
    let mut most = 0;
    for _ in 0..LARGE_MESSAGES {
        let text = text.clone();
        each(&alice, chats.clone(), move |client, chat| {
            let text = text.clone();
            async move { client.send(chat, &text, "").await.map(|_| chat).unwrap() }
        })
        .await;
        most = most.max(server.memory_kb());
    }
    let metrics = get(server.http_address(), "/metrics").await.1;
    let metric = |name| value(&metrics, name) as u64;
    let held = metric("chat_memory_held_bytes");
    let cut = metric("chat_rings_cut_total");
    eprintln!("{before} kB, then {most} kB at most, {held} bytes held, {cut} rings cut");
    assert_eq!(metric("chat_memory_budget_bytes"), BUDGET_KB * 1024);
    assert!(held <= BUDGET_KB * 1024 && cut > 100, "P6: {held}, {cut}");
    assert!(most - before < BUDGET_KB + OTHER_KB, "P6: {most} kB");
    for mut reader in readers {
        for seq in 1..=LARGE_MESSAGES {
            assert_eq!(reader.expect(seq).await.text, text, "P4");
        }
    }
}

/// Does something with each chat, some at once.
async fn each<F: Future<Output = i64> + Send + 'static>(
    client: &Client,
    chats: Vec<i64>,
    act: impl Fn(Client, i64) -> F,
) -> Vec<i64> {
    let mut tasks = JoinSet::new();
    let mut done = Vec::with_capacity(chats.len());
    for chat in chats {
        if tasks.len() == AT_ONCE {
            done.push(soon("a call", tasks.join_next()).await.unwrap().unwrap());
        }
        tasks.spawn(act(client.clone(), chat));
    }
    done.extend(soon("the last calls", tasks.join_all()).await);
    done
}

/// What a connection's table of headers remembers is taken from memory for as long
/// as it is open: half a kilobyte of a reader alone on it, and the request ids of
/// all streams that there were.
#[tokio::test]
async fn p6_a_stream_leaves_nothing_in_its_connections_table_of_headers() {
    let server = Server::start(&[]).await;
    let chat = server.client("alice").await.create(&[]).await;
    let mut connection = Connection::open(server.address(), 1).await.unwrap();
    let join = proto::ConnectChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    let opened = open(1, "ConnectChat", "alice");
    let said = [hello(), opened, message(1, 0, &join)].concat();
    connection.say(&said).await.unwrap();
    let headers = connection.hear_of(HEADERS).await.unwrap().payload;
    // ":status: 200" is the eighth of HPACK's own.
    let (status, mut rest) = headers.split_first().unwrap();
    assert_eq!(*status, 0x88);
    // What is not to be remembered begins with 0001 and the number of its name,
    // none if it is spelt out; neither name nor value has 127 bytes here.
    // They are content-type, grpc-accept-encoding and x-request-id.
    let mut names = 0;
    while let Some((first, behind)) = rest.split_first() {
        assert_eq!(first >> 4, 0b0001, "{headers:x?}");
        let (more, texts) = match first & 0b1111 {
            0 => (0, 2),
            0b1111 => (1, 1),
            _ => (0, 1),
        };
        rest = &behind[more..];
        for _ in 0..texts {
            let (length, text) = rest.split_first().unwrap();
            rest = &text[usize::from(length & 0x7f)..];
        }
        names += 1;
    }
    assert_eq!(names, 3, "{headers:x?}");
}
