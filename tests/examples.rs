//! The clients in `examples/`, each put through the same: it joins, posts, has a
//! post refused, loses its server in the middle, and goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{self, ChildStderr, ChildStdin, ChildStdout},
};

use crate::server::{Server, assert_dense, soon};

/// Two tests are not to fetch and build the same at the same time.
static TURN: Mutex<()> = Mutex::new(());

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

/// An example that runs.
pub struct Example {
    child: process::Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<ChildStderr>>,
    printed: Vec<String>,
}

impl Example {
    /// Joins a chat as somebody, from its first message on.
    pub fn start(command: Command, address: &str, chat: i64, name: &str) -> Self {
        let mut child = process::Command::from(command)
            .args([address, &chat.to_string(), name, "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            complaints: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
            printed: Vec::new(),
        }
    }

    pub async fn type_in(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits for a line that ends so; all lines so far.
    pub async fn until(&mut self, text: &str) -> &[String] {
        let ends = |line: &String| line.ends_with(text);
        while !self.printed.last().is_some_and(ends) {
            let line = soon(text, self.lines.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("ended before {text:?}"));
            self.printed.push(line);
        }
        &self.printed
    }

    /// The next line on standard error.
    pub async fn complaint(&mut self) -> String {
        let line = soon("a complaint", self.complaints.next_line()).await;
        line.unwrap().unwrap()
    }

    /// Ends its input, waits for this line and for its end; all that it printed.
    pub async fn end(mut self, last: &str) -> Vec<String> {
        drop(self.input);
        let (mut lines, mut printed) = (self.lines, self.printed);
        while let Some(line) = soon(last, lines.next_line()).await.unwrap() {
            printed.push(line);
        }
        assert!(
            printed.last().is_some_and(|line| line.ends_with(last)),
            "{printed:?}"
        );
        let status = soon("its end", self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        printed
    }
}

/// Puts a client through it. `scheme` goes before its server's address.
async fn check(command: Command, scheme: &str) {
    let mut server = Server::start(&["--max-text", "100"]).await;
    let bob = server.client("bob").await;
    let chat = bob.create(&["alice"]).await;
    bob.send(chat, "welcome", "").await.unwrap();

    let address = format!("{scheme}{}", server.address());
    let mut alice = Example::start(command, &address, chat, "alice");
    alice.until("bob: welcome").await;
    let first = format!("one\n{}\n two 你好\n", "x".repeat(101));
    alice.type_in(&first).await;
    alice.until("alice:  two 你好").await;
    let refused = alice.complaint().await;
    assert!(refused.starts_with("rejected: INVALID_FIELD"), "{refused}");

    server.kill9();
    let lost = alice.complaint().await;
    assert!(lost.starts_with("reconnecting:"), "{lost}");
    alice.type_in("while it was down\n").await;
    server.restart_here().await;
    alice.until("alice: while it was down").await;
    let bob = server.client("bob").await;
    bob.send(chat, "again", "").await.unwrap();
    alice.type_in("last\n").await;
    let printed = alice.end("alice: last").await;

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

/// The Go example, built, if there is Go.
pub fn go() -> Option<Command> {
    if !is_here("go") {
        return None;
    }
    let _turn = TURN.lock();
    let built = workshop("go").join("client");
    run(Command::new("go")
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&built)
        .arg(".")
        .current_dir(examples().join("go")));
    Some(Command::new(built))
}

/// The Python example, with what it needs, if there is Python.
pub fn python() -> Option<Command> {
    if !is_here("python3") {
        return None;
    }
    let _turn = TURN.lock();
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
    Some(client)
}

#[tokio::test]
async fn the_go_example() {
    if let Some(client) = go() {
        check(client, "").await;
    }
}

#[tokio::test]
async fn the_python_example() {
    if let Some(client) = python() {
        check(client, "").await;
    }
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
