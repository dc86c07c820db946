//! The consuming side of a channel: who consumes from where, deliveries, and how each of them ends.
//! Every delivery gets exactly one `settle` row, whatever ends it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use flowtap_record::{Fingerprint, Kind, Micros, Outcome, Seq, Value, escape_bytes};
use serde_json::json;

use super::content::{Assembly, fill_message};
use super::context::Context;
use super::method::Method;
use super::topology::table_json;
use super::wire::{Table, lookup};
use crate::identify::PayloadWhen;
use crate::tap::kept::{Kept, Repeat};

/// A consumer as asked for.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    /// The queue's name as rows have it; `None` until "the last declared queue" is resolved.
    pub(crate) queue: Option<String>,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) prefetch: Option<u16>,
    /// The bound that it shares with the channel's other consumers (basic.qos with `global`).
    pub(crate) channel_prefetch: Option<u16>,
    /// Arguments as JSON, `x-priority` among them.
    pub(crate) arguments: serde_json::Value,
}

#[derive(Default)]
pub(crate) struct Consumers {
    by_tag: HashMap<Box<[u8]>, Consumer>,
    /// Consumers with an empty tag and nowait: the broker's tag is first seen in a deliver.
    unnamed: VecDeque<Consumer>,
    /// Consumers that ended without waiting for the broker, the newest last: it may have sent them
    /// more in the meantime.
    ended: VecDeque<Ended>,
    open: BTreeMap<u64, Kept>,
    /// In a transaction: settled by the client, not yet committed.
    uncommitted: Vec<Uncommitted>,
    /// basic.get requests whose answer is being received.
    got: Option<Got>,
}

/// What a late delivery must know of its consumer.
struct Ended {
    tag: Box<[u8]>,
    queue: Option<String>,
    no_ack: bool,
}

/// So many consumers that were cancelled without waiting are remembered on a channel.
const MAX_ENDED: usize = 256;

struct Uncommitted {
    tag: u64,
    kept: Kept,
    outcome: Outcome,
    multiple: bool,
}

/// What a basic.get asked for.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) queue: Option<String>,
    pub(crate) no_ack: bool,
}

/// Why deliveries end without the client's word.
pub(crate) struct End<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) reason: &'a str,
}

impl Consumers {
    /// A consumer is there: its `session` row.
    pub(crate) fn opened(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        tag: &[u8],
        consumer: Consumer,
    ) {
        if tag.is_empty() {
            self.unnamed.push_back(consumer);
            return;
        }
        let details = json!({
            "what": "consumer",
            "no_ack": consumer.no_ack,
            "exclusive": consumer.exclusive,
            "prefetch": consumer.prefetch,
            "channel_prefetch": consumer.channel_prefetch,
            "priority": consumer.arguments.get("x-priority"),
            "arguments": consumer.arguments,
        })
        .to_string();
        session_row(
            cx,
            channel,
            tag,
            consumer.queue.as_deref(),
            Outcome::Opened,
            None,
            Some(&details),
        );
        self.by_tag.insert(tag.into(), consumer);
    }

