//! Lists of a user's chats are read from an index that is written behind the messages.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    domain::{ChatId, MessageId, Row, Timestamp, UserName},
    store::{
        NewChat, Store, StoreError, Walk,
        postgres::{PostgresStore, sql as statements},
        sqlite::{self, SqliteStore},
    },
};
use tempfile::TempDir;

use crate::pg::{self, fresh_database, sql};

fn user(name: &str) -> UserName {
    UserName::new(name).unwrap()
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(now.unwrap().as_micros() as i64)
}

fn row(chat: ChatId, seq: i64) -> Row {
    Row {
        chat,
        seq,
        id: MessageId(fastrand::i64(..)),
        from: user("owner"),
        text: "hello".into(),
        client_message_id: None,
        created_at: now(),
        number: seq,
        change: None,
    }
}

/// The list as the server asks for it, and as it is: each chat's newest message.
fn lists(walk: &str, of: &str, at: i64, id: i64) -> (String, String) {
    let (query, beyond, order) = match walk {
        "down" => (statements::CHATS_OF, "<", "DESC"),
        _ => (statements::CHATS_ABOVE, ">", "ASC"),
    };
    let query = query
        .replace("$1", &format!("'{of}'"))
        .replace("$2", &at.to_string())
        .replace("$3", &id.to_string())
        .replace("$4", "21")
        .replace("$5", "0");
    let list = format!("SELECT id || ' ' || active_at FROM ({query}) AS listed");
    let exact = format!(
        "SELECT id || ' ' || at FROM (
             SELECT c.id, coalesce((SELECT created_at FROM messages WHERE chat_id = c.id
                                     ORDER BY seq DESC LIMIT 1), c.created_at) AS at
               FROM members JOIN chats c ON c.id = chat_id WHERE user_name = '{of}') AS chats
          WHERE (at, id) {beyond} ({at}, {id}) ORDER BY at {order}, id {order} LIMIT 21"
    );
    (list, exact)
}

