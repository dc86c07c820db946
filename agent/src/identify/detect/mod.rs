//! The built-in detectors, strongest first: each looks for the ids of one convention and offers
//! what it finds. The first offer for a field stands, so that order is precedence. A further
//! framework is one more module here and one more line in [`DETECTORS`].

mod cloudevents;
mod envelopes;
mod frameworks;
mod generic;
mod headers;
mod properties;
mod trace;

use flowtap_record::{Id, Value};

use super::json::BodyFacts;
use super::record::HeaderRecorder;
use super::text::{Text, id_of_record_header, id_of_value};
use super::{Content, System};
use headers::{ByLength, Name, counted};

pub(super) use envelopes::{MARKS, Slots, is_declared};
pub(super) use headers::Heads;
#[cfg(test)]
pub(super) use headers::known_names;
pub(super) use trace::offer as offer_trace;

/// One convention: looks at a message and offers what it finds.
type Detector = for<'a> fn(&View<'_, 'a>, &mut Found<'a>);

/// Strongest first. Configured rules come before all of them.
const DETECTORS: &[Detector] = &[
    frameworks::detect,
    cloudevents::detect,
    envelopes::detect,
    generic::detect,
    properties::detect,
    // Names that mean an id only where nothing clearer is there.
    frameworks::detect_weak,
    generic::detect_weak,
    trace::detect,
];

/// Lets every detector look.
pub(super) fn detect<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    for detector in DETECTORS {
        detector(view, found);
    }
    if found.is_command {
        found.copy(Field::EventType, Field::Command);
        found.copy(Field::EventId, Field::CommandId);
    }
}

/// One message as detectors see it.
pub(super) struct View<'m, 'a> {
    pub(super) content: &'m Content<'a>,
    pub(super) body: &'m BodyFacts<'a>,
    pub(super) heads: &'m Heads,
    pub(super) envelope: &'m Slots,
    pub(super) recorder: &'m HeaderRecorder,
}

impl<'a> View<'_, 'a> {
    /// The header of this name: exactly so, else without regard to case.
    pub(super) fn header(&self, name: &[u8]) -> Option<(usize, &'a Value<'a>)> {
        let exact = counted(self.content).find(|(_, other, _)| *other == name);
        exact
            .or_else(|| {
                counted(self.content).find(|(_, other, _)| other.eq_ignore_ascii_case(name))
            })
            .map(|(at, _, value)| (at, value))
    }

    /// The value of a header as an id.
    pub(super) fn id_of(&self, value: &Value<'a>) -> Option<Text<'a>> {
        match (self.content.system, value) {
            (System::Kafka, Value::Bytes(bytes)) => id_of_record_header(bytes),
            _ => id_of_value(value),
        }
    }

    /// The value of the header there as an id, unless it is to be redacted. For names that detectors
    /// know: none of them is one that is never recorded.
    fn id_at(&self, at: usize) -> Option<Text<'a>> {
        let (name, value) = &self.content.headers[at];
        self.id_of(value).filter(|_| !self.recorder.is_redacted(name))
    }

    /// The value of a known header as an id, and where it came from.
    fn named(&self, name: Name) -> Option<(Text<'a>, Text<'static>, usize)> {
        let (at, exact) = self.heads.place(name)?;
        let text = self.id_at(at)?;
        let from =
            if exact { Text::Lent(name.from()) } else { from_header(self.content.headers[at].0) };
        Some((text, from, at))
    }

    /// Offers the value of a known header, if there is one.
    fn offer(&self, found: &mut Found<'a>, field: Field, name: Name) {
        if let Some((text, from, at)) = self.named(name) {
            found.offer(field, text, from, Some(at));
        }
    }
}

/// The fields of a row that detectors fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    EventId,
    EventType,
    TransactionId,
    CausationId,
    Command,
    CommandId,
    TraceId,
    SpanId,
}

impl Field {
    pub(super) const COUNT: usize = 8;
}

/// An id, where it came from, and the header that gave it.
#[derive(Clone, Debug)]
pub(super) struct FoundId<'a> {
    value: Text<'a>,
    from: Text<'static>,
    header: Option<usize>,
}

impl FoundId<'_> {
    pub(super) fn lend(&self) -> Id<'_> {
        Id { value: &self.value, from: &self.from }
    }
}

/// Who found an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giver {
    Rule,
    Detector,
}

/// What has been found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Found<'a> {
    ids: [Option<FoundId<'a>>; Field::COUNT],
    /// Whether a framework says that the message is a command.
    is_command: bool,
}

impl<'a> Found<'a> {
    pub(super) fn has(&self, field: Field) -> bool {
        self.ids[field as usize].is_some()
    }

    fn value(&self, field: Field) -> Option<&str> {
        self.ids[field as usize].as_ref().map(|id| id.value.as_str())
    }

    /// Takes the id, unless a stronger one is already there.
    pub(super) fn offer(
        &mut self,
        field: Field,
        value: Text<'a>,
        from: Text<'static>,
        header: Option<usize>,
    ) {
        let place = &mut self.ids[field as usize];
        if place.is_none() {
            *place = Some(FoundId { value, from, header });
        }
    }

    /// What is in one field goes into the other, too, unless something is there.
    fn copy(&mut self, from: Field, to: Field) {
        if let Some(FoundId { value, from, header }) = self.ids[from as usize].clone() {
            self.offer(to, value, from, header);
        }
    }

    /// Who took an id from the header at this place.
    pub(super) fn given_by(&self, header: usize) -> Option<Giver> {
        let mut from_here = self.ids.iter().flatten().filter(|id| id.header == Some(header));
        let first = from_here.next()?;
        let by_rule = |id: &FoundId<'_>| matches!(id.from, Text::Shared(_));
        let all_by_rules = by_rule(first) && from_here.all(by_rule);
        Some(if all_by_rules { Giver::Rule } else { Giver::Detector })
    }

    pub(super) fn into_ids(self) -> [Option<FoundId<'a>>; Field::COUNT] {
        self.ids
    }
}

/// `header:NAME`, without an allocation for the spellings that people use.
fn from_header(name: &[u8]) -> Text<'static> {
    static KNOWN: ByLength<43> = ByLength::new(
        [
            "header:x-correlation-id",
            "header:correlation-id",
            "header:correlation_id",
            "header:correlationId",
            "header:X-Correlation-ID",
            "header:X-Correlation-Id",
            "header:CorrelationId",
            "header:transaction-id",
            "header:transaction_id",
            "header:transactionId",
            "header:x-transaction-id",
            "header:conversation-id",
            "header:conversation_id",
            "header:conversationId",
            "header:ConversationId",
            "header:flow-id",
            "header:x-flow-id",
            "header:causation-id",
            "header:causation_id",
            "header:causationId",
            "header:x-causation-id",
            "header:InitiatorId",
            "header:event-id",
            "header:event_id",
            "header:eventId",
            "header:x-event-id",
            "header:message-id",
            "header:message_id",
            "header:messageId",
            "header:MessageId",
            "header:event-type",
            "header:event_type",
            "header:eventType",
            "header:x-event-type",
            "header:event-name",
            "header:message-type",
            "header:type",
            "header:id",
            "header:command",
            "header:command-name",
            "header:command-id",
            "header:request-id",
            "header:x-request-id",
        ],
        "header:".len(),
    );
    match KNOWN.find(name, |known| known == name) {
        Some(at) => Text::Lent(KNOWN.text(at)),
        None => Text::Owned(format!("header:{}", flowtap_record::escape_bytes(name))),
    }
}

#[cfg(test)]
mod tests;
