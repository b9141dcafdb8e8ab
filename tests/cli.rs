//! The command line from outside: one clear line and a code for whatever is
//! wrong with it, and a `--help` that leaves nothing out.

use std::{
    fs,
    process::{Command, Output},
};

/// Runs `chatd` in an empty directory and an empty environment, so that neither
/// a developer's variables nor a `.env` file take part.
fn chatd(args: &[&str], vars: &[(&str, &str)], dotenv: Option<&str>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    if let Some(text) = dotenv {
        fs::write(dir.path().join(".env"), text).unwrap();
    }
    Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(args)
        .env_clear()
        .envs(vars.iter().copied())
        .current_dir(dir.path())
        .output()
        .unwrap()
}

/// The one line of a process that refused to start.
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty());
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    let line = stderr.strip_prefix("chatd: ").expect("names the program");
    line.trim_end().to_owned()
}

#[test]
fn an_unknown_option_is_refused() {
    let line = refusal(&chatd(&["serve", "--frobnicate"], &[], None));
    assert!(line.contains("--frobnicate"), "{line}");
    for args in [&[][..], &["frobnicate"], &["serve", "x"], &["send", "1"]] {
        refusal(&chatd(args, &[], None));
    }
    // Here is no terminal to show a list of chats on.
    let line = refusal(&chatd(&["connect", "--as", "bob"], &[], None));
    assert!(line.starts_with("CHAT: a chat id is needed"), "{line}");
}

#[test]
fn a_value_beyond_its_bound_is_refused_by_name() {
    let line = refusal(&chatd(&["serve", "--shards", "0"], &[], None));
    assert_eq!(line, "--shards: 0 is not within 1..=4096");
    let line = refusal(&chatd(&["serve", "--chat-idle", "60"], &[], None));
    assert!(
        line.starts_with("--chat-idle: 60 is not a duration"),
        "{line}"
    );
}

#[test]
fn a_bad_variable_is_refused_by_name() {
    let line = refusal(&chatd(&["serve"], &[("RING_BYTES", "1KiB")], None));
    assert!(line.starts_with("RING_BYTES: 1KiB is not within"), "{line}");
    let secret = ("PG_DSN", "mysql://root:hunter2@db");
    let line = refusal(&chatd(&["serve"], &[secret], None));
    assert!(line.starts_with("PG_DSN: "), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
}

#[test]
fn a_bad_dotenv_file_is_refused() {
    let line = refusal(&chatd(&["serve"], &[], Some("GRPC_PORT=8083\nwhat\n")));
    assert!(line.starts_with(".env: line 2"), "{line}");
    let line = refusal(&chatd(&["serve"], &[], Some("GRPC_PORT=80830\n")));
    assert_eq!(line, "GRPC_PORT: 80830 is not within 0..=65535 (from .env)");
    let named = ["serve", "--config-path", "missing.env"];
    let line = refusal(&chatd(&named, &[], None));
    assert!(line.contains("missing.env"), "{line}");
}

/// As deployments of the Go service have it: names with underscores, put
/// together to an address. Nothing listens on the port that it names.
#[test]
fn an_existing_env_file_names_its_database() {
    let file = "export POSTGRES_DB=chat_db # ours\r\nPOSTGRES_USER=chat_user\r\n\
                POSTGRES_PASSWORD='pa$WORD#1'\r\nPG_DNS=x\r\nGRPC_PORT=0\r\n\
                PG_DSN=\"host=127.0.0.1 port=1 dbname=$POSTGRES_DB user=${POSTGRES_USER} \
                password=$POSTGRES_PASSWORD\"\r\n";
    let output = chatd(&["serve"], &[], Some(file));
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    let store = "postgres chat_db at 127.0.0.1:1 as chat_user";
    assert!(log.contains(store), "{log}");
    let warning = ".env has names that are not options: PG_DNS (line 4)";
    assert!(log.contains(warning), "{log}");
    assert!(!log.contains("WORD"), "{log}");

    let report = chatd(&["doctor"], &[], Some(file));
    let report = String::from_utf8(report.stdout).unwrap();
    assert!(report.contains(warning), "{report}");

    let line = refusal(&chatd(&["serve"], &[], Some("PG_DSN=host=$NO_SUCH\n")));
    assert!(
        line.starts_with(".env: line 1: PG_DSN: $NO_SUCH is not set"),
        "{line}"
    );
}

/// A folder that somebody else filled says nothing about where a token goes.
#[test]
fn p7_a_client_takes_no_address_from_the_folder_it_is_started_in() {
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let file = format!("CHAT_ADDR={}\n", trap.local_addr().unwrap());
    let history = ["history", "1", "--as", "bob"];
    // Port 1 is nobody's: the client that finds its address here would not ask there.
    let env = [("CHAT_ADDR", "127.0.0.1:1")];
    for vars in [&env[..], &[]] {
        let output = chatd(&history, vars, Some(&file));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let came = trap.accept().map_err(|e| e.kind());
        assert_eq!(came.map(drop), Err(std::io::ErrorKind::WouldBlock));
    }
    // Asked for by name, the file counts. That the connection came is enough.
    let trapped = std::thread::spawn(move || {
        trap.set_nonblocking(false).unwrap();
        trap.accept().map(drop)
    });
    let named = [&history[..], &["--config-path", ".env"]].concat();
    chatd(&named, &[], Some(&file));
    trapped.join().unwrap().unwrap();
}

#[test]
fn no_start_beyond_loopback_without_real_auth() {
    let line = refusal(&chatd(&["serve", "--grpc-host", "0.0.0.0"], &[], None));
    assert!(line.contains("no check of tokens is configured"), "{line}");
    let vars = [("GRPC_HOST", "::"), ("AUTH", "dev")];
    let line = refusal(&chatd(&["serve"], &vars, None));
    assert!(line.contains("not a loopback address"), "{line}");
}

#[test]
fn help_and_version_are_no_failure() {
    for args in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let output = chatd(args, &[], None);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty());
    }
}

