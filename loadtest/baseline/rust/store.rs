use std::{
    error::Error,
    sync::atomic::{AtomicI64, Ordering},
    time::SystemTime,
};

use bb8::Pool;
use bb8_postgres::PostgresConnectionManager;
use tokio_postgres::NoTls;

const TABLE: &str = "DROP TABLE IF EXISTS baseline_message;
    CREATE TABLE baseline_message (
        id bigserial PRIMARY KEY, chat_id bigint NOT NULL, sender text NOT NULL,
        text text NOT NULL, client_message_id text, created_at timestamptz NOT NULL);
    CREATE INDEX ON baseline_message (chat_id, id);";

const INSERT: &str = "INSERT INTO baseline_message
    (chat_id, sender, text, client_message_id, created_at)
    VALUES ($1, $2, $3, $4, $5) RETURNING id";

const CONNECTIONS: u32 = 16;

pub enum Store {
    Memory(AtomicI64),
    Postgres(Pool<PostgresConnectionManager<NoTls>>),
}

impl Store {
    pub async fn open(store: &str) -> Result<Self, Box<dyn Error>> {
        if store == "memory" {
            return Ok(Self::Memory(AtomicI64::new(0)));
        }
        let manager = PostgresConnectionManager::new_from_stringlike(store, NoTls)?;
        let pool = Pool::builder().max_size(CONNECTIONS).build(manager).await?;
        pool.get().await?.batch_execute(TABLE).await?;
        Ok(Self::Postgres(pool))
    }

    /// Stores a message, and gives its number.
    pub async fn insert(
        &self,
        chat: i64,
        from: &str,
        text: &str,
        client_message_id: &str,
        at: SystemTime,
    ) -> Result<i64, Box<dyn Error + Send + Sync>> {
        match self {
            Self::Memory(last) => Ok(last.fetch_add(1, Ordering::Relaxed) + 1),
            Self::Postgres(pool) => {
                let client = pool.get().await?;
                let insert = client.prepare(INSERT).await?;
                let row = client
                    .query_one(&insert, &[&chat, &from, &text, &client_message_id, &at])
                    .await?;
                Ok(row.get(0))
            }
        }
    }
}
