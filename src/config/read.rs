//! From the four sources to typed values.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    thread,
};

use clap::error::ErrorKind;

use super::{
    Command, CreateConfig, LogFormat, MemoryChoice, Refusal, Secret, ServeConfig, StoreChoice,
    client, cluster, guard, health, options,
    sources::{Environment, Sources},
    tokens,
    value::{Bounds, GIB, MIB, quote},
};

const DEFAULT_STORE: &str = "./data/chat.db";
const DEFAULT_HTTP_PORT: u16 = 8093;
/// The wire's longest user name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// What `--memory` may be as a size.
const MEMORY: Bounds = Bounds::Size(16 * MIB, 4_096 * GIB);
const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

/// The environment of this process. A name that is not UTF-8 is not ours.
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect()
}

/// Reads a command line (its first word is the program's name).
///
/// # Errors
/// If an option is unknown, out of its bounds or cannot be read.
pub fn command(
    args: impl IntoIterator<Item = OsString>,
    env: &Environment,
) -> Result<Command, Refusal> {
    let matches = match options::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                return Ok(Command::Print(e.to_string()));
            }
            _ => return Err(Refusal::new(one_line(&e.to_string()))),
        },
    };
    let Some((name, flags)) = matches.subcommand() else {
        return Err(Refusal::new("a command is needed, see --help"));
    };
    let of_server = matches!(
        name,
        "serve" | "migrate" | "doctor" | "health" | "cluster" | "auth"
    );
    let sources = Sources::new(flags, env, of_server)?;
    Ok(match name {
        "migrate" => Command::Migrate(store(&sources)?),
        "serve" => Command::Serve(Box::new(serve(&sources)?)),
        "doctor" => Command::Doctor(serve(&sources).map(Box::new)),
        "health" => Command::Health(health::health(&sources)?),
        "cluster" => Command::Cluster(cluster::ask(&sources, flags)?),
        "create" => Command::Create(CreateConfig {
            peer: client::peer(&sources)?,
            with: names(&sources, "with")?,
        }),
        "connect" => Command::Connect(client::connect(&sources, flags)?),
        "send" => Command::Send(client::send(&sources, flags)?),
        "history" => Command::History(client::history(&sources, flags)?),
        "login" => Command::Login(tokens::login(&sources)?),
        "auth" if flags.subcommand_name() == Some("hash") => Command::HashPassword,
        "auth" => Command::Auth(tokens::server(&sources)?),
        _ => return Err(Refusal::new("this command is not built yet")),
    })
}

/// A server's configuration from flags alone: no environment, no `.env` file,
/// and no HTTP port unless the flags say so.
/// For servers that a test starts in its own process.
///
/// # Errors
/// As for a command line.
pub fn serve_from(flags: &[&str]) -> Result<ServeConfig, Refusal> {
    let args = ["chatd", "serve", "--config-path", ""];
    let args = args.iter().chain(flags).map(OsString::from);
    let quiet = Environment::from([("HTTP_PORT".into(), "off".into())]);
    match command(args, &quiet)? {
        Command::Serve(config) => Ok(*config),
        _ => Err(Refusal::new("not a server's options")),
    }
}

fn serve(sources: &Sources<'_>) -> Result<ServeConfig, Refusal> {
    let grpc_host = host(sources, "grpc_host")?;
    let grpc_port = sources.need_number("grpc_port")?;
    let all_cores = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(256);
    let cores = sources.number_or("cores", all_cores)?;
    let store = store(sources)?;
    Ok(ServeConfig {
        grpc_host,
        grpc_port,
        http_host: host(sources, "http_host")?,
        http_port: http_port(sources, grpc_port)?,
        cluster: cluster::cluster(sources, &store)?,
        store,
        store_readers: sources.need_number("store_readers")?,
        store_stall: sources.need_time("store_stall")?,
        auth: guard::auth(sources, grpc_host)?,
        auth_cache: guard::auth_cache(sources)?,
        tls: guard::tls(sources)?,
        limits: guard::limits(sources)?,
        web: guard::web(sources)?,
        dev_admins: names(sources, "dev_admins")?,
        cores,
        shards: sources.number_or("shards", cores)?,
        writer_lanes: sources.number_or("writer_lanes", cores.min(64))?,
        batch_rows: sources.need_number("batch_rows")?,
        batch_bytes: sources.need_number("batch_bytes")?,
        mailbox: sources.need_number("mailbox")?,
        pending_rows: sources.need_number("pending_rows")?,
        pending_bytes: sources.need_number("pending_bytes")?,
        ring: sources.need_number("ring")?,
        ring_bytes: sources.need_number("ring_bytes")?,
        memory: memory(sources)?,
        chat_idle: sources.need_time("chat_idle")?,
        max_text: sources.need_number("max_text")?,
        max_data: sources.need_number("max_data")?,
        max_mentions: sources.need_number("max_mentions")?,
        max_members: sources.need_number("max_members")?,
        edit_window: sources.need_time("edit_window")?,
        max_reactions: sources.need_number("max_reactions")?,
        send_timeout: sources.need_time("send_timeout")?,
        drain_timeout: sources.need_time("drain_timeout")?,
        stream_posts: sources.need_number("stream_posts")?,
        stream_buffer: sources.need_number("stream_buffer")?,
        log_level: log_level(sources)?,
        log_format: log_format(sources)?,
        otlp_endpoint: otlp_endpoint(sources)?,
        trace_sample: trace_sample(sources)?,
        warnings: sources.warnings(),
    })
}

