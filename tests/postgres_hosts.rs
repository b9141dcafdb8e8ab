//! Which server of several it is, what it must be, and how much there is of it.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use chat_service::store::{Page, Store, StoreError, postgres::PostgresStore};
use tokio::{net::TcpListener, task::block_in_place};

use crate::{
    ops::doctor::doctor,
    pg::{self, Pg, fresh_database_on, sql},
    postgres_store::{append, chat, last_seq, rows, soon},
    startup::refusal,
};

/// A place that accepts and says nothing has its time, and then comes the next; and
/// only the first connection waits for it.
#[tokio::test]
async fn a_silent_host_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hold = async {
        let mut open = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            open.push(connection);
        }
    };
    let own = fresh_database_on(Pg::shared()).await;
    let (_, name) = own.rsplit_once("dbname=").unwrap();
    let dsn = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{name}?connect_timeout=1",
        silent.local_addr().unwrap().port(),
        Pg::shared().port()
    );
    let start = Instant::now();
    let used = async {
        let store = pg::open(&dsn).await;
        let id = chat(&store).await;
        append(&store, rows(id, 1..=3)).await.unwrap();
        assert_eq!(last_seq(&store, id).await, 3);
    };
    tokio::select! {
        () = hold => {}
        () = used => {}
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A role's sessions that do not write are not used, whatever the address asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_from_is_refused_in_one_line() {
    let pg = Pg::start();
    let own = pg.dsn("postgres");
    sql(&own, "CREATE ROLE reader LOGIN; CREATE ROLE writer LOGIN").await;
    sql(
        &own,
        "CREATE ROLE pinned LOGIN; ALTER ROLE pinned SET default_transaction_read_only = on",
    )
    .await;
    sql(
        &own,
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
    )
    .await;
    pg::open(&own).await;
    sql(
        &own,
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
         GRANT ALL ON ALL TABLES IN SCHEMA public TO writer, pinned;
         REVOKE EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint) FROM PUBLIC",
    )
    .await;
    let port = pg.port();
    for (user, database, reason) in [
        ("postgres", "latin", "LATIN1"),
        ("reader", "postgres", "INSERT on messages"),
        ("pinned", "postgres", "read-only"),
        ("writer", "postgres", "EXECUTE on pg_terminate_backend"),
    ] {
        let dsn = format!("postgres://{user}@127.0.0.1:{port}/{database}");
        let dir = tempfile::tempdir().unwrap();
        let options = [
            "--grpc-port",
            "0",
            "--http-port",
            "0",
            "--log-level",
            "error",
        ];
        let line = refusal(dir.path(), &[&options[..], &["--store", &dsn]].concat()).await;
        assert!(line.contains(reason), "{reason}: {line}");
        let (output, told) = block_in_place(|| doctor(&["--http-port", "0"], &[("PG_DSN", &dsn)]));
        assert!(told.contains(reason), "{reason}: {told}");
        assert_eq!(output.status.code(), Some(1), "{told}");
    }
    sql(&own, "ALTER ROLE writer CONNECTION LIMIT 4").await;
    sql(
        &own,
        "GRANT EXECUTE ON FUNCTION pg_terminate_backend(integer, bigint) TO writer",
    )
    .await;
    let dsn = format!("postgres://writer@127.0.0.1:{port}/postgres");
    let (_, told) = block_in_place(|| doctor(&["--http-port", "0"], &[("PG_DSN", &dsn)]));
    assert!(told.contains("warn sessions: room for 4 "), "{told}");
    let store = pg::open(&dsn).await;
    store.ping(soon()).await.unwrap();
    // Ready is who may do what is needed.
    sql(&own, "REVOKE INSERT ON messages FROM writer").await;
    let ready = store.ping(soon()).await;
    assert!(
        matches!(ready, Err(StoreError::Unavailable(_))),
        "{ready:?}"
    );
}

