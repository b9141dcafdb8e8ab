use chat_service::store::{
    memory::MemoryStore,
    postgres::PostgresStore,
    sqlite::{Settings, SqliteStore},
};
use tempfile::TempDir;

use super::*;
use crate::{
    pg::{self, Pg},
    pooler::Pooler,
};

struct Memory(Arc<MemoryStore>);

impl Backend for Memory {
    async fn start() -> Self {
        Self(Arc::new(MemoryStore::new()))
    }

    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }
}

struct Sqlite {
    store: Arc<SqliteStore>,
    folder: TempDir,
}

impl Sqlite {
    fn open(folder: &TempDir) -> Arc<SqliteStore> {
        let path = folder.path().join("data/chat.db");
        Arc::new(SqliteStore::open(&path, Settings::default()).unwrap())
    }
}

impl Backend for Sqlite {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let store = Self::open(&folder);
        Self { store, folder }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}

impl Durable for Sqlite {
    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Self::open(&self.folder);
    }
}

struct Postgres {
    store: Arc<PostgresStore>,
    dsn: String,
}

impl Backend for Postgres {
    async fn start() -> Self {
        let dsn = pg::shared_database().await;
        let store = Arc::new(pg::open(&dsn).await);
        Self { store, dsn }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}

impl Durable for Postgres {
    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Arc::new(pg::open(&self.dsn).await);
    }
}

/// The same behind PgBouncer in transaction mode.
struct Pooled {
    store: Arc<PostgresStore>,
    dsn: String,
    _pooler: Pooler,
}

impl Backend for Pooled {
    async fn start() -> Self {
        let pg = tokio::task::spawn_blocking(Pg::shared).await.unwrap();
        let own = pg::fresh_database_on(pg).await;
        let (_, name) = own.rsplit_once("dbname=").unwrap();
        let pooler = Pooler::start(pg);
        let dsn = pooler.dsn(name);
        let store = Arc::new(pg::open(&dsn).await);
        Self {
            store,
            dsn,
            _pooler: pooler,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}

impl Durable for Pooled {
    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Arc::new(pg::open(&self.dsn).await);
    }
}

conformance!(memory, Memory);
conformance!(pooled, Pooled);
durable_conformance!(pooled_durable, Pooled);
conformance!(sqlite, Sqlite);
conformance!(postgres, Postgres);
durable_conformance!(sqlite_durable, Sqlite);
durable_conformance!(postgres_durable, Postgres);
