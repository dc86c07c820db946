//! Who sees, and up to when: coverage, and the sidecars that it comes from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Up to when, and for which services, everything was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Coverage {
    /// Everything that sidecars saw up to then is in the store.
    #[schema(required)]
    pub complete_to: Option<String>,
    /// Sidecars that live.
    pub live: usize,
    /// Sidecars that count.
    pub total: usize,
    /// Services without a live sidecar.
    pub silent: Vec<Silent>,
    /// Times that an agent could not see, newest first, at most 20.
    pub gaps: Vec<Gap>,
    /// `complete to 12:04:31 for 6 of 6 sidecars`.
    pub sentence: String,
    /// When the store was read last.
    #[schema(required)]
    pub read_at: Option<String>,
    /// The store could not be read since: the answer is as of then.
    pub stale: bool,
    /// Rows from before are not searched: the store let go of them, or, for lists and the map, the index is full.
    #[schema(required)]
    pub searched_from: Option<String>,
}

/// A service without a live sidecar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Silent {
    /// The service.
    pub service: String,
    /// Its agent.
    pub agent: String,
    /// Blind since then.
    pub since: String,
}

/// A time that an agent could not see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Its service.
    #[schema(required)]
    pub service: Option<String>,
    /// The agent.
    pub agent: String,
    /// From when.
    #[schema(required)]
    pub from: Option<String>,
    /// To when.
    #[schema(required)]
    pub to: Option<String>,
    /// Rows missing.
    #[schema(required)]
    pub count: Option<i64>,
    /// Why.
    #[schema(required)]
    pub reason: Option<String>,
}

/// How an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentLife {
    /// Heard within three periods.
    Live,
    /// It should have been heard.
    Silent,
    /// It ended in order.
    Ended,
    /// It ended without a word.
    Died,
}

/// What an agent taps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tap {
    /// `amqp` or `kafka`.
    pub kind: String,
    /// Where the service connects to.
    #[schema(required)]
    pub listen: Option<String>,
    /// The broker behind.
    #[schema(required)]
    pub broker: Option<String>,
}

/// A sidecar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its name.
    pub agent: String,
    /// Its newest start.
    pub boot: String,
    /// The service beside it.
    pub service: String,
    /// Host or pod.
    #[schema(required)]
    pub instance: Option<String>,
    /// Its version.
    #[schema(required)]
    pub version: Option<String>,
    /// How it is.
    pub state: AgentLife,
    /// When it started.
    #[schema(required)]
    pub started_at: Option<String>,
    /// All it saw up to then is in the store.
    #[schema(required)]
    pub watermark: Option<String>,
    /// When it was last heard.
    #[schema(required)]
    pub last_seen: Option<String>,
    /// Its last row.
    #[schema(required)]
    pub last_seq: Option<i64>,
    /// What it taps.
    pub taps: Vec<Tap>,
    /// Bytes that wait on its disk.
    #[schema(required)]
    pub spool_bytes: Option<u64>,
    /// Times that it could not see.
    pub gaps: usize,
}

/// All sidecars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    /// By service and start.
    pub agents: Vec<Agent>,
    /// Statuses of agents that cannot be read or believed: those agents are not in the list, or as
    /// they were.
    pub unreadable: usize,
    /// Up to when everything was seen.
    pub coverage: Coverage,
}
