//! The terminal client: one function for each of its commands. `main` calls
//! them; they know the server only by its wire contract.
//!
//! Invariants:
//! 1. What the server sends is escaped before it reaches a terminal.
//! 2. Only a call that can be repeated safely is repeated.

mod credentials;
mod login;
mod outbox;
mod print;
mod session;

use std::{io, path::Path, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    config::{ConnectConfig, CreateConfig, HistoryConfig, HistoryPage, PeerConfig, SendConfig},
    proto::{self, chat_v1_client::ChatV1Client},
    telemetry::SpanRef,
};

pub use login::{hash_password, login};

use credentials::Shown;

/// Messages of one `ListMessages` call: with the longest texts a server may
/// allow they stay below [`MAX_REPLY_BYTES`].
const PAGE: usize = 100;
const MAX_REPLY_BYTES: usize = 64 << 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
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
    #[error("TLS: {0}")]
    Tls(String),
    #[error("the password: {0}")]
    Password(String),
    #[error("{}", print::status(.0))]
    Refused(Box<Status>),
    #[error("the server's answer makes no sense: {0}")]
    Answer(&'static str),
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
        let request = peer.request(proto::CreateRequest { info: Some(info) });
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

/// Reads a chat as it goes on, and posts the lines of standard input to it.
///
/// # Errors
/// If the server refuses for good, or a standard stream fails.
pub fn connect(config: ConnectConfig) -> Result<(), ClientError> {
    run(session::run(config))
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

/// A server, and the token to call it with.
struct Peer {
    client: ChatV1Client<Channel>,
    shown: Shown,
    authorization: MetadataValue<Ascii>,
    addr: String,
    /// The command's: its calls are one trace, if the server traces.
    trace: SpanRef,
}

impl Peer {
    /// Connects at the first call, and again at the next one after a loss.
    async fn new(config: &PeerConfig) -> Result<Self, ClientError> {
        let channel = channel(&config.addr, config.tls, config.ca.as_deref())?;
        let mut shown = Shown::new(&config.credentials)?;
        shown.renew(false).await?;
        Ok(Self {
            client: ChatV1Client::new(channel).max_decoding_message_size(MAX_REPLY_BYTES),
            authorization: shown.authorization()?,
            shown,
            addr: config.addr.clone(),
            trace: SpanRef::new_trace(),
        })
    }

    /// Gets a new token if the one there is expires, or is refused (`at_once`).
    /// False if there is no other to be had.
    async fn renew(&mut self, at_once: bool) -> Result<bool, ClientError> {
        let renewed = self.shown.renew(at_once).await?;
        self.authorization = self.shown.authorization()?;
        Ok(renewed)
    }

    /// A request that is answered once, within [`CALL_TIMEOUT`].
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream_request(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// A request whose answer has no end.
    fn stream_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.authorization.clone());
        if let Ok(trace) = self.trace.sibling().traceparent().parse() {
            metadata.insert("traceparent", trace);
        }
        request
    }

    /// A failure to connect is no answer of the server, though tonic gives it
    /// the form of one.
    fn explain(&self, status: Status) -> ClientError {
        match cause(&status) {
            Some(why) => ClientError::Unreachable(self.addr.clone(), why),
            None => status.into(),
        }
    }
}

/// A connection that is made when it is first needed.
fn channel(addr: &str, tls: bool, ca: Option<&Path>) -> Result<Channel, ClientError> {
    let scheme = if tls { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))
        .map_err(|_| ClientError::Address(addr.to_owned()))?
        .connect_timeout(Duration::from_secs(5))
        // A server that vanished without a word is noticed within 30 s.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    if tls {
        let config = match ca {
            Some(path) => {
                let pem = std::fs::read(path)
                    .map_err(|e| ClientError::File(path.display().to_string(), e.to_string()))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        endpoint = endpoint
            .tls_config(config)
            .map_err(|e| ClientError::Tls(e.to_string()))?;
    }
    Ok(endpoint.connect_lazy())
}

/// Why the transport failed, if it did: the innermost error says it best.
fn cause(status: &Status) -> Option<String> {
    let mut error = std::error::Error::source(status)?;
    while let Some(inner) = error.source() {
        error = inner;
    }
    Some(error.to_string())
}

/// Whether asking again cannot help. A loss of the connection comes as
/// UNAVAILABLE, UNKNOWN, INTERNAL or CANCELLED, as the moment has it.
fn is_final(status: &Status) -> bool {
    match status.code() {
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => false,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => true,
    }
}

/// The pause that the server asks for, bounded: it is advice.
fn asked_pause(status: &Status) -> Duration {
    status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
        .unwrap_or_default()
        .min(Duration::from_secs(60))
}

/// Pauses between attempts, with jitter so that a server that comes back is not
/// met by all its clients at once.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
        .build()
}
