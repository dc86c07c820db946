//! Frameworks that put a message's ids into headers of their own. Names that nothing else has come
//! first of all; what only a few headers together tell comes behind the names that teams make up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::headers::{Name, bits};
use super::{Field, Found, View};
use crate::identify::System;
use crate::identify::text::{Text, is_absent, is_small_number_or_flag};
use flowtap_record::Value;

const OWN: u128 = bits(&[
    Name::NsbId,
    Name::NsbTypes,
    Name::NsbConversation,
    Name::MtType,
    Name::RebusId,
    Name::CapId,
    Name::AxonId,
    Name::WatermillId,
    Name::KurrentCorrelation,
    Name::KurrentCausation,
    Name::EnqueueTopic,
    Name::EnqueueCommand,
    Name::MicroTopic,
    Name::TaskId,
]);

/// Headers whose names are a framework's own.
pub(super) fn detect<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if !view.heads.any(OWN) {
        return;
    }
    nservicebus(view, found);
    rebus(view, found);
    cap(view, found);
    axon(view, found);
    // MassTransit/MassTransit@c1e5caa, its raw JSON; the other names are those that teams use.
    if let Some((text, from, at)) = view.named(Name::MtType) {
        found.offer(Field::EventType, first_of(text, b';'), from, Some(at));
        view.offer(found, Field::CausationId, Name::MtInitiator);
    }
    // ThreeDotsLabs/watermill@c9b951f
    if view.heads.any(Name::WatermillId.bit()) {
        view.offer(found, Field::EventId, Name::WatermillId);
        view.offer(found, Field::EventType, Name::WatermillType);
    }
    // EventStore/EventStore@3f1acb7
    view.offer(found, Field::TransactionId, Name::KurrentCorrelation);
    view.offer(found, Field::CausationId, Name::KurrentCausation);
    // php-enqueue/enqueue-dev@f5759ec
    view.offer(found, Field::EventType, Name::EnqueueTopic);
    view.offer(found, Field::EventType, Name::EnqueueCommand);
    found.is_command |= view.heads.any(Name::EnqueueCommand.bit());
    // micro/plugins@be3f35c
    view.offer(found, Field::EventType, Name::MicroTopic);
    // PyPI taskiq-aio-pika 0.6.1
    if view.heads.any(Name::TaskId.bit()) && view.heads.any(Name::TaskType.bit()) {
        view.offer(found, Field::EventId, Name::TaskId);
        view.offer(found, Field::EventType, Name::TaskType);
        found.is_command = true;
    }
}

/// Particular/NServiceBus@1d53488
fn nservicebus<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if !view.heads.any(bits(&[Name::NsbId, Name::NsbTypes, Name::NsbConversation])) {
        return;
    }
    view.offer(found, Field::EventId, Name::NsbId);
    if let Some((text, from, at)) = view.named(Name::NsbTypes) {
        found.offer(Field::EventType, class_name(text), from, Some(at));
    }
    view.offer(found, Field::TransactionId, Name::NsbConversation);
    view.offer(found, Field::CausationId, Name::NsbRelated);
    found.is_command |= view.named(Name::NsbIntent).is_some_and(|(text, ..)| text == "Send");
}

/// rebus-org/Rebus@30f9db9
fn rebus<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if !view.heads.any(Name::RebusId.bit()) {
        return;
    }
    view.offer(found, Field::EventId, Name::RebusId);
    if let Some((text, from, at)) = view.named(Name::RebusType) {
        found.offer(Field::EventType, class_name(text), from, Some(at));
    }
    view.offer(found, Field::TransactionId, Name::RebusCorrelation);
    view.offer(found, Field::CausationId, Name::RebusReply);
}

/// dotnetcore/CAP@e52b850. The correlation id of a callback's answer, which counts its depth, is
/// the id of what it answers.
fn cap<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if !view.heads.any(Name::CapId.bit()) {
        return;
    }
    view.offer(found, Field::EventId, Name::CapId);
    view.offer(found, Field::EventType, Name::CapType);
    let is_answer = view
        .named(Name::CapSequence)
        .and_then(|(text, ..)| text.parse::<u64>().ok())
        .is_some_and(|depth| depth > 0);
    let field = if is_answer { Field::CausationId } else { Field::TransactionId };
    view.offer(found, field, Name::CapCorrelation);
}

/// Axon: in Axon 4 `correlationId` is the cause and `traceId` the flow; in Axon 5
/// `correlationId` is the flow and `causationId` the cause.
fn axon<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if !view.heads.any(Name::AxonId.bit()) {
        return;
    }
    view.offer(found, Field::EventId, Name::AxonId);
    view.offer(found, Field::EventType, Name::AxonType);
    let (transaction, causation) =
        if view.heads.any(Name::AxonTrace.bit()) && !view.heads.any(Name::AxonCausation.bit()) {
            (Name::AxonTrace, Name::AxonCorrelation)
        } else {
            (Name::AxonCorrelation, Name::AxonCausation)
        };
    view.offer(found, Field::TransactionId, transaction);
    view.offer(found, Field::CausationId, causation);
}

