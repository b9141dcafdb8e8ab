//! Where tokens come from: from text to types.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{
    LogFormat, Refusal, Secret,
    client::{host_and_port, not_in_clear},
    read::{host, log_format, log_level},
    sources::{Given, Sources},
    value::quote,
};

/// Where `chatd login` leaves the tokens, in the home directory.
const TOKEN_FILE: &str = ".config/chatd/tokens.json";

/// What a client shows to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's name, which development mode takes for the token.
    Name(String),
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
    /// How long all refresh tokens of one login count together.
    pub login_ttl: Duration,
    /// A minute, for one name from one address.
    pub max_logins: u32,
    /// Whose `x-forwarded-for` says where a login comes from.
    pub login_proxies: Vec<IpAddr>,
    pub log_level: String,
    pub log_format: LogFormat,
}

/// Whom to get tokens from, and where to leave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    pub name: String,
    /// `HOST:PORT`.
    pub auth_addr: String,
    /// `HOST:PORT` of the chat server that the tokens are for.
    pub addr: String,
    pub tls: bool,
    /// The password and the tokens may go to another machine without TLS.
    pub plaintext: bool,
    pub ca: Option<PathBuf>,
    pub token_file: PathBuf,
}

/// What to show to the server at `addr`.
pub(super) fn credentials(sources: &Sources<'_>, addr: &Given) -> Result<Credentials, Refusal> {
    if let Some(token) = sources.get("token")? {
        printable(&token)?;
        is_for(sources, &token, addr)?;
        return Ok(Credentials::Token(Secret::new(token.text)));
    }
    if let Some(name) = sources.get("as_user")? {
        printable(&name)?;
        return Ok(Credentials::Name(name.text));
    }
    match token_file(sources)? {
        Some(path) if path.exists() => Ok(Credentials::File(path)),
        _ => Err(Refusal::new(
            "--as: who are you? Give a name, or a token (--token, CHAT_TOKEN), or use chatd login",
        )),
    }
}

fn printable(given: &Given) -> Result<(), Refusal> {
    if given.text.is_empty() || given.text.contains(char::is_control) {
        return Err(given.refuse("must not be empty or hold control characters"));
    }
    Ok(())
}

/// Refuses to send a token elsewhere than it was given for. A token of the command
/// line is for whatever address the command has; one of the environment or of a
/// file is for the address beside it, and never for one that only a file names.
fn is_for(sources: &Sources<'_>, token: &Given, addr: &Given) -> Result<(), Refusal> {
    let (name, place) = match &token.place {
        None => return Ok(()),
        Some(place) => (&token.name, place),
    };
    match sources.beside(token, "CHAT_ADDR") {
        Some(own) if own.eq_ignore_ascii_case(&addr.text) => Ok(()),
        Some(own) => Err(addr.refuse(format!(
            "{name} is for {}, the CHAT_ADDR beside it in {place}: give a token for {} with \
             --token",
            quote(&own),
            quote(&addr.text)
        ))),
        None if sources.is_of_file(addr) => Err(addr.refuse(format!(
            "{name} was not given for this address, but in {place}: name the address with --addr"
        ))),
        None => Ok(()),
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
    let tls = sources.switch("tls") || ca.is_some();
    let auth_addr = host_and_port(sources, "auth_addr")?;
    not_in_clear(sources, &auth_addr, tls, "password")?;
    Ok(LoginConfig {
        name: sources.need("name")?.text,
        auth_addr: auth_addr.text,
        addr: host_and_port(sources, "addr")?.text,
        tls,
        plaintext: sources.switch("plaintext"),
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
        login_ttl: sources.need_time("login_ttl")?,
        max_logins: sources.need_number("max_logins")?,
        login_proxies: addresses(&sources.need("login_proxies")?)?,
        log_level: log_level(sources)?,
        log_format: log_format(sources)?,
    })
}

/// IP addresses with commas between them.
fn addresses(given: &Given) -> Result<Vec<IpAddr>, Refusal> {
    let parts = given.text.split(',').map(str::trim);
    let parts = parts.filter(|part| !part.is_empty());
    let addresses = parts.map(|part| {
        let address = part.parse::<IpAddr>();
        let address =
            address.map_err(|_| given.refuse(format!("{} is not an IP address", quote(part))))?;
        Ok(address.to_canonical())
    });
    addresses.collect()
}
