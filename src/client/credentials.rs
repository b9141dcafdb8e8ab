use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use super::{
    ClientError,
    peer::{CALL_TIMEOUT, channel},
};
use crate::{
    config::{Credentials, is_loopback},
    proto::tokens::{GetAccessTokenRequest, GetRefreshTokenRequest, auth_v1_client::AuthV1Client},
};

/// A token with less than this to live is replaced before it is used.
const LEAST_LIFE: Duration = Duration::from_secs(30);
/// … and a refresh token, which is the way to all others.
const LEAST_REFRESH_LIFE: Duration = Duration::from_secs(6 * 3600);

/// What `chatd login` leaves for the other commands. It has no `Debug`: all of
/// it is secret.
#[derive(Serialize, Deserialize)]
pub(super) struct Tokens {
    /// Whom they are from, and who has new ones.
    pub(super) auth_addr: String,
    pub(super) tls: bool,
    /// They may go there without TLS though it is another machine.
    #[serde(default)]
    pub(super) plaintext: bool,
    pub(super) ca: Option<PathBuf>,
    /// `HOST:PORT` of the chat server that they are for. Releases before this
    /// field did not note it.
    #[serde(default)]
    pub(super) addr: Option<String>,
    pub(super) refresh_token: String,
    pub(super) access_token: String,
}

/// What is shown to the server.
pub(super) enum Shown {
    Given(String),
    Kept(PathBuf, Tokens),
}

impl Shown {
    /// Reads what a file holds, and refuses what is not for the server at `addr`.
    pub(super) fn new(credentials: &Credentials, addr: &str) -> Result<Self, ClientError> {
        Ok(match credentials {
            Credentials::Name(name) => Self::Given(name.clone()),
            Credentials::Token(token) => Self::Given(token.expose().to_owned()),
            Credentials::File(path) => {
                let tokens = read(path)?;
                tokens.are_for(addr, path)?;
                Self::Kept(path.clone(), tokens)
            }
        })
    }

    /// The user's name: what the token says, or the token itself, as in
    /// development mode. The server may know better.
    pub(super) fn user(&self) -> String {
        #[derive(Deserialize)]
        struct Name {
            username: String,
        }
        let token = self.token();
        match jsonwebtoken::dangerous::insecure_decode_claims::<Name>(token) {
            Ok(Name { username }) => username,
            Err(_) => token.to_owned(),
        }
    }

    fn token(&self) -> &str {
        match self {
            Self::Given(token) => token,
            Self::Kept(_, tokens) => &tokens.access_token,
        }
    }

    /// Gets a new access token if there is little left of the old one, or
    /// `at_once`. False if there is nowhere to get it.
    pub(super) async fn renew(&mut self, at_once: bool) -> Result<bool, ClientError> {
        let Self::Kept(path, tokens) = self else {
            return Ok(false);
        };
        if !at_once && left(&tokens.access_token) >= LEAST_LIFE {
            return Ok(true);
        }
        tokens.refresh().await?;
        write(path, tokens)?;
        Ok(true)
    }

    pub(super) fn authorization(&self) -> Result<MetadataValue<Ascii>, ClientError> {
        let token = self.token();
        // From bytes, because a name may hold more than ASCII.
        let mut authorization = MetadataValue::try_from(format!("Bearer {token}").as_bytes())
            .map_err(|_| ClientError::Token)?;
        authorization.set_sensitive(true);
        Ok(authorization)
    }
}

impl Tokens {
    /// A file of an earlier release names no server; on this machine it still counts.
    fn are_for(&self, addr: &str, path: &Path) -> Result<(), ClientError> {
        let file = crate::config::shown(path);
        let addr = addr.to_owned();
        match &self.addr {
            Some(own) if own.eq_ignore_ascii_case(&addr) => {}
            Some(own) => {
                let own = own.clone();
                return Err(ClientError::OtherServer { file, own, addr });
            }
            None if is_loopback(&addr) => {}
            None => return Err(ClientError::NoServer { file, addr }),
        }
        if !self.tls && !self.plaintext && !is_loopback(&self.auth_addr) {
            let auth_addr = self.auth_addr.clone();
            return Err(ClientError::InClear { file, auth_addr });
        }
        Ok(())
    }

    pub(super) fn client(&self) -> Result<AuthV1Client<Channel>, ClientError> {
        let channel = channel(&self.auth_addr, self.tls, self.ca.as_deref())?;
        Ok(AuthV1Client::new(channel))
    }

    /// A new access token, and a new refresh token if the old one is old.
    pub(super) async fn refresh(&mut self) -> Result<(), ClientError> {
        let mut client = self.client()?;
        if left(&self.refresh_token) < LEAST_REFRESH_LIFE {
            let mut request = tonic::Request::new(GetRefreshTokenRequest {
                refresh_token: self.refresh_token.clone(),
            });
            request.set_timeout(CALL_TIMEOUT);
            self.refresh_token = client
                .get_refresh_token(request)
                .await?
                .into_inner()
                .refresh_token;
        }
        let mut request = tonic::Request::new(GetAccessTokenRequest {
            refresh_token: self.refresh_token.clone(),
        });
        request.set_timeout(CALL_TIMEOUT);
        let answer = client.get_access_token(request).await?;
        self.access_token = answer.into_inner().access_token;
        Ok(())
    }
}

fn failed(path: &Path, why: impl ToString) -> ClientError {
    ClientError::File(crate::config::shown(path), why.to_string())
}

fn read(path: &Path) -> Result<Tokens, ClientError> {
    let text = fs::read(path).map_err(|error| failed(path, error))?;
    // The error's own text could quote a token.
    serde_json::from_slice(&text).map_err(|_| failed(path, "not what chatd login writes"))
}

pub(super) fn write(path: &Path, tokens: &Tokens) -> Result<(), ClientError> {
    let text = serde_json::to_vec_pretty(tokens).map_err(|error| failed(path, error))?;
    replace(path, &text)
}

/// Replaces a file as a whole; nobody else may read it, also not for a moment.
pub(super) fn replace(path: &Path, text: &[u8]) -> Result<(), ClientError> {
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed(path, error))?;
    }
    let fresh = path.with_extension(format!("new-{:08x}", fastrand::u32(..)));
    let mut options = fs::OpenOptions::new();
    let done = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| {
            file.write_all(text)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, path));
    done.map_err(|error| {
        _ = fs::remove_file(&fresh);
        failed(path, error)
    })
}

/// How much longer a token counts by what it says itself; what says nothing is
/// the server's to judge.
fn left(token: &str) -> Duration {
    #[derive(Deserialize)]
    struct End {
        exp: f64,
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    match jsonwebtoken::dangerous::insecure_decode_claims::<End>(token) {
        Ok(End { exp }) => Duration::try_from_secs_f64(exp - now).unwrap_or_default(),
        Err(_) => Duration::MAX,
    }
}
