//! Records on their way to the broker: one `publish` row each, one `confirm` row when the broker
//! has answered. A batch that an idempotent producer sends again, on whatever connection, is the
//! same publish (producer id, epoch, base sequence: KIP-98).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use flowtap_record::{Kind, Micros, Outcome};
use serde_json::json;

use super::context::{Context, Peer, Unseen};
use super::records::{self, Place, Texts, message_id, millis};
use super::transactions::Transactions;
use crate::tap::kafka::wire::{
    BatchHead, Produced, Scratch, error, error_name, for_each_record, is_retriable,
};
use crate::tap::kept::Kept;

/// So many batches of one partition a broker recognises when they come again.
const WINDOW: usize = 5;
/// After so long no idempotent producer tries again (`delivery.timeout.ms` is two minutes).
const GIVEN_UP_US: i64 = 150_000_000;
/// Larger batches are not read; brokers take 1 MiB unless they are told otherwise.
pub(crate) const MAX_BATCH: usize = 64 << 20;
/// Most that a batch may inflate to.
pub(crate) const MAX_INFLATED: usize = 128 << 20;

/// A batch that waits for its answer, by a number of ours.
pub(crate) type BatchNumber = u64;

/// Which batches are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Line {
    producer_id: i64,
    epoch: i16,
    topic: Arc<str>,
    partition: i32,
}

#[derive(Debug)]
struct Batch {
    topic: Arc<str>,
    partition: i32,
    peer: Arc<Peer>,
    /// Offset delta of each record, and what its confirm repeats.
    records: Vec<(i32, Kept)>,
    broker_txn: Option<Arc<str>>,
    line: Option<Line>,
    sent_at: Micros,
    /// The broker's last answer, when the producer is going to try again.
    refused: Option<i16>,
}

/// A batch seen lately on a line.
#[derive(Clone, Copy, Debug)]
struct Seen {
    base_sequence: i32,
    count: i32,
    number: BatchNumber,
}

/// Everything published and not yet answered, over all connections.
#[derive(Debug, Default)]
pub(crate) struct Publishes {
    next: BatchNumber,
    waiting: HashMap<BatchNumber, Batch>,
    lines: HashMap<Line, VecDeque<Seen>>,
    /// When each line was last used, to forget those of producers that are gone.
    used: HashMap<Line, Micros>,
}

/// Where a batch comes from.
pub(crate) struct Sent<'a> {
    pub(crate) peer: &'a Arc<Peer>,
    pub(crate) topic: &'a Arc<str>,
    pub(crate) partition: i32,
    pub(crate) acks: i16,
}

impl Publishes {
    /// A batch of a Produce request. Returns the number under which its answer will be told.
    pub(crate) fn batch(
        &mut self,
        cx: &mut Context<'_>,
        sent: &Sent<'_>,
        bytes: &[u8],
        transactions: &mut Transactions,
        scratch: &mut Scratch,
        texts: &mut Texts,
    ) -> Option<BatchNumber> {
        let Ok(head) = BatchHead::read(bytes) else {
            cx.gap(sent.peer, &unread("message_format", sent.topic, sent.partition));
            return None;
        };
        let line = (head.producer_id >= 0 && head.base_sequence >= 0).then(|| Line {
            producer_id: head.producer_id,
            epoch: head.producer_epoch,
            topic: Arc::clone(sent.topic),
            partition: sent.partition,
        });
        if let Some(line) = &line
            && let Some(again) = self.seen(line, &head)
        {
            return Some(again);
        }
        let (producer_id, epoch) = (head.producer_id, head.producer_epoch);
        let broker_txn =
            head.transactional.then(|| transactions.publishes(cx, sent.peer, producer_id, epoch));
        let confirms = sent.acks != 0;
        let place = Place {
            topic: sent.topic,
            partition: sent.partition,
            group: None,
            member: None,
            answer: None,
            redelivered: None,
            broker_txn: broker_txn.as_deref(),
            confirm_expected: Some(confirms),
        };
        let mut kept = Vec::new();
        let mut read_count = 0;
        let read = for_each_record(bytes, MAX_INFLATED, scratch, |record| {
            let row = records::record(cx, sent.peer, &place, &head, &record, texts);
            kept.extend(row.map(|row| (record.offset_delta, row)));
            read_count += 1;
        });
        if let Err(fault) = read {
            let mut gap = unread("batch", sent.topic, sent.partition);
            gap.count = Some(i64::from(head.count) - read_count).filter(|count| *count > 0);
            gap.details["fault"] = fault.to_string().into();
            cx.gap(sent.peer, &gap);
        }
        if !confirms {
            return None;
        }
        self.next += 1;
        let number = self.next;
        if let Some(line) = &line {
            let seen = self.lines.entry(line.clone()).or_default();
            let (base_sequence, count) = (head.base_sequence, head.last_offset_delta);
            seen.push_back(Seen { base_sequence, count, number });
            self.used.insert(line.clone(), cx.now);
            if seen.len() > WINDOW
                && let Some(oldest) = seen.pop_front()
            {
                self.given_up(cx, oldest.number);
            }
        }
        let batch = Batch {
            topic: Arc::clone(sent.topic),
            partition: sent.partition,
            peer: Arc::clone(sent.peer),
            records: kept,
            broker_txn,
            line,
            sent_at: cx.now,
            refused: None,
        };
        self.waiting.insert(number, batch);
        Some(number)
    }

