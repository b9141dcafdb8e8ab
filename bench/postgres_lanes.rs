//! Rows a second through the lanes against raw COPY of the same rows, and the
//! time of one durable row, on a throw-away server:
//!
//!     cargo bench --bench postgres_lanes
//!
//! Whether `messages` is partitioned, and whether raw COPY gets a batch sorted by
//! chat, is varied as well; the figures that decided are in the migration and in
//! `copy.rs`. `CHATS`, `ROWS` and `ROUNDS` may be set.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/pg.rs"]
#[allow(dead_code)]
mod pg;

use std::{pin::pin, sync::Arc, time::Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use chat_service::{
    domain::{ChatId, MessageId, Row, Timestamp, UserName},
    store::{
        Store,
        postgres::{PostgresStore, migrate},
    },
};
use futures_util::{SinkExt as _, future::join_all};
use pg::Pg;
use tokio_postgres::{Client, NoTls};

const COPY: &str = "COPY messages (chat_id, seq, id, sender, text, client_message_id, created_at) FROM STDIN BINARY";
const UNPARTITIONED: &str = "DROP TABLE messages; CREATE TABLE messages (
    chat_id bigint NOT NULL, seq bigint NOT NULL, id bigint NOT NULL, sender text NOT NULL,
    text text NOT NULL, client_message_id text, created_at bigint NOT NULL,
    PRIMARY KEY (chat_id, seq))";

/// Rows as they come off the wire, or sorted by chat.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Raw,
    RawSorted,
    Lanes,
}

/// The machine is rarely quiet: the ways take turns, and the median counts.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap())
    };
    let chats = number("CHATS", 10_000);
    let (rows, rounds) = (number("ROWS", 300_000), number("ROUNDS", 5));
    let pg = Pg::start_with(&["max_wal_size=8GB", "shared_buffers=1GB"], |_| {});
    println!("{rows} rows a run, {chats} chats, medians of {rounds} runs, rows/s");
    for batch in [1_000, 5_000] {
        for connections in [1, 2] {
            let mut rates = vec![Vec::new(); 6];
            for _ in 0..rounds {
                let mut at = 0;
                for partitioned in [true, false] {
                    for way in [Way::Raw, Way::RawSorted, Way::Lanes] {
                        let run = Run {
                            chats,
                            batch,
                            connections,
                            partitioned,
                            way,
                        };
                        rates[at].push(run.rate(&pg, rows).await);
                        at += 1;
                    }
                }
            }
            for (partitions, rates) in [16, 0].into_iter().zip(rates.chunks_mut(3)) {
                let [raw, sorted, lanes] = [0, 1, 2].map(|way| {
                    rates[way].sort_by(f64::total_cmp);
                    rates[way][rounds / 2]
                });
                println!(
                    "batch {batch:5} connections {connections} partitions {partitions:2}  raw {raw:7.0}  sorted {sorted:7.0}  lanes {lanes:7.0}  lanes/raw {:.2}  lanes/sorted {:.2}",
                    lanes / raw,
                    lanes / sorted,
                );
            }
        }
    }
    latency(&pg).await;
}

struct Run {
    chats: usize,
    batch: usize,
    connections: usize,
    partitioned: bool,
    way: Way,
}

impl Run {
    async fn rate(&self, pg: &Pg, total: usize) -> f64 {
        let dsn = database(pg, self.partitioned).await;
        // Made before the clock runs; each connection has its own chats, as a lane has.
        let work: Vec<Vec<Arc<Vec<Row>>>> = (0..self.connections)
            .map(|connection| self.batches(total / self.connections, connection))
            .collect();
        let count: usize = work.iter().flatten().map(|b| b.len()).sum();
        let store = store(&dsn, self.connections).await;
        // Lanes connect before the clock runs, as the raw clients do.
        for lane in 0..self.connections {
            store.append(lane, Arc::new(Vec::new())).await.unwrap();
        }
        let elapsed = match self.way {
            Way::Lanes => {
                let start = Instant::now();
                join_all(work.iter().enumerate().map(|(lane, batches)| {
                    let store = &store;
                    async move {
                        for batch in batches {
                            store.append(lane, Arc::clone(batch)).await.unwrap();
                        }
                    }
                }))
                .await;
                start.elapsed()
            }
            Way::Raw | Way::RawSorted => {
                // Already encoded: what the server takes at most.
                let encoded: Vec<Vec<Bytes>> = work
                    .iter()
                    .map(|batches| batches.iter().map(|b| encode(b)).collect())
                    .collect();
                let mut clients = Vec::new();
                for _ in 0..self.connections {
                    clients.push(client(&dsn).await);
                }
                let start = Instant::now();
                join_all(
                    clients
                        .iter()
                        .zip(encoded)
                        .map(|(client, batches)| async move {
                            let copy = client.prepare(COPY).await.unwrap();
                            for batch in batches {
                                raw_copy(client, &copy, batch).await;
                            }
                        }),
                )
                .await;
                start.elapsed()
            }
        };
        let stored = pg::sql(&dsn, "SELECT count(*) FROM messages").await;
        assert_eq!(stored, [count.to_string()]);
        store.close().await;
        drop_database(pg, &dsn).await;
        count as f64 / elapsed.as_secs_f64()
    }

