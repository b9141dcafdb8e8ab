//! The clients in `examples/`, each put through the same: it joins, posts, has a
//! post refused, loses its server in the middle, and goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process,
};

use crate::server::{Server, assert_dense, soon};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A place for what a language fetches and builds, kept from run to run.
fn workshop(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("examples")
        .join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// False, and says so, if the machine does not have it.
fn is_here(runtime: &str) -> bool {
    let found = Command::new(runtime)
        .arg(if runtime == "go" {
            "version"
        } else {
            "--version"
        })
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("not run: there is no {runtime} on this machine");
    }
    found
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Puts a client through it. `scheme` goes before its server's address.
async fn check(command: Command, scheme: &str) {
    let mut server = Server::start(&["--max-text", "100"]).await;
    let bob = server.client("bob").await;
    let chat = bob.create(&["alice"]).await;
    bob.send(chat, "welcome", "").await.unwrap();

    let mut child = process::Command::from(command)
        .arg(format!("{scheme}{}", server.address()))
        .args([&chat.to_string(), "alice", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut complaints = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut printed = Vec::new();
    let mut until = async |text: &str| {
        while printed
            .last()
            .is_none_or(|line: &String| !line.ends_with(text))
        {
            let line = soon(text, lines.next_line()).await.unwrap();
            printed.push(line.unwrap_or_else(|| panic!("ended before {text:?}")));
        }
        printed.clone()
    };

    until("bob: welcome").await;
    let first = format!("one\n{}\n two 你好\n", "x".repeat(101));
    input.write_all(first.as_bytes()).await.unwrap();
    until("alice:  two 你好").await;
    let refused = soon("a refusal", complaints.next_line())
        .await
        .unwrap()
        .unwrap();
    assert!(refused.starts_with("rejected: INVALID_FIELD"), "{refused}");

    server.kill9();
    let lost = soon("a loss", complaints.next_line())
        .await
        .unwrap()
        .unwrap();
    assert!(lost.starts_with("reconnecting:"), "{lost}");
    input.write_all(b"while it was down\n").await.unwrap();
    server.restart_here().await;
    until("alice: while it was down").await;
    let bob = server.client("bob").await;
    bob.send(chat, "again", "").await.unwrap();
    input.write_all(b"last\n").await.unwrap();
    drop(input);
    let printed = until("alice: last").await;
    let status = soon("its end", child.wait()).await.unwrap();
    assert!(status.success(), "{status}");

    let history = bob.history(chat).await;
    assert_dense(&history, 1);
    let stored = history
        .iter()
        .map(|message| format!("{} {}: {}", message.seq, message.from, message.text));
    assert!(stored.eq(printed.iter().cloned()), "{printed:?}");
    assert_eq!(history.len(), 6, "each post is stored once");
}

#[tokio::test]
async fn the_rust_example() {
    let built = Path::new(env!("CARGO_BIN_EXE_chatd")).with_file_name("examples/client");
    // `cargo test` has built it, a run of this test target alone has not.
    let source = examples().join("rust/main.rs");
    let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    if written(&built) < written(&source) {
        run(Command::new("cargo")
            .args(["build", "--quiet", "--example", "client"])
            .current_dir(env!("CARGO_MANIFEST_DIR")));
    }
    check(Command::new(built), "http://").await;
}

#[tokio::test]
async fn the_go_example() {
    if !is_here("go") {
        return;
    }
    let built = workshop("go").join("client");
    run(Command::new("go")
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&built)
        .arg(".")
        .current_dir(examples().join("go")));
    check(Command::new(built), "").await;
}

#[tokio::test]
async fn the_python_example() {
    if !is_here("python3") {
        return;
    }
    let (source, packages) = (examples().join("python"), workshop("python"));
    let wanted = fs::read_to_string(source.join("requirements.txt")).unwrap();
    let marker = packages.join("requirements.txt");
    if fs::read_to_string(&marker).unwrap_or_default() != wanted {
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
            .arg(&packages)
            .args(["-r", "requirements.txt"])
            .current_dir(&source));
        fs::write(marker, wanted).unwrap();
    }
    let mut client = Command::new("python3");
    client
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(source.join("client.py"));
    check(client, "").await;
}

#[tokio::test]
async fn the_typescript_example() {
    if !is_here("node") || !is_here("npm") {
        return;
    }
    // A copy, so that nothing is installed into the sources.
    let (source, copy) = (examples().join("typescript"), workshop("typescript"));
    fs::create_dir_all(copy.join("chat_v1")).unwrap();
    for file in [
        "client.ts",
        "package.json",
        "package-lock.json",
        "chat_v1/chat_pb.ts",
    ] {
        fs::copy(source.join(file), copy.join(file)).unwrap();
    }
    run(Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--prefer-offline"])
        .current_dir(&copy));
    let mut client = Command::new("node");
    client
        .args(["--import", "tsx", "client.ts"])
        .current_dir(copy);
    check(client, "http://").await;
}
