//! Flows: the verdict, messages and their handlings, records, and what an id leads to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Coverage;

/// Flowtap's answer in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All was handled, and what usually follows did.
    Healthy,
    /// Something is under way.
    Running,
    /// Something is missing for longer than it should be.
    Late,
    /// Something expected did not come; too little evidence to accuse.
    Suspect,
    /// Somebody said no, and nothing undid it.
    Broken,
    /// Flowtap was blind where it matters.
    Unknown,
}

/// A row of `history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowRef {
    /// The start of the agent.
    pub boot: String,
    /// The row since then.
    pub seq: i64,
}

/// Where on the broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// `rabbitmq` or `kafka`.
    #[schema(required)]
    pub system: Option<String>,
    /// Exchange or topic.
    #[schema(required)]
    pub destination: Option<String>,
    /// Routing key, Kafka's record key.
    #[schema(required)]
    pub routing_key: Option<String>,
    /// Queue or consumer group.
    #[schema(required)]
    pub subscription: Option<String>,
    /// Kafka's partition.
    #[schema(required)]
    pub partition: Option<i32>,
    /// Kafka's offset.
    #[schema(required)]
    pub log_offset: Option<i64>,
}

/// A row that proves a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// The row.
    pub row: RowRef,
    /// Its time.
    pub at: String,
    /// What it says.
    pub text: String,
}

/// The answer on a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// In one word.
    pub state: State,
    /// `BROKEN at factory`.
    pub headline: String,
    /// Plain sentences; the first says what happened.
    pub sentences: Vec<String>,
    /// The service that the facts name, if they name one.
    #[schema(required)]
    pub service: Option<String>,
    /// `rejected`, `refused`, `aborted`, `unroutable`, `waiting`, `abandoned`, `requeued`,
    /// `out_of_sight`, `agent_died`, `nothing_followed`, `recent`, `in_transaction`, `unanswered`,
    /// `skipped`, ...
    #[schema(required)]
    pub reason: Option<String>,
    /// Where.
    #[schema(required)]
    pub place: Option<Place>,
    /// Since when.
    #[schema(required)]
    pub since: Option<String>,
    /// The message to open the page at: an index into `messages`.
    #[schema(required)]
    pub message: Option<usize>,
    /// The way there: `PlaceOrder -> ... -> PaymentTaken`.
    #[schema(required)]
    pub path: Option<String>,
    /// Rows that prove it.
    pub evidence: Vec<Evidence>,
    /// Remarks, such as `nobody listens at exchange x, key y`.
    pub notes: Vec<String>,
}

/// A business key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A flow in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowSummary {
    /// Its id, for `/flows/{flow}`.
    pub flow: String,
    /// The verdict in one word.
    pub state: State,
    /// `BROKEN at factory`.
    pub headline: String,
    /// The verdict's first sentence.
    pub sentence: String,
    /// The service that the facts name.
    #[schema(required)]
    pub service: Option<String>,
    /// Why, in one word.
    #[schema(required)]
    pub reason: Option<String>,
    /// Type of the first message.
    #[serde(rename = "type")]
    #[schema(required)]
    pub event_type: Option<String>,
    /// Command at the start.
    #[schema(required)]
    pub command: Option<String>,
    /// Its first row.
    pub started_at: String,
    /// Its last row.
    pub last_at: String,
    /// Type of the message published last.
    #[schema(required)]
    pub last_step: Option<String>,
    /// Business keys, each once.
    pub keys: Vec<Key>,
    /// In order of appearance.
    pub services: Vec<String>,
    /// Which of `rabbitmq` and `kafka` it went through, in order of appearance.
    pub systems: Vec<String>,
    /// How many messages.
    pub messages: usize,
    /// How many rows.
    pub records: usize,
    /// There are, or may be, more rows than were judged.
    pub truncated: bool,
}

/// A page of flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowList {
    /// Newest first.
    pub flows: Vec<FlowSummary>,
    /// For `cursor` of the next page.
    #[schema(required)]
    pub next: Option<String>,
    /// Judged back to here, where a filter took so long that it stopped early.
    #[schema(required)]
    pub searched_to: Option<String>,
    /// Up to when everything was seen.
    pub coverage: Coverage,
}

/// One message: its publish and all its deliveries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// Its place in the list.
    pub index: usize,
    /// Equal for a publish and all its deliveries.
    #[schema(required)]
    pub fingerprint: Option<String>,
    /// The message's own id.
    #[schema(required)]
    pub event_id: Option<String>,
    /// Its type.
    #[schema(required)]
    pub event_type: Option<String>,
    /// The flow's id.
    #[schema(required)]
    pub transaction_id: Option<String>,
    /// The event that caused it.
    #[schema(required)]
    pub causation_id: Option<String>,
    /// Command at the start of the chain.
    #[schema(required)]
    pub command: Option<String>,
    /// The service that published it; null: its publish was not seen.
    #[schema(required)]
    pub publisher: Option<String>,
    /// `rabbitmq` or `kafka`.
    #[schema(required)]
    pub system: Option<String>,
    /// Exchange or topic.
    #[schema(required)]
    pub destination: Option<String>,
    /// Routing key, Kafka's record key.
    #[schema(required)]
    pub routing_key: Option<String>,
    /// Kafka's partition.
    #[schema(required)]
    pub partition: Option<i32>,
    /// Kafka's offset.
    #[schema(required)]
    pub log_offset: Option<i64>,
    /// When.
    #[schema(required)]
    pub published_at: Option<String>,
    /// `confirmed`, `refused`, `unroutable`, `committed`, `aborted`.
    #[schema(required)]
    pub publish_outcome: Option<String>,
    /// Bytes of the body.
    #[schema(required)]
    pub size: Option<i64>,
    /// Business keys.
    pub keys: Vec<Key>,
    /// Steps from the root.
    pub depth: usize,
    /// How it is with this message.
    #[schema(required)]
    pub state: Option<State>,
    /// What is to be said of it.
    #[schema(required)]
    pub note: Option<String>,
    /// Deliveries, by time.
    pub handlings: Vec<Handling>,
    /// Indexes into `records`.
    pub records: Vec<usize>,
}

