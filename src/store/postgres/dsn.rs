mod files;
mod words;

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::config::{
    ChannelBinding, Config, Host, SslMode, SslNegotiation, TargetSessionAttrs,
};

use self::{files::Asker, words::Words};
use super::error::OpenError;

/// What the TLS to the database proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: it only keeps out who merely listens.
    Nothing,
    /// The certificate's issuer.
    Issuer,
    /// The issuer, and that the certificate is for this host.
    IssuerAndName,
}

/// The roots of trust, where TLS proves something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    Public,
    File(PathBuf),
}

/// Where a server may be.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub host: Host,
    /// The address to go to instead of asking for the host's.
    pub addr: Option<IpAddr>,
    pub port: u16,
    /// Of the password file, for this place.
    pub password: Option<String>,
}

/// A database's address, as libpq would read it.
#[derive(Debug, Clone)]
pub(super) struct Dsn {
    /// In the order in which they are tried; at least one.
    pub places: Vec<Place>,
    /// In any order.
    pub shuffled: bool,
    /// All but the places.
    pub config: Config,
    /// For each address of a place, authentication included.
    pub connect_timeout: Option<Duration>,
    pub verify: Verify,
    pub roots: Roots,
    /// A certificate of our own, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Dsn {
    /// Reads a URL or libpq's `key=value` form.
    pub fn parse(text: &str) -> Result<Self, OpenError> {
        let mut words = words::read(text)?;
        if let Some(name) = last(&words, "service") {
            // What the address says itself goes before what the service says.
            let mut all = files::service(name, last(&words, "servicefile"))?;
            all.append(&mut words);
            words = all;
        }
        words.retain(|(key, _)| !matches!(&**key, "service" | "servicefile"));
        let config = config(&words)?;
        let (mode, verify, roots) = tls(&words)?;
        let mut dsn = Self {
            places: places(&words)?,
            shuffled: match last(&words, "load_balance_hosts") {
                None | Some("disable") => false,
                Some("random") => true,
                Some(_) => return bad("load_balance_hosts is disable or random"),
            },
            connect_timeout: seconds(&words, "connect_timeout")?,
            verify,
            roots,
            identity: match (last(&words, "sslcert"), last(&words, "sslkey")) {
                (None, None) => None,
                (Some(cert), Some(key)) => Some((cert.into(), key.into())),
                _ => return bad("sslcert and sslkey are given together"),
            },
            config,
        };
        // PostgreSQL has no TLS on a Unix socket, and libpq ignores sslmode there.
        let unix = |place: &Place| matches!(place.host, Host::Unix(_));
        let unix = dsn.places.iter().all(unix);
        dsn.config
            .ssl_mode(if unix { SslMode::Disable } else { mode });
        dsn.ask_for_passwords(last(&words, "passfile"))?;
        Ok(dsn)
    }

    fn ask_for_passwords(&mut self, file: Option<&str>) -> Result<(), OpenError> {
        let Some(user) = self.config.get_user() else {
            return Ok(());
        };
        if self.config.get_password().is_some() {
            return Ok(());
        }
        let lines = files::passwords(file)?;
        let database = self.config.get_dbname().unwrap_or(user);
        for place in &mut self.places {
            let port = place.port;
            let ask = |host: &str| {
                let asker = Asker {
                    host,
                    port,
                    database,
                    user,
                };
                files::password_for(&lines, &asker)
            };
            place.password = match &place.host {
                Host::Tcp(name) => ask(name),
                Host::Unix(path) => ask(&path.display().to_string()).or_else(|| ask("localhost")),
            };
        }
        Ok(())
    }
}

/// Without the password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
            Host::Unix(path) => write!(f, "{}:{}", path.display(), self.port),
        }
    }
}

/// Where the database is, as whom and which, without the password.
impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.places.iter().map(Place::to_string).collect();
        let user = self.config.get_user().unwrap_or_default();
        let name = self.config.get_dbname().unwrap_or(user);
        write!(f, "postgres {name} at {} as {user}", places.join(","))
    }
}

fn bad<T>(why: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError::Dsn(why.into()))
}

fn last<'w>(words: &'w Words, key: &str) -> Option<&'w str> {
    let found = words.iter().rev().find(|(name, _)| name == key);
    found.map(|(_, value)| &**value)
}

fn number(key: &str, value: &str) -> Result<u64, OpenError> {
    match value.trim().parse::<i64>() {
        Ok(number) => Ok(number.max(0) as u64),
        Err(_) => bad(format!("{key} is not a number")),
    }
}

