use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use super::{
    Ask, Asker, AuthError, AuthResult, Authenticator, Identity, Token,
    answers::{meaning, outcome},
    breaker::{Breaker, Outcome, Permit, Probe},
    claims::unverified,
    compact,
    one_answer::OneAnswer,
    shares::Shares,
};
use crate::{
    domain::Clock,
    proto::access::{CheckRequest, access_v1_client::AccessV1Client},
    runtime::Spawner,
    telemetry::log_limited,
};

/// Checks under way at a time; more wait, within their deadline.
const MOST_CHECKS: usize = 256;
/// The pause before the one retry, and as much again by chance, so that a peer
/// that restarts is not met by everybody at once.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The token of probes: it is well formed, was over in 1970, and its signature is nothing
/// but zeros. Whatever the Auth Service says of it, it is there.
const BAD_TOKEN: &str = concat!(
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
    ".eyJleHAiOjF9",
    ".AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
);
const PROBED: &str = "/chat_v1.ChatV1/Get";

/// The client of the Auth Service: asks it about each token and method.
#[derive(Debug)]
pub struct AccessClient {
    checks: Arc<Checks>,
    spawner: Spawner,
}

#[derive(Debug)]
struct Checks {
    client: AccessV1Client<OneAnswer>,
    timeout: Duration,
    shares: Arc<Shares>,
    breaker: Arc<Breaker>,
    /// Checks that were answered, whatever the answer was.
    answered: AtomicU64,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessSettings {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// Who signed the Auth Service's certificate; `None`: one of those that
    /// browsers trust.
    pub ca: Option<PathBuf>,
    /// For a check with its retry.
    pub timeout: Duration,
}

/// Why the Auth Service's client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("{0} is not an address")]
    Address(String),
    #[error("{0}: {1}")]
    Ca(String, std::io::Error),
    #[error("TLS to the Auth Service: {0}")]
    Tls(tonic::transport::Error),
}

impl AccessClient {
    /// Connects at the first check; `spawner` runs the connection.
    ///
    /// # Errors
    /// If the address or the CA's certificate makes no sense.
    pub fn new(
        settings: AccessSettings,
        clock: Arc<dyn Clock>,
        spawner: Spawner,
    ) -> Result<Self, AccessError> {
        let timeout = settings.timeout;
        let endpoint = endpoint(settings, spawner.clone())?;
        let checks = Checks {
            client: AccessV1Client::new(OneAnswer(endpoint.connect_lazy())),
            timeout,
            shares: Shares::new(MOST_CHECKS),
            breaker: Breaker::new(),
            answered: AtomicU64::new(0),
            clock,
        };
        let checks = Arc::new(checks);
        Ok(Self { checks, spawner })
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<(), AuthError> {
        let answer = self.ask_if_let(ask).await;
        if answer == Err(AuthError::Unavailable) {
            let probe = self.checks.breaker.probe(self.checks.clock.now());
            if let Some(probe) = probe {
                self.spawner.spawn(self.checks.clone().probe(probe));
            }
        }
        answer
    }

    async fn ask_if_let(&self, ask: Ask<'_>) -> Result<(), AuthError> {
        let checks = &self.checks;
        let permit = checks.breaker.permit(ask.asker, checks.clock.now());
        let permit = permit.ok_or(AuthError::Unavailable)?;
        if !permit.decides() {
            return checks.ask(ask, permit).await;
        }
        // A check that says whether the Auth Service is back goes on when its caller has
        // left: who asks and leaves, again and again, would keep out all who come from the
        // same address.
        let (token, method) = (ask.token.0.to_owned(), ask.method.to_owned());
        let (trace, asker) = (ask.trace.map(str::to_owned), ask.asker);
        let checks = checks.clone();
        let (sender, decided) = oneshot::channel();
        self.spawner.spawn(async move {
            let ask = Ask {
                token: Token(&token),
                method: &method,
                trace: trace.as_deref(),
                asker,
            };
            // Nobody may wait for it any more.
            _ = sender.send(checks.ask(ask, permit).await);
        });
        decided.await.unwrap_or(Err(AuthError::Unavailable))
    }
}

impl Checks {
    async fn ask(&self, ask: Ask<'_>, permit: Permit) -> Result<(), AuthError> {
        let before = self.answered.load(Ordering::Relaxed);
        // Who is called only when most of the time is over would mostly ask in vain.
        let begun = Instant::now();
        let taking = self.shares.take(ask.asker);
        let share = timeout_at(begun + self.timeout * 3 / 4, taking).await;
        let Ok(Some(_share)) = share else {
            return Err(AuthError::Unavailable);
        };
        let answer = timeout_at(begun + self.timeout, self.ask_twice(ask)).await;
        let (answer, outcome) = match answer {
            Err(_) => (Err(AuthError::Unavailable), Outcome::Late),
            Ok(Err(not_asked)) => return Err(not_asked),
            Ok(Ok(Ok(()))) => (Ok(()), Outcome::Answered),
            Ok(Ok(Err(status))) => (Err(meaning(&status)), outcome(&status)),
        };
        match outcome {
            Outcome::Answered => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Late if self.answers_since(before) => return answer,
            Outcome::Late => log_limited!(DEBUG, "the Auth Service did not answer in time"),
            Outcome::Away => {}
        }
        permit.done(outcome, self.clock.now());
        answer
    }