/// One delivery in one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Handling {
    /// The service.
    #[schema(required)]
    pub service: Option<String>,
    /// Host or pod.
    #[schema(required)]
    pub instance: Option<String>,
    /// `rabbitmq` or `kafka`.
    #[schema(required)]
    pub system: Option<String>,
    /// Queue or consumer group.
    #[schema(required)]
    pub subscription: Option<String>,
    /// Kafka's partition.
    #[schema(required)]
    pub partition: Option<i32>,
    /// Kafka's offset.
    #[schema(required)]
    pub log_offset: Option<i64>,
    /// Consumer tag, Kafka's member.
    #[schema(required)]
    pub consumer: Option<String>,
    /// When it was delivered.
    pub delivered_at: String,
    /// When it was settled; null, too, where only its group was seen to be past it.
    #[schema(required)]
    pub settled_at: Option<String>,
    /// `acked`, `requeued`, `rejected`, `committed`, `auto`, `abandoned`, `unknown`; null: open.
    #[schema(required)]
    pub outcome: Option<String>,
    /// Why.
    #[schema(required)]
    pub reason: Option<String>,
    /// Which attempt, where the broker counts.
    #[schema(required)]
    pub attempt: Option<i32>,
    /// Delivered before, as the broker says.
    #[schema(required)]
    pub redelivered: Option<bool>,
    /// Delivery to settlement, microseconds.
    #[schema(required)]
    pub took_us: Option<i64>,
    /// Index into `records`.
    #[schema(required)]
    pub deliver: Option<usize>,
    /// Index into `records`.
    #[schema(required)]
    pub settle: Option<usize>,
}

/// How an edge is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The message says so.
    Causation,
    /// Same transaction; the service had only this one at hand.
    Transaction,
}

/// One message caused another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    /// The cause: an index into `messages`.
    pub from: usize,
    /// What it caused.
    pub to: usize,
    /// How it is known.
    pub how: How,
    /// The service whose handling did it.
    #[schema(required)]
    pub by: Option<String>,
}

/// One row of `history`; what is null is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// The start of the agent.
    pub boot: String,
    /// The row since then.
    pub seq: i64,
    /// The agent.
    pub agent: String,
    /// When.
    pub at: String,
    /// What happened.
    pub kind: String,
    /// The service.
    #[schema(required)]
    pub service: Option<String>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every other column by its name.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Another flow that this one touches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Related {
    /// Its id.
    pub flow: String,
    /// How they touch.
    pub how: String,
}

/// One flow, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowDetail {
    /// As in the list.
    pub summary: FlowSummary,
    /// The answer.
    pub verdict: Verdict,
    /// By time.
    pub messages: Vec<Message>,
    /// Who caused what.
    pub edges: Vec<Edge>,
    /// By time.
    pub records: Vec<Record>,
    /// Whether the flow has, or may have, more rows than are shown here: more than 10 000, or such
    /// in objects that could not be read or are not searched.
    pub truncated: bool,
    /// Other flows.
    pub related: Vec<Related>,
    /// Up to when everything was seen.
    pub coverage: Coverage,
}

/// What was found for an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// A flow.
    Flow,
    /// Messages that are no flow.
    Messages,
    /// Nothing.
    Nothing,
}

/// By what an id was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// It is a flow's id.
    TransactionId,
    /// It is a message's id.
    EventId,
    /// It is the id of the command that caused messages.
    CommandId,
    /// It is a business key.
    Key,
    /// It is a trace id.
    TraceId,
}

/// What an id matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Matched {
    /// As what.
    pub by: By,
    /// Name of the business key.
    #[schema(required)]
    pub name: Option<String>,
    /// The id.
    pub value: String,
    /// The flow that it leads to.
    #[schema(required)]
    pub flow: Option<String>,
    /// How many messages carry it.
    pub count: usize,
}

/// The answer to `why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// What was found.
    pub found: Found,
    /// All that the id matches, newest flow first.
    pub matched: Vec<Matched>,
    /// The flow: of several the newest.
    #[schema(required)]
    pub flow: Option<FlowDetail>,
    /// Single messages that are no flow.
    pub messages: Vec<Message>,
    /// Their rows.
    pub records: Vec<Record>,
    /// Why there is no flow.
    #[schema(required)]
    pub explanation: Option<String>,
    /// More than 10 000 rows carry the id: the newest were looked at.
    pub truncated: bool,
    /// Up to when everything was seen.
    pub coverage: Coverage,
}
