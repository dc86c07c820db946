//! The contract between Flowtap's parts, and nothing else: what a row of `history` holds
//! ([`Observation`]), how it looks as Arrow ([`history_schema`], [`HistoryBuilder`]), which
//! messages count as equal ([`Fingerprint`]), how objects in the store are named ([`path`]), and
//! what an agent says of itself ([`AgentStatus`]).
//!
//! This crate does no I/O, reads no clock and knows no other crate of the workspace.

mod columns;
mod fingerprint;
mod observation;
pub mod path;
mod schema;
mod status;
mod text;
mod time;
mod value;

pub use columns::{HistoryBuilder, history_schema};
pub use fingerprint::{Fingerprint, Properties, is_broker_header};
pub use observation::{
    Encoding, Field, Gap, Id, Ids, Kind, Message, Observation, Outcome, Place, RowRef, Seq,
    Session, Tap, Who,
};
pub use schema::{SCHEMA_VERSION, SchemaVersion};
pub use status::{
    AgentState, AgentStatus, ClockSample, SpoolStatus, TableStatus, TapStatus, footer,
};
pub use text::escape_bytes;
pub use time::{DAY_US, Micros, cluster_key, day_of};
pub use value::Value;
