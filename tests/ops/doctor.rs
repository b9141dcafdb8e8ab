use std::{
    fs,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chat_service::{
    domain::{MessageId, Row, Timestamp, UserName},
    store::{
        NewChat, Store as _,
        sqlite::{self, SqliteStore},
    },
};

use rcgen::{CertificateParams, KeyPair};
use tokio::task::block_in_place;
use tonic::Code;

use crate::{
    guarded::peer::{Answer, Peer},
    pg,
};

pub fn doctor(args: &[&str], vars: &[(&str, &str)]) -> (Output, String) {
    doctor_with("20000", args, vars)
}

/// With so many open files at most.
fn doctor_with(files: &str, args: &[&str], vars: &[(&str, &str)]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -S -n \"$0\" && exec \"$@\"", files])
        .arg(env!("CARGO_BIN_EXE_chatd"))
        .args(["doctor", "--grpc-port", "0", "--config-path", ""])
        .args(args)
        .env_clear()
        .envs(vars.iter().copied())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let nothing_left = std::fs::read_dir(folder.path()).unwrap().next().is_none();
    assert!(nothing_left, "the doctor leaves nothing behind");
    (output, text)
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_default_server() {
    let (output, text) = doctor(&[], &[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ok   configuration: "), "{text}");
    assert!(text.contains("ok   store: sqlite"), "{text}");
    assert!(text.contains("warn auth: development mode"), "{text}");
}

#[test]
fn the_doctor_names_a_bad_option_and_a_missing_database() {
    let (output, text) = doctor(&["--shards", "0"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.starts_with("fail configuration: --shards: 0"),
        "{text}"
    );
    let away = [("PG_DSN", "postgres://me:hunter2@127.0.0.1:1/chat")];
    let (output, text) = doctor(&[], &away);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("fail database: "), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn the_doctor_looks_who_can_read_the_messages() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat.db");
    fs::write(&file, "").unwrap();
    let store = format!("sqlite:{}", file.display());
    for (of_folder, of_file, open) in [
        (0o755, 0o644, true),
        (0o750, 0o640, true),
        (0o755, 0o600, false),
        (0o700, 0o644, false),
        (0o750, 0o604, false),
    ] {
        for (path, mode) in [(folder.path(), of_folder), (&file, of_file)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let (output, text) = doctor(&["--store", &store], &[]);
        assert_eq!(output.status.code(), Some(0), "{text}");
        let told = text.contains("warn store: ") && text.contains("chmod 600");
        assert_eq!(told, open, "{of_folder:o} {of_file:o}: {text}");
    }
}

#[tokio::test]
async fn the_doctor_looks_at_a_database_and_changes_nothing() {
    let dsn = pg::fresh_database().await;
    let (output, text) = doctor(&[], &[("PG_DSN", &dsn)]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("ok   database: PostgreSQL "), "{text}");
    assert!(text.contains("warn migrations: at 0 of "), "{text}");
    pg::open(&dsn).await;
    let (_, text) = doctor(&[], &[("PG_DSN", &dsn)]);
    assert!(text.contains("ok   migrations: up to date"), "{text}");
}

/// Of a file that the server could not use, and of messages from the future.
#[tokio::test]
async fn the_doctor_looks_into_the_file() {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let store = SqliteStore::open(&path, sqlite::Settings::default()).unwrap();
    let eve = UserName::new("eve").unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let chat = NewChat {
        client_chat_id: None,
        created_by: eve.clone(),
        created_at: Timestamp(1),
        members: vec![eve.clone()],
    };
    let chat = store.create_chat(chat).await.unwrap();
    let row = |seq| Row {
        chat,
        seq,
        id: MessageId(seq),
        from: eve.clone(),
        text: "hello ".repeat(100).into(),
        client_message_id: None,
        created_at: Timestamp(now.as_micros() as i64 + DAY),
        number: seq,
        change: None,
    };
    let rows = (1..=200).map(row).collect();
    store.append(0, Arc::new(rows)).await.unwrap();
    store.close().await;
    let option = format!("sqlite:{}", path.display());
    let (output, text) = doctor(&["--store", &option], &[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("warn message times: "), "{text}");
    assert!(
        text.contains("is 86399 s ahead") || text.contains("is 86400 s ahead"),
        "{text}"
    );

    // All but the first page, which says what is where.
    let length = path.metadata().unwrap().len();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    file.set_len(length).unwrap();
    let (output, text) = doctor(&["--store", &option], &[]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("put back a copy that is whole"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_asks_the_auth_service_about_a_token() {
    let auth = Peer::start(Answer::No(Code::Unauthenticated, "no")).await;
    let flags = auth.flags();
    let args: Vec<&str> = flags.iter().map(String::as_str).collect();
    let port = args[args
        .iter()
        .position(|arg| *arg == "--access-client-port")
        .unwrap()
        + 1];
    let ask = || block_in_place(|| doctor(&args, &[]));
    let (output, text) = ask();
    let place = format!("auth: the Auth Service at 127.0.0.1:{port}");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("ok   {place} answers")), "{text}");
    assert_eq!(auth.checks(), 1);

    // One that believes everybody.
    auth.answers(Answer::Yes);
    let (output, text) = ask();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains(&format!("fail {place} let an unsigned token pass")),
        "{text}"
    );
    auth.answers(Answer::Http(404));
    let (output, text) = ask();
    assert_eq!(
        output.status.code(),
        Some(0),
        "calls are UNAVAILABLE, the server starts"
    );
    assert!(
        text.contains(&format!("warn {place} accepts connections and")),
        "{text}"
    );
    auth.down();
    let (_, text) = ask();
    assert!(
        text.contains(&format!("warn {place}: Connection refused")),
        "{text}"
    );
}

#[test]
fn the_doctor_looks_at_the_dates_of_certificates() {
    const DAY: Duration = Duration::from_secs(86_400);
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let args = [
        "--tls-cert",
        cert.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let now = SystemTime::now();
    let write = |from: SystemTime, to: SystemTime| {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from.into(), to.into());
        fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
    };
    for (from, to, code, expected) in [
        (
            now - DAY,
            now + 90 * DAY,
            0,
            "ok   tls: certificate and key can be read, and are valid",
        ),
        (
            now - DAY,
            now + 3 * DAY,
            0,
            "warn tls: a certificate expires within 14 days",
        ),
        (
            now - 9 * DAY,
            now - 3 * DAY,
            1,
            "expired 3 days ago: renew it",
        ),
        (now + DAY, now + 9 * DAY, 1, "not valid yet"),
    ] {
        write(from, to);
        let (output, text) = doctor(&args, &[]);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
    }
    fs::write(&cert, "nothing").unwrap();
    let (output, text) = doctor(&args, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("fail tls: "), "{text}");
}

#[test]
fn the_doctor_looks_at_the_limit_of_open_files() {
    let (output, text) = doctor_with("200", &[], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("fail open files: at most 200: raise it"),
        "{text}"
    );
    let (output, text) = doctor_with("1024", &[], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text.contains("warn open files: at most 1024, and"),
        "{text}"
    );
    assert!(text.contains("ok   clock: set"), "{text}");
}
