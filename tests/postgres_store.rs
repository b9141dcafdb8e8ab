//! What only PostgreSQL can get wrong. What all stores promise is in
//! `conformance`.

use std::{
    cell::Cell,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    domain::{ChatId, ClientMessageId, MessageId, Row, Timestamp, UserName},
    store::{
        NewChat, Page, Store, StoreError,
        postgres::{OpenError, PostgresStore, Settings, sql as statements},
    },
};

use crate::pg::{self, Pg, fresh_database, fresh_database_on, open, sql};

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn row(chat: ChatId, seq: i64, text: &str) -> Row {
    Row {
        chat,
        seq,
        id: MessageId(chat.get() * 1_000_000 + seq),
        from: UserName::new("alice").unwrap(),
        text: text.into(),
        client_message_id: ClientMessageId::from_wire("k").unwrap(),
        created_at: Timestamp(1_700_000_000_000_000 + seq),
        number: seq,
        change: None,
    }
}

pub fn rows(chat: ChatId, seqs: std::ops::RangeInclusive<i64>) -> Vec<Row> {
    seqs.map(|seq| row(chat, seq, "hello")).collect()
}

pub async fn append(store: &PostgresStore, rows: Vec<Row>) -> Result<(), StoreError> {
    store.append(0, Arc::new(rows)).await
}

pub async fn chat(store: &PostgresStore) -> ChatId {
    let alice = UserName::new("alice").unwrap();
    let new = NewChat {
        client_chat_id: None,
        created_by: alice.clone(),
        created_at: Timestamp(1),
        members: vec![alice],
    };
    store.create_chat(new).await.unwrap()
}

pub async fn last_seq(store: &PostgresStore, chat: ChatId) -> i64 {
    store.last_seqs(&[chat], soon()).await.unwrap()[0]
}

