//! Frameworks that wrap a message in JSON, with its ids beside it: what stands in the body is all
//! there is. Each is known by members that nothing else has together.

use super::{Field, Found, View, offer_trace};
use crate::identify::json::{Pointer, Wanted};
use crate::identify::redact::Redaction;
use crate::identify::text::{Text, is_id};

macro_rules! members {
    ($($name:ident = $pointer:literal,)*) => {
        /// A member of a JSON body that detectors read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Member { $($name,)* }

        const POINTERS: &[&str] = &[$($pointer,)*];
        const FROM: &[&str] = &[$(concat!("body:", $pointer),)*];
    };
}

members! {
    // CloudEvents, and plain names that others share.
    SpecVersion = "/specversion",
    Source = "/source",
    Id = "/id",
    Type = "/type",
    Correlation = "/correlationid",
    Causation = "/causationid",
    Traceparent = "/traceparent",
    TraceId = "/traceid",
    // MassTransit.
    MtId = "/messageId",
    MtType = "/messageType/0",
    MtConversation = "/conversationId",
    MtInitiator = "/initiatorId",
    MtActivity = "/headers/MT-Activity-Id",
    // Eventuate.
    EventuateId = "/headers/ID",
    EventuateEvent = "/headers/event-type",
    EventuateCommand = "/headers/command_type",
    EventuateReply = "/headers/reply_type",
    EventuateReplyTo = "/headers/reply_to_message_id",
    // Celery, as kombu wraps it.
    CeleryId = "/headers/id",
    CeleryTask = "/headers/task",
    CeleryRoot = "/headers/root_id",
    CeleryParent = "/headers/parent_id",
    // Enqueue.
    EnqueueTopic = "/properties/enqueue.topic",
    EnqueueCommand = "/properties/enqueue.command",
    EnqueueId = "/headers/message_id",
    EnqueueCorrelation = "/headers/correlation_id",
    EnqueueReplyTo = "/headers/reply_to",
    // go-micro, Faust.
    MicroTopic = "/Header/Micro-Topic",
    FaustName = "/__faust/ns",
    // Moleculer.
    Version = "/ver",
    Sender = "/sender",
    RequestId = "/requestID",
    ParentId = "/parentID",
    Action = "/action",
    Event = "/event",
    // Rails Event Store, Eventide, KurrentDB.
    EventId = "/event_id",
    EventType = "/event_type",
    MetaCorrelation = "/metadata/correlation_id",
    MetaCausation = "/metadata/causation_id",
    MetaTimestamp = "/metadata/timestamp",
    EventideFlow = "/metadata/correlationStreamName",
    EventideStream = "/metadata/causationMessageStreamName",
    EventidePosition = "/metadata/causationMessagePosition",
    KurrentCorrelation = "/metadata/$correlationId",
    KurrentCausation = "/metadata/$causationId",
    // Watermill's forwarder.
    Destination = "/destination_topic",
    Uuid = "/uuid",
    MetaName = "/metadata/name",
    // Dramatiq.
    MessageId = "/message_id",
    Actor = "/actor_name",
    Queue = "/queue_name",
    // Debezium's change events, bare and with their schema.
    Op = "/op",
    SourceConnector = "/source/connector",
    SourceSchema = "/source/schema",
    SourceDb = "/source/db",
    SourceTable = "/source/table",
    WrappedOp = "/payload/op",
    WrappedConnector = "/payload/source/connector",
    WrappedSchema = "/payload/source/schema",
    WrappedDb = "/payload/source/db",
    WrappedTable = "/payload/source/table",
}

/// Texts of which every JSON body that one of these envelopes is, and does not declare itself, holds
/// at least one.
pub(in crate::identify) const MARKS: &[&str] = &[
    "\"specversion\"",
    "\"ID\"",
    "\"root_id\"",
    "\"enqueue.",
    "\"Micro-Topic\"",
    "\"__faust\"",
    "\"sender\"",
    "\"event_id\"",
    "\"causationMessage",
    "\"$c",
    "\"destination_topic\"",
    "\"actor_name\"",
    "\"connector\"",
];

/// Content types that say that a body is an envelope.
pub(in crate::identify) fn is_declared(content_type: &[u8]) -> bool {
    let starts = |head: &[u8]| {
        content_type.get(..head.len()).is_some_and(|start| start.eq_ignore_ascii_case(head))
    };
    starts(b"application/cloudevents") || starts(MASSTRANSIT)
}

