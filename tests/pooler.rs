//! PgBouncer of the distribution, in transaction mode, in front of a server: what
//! all stores promise is asked of it in `conformance`.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use chat_service::store::{Page, Store, postgres::PostgresStore};
use tempfile::TempDir;

use crate::{
    pg::{
        self, Pg, fresh_database_on,
        process::{self, binary, give_away, unprivileged},
        sql,
    },
    postgres_store::{append, chat, last_seq, rows, soon},
};

/// Ends with this value.
pub struct Pooler {
    child: Child,
    port: u16,
    home: TempDir,
}

impl Pooler {
    /// With so few sessions of the server that clients meet each other's.
    pub fn start(pg: &Pg) -> Self {
        let home = TempDir::with_prefix("chatd-pooler-").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let port = port.unwrap().port();
        let config = home.path().join(CONFIG);
        fs::write(&config, text(port, pg)).unwrap();
        give_away(home.path());
        let child = unprivileged(&binary("pgbouncer"))
            .arg("--quiet")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "no pooler");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, port, home }
    }

    /// The database is another server's from now on; clients keep their connections.
    pub fn go_on_with(&self, pg: &Pg) {
        fs::write(self.home.path().join(CONFIG), text(self.port, pg)).unwrap();
        process::kill("-HUP", self.child.id());
    }

    pub fn dsn(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

const CONFIG: &str = "pooler.ini";

fn text(port: u16, pg: &Pg) -> String {
    format!(
        "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\nmax_client_conn = 500\n\
         default_pool_size = 4\nserver_login_retry = 1\n",
        pg.port()
    )
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store through a pooler, and the database's own address.
async fn through(pooler: &Pooler, pg: &Pg) -> (PostgresStore, String) {
    let own = fresh_database_on(pg).await;
    let (_, name) = own.rsplit_once("dbname=").unwrap();
    (pg::open(&pooler.dsn(name)).await, own)
}

/// Four sessions of the server for all clients: what is prepared or set for one
/// would meet another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_behind_a_pooler_do_not_meet_each_others_sessions() {
    let pg = Pg::start();
    let pooler = Pooler::start(&pg);
    let (first, own) = through(&pooler, &pg).await;
    let (_, name) = own.rsplit_once("dbname=").unwrap();
    // A second start finds the migrations.
    let stores = [first, pg::open(&pooler.dsn(name)).await];
    let mut chats = Vec::new();
    for store in &stores {
        chats.push(chat(store).await);
    }
    let work = stores.iter().zip(&chats).map(|(store, id)| async move {
        for seq in 0..40 {
            append(store, rows(*id, seq * 5 + 1..=seq * 5 + 5))
                .await
                .unwrap();
            let page = store.page(*id, Page::Before(i64::MAX), 5, soon()).await;
            assert_eq!(page.unwrap().last().unwrap().seq, seq * 5 + 5);
            store.ping(soon()).await.unwrap();
        }
    });
    let purge = async {
        let gone = chat(&stores[0]).await;
        stores[0]
            .append(1, rows(gone, 1..=6_000).into())
            .await
            .unwrap();
        stores[0].delete_chat(gone, None).await.unwrap();
        let count = format!("SELECT count(*) FROM messages WHERE chat_id = {gone}");
        tokio::select! {
            () = stores[1].purge() => {}
            () = async { while sql(&own, &count).await != ["0"] {} } => {}
        }
    };
    tokio::join!(futures_util::future::join_all(work), purge);
    // Nothing is left behind for other clients of the pooler.
    let (other, connection) = tokio_postgres::connect(&pooler.dsn(name), tokio_postgres::NoTls)
        .await
        .unwrap();
    pg::spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    for _ in 0..8 {
        let answers = other
            .simple_query(
                "SELECT current_setting('synchronous_commit') || current_setting('enable_seqscan') \
                 || current_setting('statement_timeout') || (SELECT count(*) FROM pg_prepared_statements)",
            )
            .await
            .unwrap();
        let told = answers.iter().find_map(|answer| match answer {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        assert_eq!(told, Some("onon00"));
    }
}

/// A lane that gave up a batch ends the session that is still at it, and not one
/// that another client has by now, although it may still have the lane's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_lane_behind_a_pooler_ends_its_own_batch_and_nobody_elses() {
    let pg = Pg::start();
    let pooler = Pooler::start(&pg);
    let own = fresh_database_on(&pg).await;
    let (_, name) = own.rsplit_once("dbname=").unwrap();
    let mut settings = pg::settings(&pooler.dsn(name));
    settings.lane_stall = Duration::from_millis(500);
    let store = PostgresStore::open(settings).await.unwrap();
    let id = chat(&store).await;
    append(&store, rows(id, 1..=1)).await.unwrap();
    // All sessions of the pooler, three of them with others' transactions.
    let mut others = Vec::new();
    for _ in 0..2 {
        let dsn = format!("{}?application_name=", pooler.dsn(name));
        let (other, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls)
            .await
            .unwrap();
        pg::spawner()(Box::pin(async {
            let _ = connection.await;
        }));
        other.batch_execute("BEGIN; SELECT 1").await.unwrap();
        others.push(other);
    }
    let key = format!("INSERT INTO messages VALUES ({id}, 3, 1, 'x', 'x', NULL, 1)");
    others[0].batch_execute(&key).await.unwrap();
    let unknown = append(&store, rows(id, 2..=4)).await;
    assert!(unknown.is_err(), "{unknown:?}");
    let start = Instant::now();
    others[0].batch_execute("ROLLBACK").await.unwrap();
    while append(&store, rows(id, 2..=4)).await.is_err() && last_seq(&store, id).await < 4 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(last_seq(&store, id).await, 4);
    for other in &others {
        other.batch_execute("SELECT 1").await.unwrap();
    }
}

/// A cancellation whose sender leaves before it has arrived ends PgBouncer 1.18,
/// or meets somebody else's query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_miss_their_deadline_harm_neither_the_pooler_nor_others() {
    let pg = Pg::start();
    let mut pooler = Pooler::start(&pg);
    let (store, _) = through(&pooler, &pg).await;
    let id = chat(&store).await;
    append(&store, rows(id, 1..=5)).await.unwrap();
    let late = async {
        for _ in 0..150 {
            let past = Instant::now().checked_sub(Duration::from_millis(1));
            store.ping(past.unwrap()).await.unwrap_err();
        }
    };
    let in_time = || async {
        for _ in 0..150 {
            let page = store.page(id, Page::After(0), 5, soon()).await;
            assert_eq!(page.unwrap().len(), 5);
        }
    };
    tokio::join!(late, in_time(), in_time());
    assert!(pooler.child.try_wait().unwrap().is_none(), "no pooler");
    store.close().await;
}
