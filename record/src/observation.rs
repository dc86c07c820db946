//! One thing that an agent saw: what becomes one row of `history`.
//!
//! Rows borrow their texts: the tap builds them over the bytes that it has just read, the spool
//! encodes them at once, and the uploader decodes them again without copying.

use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// Number of a row within one boot of one agent: from 1, without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub i64);

/// Another row of the same agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRef<'a> {
    /// The boot that wrote it; `None` is the boot of the row that refers.
    #[serde(borrow)]
    pub boot: Option<&'a str>,
    /// Its number there.
    pub seq: Seq,
}

/// Generates an enum whose variants are words of a column.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every word, in the order of DESIGN's table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as it stands in the column.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What a row is about.
    Kind {
        /// A message handed to the broker.
        Publish = "publish",
        /// The broker's answer to a publish.
        Confirm = "confirm",
        /// The broker's word that no queue took a message.
        Return = "return",
        /// A message handed to a service.
        Deliver = "deliver",
        /// The end of a delivery.
        Settle = "settle",
        /// The end of a broker transaction.
        Transaction = "transaction",
        /// The agent's own conclusion of what caused a publish.
        Link = "link",
        /// Connection, channel, consumer, group member.
        Session = "session",
        /// Queue, exchange, binding, topic.
        Topology = "topology",
        /// A group's committed offset.
        Position = "position",
        /// The agent's word that it could not see.
        Gap = "gap",
    }
}

words! {
    /// How it ended, by kind.
    Outcome {
        /// confirm: the broker took the message.
        Confirmed = "confirmed",
        /// confirm: the broker refused it.
        Refused = "refused",
        /// return: no queue took it.
        Unroutable = "unroutable",
        /// settle: acknowledged.
        Acked = "acked",
        /// settle: handed back to the queue.
        Requeued = "requeued",
        /// settle: refused for good.
        Rejected = "rejected",
        /// settle: the group committed past it; transaction: committed.
        Committed = "committed",
        /// settle: auto-acknowledged as it was delivered.
        Auto = "auto",
        /// settle: its channel, connection or member ended with it open.
        Abandoned = "abandoned",
        /// transaction: rolled back.
        Aborted = "aborted",
        /// session: began.
        Opened = "opened",
        /// session: ended.
        Closed = "closed",
        /// session: the broker stopped reading from the connection.
        Blocked = "blocked",
        /// session: the broker reads again.
        Unblocked = "unblocked",
        /// topology: declared.
        Declared = "declared",
        /// topology: bound.
        Bound = "bound",
        /// topology: unbound.
        Unbound = "unbound",
        /// topology: emptied.
        Purged = "purged",
        /// topology: deleted.
        Deleted = "deleted",
    }
}

words! {
    /// Where the agent looked.
    Tap {
        /// Inline, between service and broker.
        Proxy = "proxy",
        /// RabbitMQ's firehose.
        Firehose = "firehose",
        /// Kafka's topics, read by a consumer of our own.
        Topics = "topics",
        /// Kafka's offsets topic.
        Offsets = "offsets",
    }
}

words! {
    /// How the text of a [`Field`] is to be read.
    Encoding {
        /// As it is.
        Text = "text",
        /// JSON: numbers, booleans, tables, arrays.
        Json = "json",
        /// RFC 4648 base64 of bytes that are not UTF-8.
        Base64 = "base64",
    }
}

/// An id and where it was found: `header:NAME`, `body:/pointer`, `rule:NAME`, `property:NAME`,
/// `key` or `made`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id<'a> {
    /// The id itself.
    pub value: &'a str,
    /// Where it came from.
    pub from: &'a str,
}

/// A header or a business key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field<'a> {
    /// Its name; names may repeat.
    pub name: &'a str,
    /// Its value, as `encoding` says.
    pub value: &'a str,
    /// How to read the value.
    pub encoding: Encoding,
}

/// The ids of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids<'a> {
    /// The message's own id.
    #[serde(borrow)]
    pub event_id: Option<Id<'a>>,
    /// Its type: the name of the event or command.
    pub event_type: Option<Id<'a>>,
    /// The id that all messages of the flow share.
    pub transaction_id: Option<Id<'a>>,
    /// The event id of the message whose handling caused this one.
    pub causation_id: Option<Id<'a>>,
    /// The name of the command at the start of the chain.
    pub command: Option<Id<'a>>,
    /// The id of that command.
    pub command_id: Option<Id<'a>>,
    /// W3C trace id, 32 lower-case hex digits.
    pub trace_id: Option<Id<'a>>,
    /// W3C span id, 16 lower-case hex digits.
    pub span_id: Option<Id<'a>>,
}

/// Where on the broker it happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place<'a> {
    /// `rabbitmq` or `kafka`.
    #[serde(borrow)]
    pub system: Option<&'a str>,
    /// RabbitMQ's cluster name, Kafka's cluster id, or what the configuration says.
    pub cluster: Option<&'a str>,
    /// RabbitMQ's virtual host.
    pub vhost: Option<&'a str>,
    /// Exchange or topic. The default exchange is `''`.
    pub destination: Option<&'a str>,
    /// Routing key, Kafka's record key.
    pub routing_key: Option<&'a str>,
    /// Queue or consumer group.
    pub subscription: Option<&'a str>,
    /// Kafka's partition.
    pub partition: Option<i32>,
    /// Kafka's offset, a stream's offset.
    pub log_offset: Option<i64>,
}