#[tokio::test]
async fn two_servers_may_migrate_at_once() {
    let dsn = fresh_database().await;
    // The tables of the service that this one replaces stay as they are.
    sql(&dsn, "CREATE TABLE chat (x int); CREATE TABLE message (x int); CREATE TABLE logs (x int); CREATE TABLE goose_db_version (x int)").await;
    let stores = futures_util::future::join_all((0..4).map(|_| open(&dsn))).await;
    let versions = sql(&dsn, "SELECT version FROM chatd_migrations").await;
    assert_eq!(versions, ["1", "2", "3", "4", "5", "6"]);
    let id = chat(&stores[0]).await;
    assert!(stores[3].load_chat(id, 1, soon()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_newer_database_is_refused_in_one_line() {
    let dsn = fresh_database().await;
    open(&dsn).await;
    sql(
        &dsn,
        "INSERT INTO chatd_migrations (version, name) VALUES (9000, 'future')",
    )
    .await;
    let error = PostgresStore::open(pg::settings(&dsn)).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { database: 9000, .. }));
    assert!(!error.to_string().contains('\n'));
}

#[tokio::test]
async fn p10_a_refused_row_leaves_nothing_and_the_lane_goes_on() {
    let dsn = fresh_database().await;
    let store = open(&dsn).await;
    let id = chat(&store).await;
    let mut batch = rows(id, 1..=3_000);
    batch[1_500].text = "nul \0".into();
    let refused = append(&store, batch).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(last_seq(&store, id).await, 0);
    append(&store, rows(id, 1..=2)).await.unwrap();
    assert_eq!(last_seq(&store, id).await, 2);
}

#[tokio::test]
async fn p2_a_conflict_writes_nothing_and_the_lane_goes_on() {
    let dsn = fresh_database().await;
    let store = open(&dsn).await;
    let (a, b) = (chat(&store).await, chat(&store).await);
    append(&store, vec![row(a, 1, "first")]).await.unwrap();
    let conflict = append(&store, vec![row(b, 1, "b"), row(a, 1, "second")]).await;
    assert!(
        matches!(conflict, Err(StoreError::Conflict)),
        "{conflict:?}"
    );
    assert_eq!(last_seq(&store, b).await, 0);
    let page = store.page(a, Page::After(0), 10, soon()).await.unwrap();
    assert_eq!(&*page[0].text, "first");
    append(&store, vec![row(b, 1, "b"), row(a, 2, "second")])
        .await
        .unwrap();
}

#[tokio::test]
async fn p1_a_weaker_default_weakens_neither_lanes_nor_changes() {
    let dsn = fresh_database_on(Pg::shared()).await;
    let name = dsn.rsplit_once("dbname=").unwrap().1;
    sql(
        &dsn,
        &format!("ALTER DATABASE {name} SET synchronous_commit = off"),
    )
    .await;
    let store = open(&dsn).await;
    let id = chat(&store).await;
    // What a lane's session says of itself, through a trigger that it fires.
    sql(
        &dsn,
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
         CREATE TRIGGER see AFTER INSERT ON messages FOR EACH ROW EXECUTE FUNCTION see()",
    )
    .await;
    sql(
        &dsn,
        "CREATE TRIGGER see AFTER INSERT OR DELETE ON members FOR EACH ROW EXECUTE FUNCTION see();
         CREATE TRIGGER see AFTER INSERT OR DELETE ON chats FOR EACH ROW EXECUTE FUNCTION see()",
    )
    .await;
    append(&store, rows(id, 1..=1)).await.unwrap();
    // The chat's row and the member's.
    let other = chat(&store).await;
    let alice = || vec![UserName::new("alice").unwrap()];
    store.remove_members(other, alice(), None).await.unwrap();
    store.add_members(other, alice(), None).await.unwrap();
    // The chat's row again, and its member's if that goes with it.
    store.delete_chat(other, None).await.unwrap();
    let seen = sql(&dsn, "SELECT setting FROM seen").await;
    assert!(seen.len() >= 6, "{seen:?}");
    assert!(seen.iter().all(|setting| setting == "on"), "{seen:?}");
}

#[tokio::test]
async fn a_late_read_is_cancelled_and_its_connection_is_used_again() {
    let dsn = fresh_database().await;
    let mut settings = pg::settings(&dsn);
    settings.read_connections = 1;
    let store = PostgresStore::open(settings).await.unwrap();
    let id = chat(&store).await;
    const BACKEND: &str = "SELECT pid FROM pg_stat_activity WHERE application_name = 'chatd' AND datname = current_database()";
    let before = sql(&dsn, BACKEND).await;
    let (other, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    pg::spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    other
        .batch_execute("BEGIN; LOCK TABLE chats")
        .await
        .unwrap();
    let start = Instant::now();
    let late = store
        .page(id, Page::After(0), 1, start + Duration::from_millis(200))
        .await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert!(start.elapsed() < Duration::from_secs(1));
    // The lock is still held: only a cancelled query gives the connection back.
    store.ping(soon()).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(sql(&dsn, BACKEND).await, before);
}

#[tokio::test]
async fn a_purge_goes_on_after_a_restart() {
    let dsn = fresh_database().await;
    let store = open(&dsn).await;
    let (gone, kept) = (chat(&store).await, chat(&store).await);
    append(&store, rows(gone, 1..=12_000)).await.unwrap();
    append(&store, rows(kept, 1..=10)).await.unwrap();
    assert!(store.delete_chat(gone, None).await.unwrap());
    assert!(!store.delete_chat(gone, None).await.unwrap());
    assert!(
        store
            .page(gone, Page::After(0), 5, soon())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(last_seq(&store, gone).await, 0);
    let count = format!("SELECT count(*) FROM messages WHERE chat_id = {gone}");
    // Ended in the middle …
    tokio::select! {
        () = store.purge() => {}
        () = async { while sql(&dsn, &count).await == ["12000"] {} } => {}
    }
    store.close().await;
    assert_ne!(sql(&dsn, &count).await, ["0"]);
    // … and two servers take it up.
    let stores = [open(&dsn).await, open(&dsn).await];
    tokio::select! {
        () = stores[0].purge() => {}
        () = stores[1].purge() => {}
        () = async { while sql(&dsn, &count).await != ["0"] {} } => {}
    }
    assert_eq!(last_seq(&stores[0], kept).await, 10);
}

/// A page of a chat whose messages lie among those of others costs the rows'
/// heap pages and the index's path, in the order of the index.
#[tokio::test]
async fn a_history_page_is_a_range_of_the_index() {
    let dsn = fresh_database().await;
    let store = open(&dsn).await;
    let mut chats = Vec::new();
    for _ in 0..50 {
        chats.push(chat(&store).await);
    }
    for seq in 0..20 {
        let batch = chats
            .iter()
            .flat_map(|id| rows(*id, seq * 100 + 1..=seq * 100 + 100));
        append(&store, batch.collect()).await.unwrap();
    }
    let id = chats[7];
    for (page, seq) in [
        (statements::PAGE_AFTER, 900),
        (statements::PAGE_BEFORE, 1_000),
    ] {
        let explain = format!(
            "{}; PREPARE page (bigint, bigint, bigint) AS {page};
             EXECUTE page ({id}, {seq}, 100);
             EXPLAIN (ANALYZE, BUFFERS) EXECUTE page ({id}, {seq}, 100)",
            statements::SESSION
        );
        let lines = sql(&dsn, &explain).await;
        let plan = lines[100..].join("\n");
        assert!(plan.contains("Index Scan"), "{plan}");
        assert!(plan.contains("(seq "), "no range of seq: {plan}");
        assert!(plan.contains("rows=100 "), "{plan}");
        for bad in ["Sort Method", "Seq Scan", "Bitmap", "Filter: (seq"] {
            assert!(!plan.contains(bad), "{bad}: {plan}");
        }
        // "Buffers: shared hit=12 read=3" of the topmost node, planning not included.
        let buffers = lines[100..]
            .iter()
            .find(|l| l.contains("Buffers:"))
            .unwrap();
        let count: u64 = buffers
            .split([' ', '='])
            .filter_map(|word| word.parse::<u64>().ok())
            .sum();
        // 100 rows on 2 or 3 heap pages, the index's path, the chat's row.
        assert!(count <= 14, "{plan}");
    }
}

#[tokio::test]
async fn tls_is_required_and_verified_as_the_address_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let openssl = |args: &[&str]| {
        pg::run(
            Command::new("openssl")
                .args(args)
                .current_dir(folder.path()),
        );
    };
    openssl(&[
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca",
        "-keyout", "ca.key", "-out", "ca.crt",
    ]);
    openssl(&[
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db", "-keyout", "db.key", "-out",
        "db.csr",
    ]);
    std::fs::write(path("san"), "subjectAltName=DNS:localhost").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "db.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-days",
        "2",
        "-set_serial",
        "1",
        "-extfile",
        "san",
        "-out",
        "db.crt",
    ]);
    let server = Pg::start_with(
        &[
            "ssl=on",
            "ssl_cert_file=server.crt",
            "ssl_key_file=server.key",
        ],
        |data| {
            std::fs::copy(path("db.crt"), data.join("server.crt")).unwrap();
            std::fs::copy(path("db.key"), data.join("server.key")).unwrap();
            pg::run(
                Command::new("chmod")
                    .arg("600")
                    .arg(data.join("server.key")),
            );
            std::fs::write(
                data.join("pg_hba.conf"),
                "local all all trust\nhostssl all all all trust\n",
            )
            .unwrap();
        },
    );
    let (port, ca) = (server.port(), path("ca.crt"));
    let attempt = |host: &str, tls: String| {
        let dsn = format!("host={host} port={port} user=postgres dbname=postgres {tls}");
        async move { PostgresStore::open(pg::settings(&dsn)).await }
    };
    for (host, tls) in [
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", "sslmode=prefer".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca sslrootcert={ca}")),
        ("localhost", format!("sslmode=verify-full sslrootcert={ca}")),
    ] {
        let store = attempt(host, tls.clone())
            .await
            .unwrap_or_else(|e| panic!("{tls}: {e:?}"));
        let id = chat(&store).await;
        append(&store, rows(id, 1..=2_000)).await.unwrap();
    }
    for (host, tls) in [
        ("127.0.0.1", "sslmode=disable".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-full sslrootcert={ca}")),
        ("localhost", "sslmode=verify-ca".to_owned()),
    ] {
        assert!(attempt(host, tls.clone()).await.is_err(), "{tls}");
    }
    // The other way round: TLS is asked for and the server has none.
    let plain = format!("{}?sslmode=require", Pg::shared().tcp_dsn("postgres"));
    assert!(
        PostgresStore::open(Settings::new(plain, pg::spawner()))
            .await
            .is_err()
    );
}

