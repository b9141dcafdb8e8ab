//! PostgreSQL as the server has it: alone, or with a standby, mostly a synchronous
//! one, that goes away and takes over.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use super::pg::{Pg, sql};

const LOOK: Duration = Duration::from_millis(50);

/// Looks until a standby counts: one that does not come is seen by what it holds up.
const LOOKS: usize = 200;

pub struct Database {
    pub primary: Pg,
    standby: Option<Pg>,
}

impl Database {
    pub fn new(primary: Pg) -> Self {
        Self {
            primary,
            standby: None,
        }
    }

    /// Makes a standby without which nothing is committed.
    pub async fn replicate(&mut self) {
        self.standby = Some(self.primary.standby());
        self.wait_for("standby").await;
        let dsn = self.primary.dsn("postgres");
        const SYNC: &str = "SELECT sync_state FROM pg_stat_replication";
        for _ in 0..LOOKS {
            if sql(&dsn, SYNC).await == ["sync"] {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// Has commits wait for the standbys of this name; without one, for nobody.
    pub async fn wait_for(&self, name: &str) {
        let dsn = self.primary.dsn("postgres");
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
        sql(&dsn, &set).await;
        sql(&dsn, "SELECT pg_reload_conf()").await;
    }

    /// The newest seq of each chat.
    pub async fn newest(&self) -> BTreeMap<i64, i64> {
        const NEWEST: &str = "SELECT concat(chat_id, ' ', max(seq)) FROM messages GROUP BY chat_id";
        let rows = sql(&self.primary.dsn("postgres"), NEWEST).await;
        let numbers = |row: &String| {
            let (chat, seq) = row.split_once(' ')?;
            Some((chat.parse().ok()?, seq.parse().ok()?))
        };
        rows.iter().filter_map(numbers).collect()
    }

    pub fn standby_goes(&self) {
        self.standby.iter().for_each(Pg::stop_fast);
    }

    pub fn standby_comes_back(&self) {
        self.standby.iter().for_each(Pg::start_again);
    }

    /// Cancels what waits for the standby: it is committed and visible, and a
    /// failover would undo it.
    pub async fn cancel_waits(&self) {
        const CANCEL: &str =
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        sql(&self.primary.dsn("postgres"), CANCEL).await;
    }

    /// The standby takes the place of the primary, which has ended, and gets a
    /// standby of its own. What it has then; none if there is no standby.
    pub async fn take_over(&mut self) -> Option<BTreeMap<i64, i64>> {
        let standby = self.standby.take()?;
        sql(&standby.dsn("postgres"), "SELECT pg_promote()").await;
        self.primary = standby;
        let newest = self.newest().await;
        self.replicate().await;
        Some(newest)
    }
}
