//! HTTP for the people and machines that look after the server, on a port of its
//! own and a thread of its own: `/live`, `/ready`, `/metrics`, the page of live
//! plots at `/`, the nodes of a cluster at `/cluster`, and the log's level. For everybody else there is the chat page
//! at `/chat`, which calls the gRPC port.
//!
//! Started by `app`; calls `telemetry`, and the store only to ask whether it
//! answers.
//!
//! Invariants:
//! 1. Nothing here runs on a core that serves chats, or waits for one for longer
//!    than its own deadline.
//! 2. Nothing here changes the server but the log's level and which node of a cluster
//!    has which chats, and that only from this machine.
//! 3. Connections, requests and what they may hold are bounded (P6), and the
//!    connection that has idled longest gives way to whoever comes next. Others
//!    come between any two requests of one connection, and probes before all.
//! 4. A page of another server reads nothing here and changes nothing.

mod ask;
mod chat;
mod cluster;
mod health;
mod hosts;
mod routes;
mod scrape;
mod server;

pub use ask::ask;
pub use chat::{ChatPage, ChatPageConfig, own_origins};
pub use cluster::show_cluster;
pub use health::{CoresProbe, Health};
pub use hosts::Hosts;
pub use routes::Routes;
pub use scrape::Scrape;
pub use server::AdminServer;
