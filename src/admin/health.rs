use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use crate::{
    cluster::Cluster,
    store::Store,
    telemetry::{Metrics, chain, log_limited},
};

/// How long the store may take to answer …
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// … and how long its answer counts, however many ask.
const PING_KEPT: Duration = Duration::from_secs(1);

/// A batch that is with its lane for longer says that the lane does not move: a
/// healthy commit takes milliseconds, and a store's own stall bound is shorter.
const LANE_STUCK: Duration = Duration::from_secs(15);

/// How long the cores may take to run a task that does nothing.
const CORES_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends once every core has run a task of its own.
pub type CoresProbe = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Whether the server lives, and whether it should be sent work.
pub struct Health {
    draining: AtomicBool,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    cores: CoresProbe,
    pinged: Mutex<Option<(Instant, StoreState)>>,
    /// Where there are several nodes.
    cluster: Option<Cluster>,
}

#[derive(Clone, Copy)]
enum StoreState {
    Answers,
    Fails,
    Late,
}

impl Health {
    pub fn new(
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
        cores: CoresProbe,
        cluster: Option<Cluster>,
    ) -> Self {
        Self {
            draining: AtomicBool::new(false),
            store,
            metrics,
            cores,
            pinged: Mutex::default(),
            cluster,
        }
    }

    /// From now on the server is not ready.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// # Errors
    /// If some core runs nothing any more: only a restart helps.
    pub async fn live(&self) -> Result<(), String> {
        let answered = tokio::time::timeout(CORES_TIMEOUT, (self.cores)());
        let late = |_| format!("a core has run nothing for {CORES_TIMEOUT:?}");
        answered.await.map_err(late)
    }

    /// # Errors
    /// If work should go elsewhere for now.
    pub async fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Acquire) {
            return Err("draining: the server is shutting down".into());
        }
        if self.cluster.as_ref().is_some_and(Cluster::is_cut_off) {
            return Err("cluster: no connection to NATS, which other nodes have".into());
        }
        match self.store_state().await {
            StoreState::Answers => {}
            StoreState::Fails => return Err("store: it fails, and the log says why".into()),
            StoreState::Late => return Err(format!("store: no answer within {PING_TIMEOUT:?}")),
        }
        match self.metrics.slowest_lane() {
            Some((lane, since)) if since > LANE_STUCK => Err(format!(
                "lane {lane}: has been at one batch for {} s",
                since.as_secs()
            )),
            _ => Ok(()),
        }
    }

    async fn store_state(&self) -> StoreState {
        // Held while asking, so that the store is asked once at a time.
        let mut pinged = self.pinged.lock().await;
        if let Some((at, state)) = *pinged
            && at.elapsed() < PING_KEPT
        {
            return state;
        }
        let ping = self.store.ping(Instant::now() + PING_TIMEOUT);
        // A store that does not keep to the deadline does not answer either.
        let answered = tokio::time::timeout(2 * PING_TIMEOUT, ping).await;
        let state = match answered {
            Ok(Ok(())) => StoreState::Answers,
            Ok(Err(error)) => {
                log_limited!(WARN, error = %chain(&error), "the store is not ready");
                StoreState::Fails
            }
            Err(_) => StoreState::Late,
        };
        *pinged = Some((Instant::now(), state));
        state
    }
}
