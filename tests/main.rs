//! One test binary: linking the server once a file would take most of the time.

mod auth_jwt;
mod auth_login;
mod auth_matrix;
mod auth_service;
mod cli;
mod client;
mod conformance;
mod guarded;
mod limits;
mod tls;