    /// A consumer is gone. Its deliveries stay open: they can still be acknowledged.
    pub(crate) fn closed(&mut self, cx: &mut Context<'_>, channel: u16, tag: &[u8], reason: &str) {
        self.close(cx, channel, tag, reason);
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_front();
        }
    }

    fn close(&mut self, cx: &mut Context<'_>, channel: u16, tag: &[u8], reason: &str) {
        if let Some(consumer) = self.by_tag.remove(tag) {
            let queue = consumer.queue.as_deref();
            let details = Some(r#"{"what":"consumer"}"#);
            session_row(cx, channel, tag, queue, Outcome::Closed, Some(reason), details);
            self.remember(tag, consumer);
        }
    }

    /// A consumer is gone, and what the broker has sent it may still be on its way.
    fn remember(&mut self, tag: &[u8], consumer: Consumer) {
        let Consumer { queue, no_ack, .. } = consumer;
        self.ended.push_back(Ended { tag: tag.into(), queue, no_ack });
    }

    /// The broker agrees to a consumer whose channel the client is closing already: it lives only
    /// for what is on its way.
    pub(crate) fn opened_late(&mut self, tag: &[u8], consumer: Consumer) {
        self.remember(tag, consumer);
    }

    /// The answer to a basic.get is about to come.
    pub(crate) fn got(&mut self, got: Option<Got>) {
        self.got = got;
    }

    /// A message for the client is complete. `closing`: the channel is on its way out, so the
    /// delivery is open only for this moment.
    pub(crate) fn delivered(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        assembly: &Assembly,
        closing: bool,
    ) {
        let (consumer, tag, redelivered, exchange, routing_key) =
            match Method::decode(&assembly.method) {
                Ok(Method::Deliver { consumer, tag, redelivered, exchange, routing_key }) => {
                    (Some(consumer), tag, redelivered, exchange, routing_key)
                }
                Ok(Method::GetOk { tag, redelivered, exchange, routing_key }) => {
                    (None, tag, redelivered, exchange, routing_key)
                }
                _ => return cx.undecodable("deliver", channel),
            };
        let (queue, no_ack) = match consumer {
            Some(consumer) => self.source(cx, channel, consumer, closing),
            None => self.got.take().map_or((None, false), |got| (got.queue, got.no_ack)),
        };

        let complete = assembly.message();
        let headers = &complete.header.headers;
        let content = complete.content(exchange, routing_key);
        let identified = cx.env.identifier.identify(&content);
        let message = complete.digest.map(Fingerprint::text);
        let (destination, key) = (escape_bytes(exchange), escape_bytes(routing_key));
        let content_type = complete.header.content_type.map(escape_bytes);
        let consumer = consumer.map(escape_bytes);
        let payload = complete.payload(cx, PayloadWhen::Passed);
        let mut details = serde_json::Map::new();
        if consumer.is_none() {
            details.insert("get".into(), true.into());
        }
        if !complete.decodable {
            cx.undecodable("headers", channel);
            details.insert("undecodable".into(), "headers".into());
        }
        if payload.as_ref().is_some_and(|payload| payload.cut) {
            details.insert("payload".into(), "truncated".into());
        }
        let death = newest_death(headers);
        if let Some(death) = &death {
            details.insert("death".into(), death.clone());
        }
        // The count that a queue's delivery limit is held against.
        if let Some(count) = integer(headers, "x-delivery-count") {
            details.insert("delivery_count".into(), count.into());
        }
        let details = (!details.is_empty()).then(|| serde_json::Value::from(details).to_string());

        let mut row = cx.row(Kind::Deliver, Some(channel));
        fill_message(&mut row, &complete, &identified, message.as_deref(), content_type.as_deref());
        row.details = details.as_deref();
        row.reason = death.as_ref().and_then(|death| death["reason"].as_str());
        row.message.payload = payload.as_ref().map(|payload| payload.bytes.as_ref());
        row.place.destination = Some(&destination);
        row.place.routing_key = Some(&key);
        row.place.subscription = queue.as_deref();
        row.place.log_offset = integer(headers, "x-stream-offset");
        row.who.consumer = consumer.as_deref();
        row.who.delivery_tag = Some(tag as i64);
        row.broker_at = broker_time(headers);
        row.session.redelivered = Some(redelivered);
        row.session.attempt = attempt(headers, queue.as_deref(), redelivered);
        let seq = cx.record(&row);

        let failed = complete.payload(cx, PayloadWhen::Failed);
        let repeat = Repeat {
            message: message.as_deref(),
            ids: row.message.ids,
            destination: Some(&destination),
            routing_key: Some(&key),
            subscription: queue.as_deref(),
            consumer: consumer.as_deref(),
            attempt: row.session.attempt,
            redelivered: Some(redelivered),
            log_offset: row.place.log_offset,
            ..Repeat::default()
        };
        let kept = cx.keep(seq, &repeat, failed.as_ref());
        if no_ack {
            settle(cx, channel, tag, &kept, Outcome::Auto, None, None, None);
        } else if closing {
            settle(
                cx,
                channel,
                tag,
                &kept,
                Outcome::Abandoned,
                Some("channel closing"),
                None,
                None,
            );
        } else if let Some(earlier) = self.open.insert(tag, kept) {
            // No broker does that; but every delivery gets its settle row, whatever happens.
            let reason = Some("delivery tag used again");
            settle(cx, channel, tag, &earlier, Outcome::Abandoned, reason, None, None);
        }
    }

    /// Queue and mode of a consumer tag.
    fn source(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        tag: &[u8],
        closing: bool,
    ) -> (Option<String>, bool) {
        if let Some(consumer) = self.by_tag.get(tag) {
            return (consumer.queue.clone(), consumer.no_ack);
        }
        if let Some(ended) = self.ended.iter().rev().find(|ended| *ended.tag == *tag) {
            return (ended.queue.clone(), ended.no_ack);
        }
        let Some(consumer) = self.unnamed.pop_front() else { return (None, false) };
        let source = (consumer.queue.clone(), consumer.no_ack);
        if closing {
            self.remember(tag, consumer);
        } else {
            self.opened(cx, channel, tag, consumer);
        }
        source
    }

    /// Whether a settlement may name this tag. RabbitMQ closes the channel for any other, and
    /// settles nothing of it, not even with `multiple`.
    pub(crate) fn knows(&self, tag: u64, multiple: bool) -> bool {
        (multiple && tag == 0) || self.open.contains_key(&tag)
    }

    /// basic.ack, basic.nack or basic.reject from the client, of a tag that it [`Self::knows`].
    /// Returns the newest row that it concludes.
    pub(crate) fn settled(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
        broker_txn: Option<&str>,
    ) -> Option<Seq> {
        let all = multiple && tag == 0;
        let mut newest = None;
        loop {
            let number = if multiple {
                match self.open.first_key_value() {
                    Some((first, _)) if all || *first <= tag => *first,
                    _ => break,
                }
            } else {
                tag
            };
            let Some(kept) = self.open.remove(&number) else { break };
            newest = newest.max(kept.seq());
            if broker_txn.is_some() {
                self.uncommitted.push(Uncommitted { tag: number, kept, outcome, multiple });
            } else {
                settle(cx, channel, number, &kept, outcome, None, Some(multiple), None);
            }
            if !multiple {
                break;
            }
        }
        newest
    }

    /// tx.commit-ok: what was settled in the transaction is settled now.
    pub(crate) fn committed(&mut self, cx: &mut Context<'_>, channel: u16, broker_txn: &str) {
        for item in std::mem::take(&mut self.uncommitted) {
            let (kept, multiple) = (&item.kept, Some(item.multiple));
            settle(cx, channel, item.tag, kept, item.outcome, None, multiple, Some(broker_txn));
        }
    }

    /// The channel ends before the broker has answered tx.commit: these may be settled, or open.
    pub(crate) fn unanswered(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        broker_txn: &str,
        reason: &str,
    ) {
        let reason = unanswered(reason);
        for item in std::mem::take(&mut self.uncommitted) {
            let (kept, multiple) = (&item.kept, Some(item.multiple));
            let (outcome, reason) = (Outcome::Abandoned, Some(reason.as_str()));
            settle(cx, channel, item.tag, kept, outcome, reason, multiple, Some(broker_txn));
        }
    }

    /// tx.rollback-ok: they are open again, under the same tags.
    pub(crate) fn rolled_back(&mut self) {
        for item in std::mem::take(&mut self.uncommitted) {
            self.open.insert(item.tag, item.kept);
        }
    }

    /// All that is open ends: recovered, or its channel is gone. Returns the newest row concluded.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>, channel: u16, end: &End<'_>) -> Option<Seq> {
        self.rolled_back();
        let mut newest = None;
        for (tag, kept) in std::mem::take(&mut self.open) {
            newest = newest.max(kept.seq());
            settle(cx, channel, tag, &kept, end.outcome, Some(end.reason), None, None);
        }
        newest
    }

    /// The channel is gone, and its consumers with it. Who they were is remembered: what the broker
    /// sent them before it knew is still to come.
    pub(crate) fn clear(&mut self, cx: &mut Context<'_>, channel: u16, reason: &str) {
        self.end(cx, channel, &End { outcome: Outcome::Abandoned, reason });
        let tags: Vec<Box<[u8]>> = self.by_tag.keys().cloned().collect();
        for tag in tags {
            self.close(cx, channel, &tag, reason);
        }
    }

    /// How the deliveries that are open end can't be seen any more.
    pub(crate) fn lose_sight(&mut self) {
        self.open.clear();
        self.uncommitted.clear();
        self.got = None;
    }
}