const MASSTRANSIT: &[u8] = b"application/vnd.masstransit";

impl Member {
    /// `body:/pointer`
    pub(super) fn from(self) -> Text<'static> {
        Text::Lent(FROM[self as usize])
    }
}

/// The slots of all [`Member`]s.
#[derive(Clone, Debug)]
pub(in crate::identify) struct Slots([Option<usize>; POINTERS.len()]);

impl Slots {
    /// Asks for the members, less those that are to be redacted.
    pub(in crate::identify) fn new(wanted: &mut Wanted, redact: &Redaction) -> Self {
        Self(std::array::from_fn(|at| {
            let pointer = Pointer::parse(POINTERS[at]).expect("built-in pointers are well-formed");
            (!redact.covers(pointer.tokens())).then(|| wanted.add(&pointer))
        }))
    }
}

impl<'a> View<'_, 'a> {
    /// The value of a member, if it can be an id.
    pub(super) fn member(&self, member: Member) -> Option<&Text<'a>> {
        self.body.get(self.envelope.0[member as usize])
    }

    /// Whether all of these members are there.
    pub(super) fn has<const N: usize>(&self, members: [Member; N]) -> bool {
        members.into_iter().all(|member| self.member(member).is_some())
    }

    /// Offers the value of a member, if it is there.
    pub(super) fn take(&self, found: &mut Found<'a>, field: Field, member: Member) {
        if let Some(text) = self.member(member) {
            found.offer(field, text.clone(), member.from(), None);
        }
    }

    fn take_all<const N: usize>(&self, found: &mut Found<'a>, members: [(Field, Member); N]) {
        for (field, member) in members {
            self.take(found, field, member);
        }
    }
}

pub(super) fn detect<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if view.body.is_empty() {
        return;
    }
    masstransit(view, found);
    for (is_there, detect) in [
        // eventuate-tram-core@b50d8e7
        (view.has([Member::EventuateId]), eventuate as fn(&View<'_, 'a>, &mut Found<'a>)),
        // celery@5dc781f, kombu@9ee8595
        (view.has([Member::CeleryId, Member::CeleryTask, Member::CeleryRoot]), celery),
        (view.has([Member::EnqueueTopic]) || view.has([Member::EnqueueCommand]), enqueue),
        (view.has([Member::Version, Member::Sender, Member::Id]), moleculer),
        (view.has([Member::EventId, Member::EventType]), rails_event_store),
        (view.has([Member::EventideStream]), eventide),
        (view.has([Member::Destination, Member::Uuid]), watermill),
        (view.has([Member::MessageId, Member::Actor, Member::Queue]), dramatiq),
        (true, small_ones),
    ] {
        if is_there {
            detect(view, found);
        }
    }
}

/// MassTransit/MassTransit@c1e5caa. `initiatorId` is the correlation id of the message that was
/// handled, or its request's.
fn masstransit<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let declared = view.content.content_type.is_some_and(|content_type| {
        content_type
            .get(..MASSTRANSIT.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(MASSTRANSIT))
    });
    if !declared {
        return;
    }
    view.take_all(
        found,
        [
            (Field::EventId, Member::MtId),
            (Field::EventType, Member::MtType),
            (Field::TransactionId, Member::MtConversation),
            (Field::CausationId, Member::MtInitiator),
        ],
    );
    if let Some(text) = view.member(Member::MtActivity) {
        super::trace::detect_header(view, found);
        offer_trace(found, text, &Member::MtActivity.from(), None);
    }
}

/// All of a message's headers stand in its JSON; of a command's reply `reply_to_message_id` names
/// the command.
fn eventuate<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let is_command = view.has([Member::EventuateCommand]);
    if !is_command
        && !view.has([Member::EventuateEvent])
        && !view.has([Member::EventuateReply])
        && !view.has([Member::EventuateReplyTo])
    {
        return;
    }
    view.take_all(
        found,
        [
            (Field::EventId, Member::EventuateId),
            (Field::EventType, Member::EventuateEvent),
            (Field::EventType, Member::EventuateCommand),
            (Field::EventType, Member::EventuateReply),
            (Field::CausationId, Member::EventuateReplyTo),
        ],
    );
    found.is_command |= is_command;
}

fn celery<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    view.take_all(
        found,
        [
            (Field::EventId, Member::CeleryId),
            (Field::EventType, Member::CeleryTask),
            (Field::TransactionId, Member::CeleryRoot),
            (Field::CausationId, Member::CeleryParent),
        ],
    );
    found.is_command = true;
}

