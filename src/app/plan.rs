//! From the configuration to what each room wants to know of it.

use std::sync::{Arc, atomic::AtomicU64};

use futures_util::future::BoxFuture;

use super::AppError;
use crate::{
    auth::{
        AccessClient, AccessSettings, Authenticator, Cache, CacheSettings, DevAuth, JwtAuth,
        JwtSettings,
    },
    config::{AuthChoice, ServeConfig, StoreChoice},
    domain::{Clock, UserName},
    grpc::{Gate, GateSettings, Guards, Limits, ServerSettings},
    runtime::{Spawner, Tls, TlsFiles},
    shard::{Load, RingBound, Room, ShardSettings},
    store::{
        Store,
        memory::MemoryStore,
        postgres::{self, PostgresStore},
        sqlite::{self, SqliteStore},
    },
    telemetry::{Metrics, Telemetry, Traces},
    writer::LaneSettings,
};

/// `spawner` runs what the check of tokens needs run.
pub fn guards(
    config: &ServeConfig,
    clock: &Arc<dyn Clock>,
    spawner: &Spawner,
    metrics: &Arc<Metrics>,
) -> Result<Guards, AppError> {
    let limits = &config.limits;
    let settings = GateSettings {
        connections: limits.connections,
        user_streams: limits.user_streams,
        user_sends: limits.user_sends,
        inflight: limits.inflight,
    };
    let gate = Arc::new(Gate::new(settings, metrics.clone()));
    spawner.spawn(gate.clone().sweep());
    Ok(Guards {
        auth: auth(config, clock, spawner, metrics)?,
        gate,
        patience: config.auth_cache.ttl + config.auth_cache.stale,
        max_header: limits.header as usize,
    })
}

pub fn auth(
    config: &ServeConfig,
    clock: &Arc<dyn Clock>,
    spawner: &Spawner,
    metrics: &Arc<Metrics>,
) -> Result<Arc<dyn Authenticator>, AppError> {
    let (inner, per_method): (Arc<dyn Authenticator>, bool) = match &config.auth {
        AuthChoice::Dev => {
            let admins = config.dev_admins.iter().map(|name| UserName::new(name));
            let admins = admins.collect::<Result<_, _>>();
            let auth = DevAuth::new(admins.map_err(AppError::DevAdmins)?);
            return Ok(Arc::new(auth));
        }
        AuthChoice::Service(access) => {
            let settings = AccessSettings {
                host: access.host.clone(),
                port: access.port,
                tls: access.tls,
                ca: access.ca.clone(),
                timeout: access.timeout,
            };
            let client = AccessClient::new(settings, clock.clone(), spawner.clone())?;
            (Arc::new(client), true)
        }
        AuthChoice::Jwt(jwt) => {
            let settings = JwtSettings {
                keys: jwt.keys.clone(),
                issuer: jwt.iss.clone(),
                audience: jwt.aud.clone(),
                leeway: jwt.leeway,
            };
            (Arc::new(JwtAuth::new(settings)?), false)
        }
    };
    let cache = &config.auth_cache;
    let settings = CacheSettings {
        ttl: cache.ttl,
        refusal_ttl: cache.refusal_ttl,
        stale: cache.stale,
        max_entries: cache.entries,
        per_method,
    };
    Ok(Arc::new(Cache::new(
        inner,
        clock.clone(),
        settings,
        metrics.clone(),
    )))
}

pub fn tls(config: &ServeConfig) -> Result<Option<Tls>, AppError> {
    let files = config.tls.clone().map(|tls| TlsFiles {
        cert: tls.cert,
        key: tls.key,
        client_ca: tls.client_ca,
    });
    Ok(files.map(Tls::new).transpose()?)
}

/// A store, and what it wants to have done in the background.
pub struct Opened {
    pub store: Arc<dyn Store>,
    pub upkeep: Option<BoxFuture<'static, ()>>,
    /// Connections that lanes have opened, where there are such.
    pub lane_connects: Arc<AtomicU64>,
}

/// Opens the store; `spawn` runs the connections of a database.
pub async fn store(config: &ServeConfig, spawn: postgres::Spawner) -> Result<Opened, AppError> {
    let store: Arc<dyn Store> = match &config.store {
        StoreChoice::Memory => Arc::new(MemoryStore::default()),
        StoreChoice::Sqlite(path) => {
            Arc::new(SqliteStore::open(path, sqlite::Settings::default())?)
        }
        StoreChoice::Postgres(dsn) => {
            let settings = postgres::Settings {
                lanes: config.writer_lanes,
                read_connections: config.store_readers,
                lane_stall: config.store_stall,
                ..postgres::Settings::new(dsn.expose(), spawn)
            };
            let lane_connects = settings.lane_connects.clone();
            let store = Arc::new(PostgresStore::open(settings).await?);
            let purged = store.clone();
            let purge = async move { purged.purge().await };
            let upkeep: Option<BoxFuture<'static, ()>> = Some(Box::pin(purge));
            return Ok(Opened {
                store,
                upkeep,
                lane_connects,
            });
        }
    };
    Ok(Opened {
        store,
        upkeep: None,
        lane_connects: Arc::default(),
    })
}

/// Counts always; traces if there is somewhere to send them. `admin` runs the
/// exporter's connection.
pub fn telemetry(config: &ServeConfig, admin: &Spawner) -> Result<Telemetry, AppError> {
    let mut telemetry = Telemetry::quiet(config.writer_lanes);
    if let Some(endpoint) = &config.otlp_endpoint {
        let (metrics, sample) = (telemetry.metrics.clone(), config.trace_sample);
        let sample = f64::from(sample) / 1e6;
        telemetry.traces = admin.enter(|| Traces::otlp(endpoint, sample, metrics))?;
    }
    Ok(telemetry)
}

pub fn limits(config: &ServeConfig) -> Limits {
    Limits {
        max_text: config.max_text,
        max_members: config.max_members,
        timeout: config.send_timeout,
        first_frame: config.limits.first_frame,
    }
}

pub fn server(config: &ServeConfig) -> ServerSettings {
    let limits = &config.limits;
    ServerSettings {
        stream_buffer: config.stream_buffer,
        max_streams: limits.connection_streams,
        max_header: limits.header,
        handshake: limits.handshake,
        pending_resets: limits.pending_resets,
        error_resets: limits.error_resets,
        keep_alive_interval: limits.keep_alive_interval,
        keep_alive_timeout: limits.keep_alive_timeout,
    }
}

pub fn lane(config: &ServeConfig) -> LaneSettings {
    LaneSettings {
        batch_rows: config.batch_rows,
        batch_bytes: config.batch_bytes,
    }
}

pub fn shard(config: &ServeConfig) -> ShardSettings {
    ShardSettings {
        mailbox: config.mailbox,
        pending: Load {
            posts: config.pending_rows,
            bytes: config.pending_bytes,
        },
        batch: Room {
            rows: config.batch_rows,
            bytes: config.batch_bytes,
        },
        ring: RingBound {
            messages: config.ring,
            bytes: config.ring_bytes,
        },
        idle: config.chat_idle,
        patience: config.send_timeout,
        max_members: config.max_members,
        stream_posts: config.stream_posts,
    }
}
