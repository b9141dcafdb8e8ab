//! What the process leaves on the disk, and the signals that don't end it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use crate::server::Server;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_for_the_servers_own_user() {
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "hi", "").await.unwrap();
    let data = server.folder().join("data");
    assert_eq!(mode(&data), 0o700);
    for file in ["chat.db", "chat.db-wal", "chat.db-shm", "chat.db.lock"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    assert!(!server.log().contains("other users of this machine"));

    // As an older version has made them. Whoever runs the server has to say that
    // nobody reads them, so it says what it sees and leaves them.
    assert_eq!(server.terminate().await, Some(0));
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let file = data.join("chat.db");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    server.restart().await;
    assert!(server.log().contains("other users of this machine"));
    assert_eq!(mode(&file), 0o644);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_only_the_signals_that_mean_it_end_the_server() {
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        server.signal(signal);
        tokio::time::sleep(Duration::from_millis(100)).await;
        alice.send(chat, "still here", "").await.unwrap();
    }
    assert_eq!(server.terminate().await, Some(0));
}