#[allow(clippy::too_many_arguments)] // one line of a table, not a bag of options
fn settle(
    cx: &mut Context<'_>,
    channel: u16,
    tag: u64,
    kept: &Kept,
    outcome: Outcome,
    reason: Option<&str>,
    multiple: Option<bool>,
    broker_txn: Option<&str>,
) {
    let mut row = cx.row(Kind::Settle, Some(channel));
    kept.fill(&mut row);
    row.outcome = Some(outcome);
    row.reason = reason;
    let failed = !matches!(outcome, Outcome::Acked | Outcome::Auto);
    let details = kept.details(multiple, failed);
    row.details = details.as_deref();
    if failed {
        row.message.payload = kept.payload();
    }
    row.who.delivery_tag = Some(tag as i64);
    row.session.took_us = Some(cx.now.since(kept.at));
    row.session.broker_txn = broker_txn;
    cx.record(&row);
}

/// Why it is not known whether a transaction was committed.
pub(crate) fn unanswered(reason: &str) -> String {
    format!("tx.commit unanswered; {reason}")
}

fn session_row(
    cx: &mut Context<'_>,
    channel: u16,
    tag: &[u8],
    queue: Option<&str>,
    outcome: Outcome,
    reason: Option<&str>,
    details: Option<&str>,
) {
    let tag = escape_bytes(tag);
    let mut row = cx.row(Kind::Session, Some(channel));
    row.outcome = Some(outcome);
    row.reason = reason;
    row.details = details;
    row.place.subscription = queue;
    row.who.consumer = Some(&tag);
    cx.record(&row);
}

