//! The wire: gRPC over hyper's HTTP/2, and gRPC-Web over HTTP/1.1 as well. Calls are read, checked and validated
//! here, and answered; a stream's frames go from the chat's ring into HTTP/2
//! DATA frames.
//!
//! Called by the accept loop of each core; calls `auth`, `shard` and, for pages
//! of history and lists, `store`.
//!
//! Invariants:
//! 1. Nothing unvalidated passes this room (P10).
//! 2. `status.rs` alone makes a `Status`; no text of a store or of a peer gets
//!    into one.
//! 3. A call costs no task of its own; a stream that may post costs one, and so
//!    does one whose right to be open can end.

mod answer;
mod begun;
mod body;
mod calls;
mod connect;
mod connection;
mod counted;
mod deframe;
mod dispatch;
mod encoding;
mod frames;
mod gate;
mod gather;
mod host;
mod io;
mod limit;
mod measure;
mod open;
mod opening;
mod pass;
mod peer;
mod place;
mod request;
mod seat;
mod server;
mod service;
mod shown;
mod sip;
mod status;
mod strangers;
mod timeout;
mod turns;
mod unary;
mod untaken;
mod validate;
mod web;

pub use calls::{Calls, Limits};
pub use gate::{Gate, GateSettings};
pub use server::{Server, ServerSettings};
pub use service::{Guards, Service};
pub use strangers::{Owner, Stranger, Strangers, Work};
pub use web::Origins;
