//! How long a durable SendMessage takes on an idle server, from the client's call
//! to its answer, against a bare one-row COPY and COMMIT on the same database:
//!
//!     cargo bench --bench durable_send
//!
//! The two take turns, so that whatever else the machine does is in both.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/pg.rs"]
#[allow(dead_code)]
mod pg;
#[path = "../tests/faults/server.rs"]
#[allow(dead_code)]
mod server;

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::SinkExt as _;
use pg::Pg;
use server::Chatd;
use tokio_postgres::NoTls;

const COPY: &str = "COPY messages (chat_id, seq, id, sender, text, client_message_id, created_at) FROM STDIN BINARY";
const TEXT: &str = "a message of about the length that messages have, and a little more";
const TIMES: i64 = 2_000;
/// Connections, statements and caches warm up.
const WARM_UP: i64 = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let pg = Pg::start();
    let dsn = pg.tcp_dsn("postgres");
    let chatd = Chatd::start(&dsn, &[]);
    let mut ann = chatd.peer("ann");
    // Nobody has joined it: the rows of the bare COPY go there.
    let bare_chat = ann.create(&[]).await;
    let chat = ann.create(&[]).await;
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
    pg::spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    let copy = client.prepare(COPY).await.unwrap();
    let (mut bare, mut sends) = (Vec::new(), Vec::new());
    for seq in 1..=WARM_UP + TIMES {
        let row = encode(bare_chat, seq);
        let start = Instant::now();
        client.batch_execute("BEGIN").await.unwrap();
        let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await.unwrap());
        sink.send(row).await.unwrap();
        sink.finish().await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        let took = start.elapsed();

        let start = Instant::now();
        let id = format!("id {seq}");
        let reply = ann.send(chat, TEXT, &id).await.unwrap();
        assert_eq!(reply.seq, seq);
        if seq > WARM_UP {
            bare.push(took);
            sends.push(start.elapsed());
        }
    }
    let [bare, sends] = [bare, sends].map(|mut times: Vec<Duration>| {
        times.sort();
        [500, 990].map(|of| times[times.len() * of / 1_000])
    });
    println!(
        "bare COPY+COMMIT p50 {:?} p99 {:?}; SendMessage p50 {:?} p99 {:?}; ratio of the p50s {:.2}",
        bare[0],
        bare[1],
        sends[0],
        sends[1],
        sends[0].as_secs_f64() / bare[0].as_secs_f64(),
    );
}

fn encode(chat: i64, seq: i64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    out.put_i16(7);
    for int in [chat, seq, seq] {
        out.put_i32(8);
        out.put_i64(int);
    }
    for text in ["ann", TEXT, &format!("id {seq}")] {
        out.put_i32(text.len() as i32);
        out.put_slice(text.as_bytes());
    }
    out.put_i32(8);
    out.put_i64(1);
    out.put_i16(-1);
    out.freeze()
}
