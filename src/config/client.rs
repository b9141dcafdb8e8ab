//! The terminal client's options: from text to types.

use std::{net::IpAddr, path::PathBuf};

use clap::ArgMatches;

use super::{
    ConnectConfig, Credentials, HistoryConfig, HistoryPage, PeerConfig, Refusal, SendConfig,
    sources::{Given, Sources},
    tokens,
    value::quote,
};

/// How far each chat was read, in the home directory.
const MARKS: &str = ".local/state/chatd/read.json";

pub(super) fn connect(sources: &Sources<'_>, flags: &ArgMatches) -> Result<ConnectConfig, Refusal> {
    let after_seq = sources.number("after_seq")?;
    let exit_on_eof = sources.switch("exit_on_eof");
    let home = sources.variable("HOME")?;
    Ok(ConnectConfig {
        peer: peer(sources)?,
        chat: match flags.contains_id("chat") {
            true => Some(chat(flags)?),
            false => None,
        },
        // What the other two ask for, only lines have.
        plain: sources.switch("plain") || exit_on_eof || after_seq.is_some(),
        after_seq,
        exit_on_eof,
        marks: home.map(|home| PathBuf::from(home.text).join(MARKS)),
    })
}

pub(super) fn send(sources: &Sources<'_>, flags: &ArgMatches) -> Result<SendConfig, Refusal> {
    Ok(SendConfig {
        peer: peer(sources)?,
        chat: chat(flags)?,
        text: sources.need("text")?.text,
        id: sources.get("id")?.map(|given| given.text),
    })
}

pub(super) fn history(sources: &Sources<'_>, flags: &ArgMatches) -> Result<HistoryConfig, Refusal> {
    Ok(HistoryConfig {
        peer: peer(sources)?,
        chat: chat(flags)?,
        page: match (sources.number("before")?, sources.number("after")?) {
            (Some(seq), _) => HistoryPage::Before(seq),
            (None, Some(seq)) => HistoryPage::After(seq),
            (None, None) => HistoryPage::Newest,
        },
        limit: sources.need_number("limit")?,
    })
}

pub(super) fn peer(sources: &Sources<'_>) -> Result<PeerConfig, Refusal> {
    let ca = sources.path("ca")?;
    let addr = host_and_port(sources, "addr")?;
    let tls = sources.switch("tls") || ca.is_some();
    let credentials = tokens::credentials(sources, &addr)?;
    // In development mode a name is the token, and no secret.
    if !matches!(credentials, Credentials::Name(_)) {
        not_in_clear(sources, &addr, tls, "token")?;
    }
    Ok(PeerConfig {
        addr: addr.text,
        credentials,
        tls,
        ca,
    })
}

/// Refuses to send a secret where others on the way could read it, unless the
/// command says that it may.
pub(super) fn not_in_clear(
    sources: &Sources<'_>,
    addr: &Given,
    tls: bool,
    what: &str,
) -> Result<(), Refusal> {
    if tls || is_loopback(&addr.text) || sources.switch("plaintext") {
        return Ok(());
    }
    Err(addr.refuse(format!(
        "{} is another machine, and without TLS whoever is on the way can read the {what}: \
         use --tls, or --plaintext if the way is safe",
        quote(&addr.text)
    )))
}

/// Whether a `HOST:PORT` is on this machine: `localhost` or a loopback address.
pub fn is_loopback(addr: &str) -> bool {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whom to call: `HOST:PORT` and nothing else.
pub(super) fn host_and_port(sources: &Sources<'_>, id: &str) -> Result<Given, Refusal> {
    let addr = sources.need(id)?;
    let port = addr
        .text
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse::<u16>()));
    let Some((host, Ok(_))) = port else {
        let shown = quote(&addr.text);
        return Err(addr.refuse(format!("{shown} is not of the form HOST:PORT")));
    };
    let bare = !host.is_empty() && !host.contains(['/', '@', '?', '#']);
    if !bare || host.contains(char::is_whitespace) {
        let shown = quote(&addr.text);
        return Err(addr.refuse(format!("{shown} is not of the form HOST:PORT")));
    }
    Ok(addr)
}

fn chat(flags: &ArgMatches) -> Result<i64, Refusal> {
    let text = flags.get_one::<String>("chat").map_or("", String::as_str);
    match text.parse() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(Refusal::new(format!(
            "CHAT: {} is not a chat id, a whole number greater than 0",
            quote(text)
        ))),
    }
}
