//! CloudEvents 1.0 (cloudevents/spec@c2845a4): binary mode in headers, structured mode in a JSON
//! body. On Kafka the attributes' prefix is `ce_`; on AMQP 0-9-1 they stand in the header table,
//! with `:` or `_` behind the prefix. The Correlation extension gives transaction and causation.

use super::envelopes::Member;
use super::headers::{Name, bits};
use super::{Field, Found, View, offer_trace};
use crate::identify::text::{Text, is_uuid, traceparent};

/// One attribute in Kafka's spelling and the two of AMQP.
type Spellings = [Name; 3];

const ID: Spellings = [Name::CeId, Name::ColonId, Name::ScoreId];
const TYPE: Spellings = [Name::CeType, Name::ColonType, Name::ScoreType];
const SOURCE: Spellings = [Name::CeSource, Name::ColonSource, Name::ScoreSource];
const CORRELATION: Spellings =
    [Name::CeCorrelation, Name::ColonCorrelation, Name::ScoreCorrelation];
const CAUSATION: Spellings = [Name::CeCausation, Name::ColonCausation, Name::ScoreCausation];
const TRACEPARENT: Spellings =
    [Name::CeTraceparent, Name::ColonTraceparent, Name::ScoreTraceparent];
const TRACE: Spellings = [Name::CeTrace, Name::ColonTrace, Name::ScoreTrace];

const ALL: u128 = bits(&ID)
    | bits(&TYPE)
    | bits(&CORRELATION)
    | bits(&CAUSATION)
    | bits(&TRACEPARENT)
    | bits(&TRACE);

pub(super) fn detect<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if view.heads.any(ALL) {
        detect_binary(view, found);
    }
    detect_structured(view, found);
}

fn detect_binary<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let named = |spellings: Spellings| {
        let place = |name: &Name| view.heads.place(*name);
        let exact = spellings.into_iter().find(|name| place(name).is_some_and(|(_, exact)| exact));
        view.named(exact.or_else(|| spellings.into_iter().find(|name| place(name).is_some()))?)
    };
    let mut offer = |field, spellings| {
        if let Some((text, from, at)) = named(spellings) {
            found.offer(field, text, from, Some(at));
        }
    };
    offer(Field::EventId, ID);
    if named(TYPE).is_some_and(|(text, ..)| says_something(&text)) {
        offer(Field::EventType, TYPE);
    }
    // Axon 4's converter has these the other way round.
    if named(SOURCE).is_some_and(|(text, ..)| text.starts_with("https://www.axoniq.io/"))
        && named(TRACE).is_some()
        && named(CAUSATION).is_none()
    {
        offer(Field::TransactionId, TRACE);
        offer(Field::CausationId, CORRELATION);
    } else {
        offer(Field::TransactionId, CORRELATION);
        offer(Field::CausationId, CAUSATION);
    }
    if let Some((text, from, at)) = named(TRACEPARENT) {
        // The header `traceparent` is the hop's and stands before this one, which is the start's.
        super::trace::detect_header(view, found);
        offer_trace(found, &text, &from, Some(at));
    }
    if let Some((text, from, at)) = named(TRACE) {
        traceid(found, &text, &from, Some(at), view);
    }
}

/// The extension `traceid`: a whole `traceparent` from Dapr, the flow's correlation id from
/// Wolverine unless that is the trace's id itself.
fn traceid<'a>(
    found: &mut Found<'a>,
    text: &Text<'a>,
    from: &Text<'static>,
    header: Option<usize>,
    view: &View<'_, 'a>,
) {
    if traceparent(text).is_some() {
        super::trace::detect_header(view, found);
        offer_trace(found, text, from, header);
    } else if is_uuid(text) && text.contains('-') {
        found.offer(Field::TransactionId, text.clone(), from.clone(), header);
    }
}

/// What libraries write when nobody named the event.
fn says_something(event_type: &str) -> bool {
    !matches!(event_type, "com.dapr.event.sent" | "goparamore.io.Paramore.Brighter.Message")
}

fn detect_structured<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if view.body.is_empty() {
        return;
    }
    let declared = view.content.content_type.is_some_and(|content_type| {
        const TYPE: &[u8] = b"application/cloudevents";
        content_type.get(..TYPE.len()).is_some_and(|head| head.eq_ignore_ascii_case(TYPE))
    });
    // A bare `id` in a body is the id of anything; all four together are an envelope.
    if !declared && !view.has([Member::SpecVersion, Member::Source, Member::Id, Member::Type]) {
        return;
    }
    view.take(found, Field::EventId, Member::Id);
    if view.member(Member::Type).is_some_and(|text| says_something(text)) {
        view.take(found, Field::EventType, Member::Type);
    }
    view.take(found, Field::TransactionId, Member::Correlation);
    view.take(found, Field::CausationId, Member::Causation);
    if let Some(text) = view.member(Member::Traceparent) {
        super::trace::detect_header(view, found);
        offer_trace(found, text, &Member::Traceparent.from(), None);
    }
    if let Some(text) = view.member(Member::TraceId) {
        traceid(found, text, &Member::TraceId.from(), None, view);
    }
}