/// Batches one behind the other, the next one's COPY opened with the COMMIT of
/// the one before; and then none.
#[tokio::test]
async fn a_copy_that_was_opened_ahead_is_closed_when_no_batch_follows() {
    let dsn = fresh_database().await;
    let store = open(&dsn).await;
    let id = chat(&store).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND application_name LIKE 'chatd lane%' AND query LIKE 'COPY%' \
        AND state = 'active' AND wait_event = 'ClientRead'";
    let seen = Cell::new(false);
    let look = async {
        let saw = async { while sql(&dsn, waiting).await != ["1"] {} };
        let saw = tokio::time::timeout(Duration::from_secs(20), saw).await;
        seen.set(true);
        saw.expect("no COPY was opened ahead");
    };
    let batches = async {
        let mut last = 0;
        while !seen.get() {
            last += 1;
            append(&store, rows(id, last..=last)).await.unwrap();
        }
    };
    tokio::join!(look, batches);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND application_name LIKE 'chatd lane%' AND xact_start IS NOT NULL";
    let closed = async { while sql(&dsn, open).await != ["0"] {} };
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await;
    closed.expect("still in a transaction");
    let before = last_seq(&store, id).await;
    append(&store, rows(id, before + 1..=before + 1))
        .await
        .unwrap();
    assert_eq!(last_seq(&store, id).await, before + 1);
}