    /// Messages to a connection's chats at random, as they come off the wire.
    fn batches(&self, total: usize, connection: usize) -> Vec<Arc<Vec<Row>>> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut seqs = vec![0; self.chats];
        (0..total / self.batch)
            .map(|_| {
                let mut rows: Vec<Row> = (0..self.batch)
                    .map(|_| {
                        let nth = random.usize(0..self.chats / self.connections);
                        let chat = nth * self.connections + connection;
                        seqs[chat] += 1;
                        row(chat as i64 + 1, seqs[chat])
                    })
                    .collect();
                if self.way == Way::RawSorted {
                    rows.sort_by_key(|row| (row.chat, row.seq));
                }
                Arc::new(rows)
            })
            .collect()
    }
}

async fn raw_copy(client: &Client, copy: &tokio_postgres::Statement, batch: Bytes) {
    client.batch_execute("BEGIN").await.unwrap();
    let mut sink = pin!(client.copy_in::<_, Bytes>(copy).await.unwrap());
    sink.send(batch).await.unwrap();
    sink.finish().await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
}

async fn latency(pg: &Pg) {
    const TIMES: usize = 3_000;
    for dsn_of in [Pg::dsn, Pg::tcp_dsn] {
        let database = database(pg, true).await;
        let name = database.rsplit_once("dbname=").unwrap().1;
        let dsn = dsn_of(pg, name);
        let client = client(&dsn).await;
        let store = store(&dsn, 1).await;
        let copy = client.prepare(COPY).await.unwrap();
        let (mut raw, mut lane) = (Vec::new(), Vec::new());
        for at in 0..TIMES as i64 {
            let rows = Arc::new(vec![row(1, 2 * at + 1)]);
            let start = Instant::now();
            raw_copy(&client, &copy, encode(&rows)).await;
            raw.push(start.elapsed());
            let rows = Arc::new(vec![row(1, 2 * at + 2)]);
            let start = Instant::now();
            store.append(0, rows).await.unwrap();
            lane.push(start.elapsed());
        }
        raw.sort();
        lane.sort();
        println!(
            "one row, {}: p50 bare COPY+COMMIT {:?}, append {:?}, ratio {:.2}; p99 {:?} and {:?}",
            if dsn.starts_with("host=") {
                "unix socket"
            } else {
                "tcp"
            },
            raw[TIMES / 2],
            lane[TIMES / 2],
            lane[TIMES / 2].as_secs_f64() / raw[TIMES / 2].as_secs_f64(),
            raw[TIMES * 99 / 100],
            lane[TIMES * 99 / 100],
        );
    }
}

async fn store(dsn: &str, lanes: usize) -> PostgresStore {
    let mut settings = pg::settings(dsn);
    settings.lanes = lanes;
    PostgresStore::open(settings).await.unwrap()
}

async fn database(pg: &Pg, partitioned: bool) -> String {
    let dsn = pg::fresh_database_on(pg).await;
    migrate(&pg::settings(&dsn)).await.unwrap();
    if !partitioned {
        pg::sql(&dsn, UNPARTITIONED).await;
    }
    pg::sql(&dsn, "CHECKPOINT").await;
    dsn
}

async fn drop_database(pg: &Pg, dsn: &str) {
    let name = dsn.rsplit_once("dbname=").unwrap().1;
    pg::sql(
        &pg.dsn("postgres"),
        &format!("DROP DATABASE {name} WITH (FORCE)"),
    )
    .await;
}

async fn client(dsn: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    pg::spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    client
}

fn row(chat: i64, seq: i64) -> Row {
    Row {
        chat: ChatId::new(chat).unwrap(),
        seq,
        id: MessageId(chat << 32 | seq),
        from: UserName::new("somebody").unwrap(),
        text: "a message of about the length that messages have, and a little more".into(),
        client_message_id: None,
        created_at: Timestamp(1_700_000_000_000_000),
        number: seq,
        change: None,
    }
}

fn encode(rows: &[Row]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for row in rows {
        out.put_i16(7);
        for int in [row.chat.get(), row.seq, row.id.0] {
            out.put_i32(8);
            out.put_i64(int);
        }
        for text in [&*row.from, &*row.text] {
            out.put_i32(text.len() as i32);
            out.put_slice(text.as_bytes());
        }
        out.put_i32(-1);
        out.put_i32(8);
        out.put_i64(row.created_at.0);
    }
    out.put_i16(-1);
    out.freeze()
}
