//! P8: the database goes away, or only seems to.

use std::time::{Duration, Instant};

use chat_service::store::{Page, Store, StoreError, postgres::PostgresStore};

use crate::{
    pg::{self, Pg, fresh_database, open, sql},
    postgres_store::{append, chat, last_seq, rows},
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
    let key = format!("BEGIN; INSERT INTO messages VALUES ({id}, 2, 1, 'x', 'x', NULL, 1)");
    other.batch_execute(&key).await.unwrap();
    let unknown = append(&store, rows(id, 1..=3)).await;
    assert!(
        matches!(unknown, Err(StoreError::OutcomeUnknown(_))),
        "{unknown:?}"
    );
    other.batch_execute("ROLLBACK").await.unwrap();
    // The batch left behind either came through meanwhile or never will.
    match append(&store, rows(id, 1..=3)).await {
        Ok(()) | Err(StoreError::Conflict) => {}
        Err(error) => panic!("{error:?}"),
    }
    assert_eq!(last_seq(&store, id).await, 3);
    let lanes = sql(&dsn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'chatd lane%'").await;
    assert_eq!(lanes, ["1"]);
}
