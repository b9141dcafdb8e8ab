//! P1: the database's files are moved away, removed or replaced under a server. And
//! what a deleted chat leaves in them.

use std::{collections::HashSet, fs, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{
    ops::get,
    server::{Server, assert_dense, chance, soon},
};

/// Takes something of the database away, and puts it back.
type Step = fn(&Path);

fn rename(folder: &Path, from: &str, to: &str) {
    fs::rename(folder.join(from), folder.join(to)).unwrap();
}

const WAYS: [(&str, Step, Step); 4] = [
    (
        "the file is elsewhere",
        |folder| rename(folder, "data/chat.db", "data/old.db"),
        |folder| rename(folder, "data/old.db", "data/chat.db"),
    ),
    (
        "the folder is elsewhere",
        |folder| rename(folder, "data", "old"),
        |folder| rename(folder, "old", "data"),
    ),
    (
        "the log, which has the newest messages, is elsewhere",
        |folder| rename(folder, "data/chat.db-wal", "data/old.db-wal"),
        |folder| rename(folder, "data/old.db-wal", "data/chat.db-wal"),
    ),
    (
        "a copy is in its place",
        |folder| {
            rename(folder, "data/chat.db", "data/old.db");
            fs::copy(folder.join("data/old.db"), folder.join("data/chat.db")).unwrap();
        },
        |folder| rename(folder, "data/old.db", "data/chat.db"),
    ),
];

/// What would be lost at the next start is not acknowledged, and it is said why;
/// what waits is stored once the file is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_nothing_is_acknowledged_into_a_file_that_is_gone() {
    for (way, take, put_back) in WAYS {
        let options = ["--send-timeout", "1s", "--http-port", "0"];
        let mut server = Server::start(&options).await;
        let http = server.http_address();
        let alice = server.client("alice").await;
        let chat = alice.create(&[]).await;
        alice.send(chat, "1", "a").await.unwrap();
        assert_eq!(get(http, "/ready").await.0, 200, "{way}");

        take(server.folder());
        let refused = alice.send(chat, "2", "b").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{way}: {refused:?}");
        let refused = alice.try_create(&[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{way}: {refused:?}");
        let not_ready = async {
            while get(http, "/ready").await.0 != 503 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        soon("not ready", not_ready).await;
        let said = "is not the file any more that the server has opened";
        assert!(server.log().contains(said), "{way}: {}", server.log());

        put_back(server.folder());
        let ready = async {
            while get(http, "/ready").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        soon("ready", ready).await;
        let sent = alice.send(chat, "2", "b").await.unwrap();
        assert_eq!(sent.seq, 2, "{way}");
        assert_eq!(alice.send(chat, "3", "").await.unwrap().seq, 3, "{way}");
        server.kill9();
        server.restart().await;
        let history = server.client("alice").await.history(chat).await;
        assert_eq!(history.len(), 3, "{way}");
        assert_dense(&history, 1);
    }
}

const CHATS: usize = 30;
const MESSAGES: usize = 400;
/// In front of what tells one text from all others.
const MARK: &str = "text-";
const DIGITS: usize = 16;

/// The texts of which the files of a store have something.
fn texts_in(folder: &Path) -> HashSet<String> {
    let mut found = HashSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let starts = bytes.windows(MARK.len()).enumerate();
        let starts = starts.filter(|(_, window)| *window == MARK.as_bytes());
        for (at, _) in starts {
            let start = at + MARK.len();
            if let Some(digits) = bytes.get(start..start + DIGITS) {
                found.insert(String::from_utf8_lossy(digits).into_owned());
            }
        }
    }
    found
}

/// Chats that were written at the same time share pages, from which SQLite takes the
/// deleted ones' rows while it moves the others'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_deleted_chat_is_left_in_the_files() {
    let mut rng = chance();
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let mut senders = JoinSet::new();
    for _ in 0..CHATS {
        let chat = alice.create(&[]).await;
        let mut rng = rng.fork();
        let alice = alice.clone();
        senders.spawn(async move {
            let mut texts = Vec::new();
            for n in 0..MESSAGES {
                let digits = format!("{:016x}", rng.u64(..));
                // Some are longer than a page.
                let length = [20, 40, 80, 200, 1_000, 4_060][rng.usize(..6).min(rng.usize(..6))];
                let text = format!("{MARK}{digits}{}", "x".repeat(length));
                alice.send(chat, &text, &n.to_string()).await.unwrap();
                texts.push(digits);
            }
            (chat, texts)
        });
    }
    let mut chats = senders.join_all().await;
    rng.shuffle(&mut chats);
    let (deleted, kept) = chats.split_at(CHATS / 2);
    for (chat, _) in deleted {
        alice.delete(*chat).await.unwrap();
    }
    let data = server.folder().join("data");
    let purged = async {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let look = Connection::open_with_flags(data.join("chat.db"), flags).unwrap();
        let sql = "SELECT count(*) FROM deleted_chats";
        while look.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the purge", purged).await;
    assert_eq!(server.terminate().await, Some(0));

    let found = texts_in(&data);
    let left = |chats: &[(i64, Vec<String>)]| {
        let texts = chats.iter().flat_map(|(_, texts)| texts);
        texts.filter(|text| found.contains(*text)).count()
    };
    assert_eq!(
        left(kept),
        kept.len() * MESSAGES,
        "the search finds what is there"
    );
    assert_eq!(left(deleted), 0, "texts of deleted chats are left");

    let check = Connection::open(data.join("chat.db")).unwrap();
    let sound: String = check
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
    drop(check);
    server.restart().await;
    let alice = server.client("alice").await;
    for (chat, texts) in kept {
        let history = alice.history(*chat).await;
        assert_dense(&history, 1);
        let same = history
            .iter()
            .zip(texts)
            .all(|(message, digits)| message.text[MARK.len()..].starts_with(digits.as_str()));
        assert!(same && history.len() == MESSAGES, "chat {chat}");
    }
}
