//! The commands of `deploy/BACKUP.md`, while a server works.

use chat_service::proto::ListMessagesRequest;
use tokio::task::JoinSet;
use tonic::Code;

use super::*;
use crate::{
    pg::{Pg, sql},
    server::{Server, assert_dense},
};

/// Acknowledged before the backup begins, so that it must have them.
const BEFORE: i64 = 200;
/// Where the reader was when the server went away.
const READ: i64 = 120;

/// Works on the first store, backs it up at work, restores it into the second
/// one, and reads on there.
async fn back_up_and_restore(store: [&[&str]; 2], prepare: impl AsyncFn(&Path, &Path)) {
    let mut server = Server::start(store[0]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    for n in 1..=BEFORE {
        alice.send(chat, &format!("{n}"), "").await.unwrap();
    }
    let mut bob = server.client("bob").await.read(chat, Some(0)).await;
    for seq in 1..=READ {
        bob.expect(seq).await;
    }
    // Others go on while it is backed up.
    let mut work = JoinSet::new();
    let sender = alice.clone();
    work.spawn(async move {
        let mut last = 0;
        while let Ok(sent) = sender.send(chat, "meanwhile", "").await {
            last = sent.seq;
        }
        last
    });
    let second = tempfile::tempdir().unwrap();
    prepare(server.folder(), second.path()).await;
    // What is sent now the backup does not have.
    let before = alice.get(chat).await.unwrap().last_seq;
    while alice.get(chat).await.unwrap().last_seq < before + 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill9();
    let last = work.join_next().await.unwrap().unwrap();
    drop((bob, alice));

    let restored = Server::start_in(second, store[1]).await;
    let bob = restored.client("bob").await;
    let stored = bob.history(chat).await;
    assert_dense(&stored, 1);
    let kept = stored.len() as i64;
    assert!((BEFORE..last).contains(&kept), "{kept} of {last}");
    let mut frames = bob.read(chat, Some(READ)).await;
    for seq in READ + 1..=kept {
        frames.expect(seq).await;
    }
    let alice = restored.client("alice").await;
    assert_eq!(alice.send(chat, "on", "").await.unwrap().seq, kept + 1);
    assert_eq!(frames.expect(kept + 1).await.text, "on");
    // One that has seen more than there is is told so.
    let ahead = bob.read(chat, Some(last)).await.end().await;
    assert_eq!(ahead.code(), Code::OutOfRange, "{ahead:?}");
    let page = ListMessagesRequest {
        chat_id: chat,
        page_size: 1,
        ..Default::default()
    };
    assert_eq!(bob.page(page).await.unwrap().messages[0].text, "on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_resumes_across_a_restored_postgresql() {
    let server = tokio::task::block_in_place(Pg::shared);
    let [old, new] = ["backed_up", "restored"].map(|name| server.tcp_dsn(name));
    for name in ["backed_up", "restored"] {
        sql(&server.dsn("postgres"), &format!("CREATE DATABASE {name}")).await;
    }
    let page = read("deploy/BACKUP.md");
    let prepare = async |_: &Path, second: &Path| {
        let vars = [("PG_DSN", &*old), ("NEW_DSN", &*new)];
        for heading in ["PostgreSQL: back up", "PostgreSQL: restore"] {
            tokio::task::block_in_place(|| shell(&commands(&page, heading), second, &vars));
        }
    };
    back_up_and_restore([&["--store", &old], &["--store", &new]], prepare).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_resumes_across_a_restored_sqlite() {
    let page = read("deploy/BACKUP.md");
    let prepare = async |first: &Path, second: &Path| {
        tokio::task::block_in_place(|| {
            shell(&commands(&page, "SQLite: back up"), first, &[]);
            // On another machine, perhaps.
            fs::create_dir(second.join("data")).unwrap();
            fs::copy(first.join("chat.backup.db"), second.join("chat.backup.db")).unwrap();
            shell(&commands(&page, "SQLite: restore"), second, &[]);
        });
    };
    back_up_and_restore([&[], &[]], prepare).await;
}