#[tokio::test]
async fn a_batch_that_fails_leaves_the_next_one_its_copy() {
    let dsn = fresh_database().await;
    let settings = pg::settings(&dsn);
    let connects = settings.lane_connects.clone();
    let store = PostgresStore::open(settings).await.unwrap();
    let id = chat(&store).await;
    for seq in 1..=3 {
        append(&store, rows(id, seq..=seq)).await.unwrap();
    }
    for _ in 0..3 {
        let taken = append(&store, rows(id, 3..=4)).await;
        assert!(matches!(taken, Err(StoreError::Conflict)), "{taken:?}");
    }
    append(&store, rows(id, 4..=4)).await.unwrap();
    assert_eq!(last_seq(&store, id).await, 4);
    assert_eq!(connects.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn p8_a_session_that_ends_with_a_copy_open_has_stored_nothing() {
    let dsn = fresh_database().await;
    let store = open(&dsn).await;
    let id = chat(&store).await;
    let end = "SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity \
        WHERE datname = current_database() AND application_name LIKE 'chatd lane%'";
    let mut refused = 0;
    for seq in 1..=20 {
        if seq % 5 == 0 {
            sql(&dsn, end).await;
        }
        loop {
            match append(&store, rows(id, seq..=seq)).await {
                Ok(()) => break,
                Err(StoreError::Unavailable(_)) if refused < 20 => refused += 1,
                Err(error) => panic!("{seq}: {error:?}"),
            }
        }
    }
    assert_eq!(last_seq(&store, id).await, 20);
    let stored = sql(&dsn, "SELECT count(*) FROM messages").await;
    assert_eq!(stored, ["20"]);
}
