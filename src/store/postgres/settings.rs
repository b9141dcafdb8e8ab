use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use futures_util::future::BoxFuture;

/// Runs a connection's driver, or the end of a cancelled query. Spawning is the
/// runtime's business.
pub type Spawner = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// How a database is reached, and used.
#[derive(Clone)]
pub struct Settings {
    /// A URL or libpq's `key=value` form. It may hold a password.
    pub dsn: String,
    /// Connections for [`crate::store::Store::append`], at least 1.
    pub lanes: usize,
    /// Connections for all else, at least 1.
    pub read_connections: usize,
    /// To connect to one address of one host, TLS and login included, where the
    /// database's address does not say it.
    pub connect_timeout: Duration,
    /// A lane's connection on which nothing moves for this long is given up.
    pub lane_stall: Duration,
    /// For making and deleting chats and changing their members.
    pub write_timeout: Duration,
    /// How far the index that lists of chats are read from may be behind.
    pub activity_epoch: Duration,
    pub spawn: Spawner,
    /// Counts the connections that lanes open.
    pub lane_connects: Arc<AtomicU64>,
}

impl Settings {
    pub fn new(dsn: impl Into<String>, spawn: Spawner) -> Self {
        Self {
            dsn: dsn.into(),
            lanes: 2,
            read_connections: 8,
            connect_timeout: Duration::from_secs(5),
            lane_stall: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            activity_epoch: Duration::from_secs(60),
            spawn,
            lane_connects: Arc::default(),
        }
    }
}

/// Leaves out the address, which may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("lanes", &self.lanes)
            .field("read_connections", &self.read_connections)
            .finish_non_exhaustive()
    }
}
