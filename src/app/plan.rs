//! From the configuration to what each room wants to know of it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use futures_util::future::BoxFuture;

use super::{
    AppError,
    room::{self, Budget},
};
use crate::{
    admin::{self, ChatPage, ChatPageConfig},
    auth::{
        AccessClient, AccessSettings, Authenticator, Cache, CacheSettings, DevAuth, JwtAuth,
        JwtSettings, KeyFile, Logins,
    },
    cluster::Registry,
    config::{AccessConfig, AuthChoice, JwtKeys, ServeConfig, StoreChoice},
    domain::{Clock, UserName},
    feed::RingBound,
    grpc::{Gate, GateSettings, Guards, Limits, Origins, ServerSettings},
    runtime::{self, Cores, Spawner, Tls, TlsFiles},
    shard::{Load, Room, Rules, ShardSettings},
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
    memory: Budget,
) -> Result<Guards, AppError> {
    let limits = &config.limits;
    let settings = GateSettings {
        connections: room::connections(config, runtime::file_limit()),
        user_streams: limits.user_streams,
        user_sends: limits.user_sends,
        user_changes: limits.user_changes,
        user_reads: limits.user_reads,
        untaken: memory.answers(),
        begun: memory.requests(),
        inflight: limits.inflight,
    };
    let gate = Arc::new(Gate::new(settings, metrics.clone()));
    spawner.spawn(gate.clone().sweep());
    Ok(Guards {
        auth: auth(config, clock, spawner, metrics)?,
        gate,
        patience: config.auth_cache.ttl + config.auth_cache.stale,
        max_header: limits.header as usize,
        logins: None,
        origins: Origins::default(),
    })
}

/// Lets pages call: those of the origins that are named, and the chat page where
/// its origin can be nobody else's.
pub fn for_pages(
    guards: Guards,
    config: &ServeConfig,
    http: Option<SocketAddr>,
    spawner: &Spawner,
) -> Result<Guards, AppError> {
    let logins = match &config.auth {
        AuthChoice::Service(access) => {
            let logins = Logins::new(access_settings(access), spawner.clone())?;
            Some(Arc::new(logins))
        }
        AuthChoice::Dev | AuthChoice::Jwt(_) => None,
    };
    let own = http.map_or_else(Vec::new, |at| admin::own_origins(at.ip(), at.port()));
    Ok(Guards {
        logins,
        origins: Origins::new(config.web.origins.iter().cloned().chain(own)),
        ..guards
    })
}

pub fn chat_page(config: &ServeConfig, port: u16) -> ChatPage {
    ChatPage::new(&ChatPageConfig {
        port,
        tls: config.tls.is_some(),
        url: config.web.url.clone(),
        auth: match config.auth {
            AuthChoice::Dev => "dev",
            AuthChoice::Service(_) => "service",
            AuthChoice::Jwt(_) => "jwt",
        },
    })
}

fn access_settings(access: &AccessConfig) -> AccessSettings {
    AccessSettings {
        host: access.host.clone(),
        port: access.port,
        tls: access.tls,
        ca: access.ca.clone(),
        timeout: access.timeout,
    }
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
            let settings = access_settings(access);
            let client = AccessClient::new(settings, clock.clone(), spawner.clone())?;
            (Arc::new(client), true)
        }
        AuthChoice::Jwt(jwt) => {
            let settings = JwtSettings {
                keys: match &jwt.keys {
                    JwtKeys::Keys(path) => KeyFile::Keys(path.clone()),
                    JwtKeys::Secret(path) => KeyFile::Secret(path.clone()),
                },
                issuer: jwt.iss.clone(),
                audience: jwt.aud.clone(),
                leeway: jwt.leeway,
            };
            let auth = JwtAuth::new(settings)?.counted_by(metrics.clone());
            (Arc::new(auth), false)
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

/// Threads for the writer lanes of a database, and for their connections: a
/// batch on its way is not to stand behind all else that a core does, while the
/// database waits for its rows. Stores in this process take a batch at once or
/// have their own thread, so their lanes stay on the cores.
pub fn writers(config: &ServeConfig) -> io::Result<Option<Cores>> {
    let StoreChoice::Postgres(_) = &config.store else {
        return Ok(None);
    };
    let count = config.writer_lanes.min(config.cores);
    Cores::named("writer", count).map(Some)
}

/// A store, and what it wants to have done in the background.
pub struct Opened {
    pub store: Arc<dyn Store>,
    pub upkeep: Option<BoxFuture<'static, ()>>,
    /// Connections that lanes have opened, where there are such.
    pub lane_connects: Arc<AtomicU64>,
    /// Where the store has a table of nodes: the way to it for beats, and for changes.
    pub registries: Option<[Arc<dyn Registry>; 2]>,
}

/// Which store it is, for the log; of a database's address all but the password.
fn described(choice: &StoreChoice) -> Result<String, AppError> {
    Ok(match choice {
        StoreChoice::Memory => "memory".into(),
        StoreChoice::Sqlite(path) => format!("sqlite {}", path.display()),
        StoreChoice::Postgres(dsn) => postgres::described(dsn.expose())?,
    })
}

/// Opens the store; `spawn` runs the connections of a database.
pub async fn store(config: &ServeConfig, spawn: postgres::Spawner) -> Result<Opened, AppError> {
    let described = described(&config.store)?;
    let store: Arc<dyn Store> = match &config.store {
        StoreChoice::Memory => Arc::new(MemoryStore::default()),
        StoreChoice::Sqlite(path) => {
            let store = SqliteStore::open(path, sqlite::Settings::default())?;
            if sqlite::is_open_to_others(path) == Some(true) {
                tracing::warn!(file = %path.display(), "{}", super::doctor::OPEN_TO_OTHERS);
            }
            Arc::new(store)
        }
        StoreChoice::Postgres(dsn) => {
            // A database may keep the start waiting.
            tracing::info!(store = described, "opening the store");
            let settings = postgres::Settings {
                lanes: config.writer_lanes,
                read_connections: config.store_readers,
                lane_stall: config.store_stall,
                ..postgres::Settings::new(dsn.expose(), spawn)
            };
            let lane_connects = settings.lane_connects.clone();
            let store = Arc::new(PostgresStore::open(settings).await?);
            let registries = super::node::registries(&store);
            let purged = store.clone();
            let purge = async move { purged.purge().await };
            let upkeep: Option<BoxFuture<'static, ()>> = Some(Box::pin(purge));
            return Ok(Opened {
                store,
                upkeep,
                lane_connects,
                registries: Some(registries),
            });
        }
    };
    tracing::info!(store = described, "the store is open");
    Ok(Opened {
        store,
        upkeep: None,
        lane_connects: Arc::default(),
        registries: None,
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
        max_data: config.max_data,
        max_mentions: config.max_mentions,
        max_members: config.max_members,
        max_user_chats: config.limits.user_chats,
        who_may_add: config.limits.who_may_add,
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

pub fn shard(config: &ServeConfig, memory: Budget) -> ShardSettings {
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
        memory: memory.of_shard(config),
        idle: config.chat_idle,
        patience: config.send_timeout,
        max_members: config.max_members,
        rules: Rules {
            edit_window: config.edit_window,
            max_reactions: config.max_reactions,
        },
        stream_posts: config.stream_posts,
    }
}
