//! A `chatd` process of a test's own: its data and its log are in a folder that
//! goes with it, and the test fails if the server panicked.

mod client;
mod load;

use std::{
    env, fmt,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub use client::{Client, Frames, Posts, assert_dense, join, post, text_of};
pub use load::Load;

/// How long anything that must happen may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Most lines of a server's log to show of a test that fails.
const LOG_LINES: usize = 20;

/// A server, killed when dropped.
pub struct Server {
    dir: TempDir,
    options: Vec<String>,
    child: Child,
    address: SocketAddr,
    http: Option<SocketAddr>,
}

impl Server {
    /// Starts a server with these options of `chatd serve`, and waits until it
    /// listens.
    pub async fn start(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), options).await
    }

    /// The same in a folder that may have data already.
    pub async fn start_in(dir: TempDir, options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|text| (*text).to_owned()).collect();
        let mut child = spawn(dir.path(), &options, 0);
        let (address, http) = listening(dir.path(), &mut child).await;
        Self {
            dir,
            options,
            child,
            address,
            http,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP is; the options have to ask for it.
    pub fn http_address(&self) -> SocketAddr {
        self.http.expect("there is an HTTP port")
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
    }

    /// A new connection.
    pub async fn connect(&self) -> Channel {
        self.endpoint().connect().await.expect("the server listens")
    }

    /// `user` on a connection of its own.
    pub async fn client(&self, user: &str) -> Client {
        Client::new(self.connect().await, user)
    }

    /// SIGKILL: the process has no say in it.
    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal_term(&self) {
        self.signal(libc::SIGTERM);
    }

    pub fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: a system call without pointers, to a child that has not been
        // waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for the end of the process; its exit code.
    pub async fn exit_code(&mut self) -> Option<i32> {
        exit_of(&mut self.child).await.code()
    }

    /// SIGTERM, and the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal_term();
        self.exit_code().await
    }

    /// Starts a server that has ended anew, on the same data and another port.
    pub async fn restart(&mut self) {
        self.start_again(0).await;
    }

    /// The same, on the same port: for clients that know no other.
    pub async fn restart_here(&mut self) {
        self.start_again(self.address.port()).await;
    }

    async fn start_again(&mut self, port: u16) {
        assert!(self.child.try_wait().unwrap().is_some(), "still running");
        self.child = spawn(self.dir.path(), &self.options, port);
        (self.address, self.http) = listening(self.dir.path(), &mut self.child).await;
    }

    /// Kilobytes of memory that the process holds, without the pages of files
    /// that it has mapped: those are the database's, and the kernel's to take
    /// back.
    pub fn memory_kb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }

    pub fn log(&self) -> String {
        // A thread of the server's own writes it, a moment after what it is about.
        thread::sleep(Duration::from_millis(50));
        fs::read_to_string(log_path(self.dir.path())).unwrap_or_default()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chatd at {}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; either way it is waited for.
        _ = self.child.kill();
        _ = self.child.wait();
        let log = self.log();
        if thread::panicking() {
            let from = log.lines().count().saturating_sub(LOG_LINES);
            let tail: Vec<_> = log.lines().skip(from).collect();
            eprintln!("--- the end of the server's log ---\n{}", tail.join("\n"));
        } else {
            assert!(!log.contains("panicked"), "the server panicked:\n{log}");
        }
    }
}

/// `chatd serve` in a folder, with nothing of the developer's environment. What
/// it prints goes to files there.
fn spawn(dir: &Path, options: &[String], port: u16) -> Child {
    let append = |path: PathBuf| File::options().create(true).append(true).open(path);
    // A server that comes back to its gRPC port would want the one HTTP port that
    // all have by default.
    let http: &[&str] = match options.iter().any(|option| option == "--http-port") {
        true => &[],
        false => &["--http-port", "0"],
    };
    command(dir)
        .args(["serve", "--grpc-port", &port.to_string()])
        .args(http)
        .args(options)
        .stdout(File::create(dir.join("stdout")).unwrap())
        .stderr(append(log_path(dir)).unwrap())
        .spawn()
        .unwrap()
}

/// `chatd` in a folder and an empty environment.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatd"));
    command.env_clear().current_dir(dir);
    command
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("log")
}

async fn listening(dir: &Path, child: &mut Child) -> (SocketAddr, Option<SocketAddr>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let printed = fs::read_to_string(dir.join("stdout")).unwrap();
        // The whole line: it is written in one piece or seen again.
        if let Some(line) = printed.strip_suffix('\n') {
            let (line, http) = line.split_once('\n').unwrap_or((line, ""));
            let address = line.strip_prefix("listening on ").expect(line);
            let http = http.strip_prefix("http on ").map(|at| at.parse().unwrap());
            return (address.parse().unwrap(), http);
        }
        let ended = child.try_wait().unwrap();
        if ended.is_some() || Instant::now() > deadline {
            let log = fs::read_to_string(log_path(dir)).unwrap_or_default();
            _ = child.kill();
            _ = child.wait();
            panic!("the server does not listen ({ended:?}):\n{log}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for the end of a child.
pub async fn exit_of(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Chance for a test, to be had again with `CHAT_TEST_SEED`.
pub fn chance() -> fastrand::Rng {
    let given = env::var("CHAT_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("a number"));
    eprintln!("CHAT_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Awaits something that has to happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("too late: {what}"))
}

#[tokio::test]
async fn a_panic_in_the_log_fails_the_test() {
    let server = Server::start(&[]).await;
    let line = "thread 'core-0' panicked at src/nowhere.rs:1:1:\n";
    fs::write(log_path(server.folder()), line).unwrap();
    // On a thread of its own: `drop` is not to panic while this one does.
    let dropped = thread::spawn(move || drop(server)).join();
    let message = *dropped.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("src/nowhere.rs"), "{message}");
}

/// The lines of a server's log with this message; the log is in JSON.
pub fn lines(server: &Server, message: &str) -> Vec<serde_json::Value> {
    let log = server.log();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    lines
        .filter(|line: &serde_json::Value| line["message"] == message)
        .collect()
}
