//! From a connection string to libpq's words, and their values.

use crate::store::postgres::error::OpenError;

pub(super) type Words = Vec<(String, String)>;

fn bad<T>(why: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError::Dsn(why.into()))
}

/// Reads a URL or the `key=value` form. What comes later counts. No error
/// repeats a value: it may be the password, or a part of it.
pub(super) fn read(text: &str) -> Result<Words, OpenError> {
    let text = text.trim();
    let url = ["postgres://", "postgresql://"];
    match url.iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => from_url(rest),
        None => from_pairs(text),
    }
}

/// As libpq does: a user ends at the first `@` before any `/`, so a password may
/// hold a `?`.
fn from_url(rest: &str) -> Result<Words, OpenError> {
    let mut words = Words::new();
    let mut add = |key: &str, text: &str| -> Result<(), OpenError> {
        if !text.is_empty() {
            words.push((key.to_owned(), percent_decoded(text)?));
        }
        Ok(())
    };
    let mut rest = rest;
    if let Some(at) = rest.find(['@', '/'])
        && rest[at..].starts_with('@')
    {
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        add("user", user)?;
        add("password", password)?;
        rest = &rest[at + 1..];
    }
    let (places, query) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in places.split(',') {
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, "")) => (host, ""),
                Some((host, port)) if port.starts_with(':') => (host, &port[1..]),
                _ => return bad("an IPv6 address needs its brackets, as in [::1]:5432"),
            },
            None => place.rsplit_once(':').unwrap_or((place, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    add("host", &hosts.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","))?;
    }
    let (name, query) = query.split_once('?').unwrap_or((query, ""));
    // It would be logged as the database's name.
    if name.contains('@') {
        return bad("there is an @ behind a /: percent-encode what the password has of these");
    }
    add("dbname", name.strip_prefix('/').unwrap_or(name))?;
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            return bad("an option of the URL has no value");
        };
        let key = percent_decoded(key)?;
        match (&*key, value) {
            ("ssl", "true") => words.push(("sslmode".into(), "require".into())),
            _ => words.push((key, percent_decoded(value)?)),
        }
    }
    Ok(words)
}

fn from_pairs(text: &str) -> Result<Words, OpenError> {
    let mut words = Words::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, tail)) = rest.split_once('=') else {
            return bad("it is neither a URL nor key=value");
        };
        let (value, tail) = pair_value(tail.trim_start())?;
        words.push((key.trim_end().to_owned(), value));
        rest = tail.trim_start();
    }
    Ok(words)
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
        return bad("a quoted value does not end");
    }
    Ok((value, ""))
}

fn percent_decoded(text: &str) -> Result<String, OpenError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b != b'%' {
            bytes.push(b);
            continue;
        }
        let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return bad("bad percent-encoding");
        };
        bytes.push((high * 16 + low) as u8);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => bad("bad percent-encoding"),
    }
}
