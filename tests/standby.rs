//! P1 and P3 with a synchronous standby: what has not reached it is neither
//! acknowledged nor delivered, whatever the primary shows.

use std::time::Duration;

use tokio::{task::block_in_place, time::timeout};
use tonic::Code;

use crate::{
    pg::{Pg, sql},
    server::{Frames, Server, soon},
};

const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'
                       AND application_name LIKE 'chatd lane%'";

/// Past `--store-stall`, twice.
const STALL: &str = "1s";
const STALLS: Duration = Duration::from_millis(2_500);

const PAUSE: Duration = Duration::from_millis(50);

struct Away {
    primary: Pg,
    standby: Pg,
    server: Server,
    chat: i64,
    reader: Frames,
}

/// Message 1 has reached the standby. Then that stops, and message 2 waits for it.
async fn away() -> Away {
    let primary = block_in_place(Pg::start);
    let standby = block_in_place(|| primary.standby());
    let dsn = primary.dsn("postgres");
    let set = "ALTER SYSTEM SET synchronous_standby_names = 'standby'";
    sql(&dsn, set).await;
    sql(&dsn, "SELECT pg_reload_conf()").await;
    let hosts = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let times = ["--send-timeout", "1s", "--store-stall", STALL];
    let server = Server::start(&[&["--store", &hosts], &times[..]].concat()).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let mut reader = alice.read(chat, Some(0)).await;
    assert_eq!(alice.send(chat, "1", "a").await.unwrap().seq, 1);
    reader.expect(1).await;
    block_in_place(|| standby.stop_fast());

    let late = alice.send(chat, "2", "b").await.unwrap_err();
    assert_eq!(late.code(), Code::Unavailable, "{late:?}");
    Away {
        primary,
        standby,
        server,
        chat,
        reader,
    }
}

impl Away {
    async fn waiting(&self) -> Vec<String> {
        sql(&self.primary.dsn("postgres"), WAITING).await
    }

    /// The same message, and nothing is heard of it.
    async fn nothing_is_said(&mut self) {
        let alice = self.server.client("alice").await;
        let late = alice.send(self.chat, "2", "b").await.unwrap_err();
        assert_eq!(late.code(), Code::Unavailable, "{late:?}");
        let shown: Vec<i64> = alice
            .history(self.chat)
            .await
            .iter()
            .map(|one| one.seq)
            .collect();
        assert_eq!(shown, [1], "a page shows it");
        let delivered = timeout(Duration::from_millis(200), self.reader.next()).await;
        assert!(delivered.is_err(), "{delivered:?}");
    }

    /// Ends the waits of all backends until the primary shows message 2.
    async fn cancel(&self) {
        const CANCEL: &str =
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let dsn = self.primary.dsn("postgres");
        let cancel = async {
            while sql(&dsn, "SELECT max(seq) FROM messages").await != ["2"] {
                sql(&dsn, CANCEL).await;
                tokio::time::sleep(PAUSE).await;
            }
        };
        soon("the message is visible", cancel).await;
    }

    /// Message 2 is there once, and message 3 behind it: acknowledged, delivered
    /// and in the database.
    async fn goes_on(mut self, dsn: &str) {
        let alice = self.server.client("alice").await;
        let again = async {
            loop {
                match alice.send(self.chat, "2", "b").await {
                    Ok(sent) => break sent.seq,
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        assert_eq!(soon("message 2 is acknowledged", again).await, 2);
        assert_eq!(alice.send(self.chat, "3", "c").await.unwrap().seq, 3);
        for (seq, text) in [(2, "2"), (3, "3")] {
            assert_eq!(self.reader.expect(seq).await.text, text);
        }
        let rows = sql(dsn, "SELECT seq || ' ' || text FROM messages ORDER BY seq").await;
        assert_eq!(rows, ["1 1", "2 2", "3 3"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_commit_waits_for_its_standby_and_nobody_is_ended() {
    let mut away = away().await;
    let waiting = away.waiting().await;
    assert_eq!(waiting.len(), 1);
    tokio::time::sleep(STALLS).await;
    away.nothing_is_said().await;
    assert_eq!(away.waiting().await, waiting, "the same backend waits");
    block_in_place(|| away.standby.start_again());
    let dsn = away.primary.dsn("postgres");
    away.goes_on(&dsn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_commit_whose_wait_was_cancelled_is_acknowledged_once_it_is_confirmed() {
    let mut away = away().await;
    away.cancel().await;
    for _ in 0..2 {
        away.nothing_is_said().await;
        tokio::time::sleep(STALLS / 2).await;
    }
    block_in_place(|| away.standby.start_again());
    let dsn = away.primary.dsn("postgres");
    away.goes_on(&dsn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_what_the_primary_showed_and_a_failover_lost_was_not_acknowledged() {
    let mut away = away().await;
    away.cancel().await;
    away.nothing_is_said().await;
    block_in_place(|| {
        away.primary.stop_immediate();
        away.standby.start_again();
    });
    let dsn = away.standby.dsn("postgres");
    assert_eq!(sql(&dsn, "SELECT max(seq) FROM messages").await, ["1"]);
    assert_eq!(sql(&dsn, "SELECT pg_promote()").await, ["t"]);
    away.goes_on(&dsn).await;
}
