//! One binary for all tests against the library: it links once.

mod conformance;
mod pg;
mod postgres_outages;
mod postgres_store;
