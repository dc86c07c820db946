//! One row of `history` as the rules read it: plain values, no Arrow. [`crate::find`] makes these
//! from Parquet; tests make them by hand.

use flowtap_record::{Kind, Micros, Outcome, Tap};
use serde::Serialize;
use serde_json::{Map, Value};

use super::groups::Slot;

/// The name of a row: which agent, which start of it, which row since then.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The agent: nobody else can write in its name.
    pub agent: String,
    /// The start of the agent.
    pub boot: String,
    /// The row's number since then.
    pub seq: i64,
}

/// A named value out of a message: a business key or a header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct KeyValue {
    /// Its name; names repeat.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// One row. What is null in the table is `None` or empty here.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which row this is.
    pub id: RowId,
    /// The agent that saw it.
    pub agent: String,
    /// When.
    pub at: Micros,
    /// What happened.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why.
    pub reason: Option<String>,
    /// What has no column.
    pub details: Value,
    /// Where the agent looked.
    pub tap: Option<Tap>,
    /// The row that this one concludes.
    pub concludes: Option<RowId>,
    /// `rabbitmq` or `kafka`.
    pub system: Option<String>,
    /// Which cluster.
    pub cluster: Option<String>,
    /// RabbitMQ's virtual host.
    pub vhost: Option<String>,
    /// Exchange or topic.
    pub destination: Option<String>,
    /// Routing key.
    pub routing_key: Option<String>,
    /// Queue or group.
    pub subscription: Option<String>,
    /// Kafka's partition.
    pub partition: Option<i32>,
    /// Kafka's offset; a position's is that of what comes next.
    pub log_offset: Option<i64>,
    /// The service.
    pub service: Option<String>,
    /// Its host or pod.
    pub instance: Option<String>,
    /// Connection number within the boot.
    pub connection: Option<i64>,
    /// Channel.
    pub channel: Option<i32>,
    /// Consumer tag or member.
    pub consumer: Option<String>,
    /// Fingerprint, or Kafka's place.
    pub message: Option<String>,
    /// The message's own id.
    pub event_id: Option<String>,
    /// Its type.
    pub event_type: Option<String>,
    /// The flow's id.
    pub transaction_id: Option<String>,
    /// The event that caused this one.
    pub causation_id: Option<String>,
    /// The command at the start.
    pub command: Option<String>,
    /// Its id.
    pub command_id: Option<String>,
    /// W3C trace id.
    pub trace_id: Option<String>,
    /// Business keys.
    pub keys: Vec<KeyValue>,
    /// Delivered before, as the broker says.
    pub redelivered: Option<bool>,
    /// Which attempt.
    pub attempt: Option<i32>,
    /// Deliver to settle.
    pub took_us: Option<i64>,
    /// Whether the broker owes an answer.
    pub confirm_expected: Option<bool>,
    /// The broker transaction that it belongs to.
    pub broker_txn: Option<String>,
    /// gap: blind from.
    pub gap_from: Option<Micros>,
    /// gap: blind to.
    pub gap_to: Option<Micros>,
    /// gap: rows missing.
    pub gap_count: Option<i64>,
    /// Bytes of the body.
    pub size: Option<i64>,
    /// Every other column that is not null, for whoever shows the row.
    pub rest: Map<String, Value>,
}

impl Row {
    /// A row of `kind` at `at` with nothing else known.
    pub fn new(kind: Kind, at: Micros) -> Self {
        Self {
            id: RowId::default(),
            agent: String::new(),
            at,
            kind,
            outcome: None,
            reason: None,
            details: Value::Null,
            tap: None,
            concludes: None,
            system: None,
            cluster: None,
            vhost: None,
            destination: None,
            routing_key: None,
            subscription: None,
            partition: None,
            log_offset: None,
            service: None,
            instance: None,
            connection: None,
            channel: None,
            consumer: None,
            message: None,
            event_id: None,
            event_type: None,
            transaction_id: None,
            causation_id: None,
            command: None,
            command_id: None,
            trace_id: None,
            keys: Vec::new(),
            redelivered: None,
            attempt: None,
            took_us: None,
            confirm_expected: None,
            broker_txn: None,
            gap_from: None,
            gap_to: None,
            gap_count: None,
            size: None,
            rest: Map::new(),
        }
    }

    /// The broker that it happened on: names mean something only within one.
    pub fn broker(&self) -> Broker {
        Broker {
            system: self.system.clone(),
            cluster: self.cluster.clone(),
            vhost: self.vhost.clone(),
        }
    }

    /// Whether it happened on Kafka: destinations are topics, subscriptions groups.
    pub fn is_kafka(&self) -> bool {
        self.system.as_deref() == Some("kafka")
    }

    /// The group, topic and partition that a row is about.
    pub fn slot(&self) -> Option<Slot> {
        Some(Slot {
            broker: self.broker(),
            group: self.subscription.clone()?,
            topic: self.destination.clone()?,
            partition: self.partition?,
        })
    }

    /// `details.what` of a session or topology row.
    pub fn what(&self) -> Option<&str> {
        self.details.get("what").and_then(Value::as_str)
    }
}

/// Everything on a broker is keyed by these three and a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Broker {
    /// `rabbitmq` or `kafka`.
    pub system: Option<String>,
    /// Which cluster.
    pub cluster: Option<String>,
    /// RabbitMQ's virtual host.
    pub vhost: Option<String>,
}
