//! gRPC-Web over HTTP/1.1, byte by byte.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::server::soon;

const TRAILERS: u8 = 0x80;

/// A connection on which one call is made after the other.
pub struct Http1 {
    stream: TcpStream,
    unread: BytesMut,
    pub user: &'static str,
    pub text: bool,
    /// More header lines, each with its end.
    pub headers: String,
}

/// The head of an answer, in lower case.
pub struct Head {
    pub status: u16,
    pub text: String,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A piece of a call's answer.
#[derive(Debug, PartialEq)]
pub enum Piece {
    Message(Bytes),
    /// `grpc-status`, and all lines.
    End(i32, String),
}

impl Http1 {
    pub async fn connect(address: SocketAddr, user: &'static str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a client that does not read is soon seen to be slow.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        Self {
            stream: socket.connect(address).await.unwrap(),
            unread: BytesMut::new(),
            user,
            text: false,
            headers: String::new(),
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a call's one message, and with it the half-close.
    pub async fn ask(&mut self, method: &str, message: &impl Message) -> Head {
        let kind = if self.text { "-text" } else { "" };
        let mut body = vec![0];
        body.extend((message.encoded_len() as u32).to_be_bytes());
        body.extend(message.encode_to_vec());
        if self.text {
            // The prefix and the message each on their own, padding and all.
            let (prefix, rest) = body.split_at(5);
            body = (STANDARD.encode(prefix) + &STANDARD.encode(rest)).into();
        }
        let head = format!(
            "POST /chat_v1.ChatV1/{method} HTTP/1.1\r\nhost: chat\r\n\
             content-type: application/grpc-web{kind}+proto\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\n{}\r\n",
            self.user,
            body.len(),
            self.headers
        );
        self.write(&[head.as_bytes(), &body].concat()).await;
        self.head().await
    }

    /// Makes a call that has one answer.
    pub async fn call<A: Message + Default>(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, i32> {
        let head = self.ask(method, message).await;
        assert_eq!(head.status, 200, "{}", head.text);
        if let Some(status) = head.header("grpc-status") {
            assert_eq!(head.header("content-length"), Some("0"), "{}", head.text);
            return Err(status.parse().unwrap());
        }
        let mut answer = Err(0);
        loop {
            match self.piece().await {
                Piece::Message(message) => answer = Ok(A::decode(message).unwrap()),
                Piece::End(status, _) => {
                    assert_eq!(self.chunk().await, None);
                    return if status == 0 { answer } else { Err(status) };
                }
            }
        }
    }

    pub async fn head(&mut self) -> Head {
        let end = loop {
            match self
                .unread
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
            {
                Some(end) => break end + 4,
                None => assert!(self.more().await, "no head: {:?}", self.unread),
            }
        };
        let head = self.unread.split_to(end);
        let text = std::str::from_utf8(&head).unwrap().to_ascii_lowercase();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        Head { status, text }
    }

    /// The next frame of the body. The server writes each frame into the body
    /// whole.
    pub async fn piece(&mut self) -> Piece {
        self.pieces().await.remove(0)
    }

    /// The next frames, of which there is at least one.
    pub async fn pieces(&mut self) -> Vec<Piece> {
        let mut data = self.chunk().await.expect("the body ends with trailers");
        if self.text {
            data = STANDARD.decode(&data).unwrap().into();
        }
        let mut pieces = Vec::new();
        while !data.is_empty() {
            let flags = data.get_u8();
            let length = data.get_u32() as usize;
            let frame = data.split_to(length);
            pieces.push(if flags == TRAILERS {
                let text = String::from_utf8(frame.to_vec()).unwrap();
                let status = text
                    .lines()
                    .find_map(|line| line.strip_prefix("grpc-status:"));
                Piece::End(status.unwrap().parse().unwrap(), text)
            } else {
                assert_eq!(flags, 0);
                Piece::Message(frame)
            });
        }
        pieces
    }

    /// One chunk of a chunked body; none: the last has been.
    async fn chunk(&mut self) -> Option<Bytes> {
        let line = loop {
            match self.unread.windows(2).position(|bytes| bytes == b"\r\n") {
                Some(end) => break self.unread.split_to(end + 2),
                None => assert!(self.more().await, "the body is cut short"),
            }
        };
        let size = std::str::from_utf8(&line[..line.len() - 2]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        while self.unread.len() < size + 2 {
            assert!(self.more().await, "a chunk is cut short");
        }
        let data = self.unread.split_to(size).freeze();
        self.unread.advance(2);
        (size > 0).then_some(data)
    }

    /// What has come and was not looked at.
    pub fn rest(&self) -> &[u8] {
        &self.unread
    }

    /// True if there was more to read.
    pub async fn more(&mut self) -> bool {
        let read = soon("bytes", self.stream.read_buf(&mut self.unread)).await;
        matches!(read, Ok(1..))
    }
}