const PLAIN: u128 = bits(&[
    Name::Wolverine,
    Name::Intent,
    Name::SpringType,
    Name::RpcCorrelation,
    Name::FaustReplyTo,
    Name::Breadcrumb,
    Name::LongRunningAction,
    Name::Id,
]);

/// What several headers together tell, or one that says little by itself.
pub(super) fn detect_weak<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if !view.heads.any(PLAIN) {
        return;
    }
    if view.heads.any(Name::Id.bit()) && view.content.system == System::Kafka {
        outbox(view, found);
        // JasperFx/wolverine@a4b6f5b
        if view.heads.any(Name::Wolverine.bit()) {
            view.offer(found, Field::EventId, Name::Id);
        }
    }
    // BrighterCommand/Brighter@4032a06: an intent, no type.
    found.is_command |= view.named(Name::Intent).is_some_and(|(text, ..)| text == "MT_COMMAND");
    request_or_reply(view, found);
    // apache/camel; MicroProfile's long running actions.
    view.offer(found, Field::TransactionId, Name::Breadcrumb);
    view.offer(found, Field::TransactionId, Name::LongRunningAction);
    // spring-projects/spring-kafka@3f3cf7d, spring-amqp@94df521: the class of the value.
    view.offer(found, Field::EventType, Name::SpringType);
}

const OUTBOX: u128 = bits(&[
    Name::EventType,
    Name::EventTypeScore,
    Name::EventTypeDash,
    Name::AggregateType,
    Name::AggregateTypeScore,
    Name::AggregateId,
    Name::AggregateIdScore,
]);

/// Debezium's outbox event router (debezium/debezium@aad5519): `id`, and the type where it is told
/// to add that. Connect writes bytes as base64, so that an id may be a UUID in that.
fn outbox<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let routed = view.content.destination.starts_with(b"outbox.event.");
    if !routed && !view.heads.any(OUTBOX) {
        return;
    }
    if let Some((text, from, at)) = view.named(Name::Id) {
        let text = uuid_in_base64(&text).map_or(text, Text::Owned);
        if routed || !is_small_number_or_flag(&text) {
            found.offer(Field::EventId, text, from, Some(at));
        }
    }
    if routed {
        view.offer(found, Field::EventType, Name::Type);
    }
}

fn uuid_in_base64(text: &str) -> Option<String> {
    let bytes: [u8; 16] = match text.len() {
        24 => STANDARD.decode(text).ok()?.try_into().ok()?,
        _ => return None,
    };
    Some(Uuid::from_bytes(bytes).to_string())
}

/// Requests over Kafka of Spring (spring-projects/spring-kafka@3f3cf7d), whose id is 16 bytes unless
/// told otherwise, of `NestJS` (npm @nestjs/microservices 12.1.1) and Faust
/// (faust-streaming/faust@181b184): the id is the request's own, and names it in the reply.
fn request_or_reply<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if view.heads.any(Name::FaustReplyTo.bit()) {
        view.offer(found, Field::EventId, Name::FaustCorrelation);
    }
    let Some((at, _)) = view.heads.place(Name::RpcCorrelation) else { return };
    let is_request = view.heads.any(bits(&[Name::RpcReplyTopic, Name::RpcReplyPartition]))
        && !view.heads.any(bits(&[Name::NestDisposed, Name::NestError]));
    let field = if is_request { Field::EventId } else { Field::CausationId };
    if let Some((text, from, at)) = view.named(Name::RpcCorrelation) {
        found.offer(field, text, from, Some(at));
        return;
    }
    let (name, value) = &view.content.headers[at];
    if let Value::Bytes(bytes) = value
        && let Ok(bytes) = <[u8; 16]>::try_from(*bytes)
        && bytes != [0; 16]
        && !view.recorder.is_redacted(name)
    {
        let text = Text::Owned(Uuid::from_bytes(bytes).to_string());
        found.offer(field, text, Text::Lent(Name::RpcCorrelation.from()), Some(at));
    }
}

/// The first of a list.
fn first_of(text: Text<'_>, between: u8) -> Text<'_> {
    cut(text, |text| text.bytes().position(|byte| byte == between))
}

/// The name of the first of .NET's classes: `Shop.OrderPlaced, Shop, Version=1.0;...`. A generic
/// one has others in brackets.
fn class_name(text: Text<'_>) -> Text<'_> {
    cut(text, |text| {
        let mut depth = 0_usize;
        text.bytes().position(|byte| {
            match byte {
                b'[' => depth += 1,
                b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && matches!(byte, b',' | b';')
        })
    })
}

/// The text up to there, or all of it where nothing stands before; cuts before an ASCII character.
fn cut(text: Text<'_>, at: impl Fn(&str) -> Option<usize>) -> Text<'_> {
    match (at(&text).filter(|end| !is_absent(&text[..*end])), text) {
        (Some(end), Text::Lent(text)) => Text::Lent(text[..end].trim_end()),
        (Some(end), text) => Text::Owned(text[..end].trim_end().to_owned()),
        (None, text) => text,
    }
}
