//! The server as one of several: the node of a cluster.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::{AppError, plan::Opened};
use crate::{
    cluster::{
        Bus, BusSettings, Cluster, Given, Label, News, Node, NodePlan, Registry, Table, Verdict,
    },
    config::{ClusterConfig, ServeConfig},
    domain::{NodeId, Partition},
    feed::{History, RingBound, Wakes},
    runtime::Cores,
    shard::Shards,
    store::{
        StoreResult,
        postgres::{self, PostgresStore},
    },
    telemetry::Traces,
};

/// How long the start waits for connections that the first writes need.
const WARM: Duration = Duration::from_secs(2);

/// The core that speaks with other nodes.
const CORE: usize = 0;

/// What the node is made of, besides its configuration.
pub struct Parts<'a> {
    pub cores: &'a Cores,
    pub shards: &'a Shards,
    pub wakes: &'a Arc<Wakes>,
    pub history: &'a Arc<History>,
    pub news: &'a Arc<News>,
    /// Bytes that followed chats may hold.
    pub memory: usize,
    /// Where clients reach it, for people.
    pub address: String,
    pub traces: Traces,
}

/// Where the bus is.
pub fn bus(cluster: &ClusterConfig) -> BusSettings {
    BusSettings {
        servers: cluster.servers.clone(),
        credentials: cluster.credentials.clone(),
        ca: cluster.ca.clone(),
        cluster: cluster.name.clone(),
    }
}

/// Joins the cluster, and runs the node.
pub async fn join(
    config: &ServeConfig,
    cluster: &ClusterConfig,
    opened: &Opened,
    parts: Parts<'_>,
) -> Result<Cluster, AppError> {
    let [beats, registry] = opened.registries.clone().ok_or(AppError::NoRegistry)?;
    let (bus, sending) = Bus::open(bus(cluster)).await.map_err(AppError::Bus)?;
    parts.cores.spawner(CORE).spawn_vital("bus", sending);
    let plan = NodePlan {
        name: cluster.node.clone().unwrap_or_else(machine),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: parts.address,
        cluster: cluster.name.clone(),
        timeout: cluster.timeout,
        ring: RingBound {
            messages: config.ring,
            bytes: config.ring_bytes,
        },
        memory: parts.memory,
        stream_posts: config.stream_posts,
        patience: config.send_timeout,
        beats,
        registry,
        bus,
        shards: parts.shards.clone(),
        wakes: parts.wakes.clone(),
        history: parts.history.clone(),
        news: parts.news.clone(),
        traces: parts.traces,
        core: CORE,
    };
    let (cluster, node) = Node::join(plan).await.map_err(AppError::Join)?;
    // What it takes over waits for no connection.
    opened.store.warm(Instant::now() + WARM).await;
    parts.cores.spawner(CORE).spawn_vital("node", node.run());
    Ok(cluster)
}

fn machine() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// How long a node may take to be fenced: whoever holds its lock is ended meanwhile.
const FENCE: Duration = Duration::from_secs(10);

/// … and to write down that it has left.
const RETIRE: Duration = Duration::from_secs(5);

/// The database that decides, as the node asks it.
#[derive(Debug)]
struct Database {
    store: Arc<PostgresStore>,
    registry: postgres::Registry,
}

/// The ways to it: for beats, which nothing is to hold up, and for changes.
pub fn registries(store: &Arc<PostgresStore>) -> [Arc<dyn Registry>; 2] {
    std::array::from_fn(|_| {
        let database = Database {
            store: store.clone(),
            registry: store.registry(),
        };
        Arc::new(database) as Arc<dyn Registry>
    })
}

#[async_trait]
impl Registry for Database {
    async fn join(&self, label: &Label) -> StoreResult<()> {
        self.registry.join(label).await?;
        self.store.stand_as(Some(label.node));
        Ok(())
    }

    async fn beat(&self, id: NodeId, leaving: bool, on_bus: bool) -> StoreResult<Table> {
        self.registry.beat(id, leaving, on_bus).await
    }

    async fn table(&self) -> StoreResult<Table> {
        self.registry.table().await
    }

    async fn declare(&self, verdict: Verdict) -> StoreResult<bool> {
        self.registry.declare(verdict).await
    }

    async fn fence(&self, node: NodeId) -> StoreResult<()> {
        self.registry.fence(node, Instant::now() + FENCE).await
    }

    async fn claim(&self, me: NodeId, free: &[(Partition, i64)]) -> StoreResult<usize> {
        self.registry.claim(me, free).await
    }

    async fn give(&self, me: NodeId, partition: Partition, to: NodeId, epoch: i64) -> Given {
        self.registry.give(me, partition, to, epoch).await
    }

    async fn set_drained(&self, nodes: &[NodeId], drained: bool) -> StoreResult<()> {
        self.registry.set_drained(nodes, drained).await
    }

    async fn retire(&self, me: NodeId) -> StoreResult<()> {
        self.registry.retire(me, Instant::now() + RETIRE).await
    }
}
