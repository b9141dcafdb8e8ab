//! The terminal client's options: from text to types.

use std::path::PathBuf;

use clap::ArgMatches;

use super::{
    ConnectConfig, HistoryConfig, HistoryPage, PeerConfig, Refusal, SendConfig, sources::Sources,
    tokens, value::quote,
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
    Ok(PeerConfig {
        addr: host_and_port(sources, "addr")?,
        credentials: tokens::credentials(sources)?,
        tls: sources.switch("tls") || ca.is_some(),
        ca,
    })
}

/// Whom to call: `HOST:PORT` and nothing else.
pub(super) fn host_and_port(sources: &Sources<'_>, id: &str) -> Result<String, Refusal> {
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
    Ok(addr.text)
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
