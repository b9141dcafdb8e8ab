//! What browsers use: gRPC-Web and the chat page.

pub mod browser;
mod build;
mod calls;
mod hosts;
mod origins;
mod page;
mod raw;
