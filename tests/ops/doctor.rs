use std::process::{Command, Output};

use crate::pg;

fn doctor(args: &[&str], vars: &[(&str, &str)]) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
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
