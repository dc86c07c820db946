//! Records as rows: what a publish and a delivery say of one record, and what is kept of it.

use std::fmt::Write as _;

use flowtap_record::{Kind, Micros, Value, escape_bytes};

use super::context::{Context, Peer};
use crate::identify::{Content, PayloadWhen};
use crate::tap::kafka::wire::{BatchHead, Codec, Record};
use crate::tap::kept::{Kept, Repeat};

/// Where a record stands, and who has to do with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    /// The group that it was delivered to.
    pub(crate) group: Option<&'a str>,
    /// The member of the group.
    pub(crate) member: Option<&'a str>,
    /// Number of the fetch answer on its connection.
    pub(crate) answer: Option<i64>,
    pub(crate) redelivered: Option<bool>,
    /// Of the transaction that published it.
    pub(crate) broker_txn: Option<&'a str>,
    pub(crate) confirm_expected: Option<bool>,
}

/// Texts that are made for each record, in buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    message: String,
    details: String,
}

/// `cluster/topic/partition/offset`: equal for a record and all its deliveries.
pub(crate) fn message_id(
    out: &mut String,
    cluster: Option<&str>,
    topic: &str,
    partition: i32,
    offset: i64,
) {
    out.clear();
    // Writing to a string cannot fail.
    let _ = write!(out, "{}/{topic}/{partition}/{offset}", cluster.unwrap_or_default());
}

/// Makes the row of a publish or of a delivery, and what the row of its end repeats, if one will
/// come.
pub(crate) fn record(
    cx: &mut Context<'_>,
    peer: &Peer,
    place: &Place<'_>,
    head: &BatchHead,
    record: &Record<'_>,
    texts: &mut Texts,
) -> Option<Kept> {
    let kind = if place.answer.is_none() { Kind::Publish } else { Kind::Deliver };
    let offset = (kind == Kind::Deliver)
        .then(|| head.base_offset.saturating_add(i64::from(record.offset_delta)));
    let headers: Vec<(&[u8], Value<'_>)> = record
        .headers
        .iter()
        .map(|(name, value)| (*name, value.map_or(Value::Void, Value::Bytes)))
        .collect();
    let body = record.value.unwrap_or_default();
    let key = record.key.map(escape_bytes);
    let content = Content::of_record(place.topic.as_bytes(), record.key, &headers, record.value);
    let identified = cx.env.identifier.identify(&content);
    let payload = cx.env.identifier.payload(body, body.len() as u64, PayloadWhen::Passed);
    let content_type = content.content_type.map(escape_bytes);
    let cut = payload.as_ref().is_some_and(|payload| payload.cut);
    details(&mut texts.details, kind, head, record, cut);
    if let Some(offset) = offset {
        message_id(&mut texts.message, cx.cluster, place.topic, place.partition, offset);
    }
    let message = offset.map(|_| texts.message.as_str());

    let mut row = cx.row(kind, peer);
    row.details = (!texts.details.is_empty()).then_some(texts.details.as_str());
    if head.log_append_time && kind == Kind::Deliver {
        row.broker_at = Some(millis(head.max_timestamp));
    }
    row.message.message = message;
    row.message.ids = identified.ids();
    row.message.keys = identified.keys();
    row.message.headers = identified.headers();
    row.message.size = Some(body.len() as i64);
    row.message.content_type = content_type.as_deref();
    row.message.payload = payload.as_ref().map(|payload| payload.bytes.as_ref());
    row.place.destination = Some(place.topic);
    row.place.partition = Some(place.partition);
    row.place.routing_key = key.as_deref();
    row.place.subscription = place.group;
    row.place.log_offset = offset;
    row.who.consumer = place.member;
    row.who.delivery_tag = place.answer;
    row.session.redelivered = place.redelivered;
    row.session.confirm_expected = place.confirm_expected;
    row.session.broker_txn = place.broker_txn;
    let seq = cx.record(&row);

    if place.group.is_none() && place.confirm_expected != Some(true) {
        return None;
    }
    let failed = cx.env.identifier.payload(body, body.len() as u64, PayloadWhen::Failed);
    let repeat = Repeat {
        message,
        ids: row.message.ids,
        destination: Some(place.topic),
        routing_key: key.as_deref(),
        subscription: place.group,
        consumer: place.member,
        redelivered: place.redelivered,
        partition: Some(place.partition),
        log_offset: offset,
        attempt: None,
    };
    Some(cx.keep(seq, &repeat, failed.as_ref().map(|payload| payload.bytes.as_ref())))
}

/// Milliseconds since 1970, as Kafka has times.
pub(crate) fn millis(millis: i64) -> Micros {
    Micros(millis.saturating_mul(1000))
}

/// What has no column: times of the producer, and of a publish what makes it the same one when it
/// is sent again.
fn details(out: &mut String, kind: Kind, head: &BatchHead, record: &Record<'_>, cut: bool) {
    out.clear();
    let mut part = |name: &str, value: &dyn std::fmt::Display| {
        out.push(if out.is_empty() { '{' } else { ',' });
        let _ = write!(out, "\"{name}\":{value}");
    };
    if !(head.log_append_time && kind == Kind::Deliver) && record.timestamp >= 0 {
        part("create_time", &record.timestamp);
    }
    if kind == Kind::Publish {
        if head.producer_id >= 0 {
            part("producer_id", &head.producer_id);
            part("producer_epoch", &head.producer_epoch);
            part("sequence", &head.base_sequence.wrapping_add(record.offset_delta));
        }
        if head.codec != Codec::None {
            part("compression", &format_args!("\"{}\"", head.codec.as_str()));
        }
    }
    if record.value.is_none() {
        part("tombstone", &true);
    }
    if cut {
        part("payload", &"\"truncated\"");
    }
    if !out.is_empty() {
        out.push('}');
    }
}
