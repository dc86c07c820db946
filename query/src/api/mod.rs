//! `flowtap serve`: the HTTP API, its OpenAPI document, the page.

mod document;
mod error;
mod guard;
mod metrics;
mod page;
mod server;
mod sql;
mod tls;
pub mod types;

pub use document::document;
pub use server::{Options, Server, filter, state};
pub use tls::TlsFiles;