    fn seen(&self, line: &Line, head: &BatchHead) -> Option<BatchNumber> {
        let same = |seen: &&Seen| {
            seen.base_sequence == head.base_sequence && seen.count == head.last_offset_delta
        };
        self.lines.get(line)?.iter().find(same).map(|seen| seen.number)
    }

    /// The broker's answer for one batch. A second answer to the same batch says nothing new.
    pub(crate) fn answered(
        &mut self,
        cx: &mut Context<'_>,
        number: BatchNumber,
        answer: &Produced<'_>,
    ) {
        let Some(batch) = self.waiting.get_mut(&number) else { return };
        // An idempotent producer whose earlier batch was lost on its way sends both again.
        let again =
            is_retriable(answer.error) || answer.error == error::OUT_OF_ORDER_SEQUENCE_NUMBER;
        if batch.line.is_some() && again {
            batch.refused = Some(answer.error);
            return;
        }
        let Some(batch) = self.waiting.remove(&number) else { return };
        match answer.error {
            0 => confirm(cx, &batch, Some(answer)),
            error::DUPLICATE_SEQUENCE_NUMBER => confirm(cx, &batch, None),
            code => refuse(cx, &batch, code, &answer.at_fault),
        }
    }

    /// No answer will come, or none that can be read. An idempotent producer will send the batch again;
    /// of any other nobody knows.
    pub(crate) fn unanswered(&mut self, number: BatchNumber) {
        if self.waiting.get(&number).is_some_and(|batch| batch.line.is_none()) {
            self.waiting.remove(&number);
        }
    }

    /// The producer sends this batch no more: what the broker last said of it is its answer.
    fn given_up(&mut self, cx: &mut Context<'_>, number: BatchNumber) {
        let Some(batch) = self.waiting.remove(&number) else { return };
        if let Some(error) = batch.refused {
            refuse(cx, &batch, error, &[]);
        }
    }

    /// Lets go of batches that nobody will send again.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let old = |since: Micros| now.since(since) > GIVEN_UP_US;
        let mut numbers: Vec<BatchNumber> = self
            .waiting
            .iter()
            .filter(|(_, batch)| old(batch.sent_at))
            .map(|(number, _)| *number)
            .collect();
        numbers.sort_unstable();
        for number in numbers {
            self.given_up(cx, number);
        }
        self.used.retain(|_, since| !old(*since));
        let used = &self.used;
        self.lines.retain(|line, _| used.contains_key(line));
    }
}

#[cfg(test)]
impl Publishes {
    /// How many batches wait for their answer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

pub(crate) fn unread<'a>(reason: &'static str, topic: &'a str, partition: i32) -> Unseen<'a> {
    let mut gap = Unseen::new(reason, json!({}));
    gap.topic = Some(topic);
    gap.partition = Some(partition);
    gap
}

/// One row a record. Without an answer the broker knew the batch already, but not where it lies.
fn confirm(cx: &mut Context<'_>, batch: &Batch, answer: Option<&Produced<'_>>) {
    let mut message = String::new();
    let base = answer.map(|answer| answer.base_offset).filter(|base| *base >= 0);
    let appended = answer.map_or(-1, |answer| answer.append_time);
    for (delta, kept) in &batch.records {
        let offset = base.map(|base| base.saturating_add(i64::from(*delta)));
        if let Some(offset) = offset {
            message_id(&mut message, cx.cluster, &batch.topic, batch.partition, offset);
        }
        let mut row = cx.row(Kind::Confirm, &batch.peer);
        kept.fill(&mut row);
        row.outcome = Some(Outcome::Confirmed);
        row.message.message = offset.map(|_| message.as_str());
        row.place.log_offset = offset;
        row.broker_at = (appended >= 0).then(|| millis(appended));
        row.session.broker_txn = batch.broker_txn.as_deref();
        row.session.took_us = Some(cx.now.since(kept.at));
        if base.is_none() {
            row.reason = Some(error_name(error::DUPLICATE_SEQUENCE_NUMBER));
        }
        cx.record(&row);
    }
}

fn refuse(cx: &mut Context<'_>, batch: &Batch, error: i16, at_fault: &[i32]) {
    for (index, (_, kept)) in batch.records.iter().enumerate() {
        let mut row = cx.row(Kind::Confirm, &batch.peer);
        kept.fill(&mut row);
        row.outcome = Some(Outcome::Refused);
        row.reason = Some(error_name(error));
        // The whole batch is dropped; the broker names the records for which.
        let guilty = at_fault.iter().any(|at| usize::try_from(*at) == Ok(index));
        row.details = guilty.then_some(r#"{"at_fault":true}"#);
        row.message.payload = kept.payload();
        row.session.broker_txn = batch.broker_txn.as_deref();
        row.session.took_us = Some(cx.now.since(kept.at));
        cx.record(&row);
    }
}
