//! P8: the database goes away, or only seems to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    domain::UserName,
    store::{Page, Store, StoreError, postgres::PostgresStore},
};
use futures_util::future::join_all;
use tokio::task::block_in_place;

use crate::{
    pg::{self, Pg, fresh_database, open, sql},
    pooler::Pooler,
    postgres_store::{append, chat, last_seq, rows, soon},
    server::Server,
};

#[tokio::test]
async fn p8_lanes_and_reads_come_back_with_the_database() {
    let pg = Pg::start();
    let store = open(&pg.dsn("postgres")).await;
    let id = chat(&store).await;
    append(&store, rows(id, 1..=10)).await.unwrap();
    for round in 0..2 {
        pg.stop_immediate();
        let seq = 11 + round;
        let gone = append(&store, rows(id, seq..=seq)).await;
        assert!(matches!(gone, Err(StoreError::Unavailable(_))), "{gone:?}");
        let briefly = Instant::now() + Duration::from_millis(100);
        let read = store.page(id, Page::After(0), 1, briefly).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        pg.start_again();
        let restarted = append(&store, rows(id, seq..=seq)).await;
        assert!(
            matches!(restarted, Err(StoreError::Replaced)),
            "{restarted:?}"
        );
        append(&store, rows(id, seq..=seq)).await.unwrap();
        assert_eq!(last_seq(&store, id).await, seq);
    }
}