    /// Asks with a token of our own, again and again until there is an answer.
    async fn probe(self: Arc<Self>, probe: Probe) {
        loop {
            let is_there = self.is_there().await;
            match probe.told(is_there, self.clock.now()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return,
            }
        }
    }

    /// Whether the Auth Service answers anything at all, be it to somebody else. A probe
    /// waits for no turn, and is made twice before it counts as failed: what others ask may
    /// have broken the connection just then.
    async fn is_there(&self) -> bool {
        let before = self.answered.load(Ordering::Relaxed);
        let end = Instant::now() + self.timeout;
        let ask = Ask {
            token: Token(BAD_TOKEN),
            method: PROBED,
            trace: None,
            asker: Asker::default(),
        };
        for pause in [Duration::ZERO, RETRY_PAUSE] {
            tokio::time::sleep(pause).await;
            let is_answer = match timeout_at(end, self.ask_once(ask)).await {
                Ok(Ok(Ok(()))) => true,
                Ok(Ok(Err(status))) => outcome(&status) == Outcome::Answered,
                Ok(Err(_)) | Err(_) => false,
            };
            if is_answer || self.answers_since(before) {
                return true;
            }
        }
        false
    }

    /// Whether a check was answered since `before` were. Then one that is late says
    /// that the Auth Service is busy, and not that it is away: who floods it with
    /// tokens would otherwise close the door for all.
    fn answers_since(&self, before: u64) -> bool {
        self.answered.load(Ordering::Relaxed) != before
    }

    async fn ask_twice(&self, ask: Ask<'_>) -> Result<Result<(), Status>, AuthError> {
        match self.ask_once(ask).await? {
            Err(status) if status.code() == Code::Unavailable => {}
            answer => return Ok(answer),
        }
        tokio::time::sleep(RETRY_PAUSE.mul_f64(1.0 + fastrand::f64())).await;
        self.ask_once(ask).await
    }

    async fn ask_once(&self, ask: Ask<'_>) -> Result<Result<(), Status>, AuthError> {
        let mut request = Request::new(CheckRequest {
            endpoint_address: ask.method.to_owned(),
        });
        let bearer = format!("Bearer {}", ask.token.0);
        let mut bearer = MetadataValue::<Ascii>::try_from(bearer)
            .map_err(|_| AuthError::Invalid("it can't be sent as metadata"))?;
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        if let Some(trace) = ask.trace.and_then(|trace| trace.parse().ok()) {
            request.metadata_mut().insert("traceparent", trace);
        }
        request.set_timeout(self.timeout);
        // The generated client is a handle; a clone is how it is shared.
        let answer = self.client.clone().check(request).await;
        Ok(answer.map(drop))
    }
}

impl AccessClient {
    /// Whose the token says it is. What names nobody, or is over, need not be
    /// asked about: a yes would be of no use.
    fn claimed(&self, token: Token<'_>) -> Result<Identity, AuthError> {
        compact::check(token)?;
        let identity = unverified(token.0)?;
        match identity.expires_at {
            Some(end) if end <= self.checks.clock.wall() => Err(AuthError::Expired),
            _ => Ok(identity),
        }
    }
}

impl Authenticator for AccessClient {
    fn known(&self, ask: Ask<'_>) -> Option<AuthResult> {
        self.claimed(ask.token).err().map(Err)
    }

    fn check<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, AuthResult> {
        Box::pin(async move {
            let identity = self.claimed(ask.token)?;
            self.ask(ask).await?;
            Ok(Arc::new(identity))
        })
    }
}

/// Where and how the Auth Service is called.
pub(super) fn endpoint(
    settings: AccessSettings,
    spawner: Spawner,
) -> Result<Endpoint, AccessError> {
    let scheme = if settings.tls { "https" } else { "http" };
    let host = match settings.host.parse() {
        Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => settings.host,
    };
    let address = format!("{scheme}://{host}:{}", settings.port);
    let mut endpoint = Endpoint::from_shared(address)
        .map_err(|_| AccessError::Address(host))?
        .executor(spawner)
        .connect_timeout(settings.timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5));
    if settings.tls {
        let mut tls = ClientTlsConfig::new();
        tls = match settings.ca {
            Some(path) => {
                let pem = std::fs::read(&path)
                    .map_err(|e| AccessError::Ca(crate::config::shown(&path), e))?;
                tls.ca_certificate(Certificate::from_pem(pem))
            }
            None => tls.with_webpki_roots(),
        };
        endpoint = endpoint.tls_config(tls).map_err(AccessError::Tls)?;
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    #[test]
    fn p7_the_token_of_probes_is_well_formed_and_over() {
        assert_eq!(compact::check(Token(BAD_TOKEN)), Ok(()));
        let [_, claims, _] = BAD_TOKEN.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts");
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
        assert_eq!(claims, br#"{"exp":1}"#);
    }
}
