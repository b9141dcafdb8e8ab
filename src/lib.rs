//! A real-time chat service over gRPC. The binary `chatd` is a thin shell over
//! this library.
//!
//! A message's way: [`grpc`] takes it off the wire and validates it, [`auth`]
//! says who sent it, [`chats`] knows the way to its chat's [`shard`], which gives
//! it its place in the chat. [`writer`] commits it to the [`store`]; the shard then
//! appends it to the chat's [`feed`], from whose ring [`grpc`] serves the streams of
//! the readers.

pub mod admin;
pub mod app;
pub mod auth;
pub mod chats;
pub mod client;
pub mod cluster;
pub mod config;
pub mod domain;
pub mod fault;
pub mod feed;
pub mod grpc;
pub mod reference;
pub mod runtime;
pub mod shard;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod writer;

/// The wire's types, generated from `proto/`.
pub mod proto {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    tonic::include_proto!("chat_v1");

    /// The compiled `proto/`, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

    /// What the nodes of a cluster say to each other.
    pub mod cluster {
        tonic::include_proto!("cluster_v1");
    }

    /// The Auth Service that checks tokens.
    pub mod access {
        tonic::include_proto!("access_v1");
    }

    /// The Auth Service that gives tokens out.
    pub mod tokens {
        tonic::include_proto!("auth_v1");
    }
}