/// Readers have all the places that the role may have: a lane gets one all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_give_way_to_a_lane_without_a_place() {
    let pg = Pg::start();
    let own = pg.dsn("postgres");
    sql(
        &own,
        "CREATE ROLE few LOGIN CONNECTION LIMIT 4; GRANT ALL ON SCHEMA public TO few",
    )
    .await;
    let dsn = format!("postgres://few@127.0.0.1:{}/postgres", pg.port());
    let store = pg::open(&dsn).await;
    let id = chat(&store).await;
    let (locking, connection) = tokio_postgres::connect(&own, tokio_postgres::NoTls)
        .await
        .unwrap();
    pg::spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    // As many at once as there are places, so that each has a session.
    let lock = "BEGIN; LOCK TABLE messages";
    locking.batch_execute(lock).await.unwrap();
    let reads = (0..4).map(|_| store.page(id, Page::After(0), 1, soon()));
    let all = async {
        let most = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'few'";
        while sql(&own, most).await != ["4"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        locking.batch_execute("COMMIT").await.unwrap();
    };
    tokio::join!(futures_util::future::join_all(reads), all);
    let start = Instant::now();
    let lane = async {
        while append(&store, rows(id, 1..=1)).await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "no place");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = store.purge() => {}
        () = lane => {}
    }
    assert_eq!(last_seq(&store, id).await, 1);
}

/// What was prepared is not what the table is any more: the session says so, is
/// replaced, and the read goes through.
#[tokio::test]
async fn a_session_whose_plans_are_stale_is_replaced() {
    let own = fresh_database_on(Pg::shared()).await;
    let store = pg::open(&own).await;
    let id = chat(&store).await;
    append(&store, rows(id, 1..=2)).await.unwrap();
    let reads = (0..8).map(|_| store.page(id, Page::After(0), 5, soon()));
    futures_util::future::join_all(reads).await;
    sql(
        &own,
        "ALTER TABLE messages ALTER COLUMN sender TYPE varchar(300)",
    )
    .await;
    for _ in 0..20 {
        let page = store.page(id, Page::After(0), 5, soon()).await.unwrap();
        assert_eq!(page.len(), 2);
    }
}

/// The primary stops without a word, its standby is promoted: posts and reads go
/// to that one within the stall of a lane and a connection's time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_stopped_primary_gives_way_to_the_promoted_standby() {
    let pg = Pg::start();
    let own = pg.dsn("postgres");
    let primary = pg.port();
    let store = pg::open(&own).await;
    let id = chat(&store).await;
    store.close().await;
    let standby = Pg::start_with(&[], |data| {
        fs::remove_dir_all(data).unwrap();
        pg::run(
            Command::new(pg::process::binary("pg_basebackup"))
                .args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream"])
                .args(["-c", "fast", "-p", &primary.to_string(), "-D"])
                .arg(data),
        );
    });
    let dsn = format!(
        "postgres://postgres@127.0.0.1:{primary},127.0.0.1:{}/postgres?connect_timeout=1",
        standby.port()
    );
    let mut settings = pg::settings(&dsn);
    settings.lane_stall = Duration::from_secs(1);
    let store = PostgresStore::open(settings).await.unwrap();
    append(&store, rows(id, 1..=1)).await.unwrap();
    assert_eq!(last_seq(&store, id).await, 1);
    while sql(&standby.dsn("postgres"), "SELECT count(*) FROM messages").await != ["1"] {}
    pg.sigstop();
    sql(&standby.dsn("postgres"), "SELECT pg_promote()").await;
    let start = Instant::now();
    while append(&store, rows(id, 2..=2)).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(12), "no posts");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let read = || async {
        let briefly = Instant::now() + Duration::from_secs(2);
        store.page(id, Page::After(0), 5, briefly).await
    };
    loop {
        match read().await {
            Ok(page) => break assert_eq!(page.len(), 2),
            Err(_) => assert!(start.elapsed() < Duration::from_secs(15), "no reads"),
        }
    }
    pg.sigcont();
}
