use std::process::Command;

use chat_service::telemetry::names::{ALL, Kind};
use tokio::task::JoinSet;

use super::*;

const SENDERS: u64 = 4;
const SENDS: u64 = 200;
const READERS: u64 = 3;

#[tokio::test]
async fn metrics_sum_to_what_the_clients_counted() {
    let app = server(&["--ring", "16"]).await;
    let address = app.http_address().unwrap();
    let mut client = client(&app).await;
    let chat = create(&mut client).await;
    let mut readers = Vec::new();
    for user in ["alice", "bob", "carol"] {
        readers.push(read(&mut client, user, chat).await);
    }
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let mut client = client.clone();
        senders.spawn(async move {
            for n in 0..SENDS {
                let send = by("alice", text(chat, &format!("{n}")));
                client.send_message(send).await.unwrap();
            }
        });
    }
    // Meanwhile a scrape sees numbers that only grow.
    let mut seen = 0.0;
    while !senders.is_empty() {
        let (status, metrics) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        let now = value(&metrics, "chat_messages_stored_total");
        assert!(now >= seen, "{now} after {seen}");
        seen = now;
        while let Some(sent) = senders.try_join_next() {
            sent.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for reader in &mut readers {
        for seq in 1..=(SENDERS * SENDS) as i64 {
            assert_eq!(reader.message().await.unwrap().unwrap().seq, seq);
        }
    }
    let behind = ConnectChatRequest {
        chat_id: chat.to_string(),
        after_seq: Some((SENDERS * SENDS) as i64 - 1),
        ..Default::default()
    };
    let resumed = client.connect_chat(by("bob", once(behind))).await;
    let mut resumed = resumed.unwrap().into_inner();
    assert!(resumed.message().await.unwrap().is_some());
    drop(resumed);
    until("one more stream was resumed, and given up", async || {
        let (_, metrics) = get(address, "/metrics").await;
        value(&metrics, "chat_readers") == READERS as f64
    })
    .await;
    let stranger = client.send_message(by("mallory", text(chat, "hi"))).await;
    assert!(
        stranger
            .unwrap_err()
            .metadata()
            .contains_key("x-request-id")
    );

    let sends = (SENDERS * SENDS) as f64;
    let (_, metrics) = get(address, "/metrics").await;
    for (name, expected) in [
        (
            "chat_calls_total{method=\"SendMessage\",code=\"OK\"}",
            sends,
        ),
        (
            "chat_calls_total{method=\"SendMessage\",code=\"PERMISSION_DENIED\"}",
            1.0,
        ),
        (
            "chat_call_duration_seconds_count{method=\"SendMessage\"}",
            sends + 1.0,
        ),
        ("chat_refusals_total{reason=\"NOT_A_MEMBER\"}", 1.0),
        ("chat_messages_stored_total", sends),
        ("chat_batch_rows_sum", sends),
        ("chat_deliveries_total", sends * READERS as f64 + 1.0),
        ("chat_stream_resumes_total", 1.0),
        ("chat_readers", READERS as f64),
        ("chat_chats_active", 1.0),
        ("chat_lane_depth", 0.0),
        ("chat_mailbox_depth", 0.0),
    ] {
        assert_eq!(value(&metrics, name), expected, "{name}");
    }
    for (accept, head, end) in [
        ("", "# HELP chat_calls_total ", "\n"),
        ("accept: text/plain\r\n", "# HELP chat_calls_total ", "\n"),
        (
            "accept: application/openmetrics-text\r\n",
            "# HELP chat_calls ",
            "# EOF\n",
        ),
    ] {
        let lines = format!("host: {address}\r\n{accept}");
        let (_, text) = http_with(address, "GET", "/metrics", &lines, "").await;
        assert!(
            text.starts_with(head) && text.ends_with(end),
            "{accept}{text}"
        );
        assert_eq!(value(&text, "chat_messages_stored_total"), sends);
    }
    let chunks = value(&metrics, "chat_ring_reads_total");
    let pages = value(&metrics, "chat_history_reads_total");
    assert_eq!(
        value(&metrics, "chat_cursor_lag_messages_count"),
        chunks + pages
    );
    let batches = value(&metrics, "chat_batch_rows_count");
    assert_eq!(
        value(&metrics, "chat_commit_duration_seconds_count"),
        batches
    );
    assert!(value(&metrics, "process_resident_memory_bytes") > 1e6);

    drop(readers);
    until("the streams are counted as given up", async || {
        let (_, metrics) = get(address, "/metrics").await;
        let cancelled = "chat_calls_total{method=\"ConnectChat\",code=\"CANCELLED\"}";
        metrics.contains(cancelled)
            && value(&metrics, cancelled) == (READERS + 1) as f64
            && value(&metrics, "chat_readers") == 0.0
    })
    .await;
    drop(client);
    app.drain(PATIENCE).await;
}

#[test]
fn the_readme_lists_every_metric_and_no_other() {
    let readme = include_str!("../../README.md");
    let section = readme.split("### Metrics").nth(1).unwrap();
    let section = section.split("\n### ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: Vec<&str> = rows.map(|row| row.split('`').next().unwrap()).collect();
    let shown = ALL.iter().map(|metric| match metric.kind {
        Kind::Counter => format!("{}_total", metric.name),
        Kind::Gauge | Kind::Histogram => metric.name.to_owned(),
    });
    assert_eq!(listed, shown.collect::<Vec<_>>());
}

#[test]
fn every_reason_of_an_error_is_counted_by_name() {
    let source = include_str!("../../src/grpc/status.rs");
    let code = source.split("#[cfg(test)]").next().unwrap();
    for text in code.split('"') {
        let is_reason = text.len() > 3 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let known = chat_service::telemetry::names::REASONS.contains(&text);
        assert!(
            !is_reason || known,
            "{text} is missing in telemetry/names.rs"
        );
    }
}

#[tokio::test]
async fn a_taken_http_port_is_one_line_and_code_1() {
    let app = server(&[]).await;
    let port = app.http_address().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["serve", "--grpc-port", "0", "--http-port", &port])
        .args(["--store", "memory", "--config-path", ""])
        .env_clear()
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "chatd: --http-port: cannot listen on 127.0.0.1:{port}: the address is in use; \
         choose another port, or off\n"
    );
    assert_eq!(line, expected);
    app.drain(PATIENCE).await;
}
