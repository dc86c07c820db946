//! The headers that detectors know by name, found in one pass over a message's headers: most
//! messages carry none of them, and a busy topic has a million messages a second.

use flowtap_record::Value;

use super::generic::{self, Codes};
use crate::identify::{Content, System};

/// Longest name in a table.
const LONGEST: usize = 34;

/// Names sorted by their lengths, so that few are compared with a header's.
pub(super) struct ByLength<const N: usize> {
    texts: [&'static str; N],
    order: [u8; N],
    /// Where in `order` each length starts; one more for the end.
    starts: [u8; LONGEST + 2],
    /// How many bytes of each text stand before the name.
    skip: usize,
}

impl<const N: usize> ByLength<N> {
    pub(super) const fn new(texts: [&'static str; N], skip: usize) -> Self {
        let mut order = [0; N];
        let mut starts = [0; LONGEST + 2];
        let (mut length, mut filled) = (0, 0);
        while length <= LONGEST {
            starts[length] = small(filled);
            let mut at = 0;
            while at < N {
                if texts[at].len() - skip == length {
                    order[filled] = small(at);
                    filled += 1;
                }
                at += 1;
            }
            length += 1;
        }
        starts[LONGEST + 1] = small(filled);
        assert!(filled == N, "a name is longer than LONGEST");
        Self { texts, order, starts, skip }
    }

    /// The first name that fits, and its place in the table.
    pub(super) fn find(&self, name: &[u8], fits: impl Fn(&[u8]) -> bool) -> Option<usize> {
        if name.len() > LONGEST {
            return None;
        }
        let range = usize::from(self.starts[name.len()])..usize::from(self.starts[name.len() + 1]);
        let mut of_length = self.order[range].iter().map(|at| usize::from(*at));
        of_length.find(|at| fits(&self.texts[*at].as_bytes()[self.skip..]))
    }

    pub(super) fn text(&self, at: usize) -> &'static str {
        self.texts[at]
    }
}

const fn small(number: usize) -> u8 {
    assert!(number <= u8::MAX as usize);
    number as u8
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $spelled:literal,)*) => {
        /// A header's name, as its framework spells it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Name { $($(#[$doc])* $name,)* }

        const NAMES: &[Name] = &[$(Name::$name,)*];

        static TABLE: ByLength<{ NAMES.len() }> =
            ByLength::new([$(concat!("header:", $spelled),)*], "header:".len());
    };
}

names! {
    // CloudEvents: Kafka's prefix, then the two that libraries use on AMQP 0-9-1.
    CeId = "ce_id",
    CeType = "ce_type",
    CeSource = "ce_source",
    CeCorrelation = "ce_correlationid",
    CeCausation = "ce_causationid",
    CeTraceparent = "ce_traceparent",
    CeTrace = "ce_traceid",
    ColonId = "cloudEvents:id",
    ColonType = "cloudEvents:type",
    ColonSource = "cloudEvents:source",
    ColonCorrelation = "cloudEvents:correlationid",
    ColonCausation = "cloudEvents:causationid",
    ColonTraceparent = "cloudEvents:traceparent",
    ColonTrace = "cloudEvents:traceid",
    ScoreId = "cloudEvents_id",
    ScoreType = "cloudEvents_type",
    ScoreSource = "cloudEvents_source",
    ScoreCorrelation = "cloudEvents_correlationid",
    ScoreCausation = "cloudEvents_causationid",
    ScoreTraceparent = "cloudEvents_traceparent",
    ScoreTrace = "cloudEvents_traceid",
    // Traces.
    Traceparent = "traceparent",
    ParentDash = "parent-id",
    ParentScore = "parent_id",
    Parent = "parentId",
    B3 = "b3",
    B3Trace = "X-B3-TraceId",
    B3Span = "X-B3-SpanId",
    DatadogTrace = "x-datadog-trace-id",
    DatadogParent = "x-datadog-parent-id",
    DatadogTags = "x-datadog-tags",
    Jaeger = "uber-trace-id",
    XRay = "X-Amzn-Trace-Id",
    // NServiceBus.
    NsbId = "NServiceBus.MessageId",
    NsbTypes = "NServiceBus.EnclosedMessageTypes",
    NsbConversation = "NServiceBus.ConversationId",
    NsbRelated = "NServiceBus.RelatedTo",
    NsbIntent = "NServiceBus.MessageIntent",
    // MassTransit.
    MtType = "MT-MessageType",
    MtInitiator = "MT-InitiatorId",
    MtActivity = "MT-Activity-Id",
    // Rebus.
    RebusId = "rbs2-msg-id",
    RebusType = "rbs2-msg-type",
    RebusCorrelation = "rbs2-corr-id",
    RebusReply = "rbs2-in-reply-to",
    // CAP.
    CapId = "cap-msg-id",
    CapType = "cap-msg-name",
    CapCorrelation = "cap-corr-id",
    CapSequence = "cap-corr-seq",
    // Axon.
    AxonId = "axon-message-id",
    AxonType = "axon-message-type",
    AxonTrace = "axon-metadata-traceId",
    AxonCorrelation = "axon-metadata-correlationId",
    AxonCausation = "axon-metadata-causationId",
    AxonTraceparent = "axon-metadata-traceparent",
    // Watermill, KurrentDB, Enqueue, go-micro, taskiq, Camel, MicroProfile LRA.
    WatermillId = "_watermill_message_uuid",
    WatermillType = "name",
    KurrentCorrelation = "$correlationId",
    KurrentCausation = "$causationId",
    EnqueueTopic = "enqueue.topic",
    EnqueueCommand = "enqueue.command",
    MicroTopic = "Micro-Topic",
    TaskId = "task_id",
    TaskType = "task_name",
    Breadcrumb = "breadcrumbId",
    LongRunningAction = "Long-Running-Action",
    // Wolverine, Brighter.
    Wolverine = "wolverine-protocol-version",
    Intent = "MessageType",
    // Spring, NestJS, Faust.
    SpringType = "__TypeId__",
    RpcCorrelation = "kafka_correlationId",
    RpcReplyTopic = "kafka_replyTopic",
    RpcReplyPartition = "kafka_replyPartition",
    NestDisposed = "kafka_nest-is-disposed",
    NestError = "kafka_nest-err",
    FaustCorrelation = "Faust-Ag-CorrelationId",
    FaustReplyTo = "Faust-Ag-ReplyTo",
    // Debezium's outbox event router, and what it is often told to add.
    Id = "id",
    Type = "type",
    Timestamp = "timestamp",
    EventType = "eventType",
    EventTypeScore = "event_type",
    EventTypeDash = "event-type",
    AggregateType = "aggregateType",
    AggregateTypeScore = "aggregate_type",
    AggregateId = "aggregateId",
    AggregateIdScore = "aggregate_id",
}

