//! A server process, and an HTTP/2 client that sends whatever it is told.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{Reason, client::SendRequest};
use http::{HeaderMap, Request, StatusCode};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::{Code, Status};

/// Any answer comes within this time, which is less than the server waits for the rest
/// of a request.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A `chatd serve` and what it says.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<String>>,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_chatd"))
            .args(["serve", "--grpc-port", "0", "--store", "memory"])
            .args(["--cores", "2", "--max-members", "20"])
            .env_clear()
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let (said, mut stderr) = (log.clone(), child.stderr.take().unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                said.lock().unwrap().push_str(&text);
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ");
        let address = address
            .unwrap_or_else(|| panic!("{line:?}"))
            .parse()
            .unwrap();
        Self {
            child,
            address,
            log,
            _folder: folder,
        }
    }

    pub fn check_log(&self) {
        let log = self.log.lock().unwrap();
        let panicked = log.lines().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None, "{log}");
    }

    /// Asks it to end, which it does in good order.
    pub fn end(mut self) {
        let id = self.child.id().try_into().unwrap();
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(id, libc::SIGTERM) };
        let code = self.child.wait().unwrap().code();
        assert_eq!(code, Some(0), "{}", self.log.lock().unwrap());
        self.check_log();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended, unless the test has failed.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// How a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Close,
    /// Nothing more comes, and nothing says so.
    Open,
    Reset,
}

/// A request, byte by byte.
#[derive(Debug, Clone)]
pub struct Raw {
    pub method: http::Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<Bytes>,
    pub ending: Ending,
}

impl Raw {
    /// A proper call, so far.
    pub fn call(method: &str, user: &str, message: &[u8]) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/grpc".parse().unwrap());
        headers.insert("te", "trailers".parse().unwrap());
        headers.insert("authorization", format!("Bearer {user}").parse().unwrap());
        Self {
            method: http::Method::POST,
            path: format!("/chat_v1.ChatV1/{method}"),
            headers,
            body: vec![framed(message)],
            ending: Ending::Close,
        }
    }
}

/// A message in its gRPC frame.
pub fn framed(message: &[u8]) -> Bytes {
    prefixed(0, message.len() as u32, message)
}

/// A frame that says of itself what it likes.
pub fn prefixed(flags: u8, length: u32, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(flags);
    frame.put_u32(length);
    frame.put_slice(message);
    frame.freeze()
}

/// What came back.
#[derive(Debug)]
pub enum Answer {
    Grpc(Status, Bytes),
    /// A first message on a stream that goes on.
    Message(Bytes),
    Http(StatusCode),
    /// We reset it ourselves.
    Reset,
}

impl Answer {
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Grpc(status, _) => Some(status.code()),
            _ => None,
        }
    }

    pub fn status(self) -> Status {
        match self {
            Self::Grpc(status, _) => status,
            other => panic!("no status: {other:?}"),
        }
    }
}

/// A connection; what drives it ends with it.
pub struct Connection {
    requests: SendRequest<Bytes>,
    _driver: JoinSet<()>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move { _ = connection.await });
        Self {
            requests,
            _driver: driver,
        }
    }

    /// Sends a request; `stream` asks for the first message of an answer that
    /// may never end.
    pub async fn send(&self, raw: Raw, stream: bool) -> Answer {
        let what = format!("{raw:?}");
        let answer = tokio::time::timeout(PATIENCE, self.exchange(raw, stream)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {what}"));
        answer.unwrap_or_else(|error| panic!("{error} after {what}"))
    }

    async fn exchange(&self, raw: Raw, stream: bool) -> Result<Answer, h2::Error> {
        let uri = format!("http://localhost{}", raw.path);
        let mut request = Request::builder()
            .method(raw.method)
            .uri(uri)
            .body(())
            .unwrap();
        *request.headers_mut() = raw.headers;
        let mut requests = self.requests.clone().ready().await?;
        let closed = raw.body.is_empty() && raw.ending == Ending::Close;
        let (response, mut body) = requests.send_request(request, closed)?;
        let last = raw.body.len().saturating_sub(1);
        for (at, chunk) in raw.body.into_iter().enumerate() {
            let end = at == last && raw.ending == Ending::Close;
            // A server that has heard enough resets what is still to come.
            if body.send_data(chunk, end).is_err() {
                break;
            }
        }
        if raw.ending == Ending::Reset {
            tokio::task::yield_now().await;
            body.send_reset(Reason::CANCEL);
            return Ok(Answer::Reset);
        }
        let (head, mut body) = response.await?.into_parts();
        if head.status != StatusCode::OK {
            return Ok(Answer::Http(head.status));
        }
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Ok(Answer::Grpc(status, Bytes::new()));
        }
        let mut message = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            _ = body.flow_control().release_capacity(data.len());
            message.extend_from_slice(&data);
            if stream {
                return Ok(Answer::Message(message.freeze().slice(5..)));
            }
        }
        let trailers = body.trailers().await?.expect("trailers");
        let status = Status::from_header_map(&trailers).expect("a grpc-status");
        Ok(Answer::Grpc(status, message.freeze()))
    }

    /// A proper call that goes well.
    pub async fn call<A: prost::Message + Default>(
        &self,
        method: &str,
        user: &str,
        request: &impl prost::Message,
    ) -> A {
        let raw = Raw::call(method, user, &request.encode_to_vec());
        match self.send(raw, false).await {
            Answer::Grpc(status, message) if status.code() == Code::Ok => {
                A::decode(&message[5..]).unwrap()
            }
            other => panic!("{method}: {other:?}"),
        }
    }
}