/// Who spoke to the broker, and over which connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who<'a> {
    /// The service that the agent stands beside.
    #[serde(borrow)]
    pub service: Option<&'a str>,
    /// Host or pod.
    pub instance: Option<&'a str>,
    /// Client library, its version, and the connection's name.
    pub client: Option<&'a str>,
    /// User name at the broker; never a secret.
    pub principal: Option<&'a str>,
    /// Number of the connection within the boot.
    pub connection: Option<i64>,
    /// AMQP channel; null for Kafka.
    pub channel: Option<i32>,
    /// Consumer tag, Kafka's member id.
    pub consumer: Option<&'a str>,
    /// AMQP delivery tag or publish sequence number; Kafka: number of the fetch answer.
    pub delivery_tag: Option<i64>,
}

/// What is known of the message itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// Equal for a publish and all its deliveries; see [`crate::Fingerprint`].
    #[serde(borrow)]
    pub message: Option<&'a str>,
    /// Its ids.
    pub ids: Ids<'a>,
    /// Business keys.
    pub keys: Vec<Field<'a>>,
    /// Headers, as far as the configuration lets them be recorded.
    pub headers: Vec<Field<'a>>,
    /// Size of the body in bytes.
    pub size: Option<i64>,
    /// Content type as the publisher gave it.
    pub content_type: Option<&'a str>,
    /// The body, where the configuration asks for it.
    pub payload: Option<&'a [u8]>,
}

/// Facts of sessions and settlements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session<'a> {
    /// The broker says that the message may have been delivered before.
    pub redelivered: Option<bool>,
    /// Which delivery attempt this is, from 1, where the broker tells.
    pub attempt: Option<i32>,
    /// Deliver to settle, microseconds.
    pub took_us: Option<i64>,
    /// Whether the broker owes an answer to this publish.
    pub confirm_expected: Option<bool>,
    /// Equal on all rows of one broker transaction.
    #[serde(borrow)]
    pub broker_txn: Option<&'a str>,
}

/// What an agent could not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// From when it was blind.
    pub from: Option<Micros>,
    /// Until when.
    pub to: Option<Micros>,
    /// How many rows are missing, where that is known.
    pub count: Option<i64>,
}

/// One row of `history`, less what the spool and the ingester add (`agent`, `boot`, `seq`, `day`,
/// `cluster_key`). Columns and kinds are described in DESIGN's contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation<'a> {
    /// When the bytes were read.
    pub at: Micros,
    /// The broker's time of it, where it gives one.
    pub broker_at: Option<Micros>,
    /// What the row is about.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why, in the broker's or the agent's words.
    #[serde(borrow)]
    pub reason: Option<&'a str>,
    /// JSON, for what has no column.
    pub details: Option<&'a str>,
    /// Where the agent looked; null when it was not looking (an agent's own gap).
    pub tap: Option<Tap>,
    /// The row that this one concludes.
    pub concludes: Option<RowRef<'a>>,
    /// Where on the broker.
    pub place: Place<'a>,
    /// Who.
    pub who: Who<'a>,
    /// Which message.
    pub message: Message<'a>,
    /// How the delivery or publish went.
    pub session: Session<'a>,
    /// For `link`: the deliveries that caused it.
    pub causes: Vec<RowRef<'a>>,
    /// For `link`: by which rule it was concluded.
    pub rung: Option<&'a str>,
    /// For `link`: version of that rule.
    pub rule_version: Option<&'a str>,
    /// For `link`: how sure, 0 to 1.
    pub confidence: Option<f64>,
    /// For `gap`.
    pub gap: Gap,
}

impl Observation<'_> {
    /// A row of `kind` at `at`, with nothing else known.
    pub fn new(kind: Kind, at: Micros) -> Self {
        Self {
            at,
            broker_at: None,
            kind,
            outcome: None,
            reason: None,
            details: None,
            tap: None,
            concludes: None,
            place: Place::default(),
            who: Who::default(),
            message: Message::default(),
            session: Session::default(),
            causes: Vec::new(),
            rung: None,
            rule_version: None,
            confidence: None,
            gap: Gap::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_survives_the_spools_encoding_without_copies() {
        let mut row = Observation::new(Kind::Settle, Micros(7));
        row.outcome = Some(Outcome::Acked);
        row.place.destination = Some("");
        row.concludes = Some(RowRef { boot: None, seq: Seq(3) });
        row.message.ids.event_id = Some(Id { value: "e-1", from: "property:message_id" });
        row.message.keys =
            vec![Field { name: "order_id", value: "1042", encoding: Encoding::Text }];
        row.message.payload = Some(&[0, 255]);
        let bytes = postcard::to_allocvec(&row).unwrap();
        let back: Observation<'_> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, row);
    }
}
