use std::{
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use chat_service::domain::ChatId;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, binary_copy::BinaryCopyInWriter, types::Type};

use super::{Bare, Options, Source};
use crate::{Result, child::usage, posts};

const TABLE: &str = "CREATE TABLE loadtest_copy (
    chat_id bigint, seq bigint, id bigint, sender text, text text,
    client_message_id text, created_at timestamptz, PRIMARY KEY (chat_id, seq))";
const COPY: &str = "COPY loadtest_copy FROM STDIN BINARY";
const COLUMNS: [Type; 7] = [
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
];

/// Rows a second by COPY BINARY into a table of this scenario's own, a commit a
/// batch.
pub async fn measure(options: &Options) -> Result<Bare> {
    let mut connections = JoinSet::new();
    let mut client = connect(&options.store, &mut connections).await?;
    client
        .batch_execute("DROP TABLE IF EXISTS loadtest_copy")
        .await?;
    client.batch_execute(TABLE).await?;
    let chats: Result<Vec<_>, _> = (1..=options.chats as i64).map(ChatId::new).collect();
    let text = posts::text(Instant::now(), options.text);
    let mut rows = Source::new(chats?, &text, options.batch)?;
    let cpu = usage(std::process::id())?.cpu;
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < Duration::from_secs_f64(options.seconds) {
        written += copy(&mut client, &mut rows).await?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = usage(std::process::id())?.cpu - cpu;
    client.batch_execute("DROP TABLE loadtest_copy").await?;
    Ok(Bare {
        rate: written as f64 / seconds,
        cpu_each: cpu / written as f64,
    })
}

async fn connect(dsn: &str, connections: &mut JoinSet<()>) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    connections.spawn(async {
        // Its error shows in the client's next call.
        _ = connection.await;
    });
    Ok(client)
}

async fn copy(client: &mut Client, rows: &mut Source) -> Result<usize> {
    let transaction = client.transaction().await?;
    let sink = transaction.copy_in(COPY).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &COLUMNS));
    let rows = rows.batch();
    for row in &rows {
        let (chat, from, text) = (row.chat.get(), &*row.from, &*row.text);
        let key = row.client_message_id.as_deref();
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(row.created_at.0 as u64);
        writer
            .as_mut()
            .write(&[&chat, &row.seq, &row.id.0, &from, &text, &key, &at])
            .await?;
    }
    writer.finish().await?;
    transaction.commit().await?;
    Ok(rows.len())
}