/// A size, or a share in percent.
fn memory(sources: &Sources<'_>) -> Result<MemoryChoice, Refusal> {
    let given = sources.need("memory")?;
    if let Some(share) = given.text.strip_suffix('%') {
        return match Bounds::Count(1, 90).read(share.trim()) {
            Ok(percent) => Ok(MemoryChoice::Share(percent as u8)),
            Err(why) => Err(given.refuse(format!("{why}, in percent"))),
        };
    }
    let size = MEMORY.read(&given.text).map_err(|why| given.refuse(why))?;
    Ok(MemoryChoice::Size(size))
}

/// An address to listen on.
pub(super) fn host(sources: &Sources<'_>, id: &str) -> Result<IpAddr, Refusal> {
    let given = sources.need(id)?;
    if given.text == "localhost" {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    given.text.parse().map_err(|_| {
        let shown = quote(&given.text);
        given.refuse(format!("{shown} is neither an IP address nor localhost"))
    })
}

/// The value is not shown in a refusal: a mistyped URL still has its password.
fn store(sources: &Sources<'_>) -> Result<StoreChoice, Refusal> {
    if let Some(given) = sources.get("store")? {
        let text = given.text.trim();
        return match text.strip_prefix("sqlite:") {
            Some("") => Err(given.refuse("sqlite: needs a path, as in sqlite:./data/chat.db")),
            Some(path) => Ok(StoreChoice::Sqlite(PathBuf::from(path))),
            None if text == "memory" => Ok(StoreChoice::Memory),
            None if is_postgres_url(text) => Ok(StoreChoice::Postgres(Secret::new(text))),
            None => Err(given.refuse("is not sqlite:PATH, memory or a postgres:// URL")),
        };
    }
    if let Some(given) = sources.variable("PG_DSN")? {
        let text = given.text.as_str();
        return if is_postgres_url(text) || (text.contains('=') && !text.contains("://")) {
            Ok(StoreChoice::Postgres(Secret::new(text)))
        } else {
            Err(given.refuse("is neither a postgres:// URL nor key=value pairs"))
        };
    }
    Ok(StoreChoice::Sqlite(PathBuf::from(DEFAULT_STORE)))
}

fn is_postgres_url(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| {
        text.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty())
    })
}

/// A comma-separated list of user names.
fn names(sources: &Sources<'_>, id: &str) -> Result<Vec<String>, Refusal> {
    let Some(given) = sources.get(id)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for name in given.text.split(',').map(str::trim) {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control) {
            return Err(given.refuse(format!(
                "{} is not a user name (1 to {MAX_NAME_BYTES} bytes, no control characters)",
                quote(name)
            )));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// A bare word that is not a level would be taken for the name of a module, and
/// the log would be silent: only what looks like a filter is read as one.
pub(super) fn log_level(sources: &Sources<'_>) -> Result<String, Refusal> {
    let given = sources.need("log_level")?;
    read_log_level(&given.text).map_err(|why| given.refuse(why))
}

/// A level or a filter, wherever it comes from.
///
/// # Errors
/// If it is neither.
pub fn read_log_level(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if LEVELS.contains(&lower.as_str()) {
        return Ok(lower);
    }
    let filter =
        text.contains(['=', ',', '[']) && tracing_subscriber::EnvFilter::try_new(text).is_ok();
    if filter {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is neither one of {} nor a filter such as chat_service=debug,info",
        quote(text),
        LEVELS.join(", ")
    ))
}

pub(super) fn log_format(sources: &Sources<'_>) -> Result<LogFormat, Refusal> {
    let given = sources.need("log_format")?;
    match given.text.as_str() {
        "auto" => Ok(LogFormat::Auto),
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        other => Err(given.refuse(format!("{} is not auto, pretty or json", quote(other)))),
    }
}

/// A test that asks for any gRPC port should not have to know of the HTTP port.
fn http_port(sources: &Sources<'_>, grpc_port: u16) -> Result<Option<u16>, Refusal> {
    match sources.get("http_port")? {
        Some(given) if given.text == "off" => Ok(None),
        Some(_) => sources.number("http_port"),
        None if grpc_port == 0 => Ok(Some(0)),
        None => Ok(Some(DEFAULT_HTTP_PORT)),
    }
}

fn otlp_endpoint(sources: &Sources<'_>) -> Result<Option<String>, Refusal> {
    let Some(given) = sources.get("otlp_endpoint")? else {
        return Ok(None);
    };
    let url = given.text.parse::<http::Uri>().ok();
    let plain = url.is_some_and(|url| {
        url.scheme_str() == Some("http")
            && url.authority().is_some_and(|a| !a.as_str().contains('@'))
    });
    if !plain {
        let shown = quote(&given.text);
        return Err(given.refuse(format!("{shown} is not of the form http://HOST:PORT")));
    }
    Ok(Some(given.text))
}

fn trace_sample(sources: &Sources<'_>) -> Result<u32, Refusal> {
    let given = sources.need("trace_sample")?;
    match given.text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok((share * 1e6).round() as u32),
        _ => {
            let shown = quote(&given.text);
            Err(given.refuse(format!("{shown} is not a number from 0 to 1")))
        }
    }
}

/// clap's refusal without its usage text.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    let lines = text.lines().map(str::trim).filter(|part| !part.is_empty());
    for part in lines.take_while(|part| !part.starts_with("Usage:")) {
        if part.starts_with("For more information") {
            break;
        }
        if !line.is_empty() {
            line += if part.starts_with("tip:") { "; " } else { " " };
        }
        line += part;
    }
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