const _: () = assert!(NAMES.len() <= 128, "one bit each");

impl Name {
    pub(super) const fn bit(self) -> u128 {
        1 << (self as u8)
    }

    /// The name and whether it is spelled exactly so.
    fn of(header: &[u8]) -> Option<(Self, bool)> {
        let (first, last) = (*header.first()?, *header.last()?);
        let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b);
        let at = TABLE.find(header, |name| {
            same(name[0], first)
                && same(name[name.len() - 1], last)
                && name.eq_ignore_ascii_case(header)
        })?;
        let exact = &TABLE.text(at).as_bytes()[TABLE.skip..] == header;
        Some((NAMES[at], exact))
    }

    /// `header:NAME`
    pub(super) fn from(self) -> &'static str {
        TABLE.text(self as usize)
    }
}

/// The bits of some names.
pub(super) const fn bits(names: &[Name]) -> u128 {
    let (mut bits, mut at) = (0, 0);
    while at < names.len() {
        bits |= names[at].bit();
        at += 1;
    }
    bits
}

/// Which of the known names a message carries, and where.
pub(in crate::identify) struct Heads {
    seen: u128,
    exact: u128,
    /// Only where `seen`.
    at: [u16; NAMES.len()],
    pub(super) generic: Codes,
}

impl Heads {
    pub(in crate::identify) fn of(content: &Content<'_>) -> Self {
        let mut heads = Self { seen: 0, exact: 0, at: [0; NAMES.len()], generic: Codes::default() };
        for (nth, (at, name, _)) in counted(content).enumerate() {
            heads.generic.note(nth, generic::code_of(name));
            let Some((name, exact)) = Name::of(name) else { continue };
            // One spelled exactly beats others; else the first that comes is the one that counts.
            let (bit, better) = (name.bit(), exact && heads.exact & name.bit() == 0);
            if let Ok(place) = u16::try_from(at)
                && (heads.seen & bit == 0 || better)
            {
                heads.at[name as usize] = place;
                heads.seen |= bit;
                heads.exact |= if exact { bit } else { 0 };
            }
        }
        heads
    }

    /// Whether the message carries any of the names.
    pub(super) fn any(&self, bits: u128) -> bool {
        self.seen & bits != 0
    }

    /// Where the header of this name stands, and whether it is spelled so.
    pub(super) fn place(&self, name: Name) -> Option<(usize, bool)> {
        let exact = self.exact & name.bit() != 0;
        self.any(name.bit()).then(|| (usize::from(self.at[name as usize]), exact))
    }
}

/// Headers with their place in the message; of a repeated name the one that counts comes first.
/// That is the first on RabbitMQ, whose version 4 delivers no other, and the last on Kafka, as the
/// JVM's clients and frameworks have it.
pub(super) fn counted<'a>(
    content: &Content<'a>,
) -> impl Iterator<Item = (usize, &'a [u8], &'a Value<'a>)> + use<'a> {
    let headers: &'a [(&'a [u8], Value<'a>)] = content.headers;
    let from_end = content.system == System::Kafka;
    (0..headers.len()).map(move |nth| {
        let at = if from_end { headers.len() - 1 - nth } else { nth };
        let (name, value) = &headers[at];
        (at, *name, value)
    })
}

/// Every name, for tests that make up headers.
#[cfg(test)]
pub(in crate::identify) fn known_names() -> Vec<&'static str> {
    NAMES.iter().filter_map(|name| name.from().strip_prefix("header:")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::names::{is_exception_text, is_excluded};

    #[test]
    fn every_name_is_found_and_none_is_one_that_may_not_be_recorded() {
        for name in NAMES {
            let spelled = name.from().strip_prefix("header:").unwrap();
            assert_eq!(Name::of(spelled.as_bytes()), Some((*name, true)));
            let (found, exact) = Name::of(spelled.to_uppercase().as_bytes()).unwrap();
            assert_eq!((found, exact), (*name, spelled == spelled.to_uppercase()));
            assert!(!is_excluded(spelled.as_bytes()), "{spelled}");
            assert!(!is_exception_text(spelled.as_bytes()), "{spelled}");
        }
        assert_eq!(Name::of(b""), None);
        assert_eq!(Name::of(b"ce_ix"), None);
        assert_eq!(Name::of(&[b'x'; 300]), None);
    }
}