/// php-enqueue/enqueue-dev@f5759ec. A correlation id beside `reply_to` only pairs a request with
/// its reply.
fn enqueue<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    view.take_all(
        found,
        [
            (Field::EventId, Member::EnqueueId),
            (Field::EventType, Member::EnqueueTopic),
            (Field::EventType, Member::EnqueueCommand),
        ],
    );
    let correlation = view.member(Member::EnqueueCorrelation);
    if !view.has([Member::EnqueueReplyTo]) && correlation != view.member(Member::EnqueueId) {
        view.take(found, Field::TransactionId, Member::EnqueueCorrelation);
    }
    found.is_command |= view.has([Member::EnqueueCommand]);
}

/// npm moleculer 0.14.36. Other packets (heartbeats, discovery) have no action and no event.
fn moleculer<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let is_command = view.has([Member::Action]);
    if !is_command && !view.has([Member::Event]) {
        return;
    }
    view.take_all(
        found,
        [
            (Field::EventId, Member::Id),
            (Field::EventType, Member::Action),
            (Field::EventType, Member::Event),
            (Field::TransactionId, Member::RequestId),
            (Field::CausationId, Member::ParentId),
        ],
    );
    found.is_command |= is_command;
}

/// Rails Event Store (`RailsEventStore/rails_event_store@ece8f31`).
fn rails_event_store<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if !view.has([Member::MetaTimestamp]) && !view.has([Member::MetaCorrelation]) {
        return;
    }
    view.take_all(
        found,
        [
            (Field::EventId, Member::EventId),
            (Field::EventType, Member::EventType),
            (Field::TransactionId, Member::MetaCorrelation),
            (Field::CausationId, Member::MetaCausation),
        ],
    );
}

/// eventide-project/messaging@82ae099: a message is named by its stream and its place there.
fn eventide<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    view.take_all(
        found,
        [
            (Field::EventId, Member::Id),
            (Field::EventType, Member::Type),
            (Field::TransactionId, Member::EventideFlow),
        ],
    );
    if let (Some(stream), Some(position)) =
        (view.member(Member::EventideStream), view.member(Member::EventidePosition))
    {
        let cause = format!("{}/{}", stream.as_str(), position.as_str());
        made(found, Field::CausationId, cause, Member::EventideStream);
    }
}

/// ThreeDotsLabs/watermill@c9b951f, the forwarder's envelope.
fn watermill<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    view.take_all(
        found,
        [
            (Field::EventId, Member::Uuid),
            (Field::EventType, Member::MetaName),
            (Field::TransactionId, Member::MetaCorrelation),
        ],
    );
}

/// Bogdanp/dramatiq@848b35f
fn dramatiq<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    view.take_all(found, [(Field::EventId, Member::MessageId), (Field::EventType, Member::Actor)]);
    found.is_command = true;
}

/// Those that say little: `KurrentDB`'s metadata (EventStore/EventStore@3f1acb7), go-micro's topic
/// (micro/plugins@be3f35c), Faust's model (faust-streaming/faust@181b184), and Debezium's change
/// events (debezium/debezium@aad5519), whose transactions are the database's and no flow's.
fn small_ones<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    view.take_all(
        found,
        [
            (Field::TransactionId, Member::KurrentCorrelation),
            (Field::CausationId, Member::KurrentCausation),
            (Field::EventType, Member::MicroTopic),
            (Field::EventType, Member::FaustName),
        ],
    );
    for [op, connector, schema, db, table] in [
        [
            Member::Op,
            Member::SourceConnector,
            Member::SourceSchema,
            Member::SourceDb,
            Member::SourceTable,
        ],
        [
            Member::WrappedOp,
            Member::WrappedConnector,
            Member::WrappedSchema,
            Member::WrappedDb,
            Member::WrappedTable,
        ],
    ] {
        if let (Some(op), Some(_), Some(within), Some(name)) = (
            view.member(op),
            view.member(connector),
            view.member(schema).or_else(|| view.member(db)),
            view.member(table),
        ) && op.len() == 1
        {
            let name = format!("{}.{}.{}", within.as_str(), name.as_str(), op.as_str());
            made(found, Field::EventType, name, table);
        }
    }
}

/// Offers what was put together from several members, unless it became too long.
fn made(found: &mut Found<'_>, field: Field, text: String, from: Member) {
    if is_id(&text) {
        found.offer(field, Text::Owned(text), from.from(), None);
    }
}
