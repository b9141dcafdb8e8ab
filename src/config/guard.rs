//! Who may come in, and how much they may ask for: from text to types.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use super::{Refusal, sources::Sources, value::quote};

/// How tokens are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthChoice {
    /// The token is the user's name, and is believed.
    Dev,
    /// The Auth Service is asked.
    Service(AccessConfig),
    /// By their signatures.
    Jwt(JwtConfig),
}

/// The Auth Service and how to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub ca: Option<PathBuf>,
    pub timeout: Duration,
}

/// What tokens are signed with, and what they have to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    pub keys: JwtKeys,
    pub iss: Option<String>,
    pub aud: Option<String>,
    pub leeway: Duration,
}

/// The file with the keys. Its kind is the operator's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// A JWKS, or public keys in PEM.
    Keys(PathBuf),
    /// The secret of HS256.
    Secret(PathBuf),
}

/// How long answers about tokens are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthCacheConfig {
    pub ttl: Duration,
    pub refusal_ttl: Duration,
    pub stale: Duration,
    pub entries: u64,
}

/// The files to serve TLS with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients have to show a certificate that is signed by one of these.
    pub client_ca: Option<PathBuf>,
}

/// Whose pages may call, and what the chat page is to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfig {
    /// As browsers write them, at most 32.
    pub origins: Vec<String>,
    /// Names besides addresses and localhost that the HTTP port answers to.
    pub hosts: Vec<String>,
    /// `None`: the gRPC port at the host that the page came from.
    pub url: Option<String>,
}

/// Origins or hosts that may be named; each is compared with every page's.
const MAX_LISTED: usize = 32;

/// Which users somebody may make members of a chat. Admins may add anyone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhoMayAdd {
    #[default]
    Anyone,
    /// Who is in a chat with the caller already.
    SharesAChat,
    /// Nobody: only admins may add others.
    Admin,
}

/// What clients may have of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitConfig {
    pub connections: usize,
    pub connection_streams: u32,
    pub user_streams: usize,
    /// A second; 0: any number.
    pub user_sends: u32,
    /// Of chats and their members, a second; 0: any number.
    pub user_changes: u32,
    /// Of chats, pages and lists, a second; 0: any number.
    pub user_reads: u32,
    /// That one has made and that are there; 0: any number.
    pub user_chats: usize,
    pub who_may_add: WhoMayAdd,
    pub inflight: usize,
    /// In bytes.
    pub header: u32,
    pub handshake: Duration,
    pub first_frame: Duration,
    /// Of a client's resets, those that work has not begun on; a connection.
    pub pending_resets: usize,
    /// Resets for a client's errors; a connection.
    pub error_resets: usize,
    pub keep_alive_interval: Duration,
    pub keep_alive_timeout: Duration,
}

/// Development mode believes everybody, so that it stays on this machine.
pub(super) fn auth(sources: &Sources<'_>, host: IpAddr) -> Result<AuthChoice, Refusal> {
    // An absurd value is refused also where it would not count.
    sources.need_number::<u16>("access_client_port")?;
    sources.need_time("auth_timeout")?;
    sources.need_time("jwt_leeway")?;
    let local = host.to_canonical().is_loopback();
    let given = sources.get("auth")?;
    match given.as_ref().map(|given| given.text.as_str()) {
        Some("service") => access(sources).map(AuthChoice::Service),
        Some("jwt") => jwt(sources).map(AuthChoice::Jwt),
        Some("dev") if local => Ok(AuthChoice::Dev),
        // Deployments from before there was an --auth name only the peer.
        None if sources.get("access_client_host")?.is_some() => {
            access(sources).map(AuthChoice::Service)
        }
        None if local => Ok(AuthChoice::Dev),
        None => Err(Refusal::new(format!(
            "--auth: no check of tokens is configured, and {host} is not a loopback address: \
             development mode, the default there, would trust any name"
        ))),
        Some(mode) => {
            let why = if mode == "dev" {
                format!(
                    "dev trusts any name as a token, so it is refused on {host}, which is not a \
                     loopback address"
                )
            } else {
                format!("{} is not a known mode (dev, service, jwt)", quote(mode))
            };
            Err(given.map_or_else(|| Refusal::new(&why), |given| given.refuse(&why)))
        }
    }
}

fn access(sources: &Sources<'_>) -> Result<AccessConfig, Refusal> {
    let host = sources.get("access_client_host")?.ok_or_else(|| {
        Refusal::new("--access-client-host: --auth service needs the Auth Service's host")
    })?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/@?#[]".contains(c);
    if host.text.is_empty() || host.text.contains(odd) {
        let shown = quote(&host.text);
        return Err(host.refuse(format!("{shown} is neither a host name nor an address")));
    }
    let ca = sources.path("access_client_ca")?;
    let tls = match sources.get("access_client_tls")? {
        None => ca.is_some(),
        Some(given) => match given.text.as_str() {
            "on" => true,
            "off" if ca.is_some() => {
                return Err(given.refuse("off contradicts --access-client-ca"));
            }
            "off" => false,
            other => return Err(given.refuse(format!("{} is neither on nor off", quote(other)))),
        },
    };
    Ok(AccessConfig {
        host: host.text,
        port: sources.need_number("access_client_port")?,
        tls,
        ca,
        timeout: sources.need_time("auth_timeout")?,
    })
}

