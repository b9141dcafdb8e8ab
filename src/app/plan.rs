//! From the configuration to what each room wants to know of it.

use std::sync::Arc;

use super::AppError;
use crate::{
    auth::{Authenticator, DevAuth},
    config::{AuthChoice, ServeConfig, StoreChoice},
    domain::UserName,
    grpc::{Limits, ServerSettings},
    shard::{Load, RingBound, Room, ShardSettings},
    store::{
        Store,
        memory::MemoryStore,
        sqlite::{self, SqliteStore},
    },
    writer::LaneSettings,
};

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 16_384;

pub fn auth(config: &ServeConfig) -> Result<Arc<dyn Authenticator>, AppError> {
    match config.auth {
        AuthChoice::Dev => {
            let admins = config.dev_admins.iter().map(|name| UserName::new(name));
            let admins = admins.collect::<Result<_, _>>();
            Ok(Arc::new(DevAuth::new(admins.map_err(AppError::DevAdmins)?)))
        }
    }
}

pub fn store(config: &ServeConfig) -> Result<Arc<dyn Store>, AppError> {
    Ok(match &config.store {
        StoreChoice::Memory => Arc::new(MemoryStore::default()),
        StoreChoice::Sqlite(path) => {
            Arc::new(SqliteStore::open(path, sqlite::Settings::default())?)
        }
        StoreChoice::Postgres(_) => return Err(AppError::NoPostgres),
    })
}

pub fn limits(config: &ServeConfig) -> Limits {
    Limits {
        max_text: config.max_text,
        max_members: config.max_members,
        timeout: config.send_timeout,
    }
}

pub fn server(config: &ServeConfig) -> ServerSettings {
    ServerSettings {
        stream_buffer: config.stream_buffer,
        max_streams: MAX_STREAMS,
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