/// A stopped server answers nothing. Whatever it has got of the batch, the lane
/// gives it up in time, and when it goes on, the batch is there once or not.
#[tokio::test]
async fn p8_a_stopped_database_is_given_up_in_time() {
    let pg = Pg::start();
    let mut settings = pg::settings(&pg.tcp_dsn("postgres"));
    settings.lane_stall = Duration::from_millis(300);
    settings.connect_timeout = Duration::from_millis(500);
    let store = PostgresStore::open(settings).await.unwrap();
    let id = chat(&store).await;
    append(&store, rows(id, 1..=1)).await.unwrap();
    pg.sigstop();
    let start = Instant::now();
    let stalled = append(&store, rows(id, 2..=2)).await;
    assert!(
        matches!(stalled, Err(StoreError::Unavailable(_))),
        "{stalled:?}"
    );
    let again = append(&store, rows(id, 2..=2)).await;
    assert!(
        matches!(again, Err(StoreError::Unavailable(_))),
        "{again:?}"
    );
    let briefly = Instant::now() + Duration::from_millis(200);
    assert!(store.ping(briefly).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(3));
    pg.sigcont();
    let seqs = loop {
        match append(&store, rows(id, 2..=2)).await {
            Ok(()) | Err(StoreError::Conflict) => break last_seq(&store, id).await,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(seqs, 2);
}

/// Another session holds the key, so COPY waits and its end is not answered:
/// COMMIT was handed over, and the lane must say that it doesn't know. The
/// backend it left behind is ended before the lane writes again.
#[tokio::test]
async fn p8_a_lost_commit_is_unknown_and_its_backend_is_ended() {
    let dsn = fresh_database().await;
    let mut settings = pg::settings(&dsn);
    settings.lane_stall = Duration::from_millis(500);
    let store = PostgresStore::open(settings).await.unwrap();
    let id = chat(&store).await;
    let (other, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    pg::spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    // A key that somebody has taken and not committed is no reason to wait for long.
    let key = format!("BEGIN; INSERT INTO messages VALUES ({id}, 2, 1, 'x', 'x', NULL, 1)");
    other.batch_execute(&key).await.unwrap();
    let taken = append(&store, rows(id, 1..=3)).await;
    assert!(
        matches!(&taken, Err(StoreError::Locked(chats)) if chats.is_empty()),
        "{taken:?}"
    );
    other.batch_execute("ROLLBACK").await.unwrap();
    // What goes with the rows takes its time, with COMMIT behind it.
    let slow = "CREATE TABLE slow AS SELECT 5 AS seconds;
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(seconds) FROM slow; RETURN NULL; END';
        CREATE TRIGGER wait AFTER INSERT ON active_chats EXECUTE FUNCTION wait()";
    other.batch_execute(slow).await.unwrap();
    let unknown = append(&store, rows(id, 1..=3)).await;
    assert!(
        matches!(unknown, Err(StoreError::OutcomeUnknown(_))),
        "{unknown:?}"
    );
    other.batch_execute("DELETE FROM slow").await.unwrap();
    // The batch left behind either came through meanwhile or never will.
    match append(&store, rows(id, 1..=3)).await {
        Ok(()) | Err(StoreError::Conflict) => {}
        Err(error) => panic!("{error:?}"),
    }
    assert_eq!(last_seq(&store, id).await, 3);
    let lanes = sql(&dsn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'chatd lane%'").await;
    assert_eq!(lanes, ["1"]);
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// Ends the wait of whoever waits for the standby, as soon as somebody does.
async fn cancel_waits(dsn: &str) {
    const CANCEL: &str =
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while sql(dsn, CANCEL).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// While the standby is away, a commit waits for it. A row that becomes visible
/// because the wait was cancelled would be gone after a failover: it is not
/// acknowledged until a later commit has reached a standby. A backend that waits
/// is not ended, since that too would make its rows visible.
#[tokio::test]
async fn p1_what_is_visible_without_its_standby_is_not_acknowledged() {
    let pg = Pg::start();
    let dsn = pg.dsn("postgres");
    let mut settings = pg::settings(&dsn);
    settings.lane_stall = Duration::from_secs(1);
    settings.write_timeout = Duration::from_secs(1);
    let store = PostgresStore::open(settings).await.unwrap();
    let (one, two) = (chat(&store).await, chat(&store).await);
    append(&store, rows(one, 1..=1)).await.unwrap();
    sql(&dsn, "ALTER SYSTEM SET synchronous_standby_names = 'away'").await;
    sql(&dsn, "SELECT pg_reload_conf()").await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    // Past the stall the commit still waits, unseen, and its backend with it.
    let row = rows(one, 2..=2);
    let unknown = append(&store, row.clone()).await;
    assert!(
        matches!(unknown, Err(StoreError::OutcomeUnknown(_))),
        "{unknown:?}"
    );
    for _ in 0..2 {
        let waits = append(&store, row.clone()).await;
        assert!(
            matches!(waits, Err(StoreError::Unavailable(_))),
            "{waits:?}"
        );
        assert_eq!(sql(&dsn, WAITING).await, ["1"]);
        assert_eq!(last_seq(&store, one).await, 1);
    }

    // Its wait is cancelled: the row is visible, and still not confirmed.
    cancel_waits(&dsn).await;
    while last_seq(&store, one).await < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let confirmed = store.confirm(0, &row[0]).await;
    assert!(confirmed.is_err(), "{confirmed:?}");

    // A cancelled wait is reported in a notice, beside an answer like any other.
    cancel_waits(&dsn).await;
    let cancelled = rows(two, 1..=1);
    let appending = store.append(1, Arc::new(cancelled.clone()));
    let (unknown, ()) = tokio::join!(appending, cancel_waits(&dsn));
    assert!(
        matches!(unknown, Err(StoreError::OutcomeUnknown(_))),
        "{unknown:?}"
    );
    let alice = || vec![UserName::new("alice").unwrap()];
    let removing = store.remove_members(two, alice(), None);
    let (unknown, ()) = tokio::join!(removing, cancel_waits(&dsn));
    assert!(
        matches!(unknown, Err(StoreError::OutcomeUnknown(_))),
        "{unknown:?}"
    );
    // Nobody is left to be removed, but that may be undone.
    let again = store.remove_members(two, alice(), None).await;
    assert!(
        matches!(again, Err(StoreError::OutcomeUnknown(_))),
        "{again:?}"
    );

    sql(&dsn, "ALTER SYSTEM RESET synchronous_standby_names").await;
    sql(&dsn, "SELECT pg_reload_conf()").await;
    for (lane, row) in [(0, &row[0]), (1, &cancelled[0])] {
        let start = Instant::now();
        while !matches!(store.confirm(lane, row).await, Ok(true)) {
            assert!(start.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    store.remove_members(two, alice(), None).await.unwrap();
    let gone = rows(one, 9..=9);
    assert!(matches!(store.confirm(0, &gone[0]).await, Ok(false)));
    append(&store, rows(one, 3..=3)).await.unwrap();
    assert_eq!(last_seq(&store, one).await, 3);
}

/// Somebody locks one of the tables that messages are in: chats in others are read,
/// whoever asks first. Four who wait take all places that there are for waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_on_one_table_of_messages_holds_up_no_reads_of_others() {
    tokio::join!(others_are_read(4, 100), others_are_read(12, 50));
}

/// `many` read what is locked; `later` milliseconds later others are read.
async fn others_are_read(many: usize, later: u64) {
    const TABLE_OF: &str = "SELECT DISTINCT tableoid::regclass FROM messages WHERE chat_id = ";
    const LOCKED: &str = "SELECT relation FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE datname = current_database() AND mode = 'AccessExclusiveLock' AND granted";
    let dsn = fresh_database().await;
    let store = open(&dsn).await;
    let mut chats = Vec::new();
    for _ in 0..8 {
        let chat = chat(&store).await;
        append(&store, rows(chat, 1..=3)).await.unwrap();
        let table = sql(&dsn, &format!("{TABLE_OF}{chat}")).await.remove(0);
        chats.push((chat, table));
    }
    let locked = chats[0].1.clone();
    let lock = format!("BEGIN; LOCK TABLE {locked}; SELECT pg_sleep(6); COMMIT");
    let is_locked = async || {
        while sql(&dsn, LOCKED).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let others = async {
        is_locked().await;
        tokio::time::sleep(Duration::from_millis(later)).await;
        for (chat, _) in chats.iter().filter(|(_, table)| *table != locked) {
            let began = Instant::now();
            let pages = (0..6).map(|_| store.page(*chat, Page::After(0), 10, soon()));
            for page in join_all(pages).await {
                assert_eq!(page.unwrap().len(), 3);
            }
            let (record, _) = store.load_chat(*chat, 1, soon()).await.unwrap().unwrap();
            assert_eq!(record.last_seq, 3);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(3), "{took:?}");
        }
    };
    // What is locked is waited for, by many at once.
    let waiting = async {
        is_locked().await;
        let began = Instant::now();
        let pages = (0..many).map(|_| store.page(chats[0].0, Page::After(0), 10, soon()));
        for page in join_all(pages).await {
            assert_eq!(page.unwrap().len(), 3);
        }
        began.elapsed()
    };
    let (locking, (), reading) = tokio::join!(sql(&dsn, &lock), others, waiting);
    drop(locking);
    assert!(
        reading > Duration::from_secs(4),
        "{reading:?}: it was not locked"
    );
}

/// What a lock on one table of messages is in the way of waits for it; the chats that
/// other tables keep go on, in the same batches and on the same lanes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_lock_on_one_table_of_messages_holds_up_no_sends_of_others() {
    const TABLE_OF: &str = "SELECT DISTINCT tableoid::regclass FROM messages WHERE chat_id = ";
    let pg = block_in_place(Pg::start);
    let pooled = block_in_place(|| Pooler::start(&pg));
    for dsn in [pg.tcp_dsn("postgres"), pooled.dsn("postgres")] {
        let server = Server::start(&["--store", &dsn, "--writer-lanes", "2"]).await;
        let alice = server.client("alice").await;
        let mut chats = Vec::new();
        for _ in 0..12 {
            let chat = alice.create(&[]).await;
            alice.send(chat, "first", "1").await.unwrap();
            let table = sql(&pg.dsn("postgres"), &format!("{TABLE_OF}{chat}")).await;
            chats.push((chat, table[0].clone()));
        }
        let locked = chats[0].1.clone();
        let (blocked, free): (Vec<_>, Vec<_>) =
            chats.iter().partition(|(_, table)| *table == locked);
        let lock = format!("BEGIN; LOCK TABLE {locked}; SELECT pg_sleep(4); COMMIT");
        let began = Instant::now();
        let sends = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let send = async |chat: i64, key: &str| {
                let (began, sent) = (Instant::now(), alice.send(chat, "more", key).await);
                (sent.unwrap().seq, began.elapsed())
            };
            let waiting = blocked.iter().map(|(chat, _)| send(*chat, "2"));
            let others = async {
                let mut longest = Duration::ZERO;
                while began.elapsed() < Duration::from_millis(3_500) {
                    for (chat, _) in &free {
                        let key = began.elapsed().as_nanos().to_string();
                        longest = longest.max(send(*chat, &key).await.1);
                    }
                }
                longest
            };
            tokio::join!(join_all(waiting), others)
        };
        let dsn = pg.dsn("postgres");
        let (_, (waited, longest)) = tokio::join!(sql(&dsn, &lock), sends);
        for (seq, took) in waited {
            assert_eq!(seq, 2);
            assert!(took > Duration::from_secs(2), "{took:?}: it was not locked");
        }
        assert!(longest < Duration::from_millis(1_000), "{longest:?}");
        let log = server.log();
        assert!(log.contains("somebody holds a lock in the database"));
    }
}

/// A key that somebody has taken and not committed is in the way of one chat, and a lock
/// on where active chats are named of those that are to be named anew: other chats go on
/// in the same batches and on the same lane.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_lock_on_a_row_or_on_the_names_of_chats_holds_up_no_sends_of_others() {
    let pg = block_in_place(Pg::start);
    let pooled = block_in_place(|| Pooler::start(&pg));
    let own = pg.dsn("postgres");
    for dsn in [pg.tcp_dsn("postgres"), pooled.dsn("postgres")] {
        let server = Server::start(&["--store", &dsn, "--writer-lanes", "1"]).await;
        let alice = server.client("alice").await;
        let mut chats = Vec::new();
        for _ in 0..8 {
            chats.push(alice.create(&[]).await);
        }
        let (blocked, free) = (chats[0], &chats[1..]);
        for chat in free {
            alice.send(*chat, "first", "1").await.unwrap();
        }
        let locks = [
            format!("INSERT INTO messages VALUES ({blocked}, 1, 1, 'x', 'x', NULL, 1)"),
            "LOCK TABLE active_chats IN SHARE MODE".to_owned(),
            "LOCK TABLE activity_epochs IN SHARE MODE".to_owned(),
        ];
        for (round, lock) in locks.iter().enumerate() {
            let key = &format!("blocked {round}");
            let blocked = match round {
                0 => blocked,
                _ => alice.create(&[]).await,
            };
            let began = Instant::now();
            let lock = format!("BEGIN; {lock}; SELECT pg_sleep(4); ROLLBACK");
            let sends = async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let waiting = async {
                    let sent = alice.send(blocked, "more", key).await;
                    (sent.unwrap().seq, began.elapsed())
                };
                let others = async {
                    let mut longest = Duration::ZERO;
                    while began.elapsed() < Duration::from_millis(3_500) {
                        let key = began.elapsed().as_nanos().to_string();
                        let began = Instant::now();
                        let sends = free.iter().map(|chat| alice.send(*chat, "more", &key));
                        for sent in join_all(sends).await {
                            sent.unwrap();
                        }
                        longest = longest.max(began.elapsed());
                    }
                    longest
                };
                tokio::join!(waiting, others)
            };
            let (_, ((seq, waited), longest)) = tokio::join!(sql(&own, &lock), sends);
            assert_eq!(seq, 1);
            // An epoch that is open needs no new row.
            let waits = round < 2;
            assert_eq!(waited > Duration::from_secs(3), waits, "{waited:?}: {lock}");
            assert!(
                longest < Duration::from_millis(1_000),
                "{longest:?}: {lock}"
            );
        }
    }
}
