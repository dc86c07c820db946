//! The sidecar agent: taps a service's broker traffic and records what it sees.
//!
//! One message walks through these modules once, in this order: [`tap`] forwards and decodes it,
//! [`identify`] finds its ids, [`spool`] keeps the row on local disk, [`upload`] carries it to
//! object storage as Parquet. Nothing calls back up that way. [`clock`] and [`stats`] serve all.

pub mod admin;
pub mod app;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dial;
pub mod identify;
pub mod lifecycle;
pub mod metrics;
mod socket;
pub mod spool;
pub mod stats;
pub mod tap;
mod taps;
pub mod telemetry;
pub mod tls;
pub mod upload;
