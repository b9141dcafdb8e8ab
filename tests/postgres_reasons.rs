//! What the operator is told when the database does not do what it should: the
//! database's own words, at the start, by the doctor and in the log.

use std::fs;

use tokio::{net::TcpListener, task::block_in_place};
use tonic::Code;

use crate::{
    ops::doctor::doctor,
    pg::{self, Pg, sql},
    server::{Server, lines},
    startup::refusal,
};

/// A server that asks over TCP for passwords, and a role with the password
/// `hunter2` that may do nothing in `public`.
fn with_passwords() -> Pg {
    Pg::start_with(&[], |data| {
        let rules = "local all all trust\nhost all all all scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), rules).unwrap();
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_the_database_prevents_says_what_the_database_said() {
    let pg = with_passwords();
    let own = pg.dsn("postgres");
    sql(&own, "CREATE ROLE reader LOGIN PASSWORD 'hunter2'").await;
    let port = pg.port();
    // Nobody listens there any more.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap().port();
    drop(closed);
    for (dsn, reasons) in [
        (
            format!("postgres://reader:hunter3@127.0.0.1:{port}/postgres"),
            &["password authentication failed", "28P01"][..],
        ),
        (
            format!("postgres://reader:hunter2@127.0.0.1:{port}/missing"),
            &[r#"database "missing" does not exist"#, "3D000"],
        ),
        (
            format!("postgres://reader:hunter2@127.0.0.1:{port}/postgres"),
            &["permission denied for schema public", "42501"],
        ),
        (
            format!("postgres://reader:hunter2@127.0.0.1:{port}/postgres?sslmode=require"),
            &["server does not support TLS"],
        ),
        (
            format!("postgres://reader:hunter2@127.0.0.1:{nobody}/postgres"),
            &["Connection refused"],
        ),
        (
            "postgres://reader:hunter2@nowhere.invalid/postgres".to_owned(),
            &["failed to lookup address"],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = ["--grpc-port", "0", "--http-port", "0", "--store", &dsn];
        let options = [&options[..], &["--log-level", "error"]].concat();
        let line = refusal(dir.path(), &options).await;
        let vars = [("PG_DSN", dsn.as_str())];
        let (output, told) = block_in_place(|| doctor(&["--http-port", "0"], &vars));
        for reason in reasons {
            assert!(line.contains(reason), "{reason}: {line}");
            // The doctor does not migrate.
            if *reason != "42501" && !reason.starts_with("permission") {
                assert!(told.contains(reason), "{reason}: {told}");
                assert_eq!(output.status.code(), Some(1), "{told}");
            }
        }
        assert!(!line.contains("hunter"), "{line}");
        assert!(!told.contains("hunter"), "{told}");
    }
    // As from a file that ends with a newline.
    let text = format!("{own}\n");
    let (_, told) = block_in_place(|| doctor(&["--http-port", "0"], &[("PG_DSN", &text)]));
    assert!(told.contains("ok   database: "), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_refuses_a_running_server_is_in_its_log() {
    let dsn = pg::fresh_database_on(Pg::shared()).await;
    let url = url_of(&dsn);
    let options = ["--store", &url, "--log-format", "json"];
    let server = Server::start(&options).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.get(chat).await.unwrap();
    sql(&dsn, "ALTER TABLE members RENAME TO away").await;
    let refused = alice.try_create(&[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    alice.add(chat, &["bob"]).await.unwrap_err();
    sql(&dsn, "ALTER TABLE messages RENAME TO moved").await;
    alice.chats(10, "").await.unwrap_err();
    for (message, least) in [
        ("the store did not do what a call asked for", 2),
        ("change of a chat failed", 1),
    ] {
        let found = lines(&server, message);
        assert!(found.len() >= least, "{message}: {}", server.log());
        for line in found {
            assert_eq!(line["level"], "WARN");
            let error = line["error"].as_str().unwrap();
            assert!(error.contains("(SQLSTATE "), "{error}");
        }
    }
    sql(&dsn, "ALTER TABLE moved RENAME TO messages").await;
    sql(&dsn, "ALTER TABLE away RENAME TO members").await;
}

/// The address of a database over TCP.
fn url_of(dsn: &str) -> String {
    let (_, name) = dsn.rsplit_once("dbname=").unwrap();
    Pg::shared().tcp_dsn(name)
}