/// Zero and less mean that it is not given.
fn seconds(words: &Words, key: &str) -> Result<Option<Duration>, OpenError> {
    let Some(value) = last(words, key) else {
        return Ok(None);
    };
    let seconds = number(key, value)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

fn config(words: &Words) -> Result<Config, OpenError> {
    let mut config = Config::new();
    // A peer that is gone without a word is noticed in seconds, not hours.
    config
        .application_name(last(words, "fallback_application_name").unwrap_or("chatd"))
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(15))
        // Asked for at each connection, where the answer is: see `connect`.
        .target_session_attrs(TargetSessionAttrs::Any);
    for (key, value) in words {
        match (&**key, &**value) {
            ("user", user) => _ = config.user(user),
            ("password", password) => _ = config.password(password),
            ("dbname", name) => _ = config.dbname(name),
            ("options", options) => _ = config.options(options),
            ("application_name", name) => _ = config.application_name(name),
            ("keepalives", n) => _ = config.keepalives(number(key, n)? != 0),
            ("keepalives_idle", n) => {
                _ = config.keepalives_idle(Duration::from_secs(number(key, n)?.max(1)));
            }
            ("keepalives_interval", n) => {
                _ = config.keepalives_interval(Duration::from_secs(number(key, n)?.max(1)));
            }
            // The second is what tokio-postgres calls it.
            ("keepalives_count" | "keepalives_retries", n) => {
                _ = config.keepalives_retries(number(key, n)?.clamp(1, 100) as u32);
            }
            ("tcp_user_timeout", n) => match number(key, n)? {
                0 => {}
                millis => _ = config.tcp_user_timeout(Duration::from_millis(millis)),
            },
            ("sslnegotiation", "postgres") => {}
            ("sslnegotiation", "direct") => _ = config.ssl_negotiation(SslNegotiation::Direct),
            ("channel_binding", "disable") => {
                _ = config.channel_binding(ChannelBinding::Disable);
            }
            ("channel_binding", "prefer") => {}
            ("channel_binding", "require") => {
                _ = config.channel_binding(ChannelBinding::Require);
            }
            // chatd writes through every session, whatever is asked for.
            ("target_session_attrs", "any" | "read-write" | "primary") => {}
            ("target_session_attrs", "read-only" | "standby" | "prefer-standby") => {
                return bad("target_session_attrs: chatd needs sessions that write (read-write)");
            }
            ("client_encoding", name) if name.eq_ignore_ascii_case("auto") => {}
            ("client_encoding", name)
                if name.eq_ignore_ascii_case("utf8") || name.eq_ignore_ascii_case("utf-8") => {}
            ("gssencmode", "disable" | "prefer") | ("sslsni", "1") | ("sslcompression", "0") => {}
            ("ssl_min_protocol_version", "TLSv1" | "TLSv1.1" | "TLSv1.2") => {}
            (
                "host"
                | "hostaddr"
                | "port"
                | "connect_timeout"
                | "passfile"
                | "sslmode"
                | "sslrootcert"
                | "sslcert"
                | "sslkey"
                | "load_balance_hosts"
                | "fallback_application_name",
                _,
            ) => {}
            (
                "sslnegotiation"
                | "channel_binding"
                | "target_session_attrs"
                | "client_encoding"
                | "gssencmode"
                | "sslsni"
                | "sslcompression"
                | "ssl_min_protocol_version",
                _,
            ) => return bad(format!("{key} has a value that chatd does not have")),
            _ => return bad(format!("unknown option {key}")),
        }
    }
    Ok(config)
}

fn tls(words: &Words) -> Result<(SslMode, Verify, Roots), OpenError> {
    let roots = match last(words, "sslrootcert") {
        None | Some("system") => Roots::Public,
        Some(path) => Roots::File(path.into()),
    };
    let system = last(words, "sslrootcert") == Some("system");
    let given = last(words, "sslmode");
    let (mode, mut verify) = match given {
        None if system => (SslMode::Require, Verify::IssuerAndName),
        None | Some("prefer" | "allow") => (SslMode::Prefer, Verify::Nothing),
        Some("disable") => (SslMode::Disable, Verify::Nothing),
        Some("require") => (SslMode::Require, Verify::Nothing),
        Some("verify-ca") => (SslMode::Require, Verify::Issuer),
        Some("verify-full") => (SslMode::Require, Verify::IssuerAndName),
        Some(other) => return bad(format!("unknown sslmode {other}")),
    };
    if system && verify != Verify::IssuerAndName {
        return bad("sslrootcert=system needs sslmode=verify-full");
    }
    // As libpq does: whoever names a root certificate wants it used.
    if mode == SslMode::Require && verify == Verify::Nothing && roots != Roots::Public {
        verify = Verify::Issuer;
    }
    Ok((mode, verify, roots))
}

fn places(words: &Words) -> Result<Vec<Place>, OpenError> {
    let list = |key: &str| -> Vec<&str> {
        let given = last(words, key).filter(|text| !text.is_empty());
        given.map_or_else(Vec::new, |text| text.split(',').collect())
    };
    let (hosts, addrs, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = hosts.len().max(addrs.len());
    if count == 0 {
        return bad("no host is given");
    }
    if !hosts.is_empty() && !addrs.is_empty() && hosts.len() != addrs.len() {
        return bad("host and hostaddr are lists of different lengths");
    }
    if ports.len() > 1 && ports.len() != count {
        return bad("port is one, or one for each host");
    }
    let mut places = Vec::with_capacity(count);
    for n in 0..count {
        let addr = addrs.get(n).filter(|text| !text.is_empty());
        let addr: Option<IpAddr> = match addr.map(|text| text.trim().parse()) {
            None => None,
            Some(Ok(addr)) => Some(addr),
            Some(Err(_)) => return bad("hostaddr is not an IP address"),
        };
        let host = match (hosts.get(n).map(|text| text.trim()), addr) {
            (Some(name), _) if name.starts_with('/') => Host::Unix(name.into()),
            (Some(name), _) if !name.is_empty() => Host::Tcp(name.into()),
            // The name that a certificate is checked against.
            (_, Some(addr)) => Host::Tcp(addr.to_string()),
            (_, None) => return bad("a host is empty"),
        };
        let port = ports.get(n).or(ports.first()).map(|text| text.trim());
        let port = match port.filter(|text| !text.is_empty()).map(str::parse) {
            None => 5432,
            Some(Ok(port)) => port,
            Some(Err(_)) => return bad("port is not a number from 1 to 65535"),
        };
        places.push(Place {
            host,
            addr,
            port,
            password: None,
        });
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
