//! Servers that cannot start: one clear line on standard error, and a code.

use std::{fs, path::Path, process::Stdio};

use crate::server::{Server, command, exit_of};

/// The one line of a server that could not start.
async fn refusal(dir: &Path, options: &[&str]) -> String {
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
