use std::{fmt, path::PathBuf, time::Duration};

use tokio_postgres::config::{Config, Host, SslMode, TargetSessionAttrs};

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

/// A database's address, as libpq would read it.
#[derive(Debug, Clone)]
pub(super) struct Dsn {
    pub config: Config,
    pub verify: Verify,
    pub root_cert: Option<PathBuf>,
}

impl Dsn {
    /// Reads a URL or libpq's `key=value` form. tokio-postgres knows neither the
    /// verifying modes of `sslmode` nor `sslrootcert`, so these are taken out
    /// first.
    pub fn parse(text: &str) -> Result<Self, OpenError> {
        let mut tls = TlsOptions::default();
        let rest = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            tls.take_from_url(text)?
        } else {
            tls.take_from_pairs(text)?
        };
        let mut config: Config = rest.parse().map_err(|e: tokio_postgres::Error| {
            // The source names the option; neither repeats the password.
            let why =
                std::error::Error::source(&e).map_or_else(|| e.to_string(), |s| s.to_string());
            OpenError::Dsn(why)
        })?;
        let (mode, mut verify) = match tls.mode.as_deref() {
            None | Some("prefer" | "allow") => (SslMode::Prefer, Verify::Nothing),
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Issuer),
            Some("verify-full") => (SslMode::Require, Verify::IssuerAndName),
            Some(other) => {
                return Err(OpenError::Dsn(format!("unknown sslmode {other}")));
            }
        };
        // As libpq does: whoever names a root certificate wants it used.
        if tls.root_cert.is_some() && mode == SslMode::Require && verify == Verify::Nothing {
            verify = Verify::Issuer;
        }
        config.ssl_mode(mode);
        complete(&mut config, text)?;
        Ok(Self {
            config,
            verify,
            root_cert: tls.root_cert.map(PathBuf::from),
        })
    }
}

/// Where the database is, as whom and which, without the password.
impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let ports = self.config.get_ports();
        let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(5432);
        let places: Vec<String> = hosts
            .enumerate()
            .map(|(n, host)| format!("{host}:{}", port(n)))
            .collect();
        let user = self.config.get_user().unwrap_or_default();
        let name = self.config.get_dbname().unwrap_or(user);
        write!(f, "postgres {name} at {} as {user}", places.join(","))
    }
}

fn complete(config: &mut Config, text: &str) -> Result<(), OpenError> {
    if config.get_hosts().is_empty() {
        // The name a certificate is checked against.
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    if config.get_hosts().is_empty() {
        return Err(OpenError::Dsn("no host is given".into()));
    }
    // PostgreSQL has no TLS on a Unix socket, and libpq ignores sslmode there.
    if config
        .get_hosts()
        .iter()
        .all(|h| matches!(h, Host::Unix(_)))
    {
        config.ssl_mode(SslMode::Disable);
    }
    // Of several hosts the one that takes writes is meant.
    if config.get_hosts().len() > 1 && !text.contains("target_session_attrs") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_application_name().is_none() {
        config.application_name("chatd");
    }
    // A peer that is gone without a word is noticed in seconds, not hours.
    if !text.contains("keepalives") {
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(15));
    }
    Ok(())
}

#[derive(Default)]
struct TlsOptions {
    mode: Option<String>,
    root_cert: Option<String>,
}

impl TlsOptions {
    /// Whether the option was one of ours.
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.into()),
            "sslrootcert" => self.root_cert = Some(value.into()),
            _ => return false,
        }
        true
    }

    fn take_from_url(&mut self, url: &str) -> Result<String, OpenError> {
        let Some((head, query)) = url.split_once('?') else {
            return Ok(url.into());
        };
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !self.take(key, &percent_decoded(value)?) {
                kept.push(pair);
            }
        }
        Ok(match kept.as_slice() {
            [] => head.into(),
            kept => format!("{head}?{}", kept.join("&")),
        })
    }

    fn take_from_pairs(&mut self, text: &str) -> Result<String, OpenError> {
        let mut kept = String::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (key, tail) = rest
                .split_once('=')
                .ok_or_else(|| OpenError::Dsn("it is neither a URL nor key=value".into()))?;
            let (value, tail) = pair_value(tail.trim_start())?;
            let key = key.trim_end();
            if !self.take(key, &value) {
                let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
                kept.push_str(&format!("{key}='{quoted}' "));
            }
            rest = tail.trim_start();
        }
        Ok(kept)
    }
}

/// A value, quoted or not, and what follows it.
fn pair_value(text: &str) -> Result<(String, &str), OpenError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        return Err(OpenError::Dsn("a quoted value does not end".into()));
    }
    Ok((value, ""))
}

fn percent_decoded(text: &str) -> Result<String, OpenError> {
    let bad = || OpenError::Dsn("bad percent-encoding".into());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_all_modes_are_read() {
        let url = "postgres://u:p%40@db:6000/chat?sslmode=verify-full&sslrootcert=%2Fa%20b.pem&connect_timeout=3";
        let pairs = r"host=db port = 6000 user=u password='p@' dbname=chat sslmode=verify-full sslrootcert='/a b.pem' connect_timeout=3";
        for text in [url, pairs] {
            let dsn = Dsn::parse(text).unwrap();
            assert_eq!(dsn.verify, Verify::IssuerAndName);
            assert_eq!(dsn.root_cert, Some("/a b.pem".into()));
            assert_eq!(dsn.config.get_ssl_mode(), SslMode::Require);
            assert_eq!(dsn.config.get_password(), Some(&b"p@"[..]));
            assert_eq!(dsn.config.get_ports(), [6000]);
            assert_eq!(dsn.config.get_dbname(), Some("chat"));
            assert_eq!(
                dsn.config.get_connect_timeout(),
                Some(&Duration::from_secs(3))
            );
        }
    }

    #[test]
    fn a_root_certificate_is_used_where_tls_is_required() {
        let dsn = Dsn::parse("host=db sslmode=require sslrootcert=ca.pem").unwrap();
        assert_eq!(dsn.verify, Verify::Issuer);
        let dsn = Dsn::parse("host=db sslmode=require").unwrap();
        assert_eq!(dsn.verify, Verify::Nothing);
        assert_eq!(dsn.config.get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn a_unix_socket_has_no_tls() {
        let dsn = Dsn::parse("host=/run/postgresql sslmode=require user=u").unwrap();
        assert_eq!(dsn.config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn nonsense_is_refused_without_repeating_the_password() {
        for bad in [
            "postgres://u:hush@db/x?sslmode=maybe",
            "postgres://u:hush@db/x?nonsense=1",
            "password=hush user=u",
            "password=hush host='db",
            "hush",
        ] {
            let error = Dsn::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
