//! From a password to a message with one binary: client, Auth Service, chat.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use chat_service::proto::tokens::{
    GetAccessTokenRequest, GetRefreshTokenRequest, LoginRequest, auth_v1_client::AuthV1Client,
};
use tonic::Code;

const PASSWORD: &str = "correct horse battery staple";

/// All that clients print.
const CLIENTS_LOG: &str = "clients.log";

fn chatd(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatd"));
    command
        .args(args)
        .env_clear()
        .env("HOME", dir)
        .current_dir(dir);
    command
}

fn run(dir: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = chatd(dir, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client that fails at once does not read it.
    _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let log = dir.join(CLIENTS_LOG);
    let mut log = fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    log.write_all(&output.stdout).unwrap();
    log.write_all(&output.stderr).unwrap();
    output
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A server process, the address it has, and in the end all it has logged.
struct Server(
    Child,
    #[expect(dead_code, reason = "closed, the server would fail to print")] BufReader<ChildStdout>,
    String,
);

impl Server {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = chatd(dir, args)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join(format!("{}.log", args[0]))).unwrap())
            .spawn()
            .unwrap();
        let (stdout, address) = listens(&mut child);
        Self(child, stdout, address)
    }
}

/// Where a server listens, as it says first; closed, the rest would fail to print.
pub fn listens(child: &mut Child) -> (BufReader<ChildStdout>, String) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ");
    let address = address.expect("it listens").to_owned();
    (stdout, address)
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A browser can't call the Auth Service: the chat port passes its calls on.
fn through_the_chat_port(address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let address = format!("http://{address}");
        let mut auth = AuthV1Client::connect(address).await.unwrap();
        let login = |name: &str, password: &str| LoginRequest {
            name: name.into(),
            password: password.into(),
        };
        let refused = auth.login(login("mallory", "guess")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(!refused.message().contains("guess"), "{refused:?}");
        let token = auth.login(login("eve", PASSWORD)).await.unwrap();
        let refresh_token = token.into_inner().refresh_token;
        let renew = GetRefreshTokenRequest {
            refresh_token: refresh_token.clone(),
        };
        auth.get_refresh_token(renew).await.unwrap();
        let access = GetAccessTokenRequest { refresh_token };
        let access = auth.get_access_token(access).await.unwrap();
        assert_eq!(access.into_inner().access_token.split('.').count(), 3);
    });
}

#[test]
fn p7_from_a_password_to_a_message() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let hash = text(run(dir, &["auth", "hash"], &format!("{PASSWORD}\n")));
    assert!(hash.starts_with("$argon2id$"));
    let user = |name: &str| format!("[users.{name}]\npassword = '{hash}'\n");
    fs::write(dir.join("users.toml"), user("bob") + &user("eve")).unwrap();

    let auth = [
        "auth",
        "--auth-port",
        "0",
        "--access-ttl",
        "31s",
        "--max-logins",
        "2",
        "-l",
        "trace",
    ];
    let auth = Server::start(dir, &auth);
    let port = auth.2.rsplit_once(':').unwrap().1;
    let serve = [
        "serve",
        "--grpc-port",
        "0",
        "--store",
        "memory",
        "--access-client-host",
        "localhost",
        "--access-client-port",
        port,
        "--auth-cache-ttl",
        "500ms",
        "-l",
        "trace",
    ];
    let chat = Server::start(dir, &serve);
    let addr = ["--addr", chat.2.as_str()];
    through_the_chat_port(&chat.2);
    let login = |name: &str, password: &str| {
        let to = [&["login", name, "--auth-addr", &auth.2][..], &addr].concat();
        run(dir, &to, password)
    };

    let nobody = run(dir, &[&["create"][..], &addr].concat(), "");
    assert_eq!(nobody.status.code(), Some(2), "nobody has logged in");
    let wrong = String::from_utf8(login("bob", "guess\n").stderr).unwrap();
    assert!(
        wrong.contains("the name or the password is wrong"),
        "{wrong}"
    );
    text(login("bob", PASSWORD));
    let third = String::from_utf8(login("bob", PASSWORD).stderr).unwrap();
    assert!(third.contains("too many logins"), "{third}");

    let file = dir.join(".config/chatd/tokens.json");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let tokens: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let token = |name: &str| tokens[name].as_str().unwrap().to_owned();
    let id = text(run(dir, &[&["create"][..], &addr].concat(), ""));
    text(run(dir, &[&["send", &id, "hello"][..], &addr].concat(), ""));
    let history = text(run(dir, &[&["history", &id][..], &addr].concat(), ""));
    assert!(history.ends_with("bob: hello"), "{history}");

    // A refresh token is no access token.
    let refresh = token("refresh_token");
    let misused = run(
        dir,
        &[&["create", "--token", &refresh][..], &addr].concat(),
        "",
    );
    let why = String::from_utf8(misused.stderr).unwrap();
    assert!(why.contains("Unauthenticated"), "{why}");
    let first = token("access_token");
    // What has little left to live is replaced before it is used.
    std::thread::sleep(std::time::Duration::from_secs(2));
    text(run(dir, &[&["create"][..], &addr].concat(), ""));
    assert!(
        !fs::read_to_string(&file)
            .unwrap()
            .contains(&token("access_token"))
    );
    // A user who is struck off the list is out, within the TTL.
    fs::write(dir.join("users.toml"), user("eve")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1800));
    let out = run(
        dir,
        &[&["create", "--token", &token("access_token")][..], &addr].concat(),
        "",
    );
    assert_eq!(out.status.code(), Some(1));

    drop((auth, chat));
    for (log, word) in [
        ("auth.log", "listening"),
        ("serve.log", "listening"),
        (CLIENTS_LOG, "Unauthenticated"),
    ] {
        let logged = fs::read_to_string(dir.join(log)).unwrap();
        assert!(logged.contains(word), "{log} has the log");
        let secret = fs::read_to_string(dir.join("token.secret")).unwrap();
        assert!(!logged.contains(PASSWORD) && !logged.contains(secret.trim()));
        for token in [&first, &token("access_token"), &refresh] {
            for part in token.split('.').skip(1) {
                assert!(!logged.contains(part), "a token is in {log}");
            }
        }
    }
}

/// With a secret that others have, anybody makes tokens.
#[test]
fn p7_the_auth_service_does_not_start_with_a_secret_that_others_have() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let hash = text(run(dir, &["auth", "hash"], &format!("{PASSWORD}\n")));
    let users = format!("[users.bob]\npassword = '{hash}'\n");
    fs::write(dir.join("users.toml"), users).unwrap();
    for secret in [
        "changeme-changeme-changeme-changeme",
        "<html><body>404 Not Found, and so on</body></html>",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----",
    ] {
        fs::write(dir.join("token.secret"), secret).unwrap();
        let args = [
            "auth",
            "--auth-port",
            "0",
            "--users",
            "users.toml",
            "--config-path",
            "",
        ];
        let out = run(dir, &args, "");
        assert_eq!(out.status.code(), Some(1), "{secret}");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains("secret"), "{said}");
    }
}
