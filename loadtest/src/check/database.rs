//! PostgreSQL as the server has it: alone, or with a synchronous standby that goes
//! away and takes over.

use std::time::Duration;

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
        let dsn = self.primary.dsn("postgres");
        let set = "ALTER SYSTEM SET synchronous_standby_names = 'standby'";
        sql(&dsn, set).await;
        sql(&dsn, "SELECT pg_reload_conf()").await;
        const SYNC: &str = "SELECT sync_state FROM pg_stat_replication";
        for _ in 0..LOOKS {
            if sql(&dsn, SYNC).await == ["sync"] {
                return;
            }
            sleep(LOOK).await;
        }
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
    /// standby of its own; false if there is none.
    pub async fn take_over(&mut self) -> bool {
        let Some(standby) = self.standby.take() else {
            return false;
        };
        sql(&standby.dsn("postgres"), "SELECT pg_promote()").await;
        self.primary = standby;
        self.replicate().await;
        true
    }
}
