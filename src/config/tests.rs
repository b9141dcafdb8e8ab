mod guard;

use std::{collections::HashMap, ffi::OsString, io::Write as _, time::Duration};

use super::{options, read::command, sources::Environment, value::Bounds, *};

const NO_FILE: [&str; 2] = ["--config-path", ""];

fn env(pairs: &[(&str, &str)]) -> Environment {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
        .collect()
}

fn serve_in(flags: &[&str], env: &Environment) -> Result<ServeConfig, String> {
    let args = ["chatd", "serve"].iter().chain(flags).map(OsString::from);
    match command(args, env) {
        Ok(Command::Serve(config)) => Ok(*config),
        Ok(other) => panic!("not a server: {other:?}"),
        Err(refusal) => Err(refusal.to_string()),
    }
}

fn serve(flags: &[&str]) -> Result<ServeConfig, String> {
    let flags: Vec<&str> = NO_FILE.iter().chain(flags).copied().collect();
    serve_in(&flags, &HashMap::new())
}

fn client(args: &[&str], vars: &[(&str, &str)]) -> Result<Command, String> {
    let args = ["chatd"].iter().chain(args).chain(&NO_FILE);
    command(args.map(OsString::from), &env(vars)).map_err(|e| e.to_string())
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "RING=64\nSHARDS=5\nBATCH_ROWS=7\nOTHER_PROGRAM='x y'").unwrap();
    let path = file.path().to_str().unwrap();
    let vars = env(&[("RING", "32"), ("SHARDS", "6"), ("MAILBOX", "")]);

    let config = serve_in(&["--config-path", path, "--ring", "16"], &vars).unwrap();
    assert_eq!(config.ring, 16);
    assert_eq!(config.shards, 6);
    assert_eq!(config.batch_rows, 7);
    assert_eq!(config.mailbox, 8192, "an empty variable counts as not set");

    // The file may itself be named by the environment.
    let vars = env(&[("CONFIG_PATH", path)]);
    assert_eq!(serve_in(&[], &vars).unwrap().shards, 5);
}

#[test]
fn a_refusal_names_the_place_of_the_value() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "SHARDS=0").unwrap();
    let path = file.path().to_str().unwrap();

    let why = serve_in(&["--config-path", path], &env(&[])).unwrap_err();
    assert_eq!(
        why,
        format!("SHARDS: 0 is not within 1..=4096 (from {path})")
    );
    let why = serve_in(&NO_FILE, &env(&[("SHARDS", "0")])).unwrap_err();
    assert_eq!(
        why,
        "SHARDS: 0 is not within 1..=4096 (from the environment)"
    );
    let why = serve(&["--shards", "0"]).unwrap_err();
    assert_eq!(why, "--shards: 0 is not within 1..=4096");
    let why = serve_in(&["--config-path", "no/such/file"], &env(&[])).unwrap_err();
    assert!(why.starts_with("--config-path: no/such/file"), "{why}");
}

#[test]
fn the_defaults_are_what_help_says() {
    let config = serve(&[]).unwrap();
    assert!(config.grpc_host.is_loopback());
    assert_eq!(config.grpc_port, 8083);
    assert_eq!(config.store, StoreChoice::Sqlite("./data/chat.db".into()));
    assert_eq!(config.auth, AuthChoice::Dev);
    assert!(config.dev_admins.is_empty());
    assert_eq!(config.shards, config.cores);
    assert_eq!(config.batch_bytes, 4 << 20);
    assert_eq!(config.pending_bytes, 64 << 20);
    assert_eq!(config.chat_idle, Duration::from_secs(60));
    assert_eq!(config.send_timeout, Duration::from_secs(10));
    assert_eq!(config.stream_buffer, 64 << 10);
    assert_eq!(config.log_level, "info");
    assert_eq!(config.log_format, LogFormat::Auto);

    let config = serve(&["--cores", "3"]).unwrap();
    assert_eq!((config.shards, config.writer_lanes), (3, 3));
    assert_eq!(serve(&["--cores", "100"]).unwrap().writer_lanes, 64);
}

