//! Databases of the release before, which knew nothing but messages.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    domain::{Change, ChatId, MessageId, Row, Timestamp, UserName},
    store::{
        Page, Store,
        sqlite::{Settings, SqliteStore},
    },
};

use crate::pg::{fresh_database, open, sql};

const COUNT: i64 = 200;

/// What the release before has written is read as before, and goes on with entries of
/// other kinds.
async fn goes_on(store: &dyn Store) {
    let chat = ChatId::new(1).unwrap();
    let soon = || Instant::now() + Duration::from_secs(20);
    let user = |name| UserName::new(name).unwrap();
    let rows = store
        .page(chat, Page::After(0), 1_000, soon())
        .await
        .unwrap();
    assert_eq!(rows.len() as i64, COUNT);
    for (row, seq) in rows.iter().zip(1..) {
        assert_eq!((row.seq, row.number, row.id.0), (seq, seq, 1_000 + seq));
        assert_eq!(*row.text, format!("message {seq}"));
        assert!(row.change.is_none() && row.is_message());
    }
    let (record, newest) = store.load_chat(chat, 1, soon()).await.unwrap().unwrap();
    assert_eq!((record.last_seq, newest[0].number), (COUNT, COUNT));
    let entry = |seq, text: &str, change| Row {
        chat,
        seq,
        id: MessageId(seq),
        from: user("bo"),
        text: text.into(),
        client_message_id: None,
        created_at: Timestamp(seq),
        number: COUNT,
        change: Some(Box::new(change)),
    };
    let edit = entry(COUNT + 1, "better", Change::Edit { target: 7 });
    let deletion = entry(COUNT + 2, "", Change::Deletion { target: 8 });
    store
        .append(0, Arc::new(vec![edit, deletion]))
        .await
        .unwrap();
    let me = user("me");
    let now = store.current(chat, &me, Page::After(6), 3, soon()).await;
    let now = now.unwrap();
    let better = Change::Edited {
        text: "better".into(),
        at: Timestamp(COUNT + 1),
        attached: None,
    };
    assert_eq!(now[0].row.change.as_deref(), Some(&better));
    assert_eq!(now[1].row.change.as_deref(), Some(&Change::Deleted));
    assert!(now[1].row.text.is_empty() && now[2].row.change.is_none());
}

fn migration(store: &str, name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    std::fs::read_to_string(folder.join(store).join(name)).unwrap()
}

#[tokio::test]
async fn a_postgres_of_the_release_before_is_not_rewritten() {
    let dsn = fresh_database().await;
    let mut version = 0;
    sql(
        &dsn,
        "CREATE TABLE chatd_migrations (version int PRIMARY KEY, name text NOT NULL,
                                        applied_at timestamptz NOT NULL DEFAULT now())",
    )
    .await;
    for name in [
        "0001_chats_and_messages",
        "0002_chats_by_creator",
        "0003_activity",
        "0004_nodes",
    ] {
        version += 1;
        sql(&dsn, &migration("postgres", &format!("{name}.sql"))).await;
        let record = format!("INSERT INTO chatd_migrations VALUES ({version}, '{name}')");
        sql(&dsn, &record).await;
    }
    let insert = format!(
        "INSERT INTO chats (created_by, created_at) VALUES ('bo', 1);
         INSERT INTO members (chat_id, user_name) VALUES (1, 'bo');
         INSERT INTO messages (chat_id, seq, id, sender, text, created_at)
         SELECT 1, n, 1000 + n, 'bo', 'message ' || n, n FROM generate_series(1, {COUNT}) AS n"
    );
    sql(&dsn, &insert).await;
    let files = "SELECT string_agg(relfilenode::text, ',' ORDER BY relname) FROM pg_class
                  WHERE relname LIKE 'messages\\___'";
    let before = sql(&dsn, files).await;
    let store = open(&dsn).await;
    assert_eq!(sql(&dsn, files).await, before, "a table was rewritten");
    goes_on(&store).await;
    store.close().await;
}

#[tokio::test]
async fn a_file_of_the_release_before_is_read_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let file = rusqlite::Connection::open(&path).unwrap();
    for name in [
        "0001_chats_and_messages.sql",
        "0002_chats_by_creator.sql",
        "0003_activity.sql",
    ] {
        file.execute_batch(&migration("sqlite", name)).unwrap();
    }
    let insert = format!(
        "PRAGMA user_version = 3;
         INSERT INTO chats (created_by, created_at) VALUES ('bo', 1);
         INSERT INTO members (chat_id, user_name) VALUES (1, 'bo');
         WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {COUNT})
         INSERT INTO messages (chat_id, seq, message_id, sender, body, created_at)
         SELECT 1, n, 1000 + n, 'bo', 'message ' || n, n FROM counted"
    );
    file.execute_batch(&insert).unwrap();
    drop(file);
    let store = SqliteStore::open(&path, Settings::default()).unwrap();
    goes_on(&store).await;
    store.close().await;
}