/// Appends to the chat until it is stored, as the server does; its next seq.
async fn append(store: &PostgresStore, lane: usize, rows: Vec<Row>) {
    let rows = Arc::new(rows);
    loop {
        match store.append(lane, rows.clone()).await {
            Ok(()) => return,
            // An earlier try has stored it.
            Err(StoreError::Conflict) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Two servers write to chats of one user, whose members come and go and whose lanes'
/// sessions are ended; all the time, a list shows what the tables hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_in_order_at_any_time() {
    const CHATS: usize = 260;
    const TIME: Duration = Duration::from_secs(6);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dsn = fresh_database().await;
    let open = async || {
        let mut settings = pg::settings(&dsn);
        settings.activity_epoch = Duration::from_millis(60);
        Arc::new(PostgresStore::open(settings).await.unwrap())
    };
    let stores = [open().await, open().await];
    let mut tasks = tokio::task::JoinSet::new();
    for store in stores.clone() {
        tasks.spawn(async move { store.purge().await });
    }
    let mut chats = Vec::new();
    for _ in 0..CHATS {
        let chat = NewChat {
            client_chat_id: None,
            created_by: user("me"),
            created_at: now(),
            members: vec![user("me")],
        };
        chats.push(stores[0].create_chat(chat).await.unwrap());
    }
    let end = Instant::now() + TIME;
    // Each lane has chats of its own, and talks in few of them at a time.
    for writer in 0..4 {
        let (store, mut random) = (stores[writer % 2].clone(), random.fork());
        let own: Vec<ChatId> = chats.iter().copied().skip(writer).step_by(4).collect();
        tasks.spawn(async move {
            let mut seqs = vec![0; own.len()];
            while Instant::now() < end {
                let (from, count) = (random.usize(..own.len()), random.usize(1..6));
                let mut rows = Vec::new();
                for n in (from..own.len()).take(count) {
                    seqs[n] += 1;
                    rows.push(row(own[n], seqs[n]));
                }
                append(&store, writer / 2, rows).await;
                tokio::time::sleep(Duration::from_millis(random.u64(..4))).await;
            }
        });
    }
    let (store, mut dice, all) = (stores[1].clone(), random.fork(), chats.clone());
    tasks.spawn(async move {
        while Instant::now() < end {
            let (chat, guest) = (all[dice.usize(..all.len())], vec![user("guest")]);
            _ = match dice.u8(..4) {
                0 => store.remove_members(chat, guest, None).await,
                _ => store.add_members(chat, guest, None).await,
            };
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let database = dsn.clone();
    tasks.spawn(async move {
        const END_A_LANE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'chatd lane%'
            ORDER BY random() LIMIT 1";
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(200)).await;
            sql(&database, END_A_LANE).await;
        }
    });

    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    tasks.spawn(async move { _ = connection.await });
    let column = async |statement: &str| -> Vec<String> {
        let rows = client.query(statement, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let mut looks = 0;
    while Instant::now() < end {
        let of = if random.bool() { "me" } else { "guest" };
        let (mut at, mut id) = (i64::MAX, i64::MAX);
        let mut walk = "down";
        // Some pages down, and some up again.
        for _ in 0..random.usize(1..9) {
            let (list, exact) = lists(walk, of, at, id);
            client
                .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                .await
                .unwrap();
            let (listed, exact) = (column(&list).await, column(&exact).await);
            client.batch_execute("COMMIT").await.unwrap();
            assert_eq!(listed, exact, "{walk} from {at} {id} of {of}, look {looks}");
            looks += 1;
            let Some(last) = listed.last() else { break };
            let (last_id, last_at) = last.split_once(' ').unwrap();
            (id, at) = (last_id.parse().unwrap(), last_at.parse().unwrap());
            walk = if random.u8(..4) > 0 { "down" } else { "up" };
        }
    }
    assert!(looks > 100, "{looks}");

    // At rest, all of it is in the index.
    const BEHIND: &str = "SELECT chat_id::text FROM active_chats UNION ALL
        SELECT chat_id::text FROM members WHERE active_at IS NULL";
    const WRONG: &str = "SELECT m.chat_id::text FROM members m JOIN chats c ON c.id = m.chat_id
        WHERE active_at <> coalesce((SELECT created_at FROM messages WHERE chat_id = c.id
                                      ORDER BY seq DESC LIMIT 1), c.created_at)";
    let rested = Instant::now();
    while !column(BEHIND).await.is_empty() {
        assert!(
            rested.elapsed() < Duration::from_secs(20),
            "it is never done"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(column(WRONG).await, Vec::<String>::new());
    for store in stores {
        store.close().await;
    }
}

/// Somebody's clock was a day ahead: soon the chat is where it was active.
#[tokio::test]
async fn a_clock_that_was_ahead_keeps_no_chat_on_top() {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let dsn = fresh_database().await;
    let mut settings = pg::settings(&dsn);
    settings.activity_epoch = Duration::from_millis(100);
    let store = Arc::new(PostgresStore::open(settings).await.unwrap());
    let mut purging = tokio::task::JoinSet::new();
    purging.spawn({
        let store = store.clone();
        async move { store.purge().await }
    });
    for (name, count) in [("few", 3), ("many", 40)] {
        let name = user(name);
        let mut chats = Vec::new();
        for at in 1..=count {
            let chat = NewChat {
                client_chat_id: None,
                created_by: name.clone(),
                created_at: Timestamp(at),
                members: vec![name.clone()],
            };
            chats.push(store.create_chat(chat).await.unwrap());
        }
        let listed = async || {
            let soon = Instant::now() + Duration::from_secs(20);
            let page = store.chats_of(&name, Walk::Down(None), 2, 0, soon);
            let page = page.await.unwrap();
            [page[0].0, page[1].0]
        };
        let ahead = Row {
            created_at: Timestamp(now().0 + DAY),
            ..row(chats[0], 1)
        };
        append(&store, 0, vec![ahead]).await;
        while sql(&dsn, "SELECT count(*) FROM active_chats").await != ["0"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let [top, _] = listed().await;
        assert!(top.chat == chats[0] && top.at <= now());
        append(&store, 0, vec![row(chats[1], 1)]).await;
        let [top, next] = listed().await;
        assert_eq!([top.chat, next.chat], [chats[1], chats[0]]);
    }
    store.close().await;
    purging.join_next().await;
}

/// The median of a page of 20, in ms, for who is in 100 chats and in 100,000.
async fn page_times(store: &dyn Store) -> [f64; 2] {
    let mut medians = [0.0; 2];
    for (median, name) in medians.iter_mut().zip(["few", "many"]) {
        let (name, mut times) = (user(name), Vec::new());
        for _ in 0..101 {
            let (began, soon) = (Instant::now(), Instant::now() + Duration::from_secs(20));
            let page = store.chats_of(&name, Walk::Down(None), 20, 5, soon);
            assert_eq!(page.await.unwrap().len(), 20);
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        *median = times[times.len() / 2];
    }
    medians
}

/// Chats of who is in few and of who is in many, each with two messages; half of them
/// known to the index, as after a while, and the rest of an earlier release.
const MANY: &str = "
    INSERT INTO chats (created_by, created_at) SELECT 'few', n FROM numbers WHERE n <= 100;
    INSERT INTO chats (created_by, created_at) SELECT 'many', n FROM numbers;
    INSERT INTO members (chat_id, user_name, active_at) SELECT id, created_by, 1000 + id FROM chats;
    INSERT INTO messages (chat_id, seq, ID, sender, TEXT, created_at)
        SELECT chats.id, n, n, 'many', 'hello', 999 + chats.id * 1 + n - 1
          FROM chats, numbers WHERE n <= 2;";

#[tokio::test]
async fn a_page_costs_the_same_whoever_asks() {
    let dsn = fresh_database().await;
    let store = pg::open(&dsn).await;
    let numbers = "CREATE TEMP TABLE numbers AS SELECT n FROM generate_series(1, 100000) AS n;";
    sql(&dsn, &format!("{numbers} {MANY} ANALYZE")).await;
    let [few, many] = page_times(&store).await;
    println!("PostgreSQL: a page of 20 of 100 chats {few:.2} ms, of 100,000 chats {many:.2} ms");
    assert!(many < 2.0 * few && few < 2.0 * many);
    assert!(many < 3.0, "{many}");
    store.close().await;

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chat.db");
    let settings = sqlite::Settings::default();
    SqliteStore::open(&path, settings.clone())
        .unwrap()
        .close()
        .await;
    let numbers = "CREATE TEMP TABLE numbers AS WITH RECURSIVE c (n) AS
        (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) SELECT n FROM c;";
    let many = MANY.replace("ID", "message_id").replace("TEXT", "body");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(&format!("BEGIN; {numbers} {many} COMMIT"))
        .unwrap();
    drop(conn);
    let store = SqliteStore::open(&path, settings).unwrap();
    let [few, many] = page_times(&store).await;
    println!("SQLite: a page of 20 of 100 chats {few:.2} ms, of 100,000 chats {many:.2} ms");
    assert!(many < 2.0 * few && few < 2.0 * many);
    assert!(many < 3.0, "{many}");
    store.close().await;
}
