use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::domain::{MessageId, Timestamp};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("chat.db")
}

fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(&file(folder), Settings::default()).unwrap()
}

fn alice() -> UserName {
    UserName::new("alice").unwrap()
}

fn new_chat() -> NewChat {
    NewChat {
        client_chat_id: None,
        created_by: alice(),
        created_at: Timestamp(1),
        members: vec![alice()],
    }
}

fn row(chat: ChatId, seq: Seq) -> Row {
    Row {
        chat,
        seq,
        id: MessageId(fastrand::i64(..)),
        from: alice(),
        text: "x".repeat(90).into(),
        client_message_id: None,
        created_at: Timestamp(seq),
        number: seq,
        change: None,
    }
}

fn count(conn: &Connection, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    conn.query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// A writer without its thread, so that a test says what is in a batch.
fn writer(folder: &TempDir) -> Writer {
    let path = file(folder);
    let settings = Settings::default();
    let claim = Arc::new(Claim::take(&path).unwrap());
    let conn = schema::open_writer(&path, &settings).unwrap();
    let files = Arc::new(Files::watch(claim).unwrap());
    let (_, jobs) = queue::bounded(1);
    Writer::new(conn, files, jobs, settings).unwrap()
}

fn job(change: Change) -> (Job, oneshot::Receiver<StoreResult<i64>>) {
    let (answer, answered) = oneshot::channel();
    (Job { change, answer }, answered)
}

fn append(rows: Vec<Row>) -> (Job, oneshot::Receiver<StoreResult<i64>>) {
    job(Change::Append(Arc::new(rows)))
}

#[test]
fn a_job_of_a_merged_transaction_fails_alone() {
    let folder = TempDir::new().unwrap();
    let mut writer = writer(&folder);
    let (create, mut created) = job(Change::Create(new_chat()));
    writer.write(vec![create]);
    let id = created.try_recv().unwrap().unwrap();
    let (a, b) = (ChatId::new(id).unwrap(), ChatId::new(id + 1).unwrap());

    let (first, _) = append(vec![row(b, 1)]);
    writer.write(vec![first]);
    let (good, mut good_answer) = append(vec![row(a, 1), row(a, 2)]);
    let (bad, mut bad_answer) = append(vec![row(b, 2), row(b, 1)]);
    let (create, mut created) = job(Change::Create(new_chat()));
    writer.write(vec![good, bad, create]);

    assert_eq!(good_answer.try_recv().unwrap().unwrap(), 2);
    let conflict = bad_answer.try_recv().unwrap();
    assert!(matches!(conflict, Err(StoreError::Conflict)));
    assert_eq!(created.try_recv().unwrap().unwrap(), id + 1);
    drop(writer);
    let conn = Connection::open(file(&folder)).unwrap();
    assert_eq!(count(&conn, "messages"), 3);
    assert_eq!(count(&conn, "chats"), 2);
}

#[tokio::test]
async fn a_restart_goes_on_removing_a_deleted_chats_rows() {
    const MESSAGES: Seq = 1_300;
    let folder = TempDir::new().unwrap();
    let kept;
    {
        let mut writer = writer(&folder);
        let (first, _) = job(Change::Create(new_chat()));
        let (second, mut answer) = job(Change::Create(new_chat()));
        writer.write(vec![first, second]);
        kept = ChatId::new(answer.try_recv().unwrap().unwrap()).unwrap();
        let gone = ChatId::new(kept.get() - 1).unwrap();
        let (rows, _) = append((1..=MESSAGES).map(|seq| row(gone, seq)).collect());
        let (others, _) = append(vec![row(kept, 1)]);
        let (delete, mut deleted) = job(Change::Delete(gone));
        writer.write(vec![rows, others]);
        writer.write(vec![delete]);
        assert_eq!(deleted.try_recv().unwrap().unwrap(), 1);
    } // "killed" before the first step
    let conn = Connection::open(file(&folder)).unwrap();
    assert_eq!(count(&conn, "messages"), MESSAGES + 1);

    let store = open(&folder);
    while count(&conn, "deleted_chats") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count(&conn, "messages"), 1);
    assert_eq!(count(&conn, "members"), 1);
    let rows = store.page(kept, Page::After(0), 10, soon()).await.unwrap();
    assert_eq!(rows.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_file_has_one_store() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder);
    let error = SqliteStore::open(&file(&folder), Settings::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains("another process is using it"));
    first.close().await;
    open(&folder).close().await;
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = TempDir::new().unwrap();
    let conn = Connection::open(file(&folder)).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let error = SqliteStore::open(&file(&folder), Settings::default()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }));
}

