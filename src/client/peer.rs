//! The server as the client's commands see it: a connection, the token to call
//! with, and what a failure means.

use std::{path::Path, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::Mutex;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt as _;

use super::{ClientError, credentials::Shown};
use crate::{config::PeerConfig, proto::chat_v1_client::ChatV1Client, telemetry::SpanRef};

const MAX_REPLY_BYTES: usize = 64 << 20;
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A server, and the token to call it with. Clones share the connection, and
/// where new tokens come from.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) client: ChatV1Client<Channel>,
    shown: Arc<Mutex<Shown>>,
    user: String,
    authorization: MetadataValue<Ascii>,
    addr: String,
    /// The command's: its calls are one trace, if the server traces.
    trace: SpanRef,
}

impl Peer {
    /// Connects at the first call, and again at the next one after a loss.
    pub(super) async fn new(config: &PeerConfig) -> Result<Self, ClientError> {
        let channel = channel(&config.addr, config.tls, config.ca.as_deref())?;
        let mut shown = Shown::new(&config.credentials, &config.addr)?;
        shown.renew(false).await?;
        Ok(Self {
            client: ChatV1Client::new(channel).max_decoding_message_size(MAX_REPLY_BYTES),
            authorization: shown.authorization()?,
            user: shown.user(),
            shown: Arc::new(Mutex::new(shown)),
            addr: config.addr.clone(),
            trace: SpanRef::new_trace(),
        })
    }

    /// The user's name, as far as the client can tell.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Gets a new token if the one there is expires, or is refused (`at_once`).
    /// False if there is no other to be had.
    pub(super) async fn renew(&mut self, at_once: bool) -> Result<bool, ClientError> {
        let mut shown = self.shown.lock().await;
        let renewed = shown.renew(at_once).await?;
        self.authorization = shown.authorization()?;
        Ok(renewed)
    }

    /// A request that is answered once, within [`CALL_TIMEOUT`].
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream_request(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// A request whose answer has no end.
    pub(super) fn stream_request<T>(&self, message: T) -> Request<T> {
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
    pub(super) fn explain(&self, status: Status) -> ClientError {
        match cause(&status) {
            Some(why) => ClientError::Unreachable(self.addr.clone(), why),
            None => status.into(),
        }
    }
}

/// A connection that is made when it is first needed.
pub(super) fn channel(addr: &str, tls: bool, ca: Option<&Path>) -> Result<Channel, ClientError> {
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
                    .map_err(|e| ClientError::File(crate::config::shown(path), e.to_string()))?;
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
pub(super) fn cause(status: &Status) -> Option<String> {
    let mut error = std::error::Error::source(status)?;
    while let Some(inner) = error.source() {
        error = inner;
    }
    Some(error.to_string())
}

/// Whether asking again cannot help. A loss of the connection comes as
/// UNAVAILABLE, UNKNOWN, INTERNAL or CANCELLED, as the moment has it.
pub(super) fn is_final(status: &Status) -> bool {
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
pub(super) fn asked_pause(status: &Status) -> Duration {
    status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay)
        .unwrap_or_default()
        .min(Duration::from_secs(60))
}

/// Pauses between attempts, with jitter so that a server that comes back is not
/// met by all its clients at once.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
        .build()
}
