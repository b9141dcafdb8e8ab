//! `chatd serve` as a process, to be killed and started again.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use chat_service::proto::{self, chat_v1_client::ChatV1Client};
use tempfile::TempDir;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

/// Short times, and a window (P5) that holds all that a chat gets in one test:
/// some retries come late.
const SETTINGS: &[&str] = &[
    "--http-port",
    "off",
    "--cores",
    "2",
    "--send-timeout",
    "2s",
    "--store-stall",
    "1s",
    "--ring",
    "16384",
];

/// The server that is tested.
pub const BINARY: &str = env!("CARGO_BIN_EXE_chatd");

pub struct Chatd {
    binary: PathBuf,
    dsn: String,
    extra: Vec<String>,
    home: TempDir,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    /// Kills the child at the end of our pipe, however this process ends.
    watchdog: (Child, ChildStdin),
}

impl Chatd {
    /// `extra` overrides [`SETTINGS`].
    pub fn start(dsn: &str, extra: &[&str]) -> Self {
        let any_port = ([127, 0, 0, 1], 0).into();
        Self::start_at(any_port, Path::new(BINARY), dsn, extra)
    }

    /// The same of any binary, at an address of one's own choice.
    pub fn start_at(address: SocketAddr, binary: &Path, dsn: &str, extra: &[&str]) -> Self {
        let mut chatd = Self {
            binary: binary.into(),
            dsn: dsn.into(),
            extra: extra.iter().map(|s| (*s).into()).collect(),
            home: TempDir::with_prefix("chatd-").unwrap(),
            address,
            running: None,
        };
        chatd.start_again();
        chatd
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// On the port it had.
    pub fn start_again(&mut self) {
        let log = self.home.path().join("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .args(["--grpc-port", &self.address.port().to_string()])
            .args(["--config-path", ""]);
        let given = |flag: &str| self.extra.iter().any(|extra| extra == flag);
        for setting in SETTINGS.chunks(2).filter(|setting| !given(setting[0])) {
            command.args(setting);
        }
        let mut child = command
            .args(&self.extra)
            .env_clear()
            .env("PG_DSN", &self.dsn)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let watchdog = watch(child.id());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        self.running = Some(Running {
            child,
            _stdout: stdout,
            watchdog,
        });
        let address = line.trim().strip_prefix("listening on ");
        self.address = address
            .unwrap_or_else(|| panic!("chatd does not start:\n{}", self.log()))
            .parse()
            .unwrap();
    }

    /// `kill -9`. Returns once it is gone.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        // An error: it has ended.
        _ = running.child.kill();
        let (mut shell, pipe) = running.watchdog;
        // The child is not reaped yet, so its id is not another's.
        drop(pipe);
        shell.wait().unwrap();
        running.child.wait().unwrap();
    }

    /// SIGTERM. Returns once it has drained, which it says with code 0.
    pub fn terminate(&mut self) {
        if let Some(running) = &mut self.running {
            let pid = running.child.id().to_string();
            let kill = Command::new("kill").args(["-TERM", &pid]).status();
            assert!(kill.unwrap().success());
            let status = running.child.wait().unwrap();
            assert!(status.success(), "{status}");
            // Nothing is left that the watchdog could kill.
            let (shell, _) = &mut running.watchdog;
            shell.kill().unwrap();
        }
        self.kill();
    }

    /// What it wrote on standard error, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    pub fn peer(&self, user: &str) -> Peer {
        Peer::new(self.address, user)
    }
}

impl Drop for Chatd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn watch(pid: u32) -> (Child, ChildStdin) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat >/dev/null; kill -9 \"$0\" 2>/dev/null; true"])
        .arg(pid.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pipe = shell.stdin.take().unwrap();
    (shell, pipe)
}

/// A user's connection to a server, which comes back when the server does.
#[derive(Clone)]
pub struct Peer {
    pub client: ChatV1Client<Channel>,
    pub user: String,
}

impl Peer {
    pub fn new(address: SocketAddr, user: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_timeout(Duration::from_secs(1))
            .connect_lazy();
        Self {
            client: ChatV1Client::new(channel),
            user: user.into(),
        }
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.user).parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        request
    }

    pub async fn create(&mut self, others: &[String]) -> i64 {
        let usernames = others.to_vec();
        let info = Some(proto::ChatInfo { usernames });
        let request = self.request(proto::CreateRequest {
            info,
            ..Default::default()
        });
        self.client.create(request).await.unwrap().into_inner().id
    }

    pub async fn send(
        &mut self,
        chat: i64,
        text: &str,
        id: &str,
    ) -> Result<proto::SendMessageResponse, tonic::Status> {
        let message = proto::Message {
            text: text.into(),
            ..Default::default()
        };
        let request = self.request(proto::SendMessageRequest {
            chat_id: chat,
            message: Some(message),
            client_message_id: id.into(),
        });
        let reply = self.client.send_message(request).await?;
        Ok(reply.into_inner())
    }

    /// The page behind `after`, and whether there is more.
    pub async fn page(
        &mut self,
        chat: i64,
        after: i64,
        size: i32,
    ) -> Result<proto::ListMessagesResponse, tonic::Status> {
        let request = self.request(proto::ListMessagesRequest {
            chat_id: chat,
            after_seq: Some(after),
            page_size: size,
            ..Default::default()
        });
        let reply = self.client.list_messages(request).await?;
        Ok(reply.into_inner())
    }
}
