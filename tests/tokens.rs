//! P7: where the terminal client sends a token or a password, and where it does not.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Output, Stdio},
};

use crate::server::command;

/// A token that says nothing of when it expires, so that nobody is asked for a new one.
const TOKEN: &str = "the-token-of-bob";

/// Runs a client in a folder that is its home as well.
fn client(folder: &Path, args: &[&str], vars: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut child = command(folder)
        .args(args)
        .env("HOME", folder)
        .envs(vars.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client that refuses does not read it.
    _ = child.stdin.take().unwrap().write_all(b"wonderland\n");
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(
        !said.contains(TOKEN) && !said.contains("wonderland"),
        "{said}"
    );
    (status.code(), said)
}

/// Waits for connections, and says whether there was one.
struct Trap(TcpListener);

impl Trap {
    fn set() -> Self {
        let trap = TcpListener::bind("127.0.0.1:0").unwrap();
        trap.set_nonblocking(true).unwrap();
        Self(trap)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    fn was_called(&self) -> bool {
        match self.0.accept() {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What `chatd login` leaves; the last release noted no `addr`.
fn tokens(addr: Option<&str>) -> String {
    let tokens = serde_json::json!({
        "auth_addr": "127.0.0.1:1", "tls": false, "ca": null,
        "refresh_token": TOKEN, "access_token": TOKEN,
    });
    let mut tokens = tokens;
    if let Some(addr) = addr {
        tokens["addr"] = addr.into();
    }
    tokens.to_string()
}

#[test]
fn p7_tokens_go_to_the_server_that_they_are_for() {
    let home = tempfile::tempdir().unwrap();
    let (own, other) = (Trap::set(), Trap::set());
    let file = home.path().join("tokens");
    let create = |addr: &str| {
        // The trap never answers; the client is not waited for longer than it takes
        // to connect.
        let mut child = command(home.path())
            .args(["create", "--token-file", "tokens", "--addr", addr])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if own.was_called() {
                child.kill().unwrap();
                child.wait().unwrap();
                return None;
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        Some(String::from_utf8(output.stderr).unwrap())
    };

    fs::write(&file, tokens(Some(&own.addr()))).unwrap();
    assert_eq!(create(&own.addr()), None, "it was called");
    let why = create(&other.addr()).unwrap();
    let said = format!("--addr: the tokens in tokens are for {}", own.addr());
    assert!(why.contains(&said) && why.contains("--token-file"), "{why}");
    assert!(!other.was_called());
    // The same port by another name is another address.
    let why = create(&format!("localhost:{}", own.port())).unwrap();
    assert!(why.contains(&said), "{why}");

    // A file of the last release counts on this machine, and says what to do elsewhere.
    fs::write(&file, tokens(None)).unwrap();
    assert_eq!(create(&own.addr()), None, "it was called");
    let elsewhere = [
        "create",
        "--token-file",
        "tokens",
        "--tls",
        "--addr",
        "chat.invalid:443",
    ];
    let (code, why) = client(home.path(), &elsewhere, &[]);
    assert_eq!(code, Some(1));
    assert!(why.contains("chatd login --addr chat.invalid:443"), "{why}");
}

#[test]
fn p7_a_token_of_the_environment_is_for_the_address_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let trap = Trap::set();
    let create = ["create", "--addr", &trap.addr()];
    let vars = [("CHAT_TOKEN", TOKEN), ("CHAT_ADDR", "127.0.0.1:1")];
    let (code, why) = client(home.path(), &create, &vars);
    assert_eq!(code, Some(2), "{why}");
    let said = "--addr: CHAT_TOKEN is for 127.0.0.1:1, the CHAT_ADDR beside it";
    assert!(why.contains(said) && why.contains("--token"), "{why}");

    // A file gets no token that it does not hold itself, however it was named.
    fs::write(
        home.path().join(".env"),
        format!("CHAT_ADDR={}\n", trap.addr()),
    )
    .unwrap();
    let vars = [("CHAT_TOKEN", TOKEN), ("CONFIG_PATH", ".env")];
    let (code, why) = client(home.path(), &["create"], &vars);
    assert_eq!(code, Some(2), "{why}");
    assert!(
        why.contains("CHAT_TOKEN was not given for this address"),
        "{why}"
    );
    assert!(!trap.was_called());
}

#[test]
fn p7_nothing_secret_goes_to_another_machine_in_clear() {
    let home = tempfile::tempdir().unwrap();
    // For the system an address of this machine, but not one that is so everywhere.
    let trap = Trap::set();
    let addr = format!("0.0.0.0:{}", trap.port());
    let create = ["create", "--token", TOKEN, "--addr", &addr];
    let login = ["login", "bob", "--auth-addr", &addr];
    for (args, what, option) in [
        (&create[..], "the token", "--addr: "),
        (&login[..], "the password", "--auth-addr: "),
    ] {
        let (code, why) = client(home.path(), args, &[]);
        assert_eq!(code, Some(2), "{why}");
        assert!(why.contains(option) && why.contains(what), "{why}");
        assert!(
            why.contains("--tls") && why.contains("--plaintext"),
            "{why}"
        );
        assert!(!trap.was_called());

        // With leave it is called, and hangs up.
        let hung_up = std::thread::spawn({
            let trap = trap.0.try_clone().unwrap();
            move || {
                for _ in 0..400 {
                    if trap.accept().is_ok() {
                        return true;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(25));
                }
                false
            }
        });
        let (code, why) = client(home.path(), &[args, &["--plaintext"]].concat(), &[]);
        assert_eq!(code, Some(1), "{why}");
        assert!(hung_up.join().unwrap(), "{why}");
    }
    let both = [&create[..], &["--tls", "--plaintext"]].concat();
    assert_eq!(client(home.path(), &both, &[]).0, Some(2));
    let kept = home.path().join(".config/chatd/tokens.json");
    assert!(!kept.exists(), "nothing was given out");
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    // The refresh token of an earlier login, made without TLS.
    let file = tokens(Some("127.0.0.1:1")).replace("\"127.0.0.1:1\",\"ca\"", "\"x\",\"ca\"");
    let file = file.replacen(
        "\"auth_addr\":\"127.0.0.1:1\"",
        &format!("\"auth_addr\":\"{addr}\""),
        1,
    );
    fs::write(&kept, file).unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, why) = client(home.path(), &["create", "--addr", "127.0.0.1:1"], &[]);
    assert_eq!(code, Some(1), "{why}");
    assert!(
        why.contains("without TLS") && why.contains("chatd login"),
        "{why}"
    );
}
