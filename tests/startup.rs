//! Servers that cannot start: one clear line on standard error, and a code.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::net::TcpStream;

use crate::ops::get;
use crate::server::{Server, command, exit_of};

/// The one line of a server that could not start.
pub async fn refusal(dir: &Path, options: &[&str]) -> String {
    let mut child = command(dir)
        .arg("serve")
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    exit_of(&mut child).await;
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    let line = stderr.strip_prefix("chatd: ").expect("names the program");
    line.trim_end().to_owned()
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let port = server.address().port().to_string();
    let line = refusal(dir.path(), &["--grpc-port", &port]).await;
    let address = server.address();
    assert_eq!(
        line,
        format!("cannot listen on {address}: the address is in use")
    );
    // It did not get as far as making its data.
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn a_second_server_on_the_same_file() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let line = refusal(server.folder(), &["--grpc-port", "0"]).await;
    assert!(
        line.ends_with("data/chat.db: another process is using it"),
        "{line}"
    );
    alice.send(chat, "undisturbed", "").await.unwrap();
}

/// SQLite would name the log after the name it is given, so two names of one file
/// are two logs.
#[tokio::test]
async fn a_second_server_on_another_name_of_the_file() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let file = server.folder().join("data/chat.db");
    let dir = tempfile::tempdir().unwrap();
    symlink(&file, dir.path().join("symlink.db")).unwrap();
    symlink(server.folder().join("data"), dir.path().join("data")).unwrap();
    fs::hard_link(&file, server.folder().join("data/hard.db")).unwrap();
    for name in ["symlink.db", "data/chat.db", "data/hard.db"] {
        let store = format!("sqlite:{name}");
        let line = refusal(dir.path(), &["--grpc-port", "0", "--store", &store]).await;
        let expected = format!("cannot open {name}: another process is using it");
        assert_eq!(line, expected);
    }
    alice.send(chat, "undisturbed", "").await.unwrap();
}

/// A server may be started by a link alone, also by one to what is not there yet.
#[tokio::test]
async fn a_file_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere/real.db", dir.path().join("link.db")).unwrap();
    let mut server = Server::start_in(dir, &["--store", "sqlite:link.db"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "hi", "").await.unwrap();
    let store = "sqlite:elsewhere/real.db";
    let line = refusal(server.folder(), &["--grpc-port", "0", "--store", store]).await;
    assert!(line.ends_with("another process is using it"), "{line}");
    server.kill9();
    server.restart().await;
    let history = server.client("alice").await.history(chat).await;
    assert_eq!(history.len(), 1);
}

/// SQLite calls some of these an I/O error. The disk is one of the test's own,
/// which takes a right that not every machine gives.
#[tokio::test]
async fn a_full_disk() {
    const MOUNT: &str = "mount -t tmpfs -o size=64k none disk && cd disk && \
        head -c \"$0\" /dev/zero >full && exec \"$1\" serve --grpc-port 0 --http-port 0";
    for taken in ["0", "16k", "32k", "48k", "64k"] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT]);
        unshare.args([taken, env!("CARGO_BIN_EXE_chatd")]);
        unshare.env_clear().current_dir(dir.path());
        let output = unshare.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        if !stderr.starts_with("chatd: ") {
            eprintln!("nothing is tested: {stderr}");
            return;
        }
        let line = "chatd: cannot open ./data/chat.db: the disk is full\n";
        assert_eq!(
            (stderr.as_str(), output.status.code()),
            (line, Some(1)),
            "{taken}"
        );
    }
}

/// The disk fills while nobody writes: the server is not ready, and the doctor sees it.
#[tokio::test]
async fn p8_a_disk_that_fills_makes_the_server_not_ready() {
    const MOUNT: &str = "mount -t tmpfs -o size=8m none disk && cd disk && \
        { \"$0\" serve --grpc-port 0 --http-port \"$1\" & server=$!; read go; \
        head -c 9m /dev/zero >full; \"$0\" doctor; read go; \
        rm full; read go; kill $server; wait; }";
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("disk")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "bash", "-c", MOUNT]);
    unshare.args([env!("CARGO_BIN_EXE_chatd"), &address.port().to_string()]);
    unshare.env_clear().current_dir(dir.path());
    unshare.stdin(Stdio::piped()).stdout(Stdio::piped());
    unshare.stderr(Stdio::null());
    let mut shell = unshare.spawn().unwrap();
    let mut go = shell.stdin.take().unwrap();
    let ready = async |wanted: u16| {
        let is_ready = async {
            loop {
                let found = reached(address, "/ready").await;
                if found.as_ref().is_some_and(|(status, _)| *status == wanted) {
                    return found.unwrap().1;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_ready).await
    };
    if ready(200).await.is_err() && shell.try_wait().unwrap().is_some() {
        eprintln!("nothing is tested: no such mount");
        return;
    }
    go.write_all(b"\n").unwrap();
    ready(503).await.unwrap();
    go.write_all(b"\n").unwrap();
    ready(200).await.unwrap();
    go.write_all(b"\n").unwrap();
    let said = shell.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("fail store: ./data/chat.db: the disk of "),
        "{said}"
    );
}

/// What a path of the HTTP port answers, if it does.
async fn reached(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    TcpStream::connect(address).await.ok()?;
    Some(get(address, path).await)
}

#[tokio::test]
async fn a_path_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (path, why) in [("file/chat.db", "not a directory"), ("folder", "directory")] {
        let store = format!("sqlite:{path}");
        let line = refusal(dir.path(), &["--grpc-port", "0", "--store", &store]).await;
        assert!(
            line.starts_with("cannot open ") && line.contains(path),
            "{line}"
        );
        assert!(line.contains(why), "{line}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let dir = tempfile::tempdir().unwrap();
    let text = "this is somebody's letter, not a database\n".repeat(100);
    fs::write(dir.path().join("letter"), &text).unwrap();
    let options = ["--grpc-port", "0", "--store", "sqlite:letter"];
    let line = refusal(dir.path(), &options).await;
    assert!(line.starts_with("cannot open letter: "), "{line}");
    assert_eq!(fs::read_to_string(dir.path().join("letter")).unwrap(), text);
}
