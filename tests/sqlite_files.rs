//! P1: the database's files are moved away, removed or replaced under a server.

use std::{fs, path::Path, time::Duration};

use tonic::Code;

use crate::{
    ops::get,
    server::{Server, assert_dense, soon},
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
