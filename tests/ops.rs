//! The server seen from outside: metrics, health, traces, the page, the doctor.

pub mod doctor;
mod health;
mod logs;
mod metrics;
mod page;
mod process;
mod traces;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use chat_service::{
    app::App,
    config::serve_from,
    proto::{
        ChatInfo, ConnectChatRequest, CreateRequest, Message, SendMessageRequest,
        chat_v1_client::ChatV1Client,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Request, Streaming, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server in this process, with any HTTP port.
async fn server(flags: &[&str]) -> App {
    let all = ["--grpc-port", "0", "--http-port", "0", "--store", "memory"];
    App::start(serve_from(&[&all, flags].concat()).unwrap())
        .await
        .unwrap()
}

async fn client(app: &App) -> ChatV1Client<Channel> {
    let address = format!("http://{}", app.address());
    ChatV1Client::connect(address).await.unwrap()
}

fn by<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token = format!("Bearer {user}").parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request
}

async fn create(client: &mut ChatV1Client<Channel>) -> i64 {
    let usernames = vec!["bob".to_owned(), "carol".to_owned()];
    let info = Some(ChatInfo { usernames });
    let created = client
        .create(by(
            "alice",
            CreateRequest {
                info,
                ..Default::default()
            },
        ))
        .await;
    created.unwrap().into_inner().id
}

fn text(chat_id: i64, text: &str) -> SendMessageRequest {
    let message = Message {
        text: text.into(),
        ..Default::default()
    };
    SendMessageRequest {
        chat_id,
        message: Some(message),
        ..Default::default()
    }
}

async fn read(client: &mut ChatV1Client<Channel>, user: &str, chat: i64) -> Streaming<Message> {
    let join = ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq: Some(0),
        ..Default::default()
    };
    let stream = client.connect_chat(by(user, once(join))).await;
    stream.unwrap().into_inner()
}

/// A request side of one frame, then half-closed.
fn once(join: ConnectChatRequest) -> impl futures_util::Stream<Item = ConnectChatRequest> {
    futures_util::stream::iter([join])
}

/// An HTTP/1.1 request; the status and the body.
pub async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    http_with(address, method, path, &format!("host: {address}\r\n"), body).await
}

/// With these lines of the head besides what every request needs.
async fn http_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    lines: &str,
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{lines}connection: close\r\ncontent-length: {len}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    http(address, "GET", path, "").await
}

/// The value of one line of `/metrics`.
pub fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing:\n{metrics}"))
        .parse()
        .unwrap()
}

/// Asks until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