#[test]
fn a_path_that_cannot_be_written_is_named_with_the_reason() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("plain"), "x").unwrap();
    let path = folder.path().join("plain/chat.db");
    let error = SqliteStore::open(&path, Settings::default()).unwrap_err();
    let expected = format!("cannot open {}: ", path.display());
    let words = error.to_string();
    assert!(words.starts_with(&expected), "{words}");
    assert!(
        !words.contains('\n') && !words.contains("os error"),
        "{words}"
    );

    let path = folder.path().join("notes");
    std::fs::write(&path, "not a database, but a good deal of text".repeat(40)).unwrap();
    let error = SqliteStore::open(&path, Settings::default()).unwrap_err();
    assert!(error.to_string().ends_with("not a database"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_dropped_still_writes_what_it_took() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.create_chat(new_chat()).await.unwrap();
    drop(store);
    // The lock goes with the last thread.
    let give_up = soon();
    let again = loop {
        match SqliteStore::open(&file(&folder), Settings::default()) {
            Ok(store) => break store,
            Err(OpenError::InUse { .. }) if Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let chats = again
        .chats_of(&alice(), crate::store::Walk::Down(None), 10, 10, soon())
        .await
        .unwrap();
    assert_eq!(chats.len(), 1);
    again.close().await;
}

#[tokio::test]
async fn the_log_does_not_grow_without_end() {
    let folder = TempDir::new().unwrap();
    let settings = Settings {
        log_pages: 50,
        ..Settings::default()
    };
    let bound = 300 * u64::from(settings.page_bytes);
    let store = SqliteStore::open(&file(&folder), settings).unwrap();
    let chat = store.create_chat(new_chat()).await.unwrap();
    for batch in 0..200 {
        let rows: Vec<_> = (1..=100).map(|i| row(chat, batch * 100 + i)).collect();
        store.append(0, Arc::new(rows)).await.unwrap();
    }
    let log = std::fs::metadata(folder.path().join("chat.db-wal")).unwrap();
    assert!(log.len() < bound, "{}", log.len());
    store.close().await;
}

/// The durable rate, by hand: see the end of its output.
#[tokio::test]
#[ignore = "a measurement; run it in release"]
async fn append_rate() {
    const CHATS: usize = 10_000;
    const BATCH: usize = 5_000;
    let number = |name: &str, default: usize| {
        let value = std::env::var(name).ok();
        value.and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    let (lanes, batches) = (number("LANES", 1), number("BATCHES", 400));
    let defaults = Settings::default();
    let settings = Settings {
        log_pages: number("LOG_PAGES", defaults.log_pages as usize) as i64,
        cache_kib: number("CACHE_KIB", defaults.cache_kib as usize) as u32,
        page_bytes: number("PAGE", defaults.page_bytes as usize) as u32,
        mmap_bytes: number("MMAP", defaults.mmap_bytes as usize) as u32,
        ..defaults
    };
    let folder = match std::env::var_os("DIR") {
        Some(dir) => TempDir::new_in(dir).unwrap(),
        None => TempDir::new().unwrap(),
    };
    let store = SqliteStore::open(&file(&folder), settings).unwrap();
    let creating = (0..CHATS).map(|_| store.create_chat(new_chat()));
    let chats = futures_util::future::try_join_all(creating).await.unwrap();

    // A lane has its own chats, and goes round them.
    let batches_of = |lane: usize| -> Vec<Arc<Vec<Row>>> {
        let own: Vec<_> = chats.iter().skip(lane).step_by(lanes).collect();
        let batch = |batch: usize| {
            let places = batch * BATCH..(batch + 1) * BATCH;
            let place = |i: usize| row(*own[i % own.len()], (i / own.len()) as Seq + 1);
            let mut rows: Vec<Row> = places.map(place).collect();
            rows.sort_by_key(|row| row.chat);
            Arc::new(rows)
        };
        (0..batches / lanes).map(batch).collect()
    };
    let work: Vec<_> = (0..lanes).map(batches_of).collect();
    let lane = async |(lane, batches): (usize, Vec<Arc<Vec<Row>>>)| {
        let mut slowest = Duration::ZERO;
        for rows in batches {
            let start = Instant::now();
            store.append(lane, rows).await.unwrap();
            slowest = slowest.max(start.elapsed());
        }
        slowest
    };
    let start = Instant::now();
    let all = work.into_iter().enumerate().map(lane);
    let slowest = futures_util::future::join_all(all).await;
    let took = start.elapsed().as_secs_f64();
    let rows = (batches / lanes * lanes * BATCH) as f64;
    eprintln!("{:.0} rows/s, slowest batch {slowest:?}", rows / took);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let len = entry.metadata().unwrap().len();
        eprintln!("{:?} {} MiB", entry.file_name(), len >> 20);
    }
    store.close().await;
}
