//! What the process leaves on the disk, and the signals that don't end it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use tonic::transport::Channel;

use super::{PATIENCE, get, value};
use crate::server::{Client, Server};

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

/// A collector of logs that hangs: the pipe is full, for errors and for all else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_log_that_nobody_reads_holds_nothing_up() {
    use std::{net::SocketAddr, os::unix::process::ExitStatusExt as _, process::Stdio};
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let (read, write) = std::io::pipe().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["serve", "--grpc-port", "0", "--http-port", "0"])
        .args(["--log-level", "h2=trace,info", "--log-format", "json"])
        .current_dir(dir.path())
        .env_clear()
        .stdout(write.try_clone().unwrap())
        .stderr(write)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines =
        BufReader::new(tokio::net::unix::pipe::Receiver::from_owned_fd(read.into()).unwrap())
            .lines();
    let mut addresses = Vec::<SocketAddr>::new();
    while addresses.len() < 2 {
        let line = lines.next_line().await.unwrap().unwrap();
        let address = ["listening on ", "http on "]
            .iter()
            .find_map(|head| line.strip_prefix(head));
        addresses.extend(address.map(|address| address.parse::<SocketAddr>().unwrap()));
    }
    let channel = Channel::from_shared(format!("http://{}", addresses[0])).unwrap();
    let alice = Client::new(channel.connect().await.unwrap(), "alice");
    let chat = alice.create(&[]).await;
    let dropped = async || {
        let (_, metrics) = get(addresses[1], "/metrics").await;
        value(&metrics, "chat_log_lines_dropped_total")
    };
    let began = std::time::Instant::now();
    while dropped().await == 0.0 {
        for _ in 0..200 {
            tokio::time::timeout(PATIENCE, alice.send(chat, "hi", ""))
                .await
                .unwrap()
                .unwrap();
        }
        assert!(began.elapsed() < 4 * PATIENCE, "the pipe never fills");
    }
    assert_eq!(get(addresses[1], "/live").await.0, 200);
    crate::pg::kill("-TERM", child.id().unwrap());
    let ended = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((ended.code(), ended.signal()), (Some(0), None));
}

/// The machine's clock was a day ahead when a message came. Its chat's times stay there
/// until then, since they never run back (P2), and that is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_clock_that_was_ahead_is_said() {
    const DAY: i64 = 86_400;
    let mut server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "from tomorrow", "").await.unwrap();
    let (_, metrics) = get(server.http_address(), "/metrics").await;
    assert_eq!(value(&metrics, "chat_clock_ahead_seconds"), 0.0);
    assert_eq!(server.terminate().await, Some(0));
    let file = rusqlite::Connection::open(server.folder().join("data/chat.db")).unwrap();
    let moved = "UPDATE messages SET created_at = created_at + ?1";
    file.execute(moved, [DAY * 1_000_000]).unwrap();
    drop(file);
    server.restart().await;
    let alice = server.client("alice").await;
    alice.send(chat, "from today", "").await.unwrap();
    let history = alice.history(chat).await;
    assert_eq!(history[0].created_at, history[1].created_at);
    let (_, metrics) = get(server.http_address(), "/metrics").await;
    let ahead = value(&metrics, "chat_clock_ahead_seconds");
    assert!((DAY as f64 - 60.0..=DAY as f64).contains(&ahead), "{ahead}");
    assert!(server.log().contains("ahead of the clock"));
}
