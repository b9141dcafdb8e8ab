//! Where tokens come from: from text to types.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    LogFormat, Refusal, Secret,
    client::host_and_port,
    read::{host, log_format, log_level},
    sources::Sources,
};

/// Where `chatd login` leaves the tokens, in the home directory.
const TOKEN_FILE: &str = ".config/chatd/tokens.json";

/// What a client shows to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    Token(Secret),
    /// What `chatd login` has left.
    File(PathBuf),
}

/// The reference Auth Service's options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenServerConfig {
    pub host: IpAddr,
    /// 0: any free port.
    pub port: u16,
    pub users: PathBuf,
    pub secret: PathBuf,
    pub access_ttl: Duration,
    pub refresh_ttl: Duration,
    /// A minute, per name.
    pub max_logins: u32,
    pub log_level: String,
    pub log_format: LogFormat,
}

/// Whom to get tokens from, and where to leave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    pub name: String,
    /// `HOST:PORT`.
    pub auth_addr: String,
    pub tls: bool,
    pub ca: Option<PathBuf>,
    pub token_file: PathBuf,
}

pub(super) fn credentials(sources: &Sources<'_>) -> Result<Credentials, Refusal> {
    let given = match sources.get("token")? {
        Some(token) => Some(token),
        None => sources.get("as_user")?,
    };
    if let Some(token) = given {
        if token.text.is_empty() || token.text.contains(char::is_control) {
            return Err(token.refuse("must not be empty or hold control characters"));
        }
        return Ok(Credentials::Token(Secret::new(token.text)));
    }
    match token_file(sources)? {
        Some(path) if path.exists() => Ok(Credentials::File(path)),
        _ => Err(Refusal::new(
            "--as: who are you? Give a name, or a token (--token, CHAT_TOKEN), or use chatd login",
        )),
    }
}

fn token_file(sources: &Sources<'_>) -> Result<Option<PathBuf>, Refusal> {
    if let Some(path) = sources.path("token_file")? {
        return Ok(Some(path));
    }
    let home = sources.variable("HOME")?;
    Ok(home.map(|home| PathBuf::from(home.text).join(TOKEN_FILE)))
}

pub(super) fn login(sources: &Sources<'_>) -> Result<LoginConfig, Refusal> {
    let ca = sources.path("ca")?;
    let token_file = token_file(sources)?
        .ok_or_else(|| Refusal::new("--token-file: there is no home directory to leave it in"))?;
    Ok(LoginConfig {
        name: sources.need("name")?.text,
        auth_addr: host_and_port(sources, "auth_addr")?,
        tls: sources.switch("tls") || ca.is_some(),
        ca,
        token_file,
    })
}

pub(super) fn server(sources: &Sources<'_>) -> Result<TokenServerConfig, Refusal> {
    let path = |id, default: &str| -> Result<PathBuf, Refusal> {
        Ok(sources.path(id)?.unwrap_or_else(|| default.into()))
    };
    Ok(TokenServerConfig {
        host: host(sources, "auth_host")?,
        port: sources.need_number("auth_port")?,
        users: path("users", "./users.toml")?,
        secret: path("token_secret", "./token.secret")?,
        access_ttl: sources.need_time("access_ttl")?,
        refresh_ttl: sources.need_time("refresh_ttl")?,
        max_logins: sources.need_number("max_logins")?,
        log_level: log_level(sources)?,
        log_format: log_format(sources)?,
    })
}
