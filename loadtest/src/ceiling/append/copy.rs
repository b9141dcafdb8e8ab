use std::{
    pin::pin,
    time::{Duration, Instant, SystemTime},
};

use chat_service::domain::{ChatId, Row};
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

/// A table of this scenario's own, and the connection that fills it.
pub struct Copier {
    client: Client,
    _connections: JoinSet<()>,
}

impl Copier {
    /// Makes the table.
    pub async fn open(dsn: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
        let mut connections = JoinSet::new();
        connections.spawn(async {
            // Its error shows in the client's next call.
            _ = connection.await;
        });
        client
            .batch_execute("DROP TABLE IF EXISTS loadtest_copy")
            .await?;
        client.batch_execute(TABLE).await?;
        Ok(Self {
            client,
            _connections: connections,
        })
    }

    /// COPY BINARY and COMMIT.
    pub async fn commit(&mut self, rows: &[Row]) -> Result<()> {
        let transaction = self.client.transaction().await?;
        let sink = transaction.copy_in(COPY).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &COLUMNS));
        for row in rows {
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
        Ok(())
    }

    pub async fn close(self) -> Result<()> {
        Ok(self
            .client
            .batch_execute("DROP TABLE loadtest_copy")
            .await?)
    }
}

/// Rows a second, a commit a batch.
pub async fn measure(options: &Options) -> Result<Bare> {
    let mut copier = Copier::open(&options.store).await?;
    let chats: Result<Vec<_>, _> = (1..=options.chats as i64).map(ChatId::new).collect();
    let text = posts::text(Instant::now(), options.text);
    let mut source = Source::new(chats?, &text, options.batch)?;
    let cpu = usage(std::process::id())?.cpu;
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < Duration::from_secs_f64(options.seconds) {
        let rows = source.batch();
        copier.commit(&rows).await?;
        written += rows.len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = usage(std::process::id())?.cpu - cpu;
    copier.close().await?;
    Ok(Bare {
        rate: written as f64 / seconds,
        cpu_each: cpu / written as f64,
    })
}
