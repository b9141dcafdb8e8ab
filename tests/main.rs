//! One test binary: linking the server once a file would take most of the time.

mod cli;
mod client;
mod conformance;
mod faults;
mod pg;
mod postgres_outages;
mod postgres_store;
mod readme;
