//! One test binary: linking the server once a file would take most of the time.

mod architecture;
mod cli;
mod client;
mod conformance;
mod malformed;