/// Both ends of every bounded option are accepted, one beyond is refused under
/// the option's name.
#[test]
fn every_bound_holds() {
    let command = options::command();
    let command = command.find_subcommand("serve").unwrap();
    let mut checked = 0;
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let Some(bounds) = options::bounds(id) else {
            continue;
        };
        let (min, max, unit) = match bounds {
            Bounds::Count(min, max) => (min, max, ""),
            Bounds::Size(min, max) => (min, max, "B"),
            Bounds::Time(min, max) => (min, max, "ms"),
        };
        let flag = format!("--{}", arg.get_long().unwrap());
        for good in [min, max] {
            let value = format!("{good}{unit}");
            assert!(serve(&[&flag, &value]).is_ok(), "{flag} {value}");
        }
        for bad in [min.checked_sub(1), Some(max + 1)].into_iter().flatten() {
            let value = format!("{bad}{unit}");
            let why = serve(&[&flag, &value]).unwrap_err();
            assert_eq!(why, format!("{flag}: {value} is not within {bounds}"));
        }
        let why = serve(&[&flag, "many"]).unwrap_err();
        assert!(why.starts_with(&format!("{flag}: many is not a")), "{why}");
        checked += 1;
    }
    assert_eq!(checked, 48, "an option lost its bounds");
}

