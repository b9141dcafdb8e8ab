//! What the scenarios are measured against: servers and writers that do the
//! least that could be called the same work.

pub mod append;
pub mod commit;
pub mod fanout;
pub mod page;
mod serve;
pub mod unary;
pub mod write;
