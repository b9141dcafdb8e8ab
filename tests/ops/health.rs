use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};

use super::*;
use crate::pg::{Pg, kill};

struct Process {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
    _out: Lines<BufReader<ChildStdout>>,
}

async fn process(dsn: &str) -> Process {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["serve", "--grpc-port", "0", "--config-path", ""])
        .args(["--store-stall", "5s", "--log-level", "error"])
        .env_clear()
        .env("PG_DSN", dsn)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = async |head: &str| -> SocketAddr {
        let line = out.next_line().await.unwrap().unwrap();
        line.strip_prefix(head).unwrap().parse().unwrap()
    };
    Process {
        grpc: address("listening on ").await,
        http: address("http on ").await,
        child,
        _out: out,
    }
}

#[tokio::test]
async fn p9_not_ready_while_the_database_is_away_and_while_draining() {
    let pg = Pg::start();
    let mut process = process(&pg.tcp_dsn("postgres")).await;
    let http = process.http;
    assert_eq!(get(http, "/live").await, (200, "live\n".into()));
    assert_eq!(get(http, "/ready").await, (200, "ready\n".into()));
    let url = format!("http://{}", process.grpc);
    let mut client = ChatV1Client::connect(url).await.unwrap();
    let chat = create(&mut client).await;
    client
        .send_message(by("alice", text(chat, "1")))
        .await
        .unwrap();

    pg.sigstop();
    until("not ready without its database", async || {
        let (status, why) = get(http, "/ready").await;
        status == 503 && why.starts_with("store: ") && why.ends_with('\n')
    })
    .await;
    assert_eq!(get(http, "/live").await.0, 200, "a restart would not help");
    let mut sender = client.clone();
    let mut sends = JoinSet::new();
    sends.spawn(async move { sender.send_message(by("alice", text(chat, "2"))).await });
    until("the send is with its lane", async || {
        let (_, metrics) = get(http, "/metrics").await;
        value(&metrics, "chat_lane_depth") == 1.0
    })
    .await;
    kill("-TERM", process.child.id().unwrap());
    until("not ready while draining", async || {
        let (status, why) = get(http, "/ready").await;
        status == 503 && why.starts_with("draining: ")
    })
    .await;

    pg.sigcont();
    assert_eq!(
        sends
            .join_next()
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .into_inner()
            .seq,
        2
    );
    drop(client);
    let ended = tokio::time::timeout(PATIENCE, process.child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn p10_other_paths_and_methods_are_answered() {
    let app = server(&[]).await;
    let http_at = app.http_address().unwrap();
    assert_eq!(get(http_at, "/nothing").await.0, 404);
    assert_eq!(http(http_at, "POST", "/metrics", "").await.0, 405);
    assert_eq!(get(http_at, "/log-level").await.0, 405);
    let (status, why) = http(http_at, "PUT", "/log-level", "loud").await;
    assert_eq!((status, why.contains("loud")), (400, true), "{why}");
    let long = "x".repeat(5_000);
    assert_eq!(http(http_at, "PUT", "/log-level", &long).await.0, 400);
    let filter = "chat_service=debug,info";
    let (status, now) = http(http_at, "PUT", "/log-level", filter).await;
    assert_eq!((status, now.trim()), (200, filter));
    app.drain(PATIENCE).await;
}