/// `chatd --help` alone has every option of every command, each with its
/// default, and with a bound if it is a number, a size or a time.
#[test]
fn help_lists_every_option() {
    let output = chatd(&["--help"], &[("COLUMNS", "100")], None);
    let help = String::from_utf8(output.stdout).unwrap();
    let mut options: Vec<(String, String)> = Vec::new();
    for line in help.lines() {
        let text = line.trim_start();
        if text.starts_with('-') || line.starts_with("chatd ") {
            options.push((text.to_owned(), String::new()));
        } else if let Some((_, body)) = options.last_mut() {
            *body += text;
            *body += " ";
        }
    }
    let find = |flag: &str| {
        let found = options.iter().find(|(head, _)| head.contains(flag));
        found.unwrap_or_else(|| panic!("{flag} is missing:\n{help}"))
    };
    for flag in [
        "grpc-host",
        "grpc-port",
        "store",
        "auth",
        "dev-admins",
        "access-client-host",
        "access-client-port",
        "access-client-tls",
        "access-client-ca",
        "auth-timeout",
        "jwt-keys",
        "jwt-secret-file",
        "http-hosts",
        "jwt-iss",
        "jwt-aud",
        "jwt-leeway",
        "auth-cache-ttl",
        "auth-refusal-ttl",
        "auth-stale",
        "auth-cache-entries",
        "tls-cert",
        "tls-key",
        "tls-client-ca",
        "max-connections",
        "max-connection-streams",
        "max-user-streams",
        "max-user-sends",
        "max-user-changes",
        "max-user-reads",
        "max-user-chats",
        "who-may-add",
        "max-inflight",
        "max-header",
        "handshake-timeout",
        "first-frame-timeout",
        "cores",
        "shards",
        "writer-lanes",
        "batch-rows",
        "batch-bytes",
        "mailbox",
        "pending-rows",
        "pending-bytes",
        "ring",
        "ring-bytes",
        "memory",
        "chat-idle",
        "max-text",
        "max-data",
        "max-mentions",
        "max-members",
        "edit-window",
        "max-reactions",
        "send-timeout",
        "drain-timeout",
        "stream-posts",
        "stream-buffer",
        "log-level",
        "log-format",
        "config-path",
    ] {
        let (_, body) = find(&format!("--{flag} "));
        let name = flag.to_uppercase().replace('-', "_");
        assert!(body.contains(&format!("[env: {name}]")), "--{flag}: {body}");
    }
    for (head, body) in &options {
        let is_option = head.starts_with('-');
        if !is_option || head.contains("--help") || head.contains("--version") {
            continue;
        }
        assert!(body.contains("[default: "), "{head}: {body}");
        let bounded = ["<N>", "<SIZE>", "<TIME>", "<PORT>", "<SEQ>"];
        if bounded.iter().any(|kind| head.contains(kind)) {
            assert!(body.contains("[bounds: "), "{head}: {body}");
        }
    }
}

#[test]
fn health_asks_the_port_it_is_told() {
    let line = refusal(&chatd(&["health"], &[("HTTP_PORT", "off")], None));
    assert!(
        line.starts_with("HTTP_PORT: off: there is no such port"),
        "{line}"
    );
    // Nobody listens there. A server on every address is asked on loopback.
    for (host, asked) in [("0.0.0.0", "127.0.0.1:1: "), ("::", "[::1]:1: ")] {
        let output = chatd(
            &["health", "--http-host", host, "--http-port", "1"],
            &[],
            None,
        );
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with(&format!("chatd: {asked}")), "{stderr}");
    }
}
