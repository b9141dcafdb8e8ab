//! One test binary: linking the server once a file would take most of the time.

mod access;
mod architecture;
mod cli;
mod client;
mod conformance;
mod crash;
mod delivery;
mod drain;
mod faults;
mod lists;
mod malformed;
mod memory;
mod order;
mod overload;
mod pg;
mod postgres_outages;
mod postgres_store;
mod readme;
mod resume;
mod retry;
mod server;
mod slow;
mod startup;
