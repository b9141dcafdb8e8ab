//! The terminal client: one function for each of its commands. `main` calls
//! them; they know the server only by its wire contract.
//!
//! Invariants:
//! 1. What the server sends is escaped before it reaches a terminal.
//! 2. Only a call that can be repeated safely is repeated.

mod credentials;
mod lines;
mod login;
mod outbox;
mod peer;
mod print;
mod screen;
mod session;

use std::io::{self, IsTerminal as _};

use tonic::Status;

use crate::{
    config::{ConnectConfig, CreateConfig, HistoryConfig, HistoryPage, SendConfig},
    proto,
};

pub use login::{hash_password, login};
pub use screen::FullScreen;

use peer::{Peer, asked_pause, backoff, is_final};

/// Messages of one `ListMessages` call: with the longest texts a server may
/// allow they stay below what a [`Peer`] takes for an answer.
const PAGE: usize = 100;
const SEND_ATTEMPTS: usize = 5;

/// Why a command of the client failed, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0} is not an address")]
    Address(String),
    #[error("{} cannot be reached: {}", .0, print::escape(.1))]
    Unreachable(String, String),
    #[error("the token cannot be sent as metadata")]
    Token,
    #[error("{0}: {1}")]
    File(String, String),
    #[error(
        "--addr: the tokens in {file} are for {own}, not for {addr}: get some for it with \
         chatd login --addr {addr}, or name another file with --token-file"
    )]
    OtherServer {
        file: String,
        own: String,
        addr: String,
    },
    #[error(
        "--addr: {file} is of an earlier release and does not say which server its tokens are \
         for: get new ones with chatd login --addr {addr}"
    )]
    NoServer { file: String, addr: String },
    #[error(
        "{file}: new tokens would come from {auth_addr} without TLS, where whoever is on the way \
         can read them: use chatd login with --tls, or with --plaintext if the way is safe"
    )]
    InClear { file: String, auth_addr: String },
    #[error("TLS: {0}")]
    Tls(String),
    #[error("CHAT: a chat id is needed, unless the client has a terminal to itself")]
    NoChat,
    #[error("the password: {0}")]
    Password(String),
    #[error("{}", print::status(.0))]
    Refused(Box<Status>),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Makes a chat and prints its id.
///
/// # Errors
/// If the server cannot be reached or refuses. The call is not repeated: that
/// could make two chats.
pub fn create(config: CreateConfig) -> Result<(), ClientError> {
    run(async {
        let mut peer = Peer::new(&config.peer).await?;
        let info = proto::ChatInfo {
            usernames: config.with,
        };
        let request = peer.request(proto::CreateRequest {
            info: Some(info),
            ..Default::default()
        });
        let reply = peer
            .client
            .create(request)
            .await
            .map_err(|s| peer.explain(s))?;
        print::line(&reply.into_inner().id.to_string())
    })
}

/// Posts one message and prints its seq.
///
/// # Errors
/// If the server refuses, or cannot be reached for a while.
pub fn send(config: SendConfig) -> Result<(), ClientError> {
    run(async {
        let mut peer = Peer::new(&config.peer).await?;
        let message = proto::SendMessageRequest {
            chat_id: config.chat,
            message: Some(proto::Message {
                text: config.text,
                ..Default::default()
            }),
            // With a key, a repeated call stores the message once.
            client_message_id: config.id.unwrap_or_else(outbox::random_id),
        };
        let mut pauses = backoff().take(SEND_ATTEMPTS - 1);
        loop {
            let request = peer.request(message.clone());
            let status = match peer.client.send_message(request).await {
                Ok(reply) => return print::line(&reply.into_inner().seq.to_string()),
                Err(status) => status,
            };
            match pauses.next() {
                Some(pause) if !is_final(&status) => {
                    tokio::time::sleep(pause.max(asked_pause(&status))).await;
                }
                _ => return Err(peer.explain(status)),
            }
        }
    })
}

/// Prints a part of a chat's history, oldest first.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub fn history(config: HistoryConfig) -> Result<(), ClientError> {
    run(async {
        let mut peer = Peer::new(&config.peer).await?;
        let mut page = config.page;
        let mut left = config.limit;
        // Pages that go back in time arrive newest first; they are few enough
        // to hold (`--limit` is bounded) and are printed in order at the end.
        let mut older: Vec<Vec<proto::Message>> = Vec::new();
        while left > 0 {
            let (before_seq, after_seq) = match page {
                HistoryPage::Newest => (None, None),
                HistoryPage::Before(seq) => (Some(seq), None),
                HistoryPage::After(seq) => (None, Some(seq)),
            };
            let request = peer.request(proto::ListMessagesRequest {
                chat_id: config.chat,
                before_seq,
                after_seq,
                page_size: left.min(PAGE) as i32,
                ..Default::default()
            });
            let reply = peer.client.list_messages(request).await;
            let reply = reply.map_err(|s| peer.explain(s))?.into_inner();
            let (Some(first), Some(last)) = (reply.messages.first(), reply.messages.last()) else {
                break;
            };
            left = left.saturating_sub(reply.messages.len());
            page = match page {
                HistoryPage::After(_) => HistoryPage::After(last.seq),
                HistoryPage::Newest | HistoryPage::Before(_) => HistoryPage::Before(first.seq),
            };
            match page {
                HistoryPage::After(_) => print_all(&reply.messages)?,
                _ => older.push(reply.messages),
            }
            if !reply.has_more {
                break;
            }
        }
        older.iter().rev().try_for_each(|page| print_all(page))
    })
}

/// Reads chats as they go on, and posts what is typed: on the full screen if
/// [`on_screen`], else a message a line.
///
/// # Errors
/// If there is no chat to read lines of, the server refuses for good, or the
/// terminal or a standard stream fails.
pub fn connect(config: ConnectConfig) -> Result<(), ClientError> {
    if on_screen(&config) {
        return run(screen::run(config));
    }
    let chat = config.chat.ok_or(ClientError::NoChat)?;
    run(lines::run(config, chat))
}

/// Whether there is a terminal, and it is to be taken over.
pub fn on_screen(config: &ConnectConfig) -> bool {
    !config.plain && io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn print_all(messages: &[proto::Message]) -> Result<(), ClientError> {
    messages
        .iter()
        .try_for_each(|message| print::line(&print::message(message)))
}

/// Runs a command to its end. A standard output that was closed (`| head`) is
/// an end like any other.
fn run(command: impl Future<Output = Result<(), ClientError>>) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(command);
    // The thread that reads standard input may wait for ever; do not join it.
    runtime.shutdown_background();
    match done {
        Err(ClientError::Io(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
