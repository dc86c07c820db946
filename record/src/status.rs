//! What an agent says of itself: the object `agents/<agent>/<boot>.json`, and the keys in the
//! footer of its Parquet files. Coverage is told from these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// Keys of the Parquet footer of every inbox object.
pub mod footer {
    /// The agent's name.
    pub const AGENT: &str = "flowtap.agent";
    /// Its boot.
    pub const BOOT: &str = "flowtap.boot";
    /// First row of the object, decimal.
    pub const FIRST: &str = "flowtap.first";
    /// Last row of the object, decimal.
    pub const LAST: &str = "flowtap.last";
    /// [`crate::SCHEMA_VERSION`].
    pub const SCHEMA: &str = "flowtap.schema";
    /// "All I saw up to then is uploaded", microseconds since 1970, decimal.
    pub const WATERMARK: &str = "flowtap.watermark";
    /// The agent's time when it made the object, microseconds since 1970, decimal.
    pub const UPLOADED_AT: &str = "flowtap.uploaded_at";
}

/// Where a boot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It taps.
    Running,
    /// It was told to stop and waits for open connections.
    Draining,
    /// It ended in order; with an empty spool nothing more will come of this boot.
    Ended,
    /// A later boot found that it died; what it left in the spool is uploaded by that boot.
    Died,
}

/// The status object, put at start, at exit and every `period_s` seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Version of the agent.
    pub version: String,
    /// Version of the row schema.
    pub schema: String,
    /// Its name.
    pub agent: String,
    /// This process start.
    pub boot: String,
    /// The service it stands beside.
    pub service: String,
    /// Host or pod.
    pub instance: String,
    /// Where it stands.
    pub state: AgentState,
    /// When it started.
    pub started_at: Micros,
    /// When this object was made.
    pub at: Micros,
    /// Seconds between two of these; an agent is live while it is younger than three periods.
    pub period_s: u64,
    /// "All I saw up to then is uploaded."
    pub watermark: Micros,
    /// By table: the last row written to the spool, and the last that is uploaded.
    pub tables: BTreeMap<String, TableStatus>,
    /// What it taps.
    pub taps: Vec<TapStatus>,
    /// The spool.
    pub spool: SpoolStatus,
    /// The agent's clock against the store's, from the put before this one.
    pub clock: Option<ClockSample>,
}

/// How far a table's rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStatus {
    /// Last row given a number, 0 before the first.
    pub last_seq: i64,
    /// Last row uploaded, 0 before the first.
    pub uploaded_seq: i64,
}

/// One tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapStatus {
    /// `amqp` or `kafka`.
    pub kind: String,
    /// Where it listens.
    pub listen: String,
    /// The broker it forwards to; never with a password.
    pub broker: String,
    /// Whether the listener is bound.
    pub bound: bool,
    /// Connections open now.
    pub connections: u64,
}

/// The local log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Bytes on disk, of all boots.
    pub bytes: u64,
    /// Segments on disk, of all boots.
    pub segments: u64,
    /// Rows that this boot shed, each within a `gap` row.
    pub shed: u64,
    /// Uploads that failed since the start.
    pub upload_failures: u64,
}

/// One comparison of clocks: the store's `last_modified` of an object lies between the agent's
/// time before and after putting it, but for the difference of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSample {
    /// The agent's time before the put.
    pub before: Micros,
    /// The agent's time after it.
    pub after: Micros,
    /// The store's word on when it was modified.
    pub last_modified: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_words_in_snake_case() {
        assert_eq!(serde_json::to_string(&AgentState::Ended).unwrap(), "\"ended\"");
    }
}