fn integer(headers: &Table<'_>, name: &str) -> Option<i64> {
    match lookup(headers, name) {
        Some(Value::Int(value)) => Some(*value),
        _ => None,
    }
}

/// When the broker got it, where it is set up to say so.
fn broker_time(headers: &Table<'_>) -> Option<Micros> {
    let millis = integer(headers, "timestamp_in_ms").filter(|millis| *millis > 0)?;
    millis.checked_mul(1000).map(Micros)
}

/// Which attempt this is, from 1, where the broker tells: quorum queues count attempts
/// (`x-acquired-count`, before 4.0 `x-delivery-count`), dead-lettering counts deaths by queue. A
/// message that expired in the queue, or had no room there, was not attempted.
fn attempt(headers: &Table<'_>, queue: Option<&str>, redelivered: bool) -> Option<i32> {
    let counted =
        integer(headers, "x-acquired-count").or_else(|| integer(headers, "x-delivery-count"));
    let deaths: i64 = deaths(headers)
        .filter(|death| {
            let name = super::wire::lookup_bytes(death, "queue").map(escape_bytes);
            let attempted = matches!(
                super::wire::lookup_bytes(death, "reason"),
                Some(b"rejected" | b"delivery_limit")
            );
            attempted && name.is_some() && name.as_deref() == queue
        })
        .filter_map(|death| integer(death, "count"))
        .sum();
    if counted.is_none() && redelivered {
        return None;
    }
    i32::try_from(1 + counted.unwrap_or(0).max(0) + deaths.max(0)).ok()
}

/// The entries of `x-death`, the newest first.
fn deaths<'t, 'a>(headers: &'t Table<'a>) -> impl Iterator<Item = &'t Table<'a>> {
    let entries = match lookup(headers, "x-death") {
        Some(Value::Array(entries)) => entries.as_slice(),
        _ => &[],
    };
    entries.iter().filter_map(|entry| match entry {
        Value::Table(entry) => Some(entry),
        _ => None,
    })
}

/// Why and where from a dead-lettered message comes: the newest entry of `x-death`.
fn newest_death(headers: &Table<'_>) -> Option<serde_json::Value> {
    let mut death = table_json(deaths(headers).next()?);
    death["deaths"] = deaths(headers).count().into();
    Some(death)
}