fn jwt(sources: &Sources<'_>) -> Result<JwtConfig, Refusal> {
    let keys = match (sources.path("jwt_keys")?, sources.path("jwt_secret_file")?) {
        (Some(keys), None) => JwtKeys::Keys(keys),
        (None, Some(secret)) => JwtKeys::Secret(secret),
        (None, None) => {
            return Err(Refusal::new(
                "--jwt-keys: --auth jwt needs the keys that tokens are signed with, or the \
                 secret in --jwt-secret-file",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Refusal::new(
                "--jwt-secret-file: contradicts --jwt-keys; tokens are signed in one way",
            ));
        }
    };
    Ok(JwtConfig {
        keys,
        iss: sources.text("jwt_iss")?,
        aud: sources.text("jwt_aud")?,
        leeway: sources.need_time("jwt_leeway")?,
    })
}

pub(super) fn auth_cache(sources: &Sources<'_>) -> Result<AuthCacheConfig, Refusal> {
    Ok(AuthCacheConfig {
        ttl: sources.need_time("auth_cache_ttl")?,
        refusal_ttl: sources.need_time("auth_refusal_ttl")?,
        stale: sources.need_time("auth_stale")?,
        entries: sources.need_number("auth_cache_entries")?,
    })
}

pub(super) fn tls(sources: &Sources<'_>) -> Result<Option<TlsConfig>, Refusal> {
    let cert = sources.path("tls_cert")?;
    let key = sources.path("tls_key")?;
    let client_ca = sources.path("tls_client_ca")?;
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsConfig {
            cert,
            key,
            client_ca,
        })),
        (None, None) if client_ca.is_none() => Ok(None),
        (Some(_), None) => Err(Refusal::new("--tls-key: --tls-cert needs its private key")),
        (None, _) => Err(Refusal::new(
            "--tls-cert: --tls-key and --tls-client-ca need a certificate to serve with",
        )),
    }
}

pub(super) fn limits(sources: &Sources<'_>) -> Result<LimitConfig, Refusal> {
    Ok(LimitConfig {
        connections: sources.need_number("max_connections")?,
        connection_streams: sources.need_number("max_connection_streams")?,
        user_streams: sources.need_number("max_user_streams")?,
        user_sends: sources.need_number("max_user_sends")?,
        user_changes: sources.need_number("max_user_changes")?,
        user_reads: sources.need_number("max_user_reads")?,
        user_chats: sources.need_number("max_user_chats")?,
        who_may_add: who_may_add(sources)?,
        inflight: sources.need_number("max_inflight")?,
        header: sources.need_number("max_header")?,
        handshake: sources.need_time("handshake_timeout")?,
        first_frame: sources.need_time("first_frame_timeout")?,
        pending_resets: sources.need_number("max_pending_resets")?,
        error_resets: sources.need_number("max_error_resets")?,
        keep_alive_interval: sources.need_time("keep_alive_interval")?,
        keep_alive_timeout: sources.need_time("keep_alive_timeout")?,
    })
}

fn who_may_add(sources: &Sources<'_>) -> Result<WhoMayAdd, Refusal> {
    let given = sources.need("who_may_add")?;
    match given.text.as_str() {
        "anyone" => Ok(WhoMayAdd::Anyone),
        "shares-a-chat" => Ok(WhoMayAdd::SharesAChat),
        "admin" => Ok(WhoMayAdd::Admin),
        other => Err(given.refuse(format!(
            "{} is none of anyone, shares-a-chat, admin",
            quote(other)
        ))),
    }
}

pub(super) fn web(sources: &Sources<'_>) -> Result<WebConfig, Refusal> {
    let url = match sources.get("grpc_web_url")? {
        None => None,
        Some(given) => Some(origin(&given.text).map_err(|why| given.refuse(why))?),
    };
    Ok(WebConfig {
        origins: list(sources, "cors_origins", "origins", origin)?,
        hosts: list(sources, "http_hosts", "hosts", host_name)?,
        url,
    })
}

/// The parts of an option with commas between them, each as `read` has it.
fn list(
    sources: &Sources<'_>,
    id: &str,
    what: &str,
    read: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<String>, Refusal> {
    let Some(given) = sources.get(id)? else {
        return Ok(Vec::new());
    };
    let parts = given.text.split(',').map(|part| read(part.trim()));
    let parts: Vec<String> = parts
        .collect::<Result<_, _>>()
        .map_err(|why| given.refuse(why))?;
    if parts.len() > MAX_LISTED {
        return Err(given.refuse(format!("names more than {MAX_LISTED} {what}")));
    }
    Ok(parts)
}

fn host_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if text.is_empty() || !text.chars().all(allowed) {
        let shown = quote(text);
        return Err(format!("{shown} is not a host name without a port"));
    }
    Ok(text.to_owned())
}

/// `http://HOST` or `https://HOST`, with a port unless it is the scheme's own: as
/// a browser writes the origin of a page, so that comparing is enough.
fn origin(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let plain = || {
        let (scheme, authority) = lower.split_once("://")?;
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let parsed: http::uri::Authority = authority.parse().ok()?;
        let odd = authority.contains(['@', '*']) || parsed.host().is_empty();
        let port = parsed.port().map(|port| port.as_u16());
        let host = parsed.host();
        match port {
            _ if odd => None,
            Some(port) if port != usual => Some(format!("{scheme}://{host}:{port}")),
            Some(_) => Some(format!("{scheme}://{host}")),
            None if authority == host => Some(lower.clone()),
            None => None,
        }
    };
    let shown = quote(text);
    plain()
        .ok_or_else(|| format!("{shown} is not of the form http(s)://HOST or http(s)://HOST:PORT"))
}