#[test]
fn a_store_is_chosen_and_its_secret_never_shown() {
    let url = "postgres://bob:hunter2@db/chat";
    let pairs = "host=db user=bob password=hunter2";
    let dsn = |text| StoreChoice::Postgres(Secret::new(text));

    assert_eq!(
        serve(&["--store", "memory"]).unwrap().store,
        StoreChoice::Memory
    );
    let sqlite = serve(&["--store", "sqlite:/tmp/a b.db"]).unwrap();
    assert_eq!(sqlite.store, StoreChoice::Sqlite("/tmp/a b.db".into()));
    assert_eq!(serve(&["--store", url]).unwrap().store, dsn(url));
    for text in [url, pairs] {
        let config = serve_in(&NO_FILE, &env(&[("PG_DSN", text)])).unwrap();
        assert_eq!(config.store, dsn(text));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
    let both = env(&[("PG_DSN", url), ("STORE", "memory")]);
    assert_eq!(
        serve_in(&NO_FILE, &both).unwrap().store,
        StoreChoice::Memory
    );

    let why = serve(&["--store", "postgress://bob:hunter2@db/chat"]).unwrap_err();
    assert!(!why.contains("hunter2"), "{why}");
    let typo = env(&[("PG_DSN", "mysql://bob:hunter2@db/?a=b")]);
    let why = serve_in(&NO_FILE, &typo).unwrap_err();
    assert!(
        why.starts_with("PG_DSN: ") && !why.contains("hunter2"),
        "{why}"
    );
    for bad in ["sqlite:", "sqlite", "", "postgres://"] {
        assert!(serve(&["--store", bad]).is_err(), "{bad:?}");
    }
}

#[test]
fn names_levels_and_formats_are_checked() {
    let config = serve(&["--dev-admins", "root, ops"]).unwrap();
    assert_eq!(config.dev_admins, ["root", "ops"]);
    assert!(serve(&["--dev-admins", "root,,ops"]).is_err());

    assert_eq!(serve(&["-l", "WARN"]).unwrap().log_level, "warn");
    assert!(serve(&["-l", "h2=debug,info"]).is_ok());
    assert!(serve(&["-l", "verbose"]).is_err());
    assert!(serve(&["-l", "a=loud"]).is_err());
    assert_eq!(
        serve(&["--log-format", "json"]).unwrap().log_format,
        LogFormat::Json
    );
    assert!(serve(&["--log-format", "xml"]).is_err());
}

#[test]
fn origins_are_written_as_browsers_do() {
    let config = serve(&[
        "--cors-origins",
        "https://Chat.example.org, http://127.0.0.1:8093,https://a.example:443",
        "--grpc-web-url",
        "http://[::1]:8083",
    ]);
    let web = config.unwrap().web;
    let origins = [
        "https://chat.example.org",
        "http://127.0.0.1:8093",
        "https://a.example",
    ];
    assert_eq!(web.origins, origins);
    assert_eq!(web.url.as_deref(), Some("http://[::1]:8083"));
    for bad in [
        "*",
        "null",
        "chat.example.org",
        "https://*.example.org",
        "https://a.example/",
        "https://a.example/path",
        "https://u@a.example",
        "ftp://a.example",
        "https://",
        "https://a.example:",
        "https://a.example,,",
    ] {
        let why = serve(&["--cors-origins", bad]).unwrap_err();
        assert!(why.starts_with("--cors-origins: "), "{why}");
    }
    let many = vec!["https://a.example"; 33].join(",");
    assert!(serve(&["--cors-origins", &many]).is_err());
}

#[test]
fn a_bad_command_line_is_one_line() {
    for flags in [
        &["--shardz", "1"][..],
        &["--a\nb"],
        &["--shards"],
        &["--shards", "1\n2"],
        &["extra"],
        &["--ring", "16", "--ring", "16"],
    ] {
        let why = serve(flags).unwrap_err();
        assert!(
            !why.is_empty() && !why.contains(char::is_control),
            "{why:?}"
        );
    }
    let why = serve(&["--shardz", "1"]).unwrap_err();
    assert!(
        why.starts_with("unexpected argument '--shardz' found; tip:"),
        "{why}"
    );
    assert!(client(&[], &[]).is_err());
}

#[test]
fn a_client_needs_a_name_or_a_token() {
    let Ok(Command::Send(config)) = client(&["send", "7", "-hi", "--as", "bob"], &[]) else {
        panic!("refused");
    };
    assert_eq!((config.chat, config.text.as_str()), (7, "-hi"));
    assert_eq!(config.peer.credentials, Credentials::Name("bob".into()));
    assert_eq!(config.peer.addr, "127.0.0.1:8083");

    let vars = [("CHAT_TOKEN", "t0k3n"), ("CHAT_ADDR", "[::1]:9")];
    let Ok(Command::History(config)) = client(&["history", "7", "--after", "0"], &vars) else {
        panic!("refused");
    };
    assert_eq!(
        config.peer.credentials,
        Credentials::Token(Secret::new("t0k3n"))
    );
    assert_eq!(config.peer.addr, "[::1]:9");
    assert_eq!(config.page, HistoryPage::After(0));
    assert!(!format!("{config:?}").contains("t0k3n"));

    assert!(
        client(&["history", "7"], &[])
            .unwrap_err()
            .starts_with("--as: ")
    );
    for chat in ["0", "x", "99999999999999999999"] {
        let why = client(&["history", chat, "--as", "bob"], &[]).unwrap_err();
        assert!(why.starts_with("CHAT: "), "{why}");
    }
    for addr in ["host", ":1", "a b:1", "http://host:1", "host:99999"] {
        let why = client(&["create", "--as", "bob", "--addr", addr], &[]).unwrap_err();
        assert!(why.starts_with("--addr: "), "{why}");
    }
}

#[test]
fn in_process_servers_see_neither_environment_nor_file() {
    let config = serve_from(&["--store", "memory", "--grpc-port", "0"]).unwrap();
    assert_eq!((config.grpc_port, config.store), (0, StoreChoice::Memory));
    assert!(serve_from(&["--help"]).is_err());
}

/// Words of a command line, one a line, up to an empty line; then a `.env` file.
#[test]
fn p10_fuzz_config() {
    use std::os::unix::ffi::OsStringExt as _;

    let file = tempfile::NamedTempFile::new().unwrap();
    crate::testing::fuzz("config", |input| {
        let end = input.windows(2).position(|two| two == b"\n\n");
        let (words, text) = end.map_or((input, &[][..]), |end| input.split_at(end));
        std::fs::write(file.path(), text).unwrap();
        let words = words.split(|byte| *byte == b'\n');
        let words = words.map(|word| OsString::from_vec(word.to_vec()));
        let path: [OsString; 2] = ["--config-path".into(), file.path().into()];
        let line = [OsString::from("chatd")].into_iter().chain(words);
        match command(line.chain(path), &Environment::new()) {
            Ok(Command::Serve(config)) => {
                assert!((1..=256).contains(&config.cores));
                assert!((16..=65_536).contains(&config.ring));
                let shown = format!("{:?}", config.store);
                let hidden = shown == "Postgres([redacted])";
                assert!(hidden || !shown.starts_with("Postgres"), "{shown}");
            }
            Ok(_) => {}
            Err(refusal) => {
                let why = refusal.to_string();
                let one_line = !why.is_empty() && !why.contains(char::is_control);
                assert!(one_line, "{why:?}");
            }
        }
    });
}
