//! Apache Kafka. Clients reach one local listener for each broker; bytes pass through the relay,
//! which changes nothing but addresses and the versions that a broker offers, and gives copies of
//! what matters to the [`feed`]. One thread of each tap takes them from there: [`wire`] reads them,
//! `state` knows groups, topics and transactions, and makes rows.

mod addresses;
mod brokers;
mod conversation;
mod decoder;
pub(crate) mod feed;
mod listener;
mod memory;
#[doc(hidden)]
pub mod probe;
mod relay;
mod state;
mod versions;
pub(crate) mod wire;

pub use brokers::PortTaken;
pub use listener::{BindError, BoundTap, Env, KafkaTap};
