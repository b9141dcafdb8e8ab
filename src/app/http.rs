//! The admin room put on its port and its thread, and taken off again.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use super::AppError;
use crate::{
    admin::{AdminServer, ChatPage, CoresProbe, Health, Hosts, Routes, Scrape},
    cluster::Cluster,
    config::ServeConfig,
    runtime::{self, Cores, Spawner},
    store::Store,
    telemetry::{LogLevel, Metrics, Samples, Traces},
};

/// Steps of tasks between two looks for new connections and requests: what asks without
/// end is not to keep a probe waiting for long.
const ADMIN_EVENTS: u32 = 4;

/// How long a stop waits for the last traces to reach their collector.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// The admin thread, which also runs the exporter of traces; first bound, then
/// serving.
pub struct Http {
    thread: Cores,
    listener: Option<TcpListener>,
    address: Option<SocketAddr>,
    host: IpAddr,
    /// Of `--http-hosts`.
    names: Vec<String>,
    health: Option<Arc<Health>>,
}

impl Http {
    /// Takes the port, so that it is known early whether it can be had.
    pub fn bind(config: &ServeConfig) -> Result<Self, AppError> {
        let listener = match config.http_port {
            None => None,
            Some(port) => {
                let address = SocketAddr::new(config.http_host, port);
                let listeners = runtime::bind(address, 1).map_err(AppError::Http)?;
                listeners.into_iter().next()
            }
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok(Self {
            thread: Cores::watchful("admin", 1, ADMIN_EVENTS)?,
            listener,
            address,
            host: config.http_host,
            names: config.web.hosts.clone(),
            health: None,
        })
    }

    pub fn spawner(&self) -> &Spawner {
        self.thread.spawner(0)
    }

    pub fn serve(
        mut self,
        cores: &Cores,
        store: &Arc<dyn Store>,
        metrics: Arc<Metrics>,
        log_level: LogLevel,
        chat: ChatPage,
        cluster: Option<Cluster>,
    ) -> Self {
        let Some(listener) = self.listener.take() else {
            return self;
        };
        let probe = probe(cores);
        let health = Arc::new(Health::new(
            store.clone(),
            metrics.clone(),
            probe,
            cluster.clone(),
        ));
        let samples = Arc::new(Samples::new(metrics.clone()));
        self.health = Some(health.clone());
        let spawner = self.spawner();
        spawner.spawn(samples.clone().run());
        let routes = Routes {
            health,
            scrape: Scrape::new(metrics),
            samples,
            log_level,
            chat,
            hosts: Hosts::new(self.host, self.names.clone()),
            cluster,
        };
        let server = AdminServer {
            routes: Arc::new(routes),
            spawner: spawner.clone(),
        };
        spawner.spawn(server.run(listener));
        self
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub fn set_draining(&self) {
        if let Some(health) = &self.health {
            health.set_draining();
        }
    }

    /// Sends the last traces and ends the thread.
    pub async fn stop(self, traces: Traces) {
        let last = move || traces.shut_down(LAST_EXPORT);
        self.spawner().block(last).await;
        self.thread.stop();
    }
}

fn probe(cores: &Cores) -> CoresProbe {
    let spawners: Vec<Spawner> = (0..cores.count())
        .map(|core| cores.spawner(core).clone())
        .collect();
    Box::new(move || {
        let spawners = spawners.clone();
        Box::pin(async move {
            futures_util::future::join_all(spawners.iter().map(Spawner::answers)).await;
        })
    })
}
