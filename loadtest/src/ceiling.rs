//! What the scenarios are measured against: servers and writers that do the
//! least that could be called the same work.

pub mod append;
pub mod commit;
pub mod fanout;
pub mod page;
mod serve;
pub mod unary;
pub mod write;

use std::net::TcpListener;

use chat_service::runtime;

use crate::Result;

/// Listens on any free port as the server does, with room for thousands that
/// connect at once: of those beyond it some would wait for minutes.
fn listen() -> Result<TcpListener> {
    let listeners = runtime::bind(([127, 0, 0, 1], 0).into(), 1)?;
    listeners
        .into_iter()
        .next()
        .ok_or_else(|| "no listener".into())
}
