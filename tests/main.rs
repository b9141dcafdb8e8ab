//! One test binary: linking the server once a file would take most of the time.

mod cli;
mod client;
mod conformance;
mod crash;
mod order;
mod retry;
mod server;
