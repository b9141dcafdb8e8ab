//! A chat server as it is usually written in Rust, to be measured beside ours:
//! tonic as it comes on the work-stealing runtime, a channel a reader, each
//! message encoded for each of them, one INSERT a message through a pool.
//!
//! It speaks as much of the same contract as the load generator uses, and makes
//! few of its promises: no order between messages sent at the same time, no
//! retries, the newest messages only for whoever resumes, and one slow reader
//! holds up its chat.

mod chats;
mod service;
mod store;

use std::error::Error;

use chat_service::proto::chat_v1_server::ChatV1Server;
use clap::Parser;
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

use service::Service;
use store::Store;

#[derive(Parser)]
struct Options {
    /// memory, or postgres://…
    #[arg(long)]
    store: String,
}

/// As many as chatd allows; hyper's own limit is 200.
const STREAMS: u32 = 16_384;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Store::open(&Options::parse().store).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .add_service(ChatV1Server::new(Service::new(store)))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}
