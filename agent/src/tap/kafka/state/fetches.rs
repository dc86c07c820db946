//! Records on their way to a consumer: one `deliver` row each, for those that it hands to the
//! service. Not handed over are records before the offset that was asked for (a compressed batch is
//! sent whole), control batches, and for readers of committed records those of aborted
//! transactions.
//!
//! An answer whose request was not read can't be told apart in this way: its records are a `gap`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use flowtap_record::Micros;
use serde_json::json;

use super::context::{Context, Peer, Unseen};
use super::groups::{Client, Groups, Spot, Whose};
use super::open::By;
use super::publishes::{MAX_BATCH, MAX_INFLATED, unread};
use super::records::{self, Place, Texts};
use super::sums::Sums;
use super::topics::Cluster;
use crate::tap::kafka::wire::{
    BatchHead, Control, Fault, FetchRequest, Part, PartitionHead, RecordStream, Scratch,
    control_type, for_each_record,
};
use crate::tap::kept::Kept;

/// What a connection's fetches have in common: a fetch session names each partition once, and
/// again when its offset changes (KIP-227).
#[derive(Debug, Default)]
pub(crate) struct Fetches {
    offsets: HashMap<Spot, i64>,
    answers: i64,
    /// The group that the connection was seen to belong to last.
    group: Option<Arc<str>>,
    /// Whose the last fetch on this connection was.
    last: Option<Whose>,
}

/// What an answer must know of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// A broker that copies, not a consumer.
    follower: bool,
    read_committed: bool,
}

impl Fetches {
    pub(crate) fn asked(&mut self, cluster: &mut Cluster, request: &FetchRequest<'_>) -> Asked {
        if request.session == 0 {
            self.offsets.clear();
        }
        for (topic, partitions) in &request.forgotten {
            let name = cluster.name(*topic);
            for partition in partitions {
                self.offsets.remove(&(Arc::clone(&name), *partition));
            }
        }
        for (topic, partitions) in &request.topics {
            let name = cluster.name(*topic);
            for (partition, offset) in partitions {
                self.offsets.insert((Arc::clone(&name), *partition), *offset);
            }
        }
        Asked { follower: request.replica >= 0, read_committed: request.read_committed }
    }

    /// The client speaks of a group on this connection.
    pub(crate) fn belongs_to(&mut self, group: Arc<str>) {
        self.group = Some(group);
    }

    /// An answer begins. Without a request what it holds is a gap, since `since`.
    pub(crate) fn answer(
        &mut self,
        version: i16,
        asked: Option<Asked>,
        now: Micros,
        since: Micros,
    ) -> Answer {
        self.answers += 1;
        Answer {
            stream: RecordStream::fetch(version, MAX_BATCH),
            asked,
            number: self.answers,
            began: now,
            since,
            at: None,
            delivered: Vec::new(),
        }
    }
}

/// A fetch answer that is being received.
#[derive(Debug)]
pub(crate) struct Answer {
    stream: RecordStream,
    /// `None` when its request was not read.
    asked: Option<Asked>,
    number: i64,
    began: Micros,
    /// When it was asked for, if that was not read.
    since: Micros,
    at: Option<Reading>,
    /// What rows say of the partitions before.
    delivered: Vec<(Spot, Option<Arc<str>>, Range)>,
}

/// Records of one partition of an answer.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: i64,
    last: i64,
    count: i64,
}

/// The partition that is being read.
#[derive(Debug)]
struct Reading {
    spot: Spot,
    whose: Whose,
    by: Arc<By>,
    /// The offset asked for.
    from: Option<i64>,
    /// Where the consumer will go on.
    next: Option<i64>,
    /// Aborted transactions that have not begun yet: first offset, producer.
    aborted: BinaryHeap<Reverse<(i64, i64)>>,
    /// Producers within an aborted transaction.
    skipped: HashSet<i64>,
    /// Records that have a row; those that passed unread, when the request did.
    range: Option<Range>,
}

/// What an answer is read with.
pub(crate) struct Tools<'t> {
    pub(crate) cluster: &'t mut Cluster,
    pub(crate) groups: &'t mut Groups,
    pub(crate) fetches: &'t mut Fetches,
    pub(crate) sums: &'t mut Sums,
    pub(crate) peer: &'t Arc<Peer>,
    pub(crate) client: &'t Client,
    pub(crate) scratch: &'t mut Scratch,
    pub(crate) texts: &'t mut Texts,
}

impl Answer {
    /// A piece of the answer.
    pub(crate) fn piece(
        &mut self,
        cx: &mut Context<'_>,
        tools: &mut Tools<'_>,
        piece: &[u8],
    ) -> Result<(), Fault> {
        let Self { stream, asked, number, at, delivered, since, .. } = self;
        if asked.is_some_and(|asked| asked.follower) {
            return Ok(());
        }
        let (asked, since) = (*asked, *since);
        stream.feed(piece, &mut |part| match part {
            Part::Partition(head) => {
                finish(cx, tools, at.take(), asked.is_none().then_some(since), delivered);
                *at = (head.error == 0).then(|| begin(cx, tools, *number, asked, head));
            }
            Part::Batch(bytes) => {
                let Some(reading) = at else { return };
                if asked.is_some() {
                    batch(cx, tools, reading, bytes);
                } else if let Ok(head) = BatchHead::read(bytes) {
                    reading.add(head.base_offset, i64::from(head.count));
                    reading.add(last_offset(&head), 0);
                }
            }
            Part::TooLarge { base_offset, bytes } => {
                if let Some(reading) = at {
                    let mut gap = unread("batch_too_large", &reading.spot.0, reading.spot.1);
                    gap.details = json!({"first_offset": base_offset, "bytes": bytes});
                    gap.group = reading.whose.group.as_deref();
                    cx.gap(tools.peer, &gap);
                }
            }
            Part::Produce(_) | Part::Fetch { .. } => {}
        })
    }

    /// The answer is complete, or its rest is lost.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>, tools: &mut Tools<'_>) {
        let blind_since = self.asked.is_none().then_some(self.since);
        finish(cx, tools, self.at.take(), blind_since, &mut self.delivered);
    }

    /// The connection ended within the answer: the client got none of it, for which rows say
    /// already that it was delivered. They stay open until the records have come again and are
    /// committed; a gap says what is wrong with them.
    pub(crate) fn cut(mut self, cx: &mut Context<'_>, tools: &mut Tools<'_>) {
        self.end(cx, tools);
        for (spot, group, range) in self.delivered {
            let mut gap = unread("cut", &spot.0, spot.1);
            gap.group = group.as_deref();
            (gap.from, gap.count) = (Some(self.began), Some(range.count));
            gap.details = json!({
                "api": "Fetch",
                "first_offset": range.first,
                "last_offset": range.last,
                "delivered": false,
            });
            cx.gap(tools.peer, &gap);
            if let Some(group) = &group {
                tools.groups.undelivered(group, &spot, range.first, range.last);
            }
        }
    }

    /// How many bytes are kept until more come.
    pub(crate) fn kept(&self) -> usize {
        self.stream.kept()
    }

    /// The partition that was being read when the rest was lost, for the `gap` row.
    pub(crate) fn lost<'a>(&'a self, gap: &mut Unseen<'a>) {
        if let Some(reading) = &self.at {
            gap.topic = Some(&reading.spot.0);
            gap.partition = Some(reading.spot.1);
            gap.group = reading.whose.group.as_deref();
            gap.details["from_offset"] = json!(reading.next.or(reading.from));
        }
    }
}

fn begin(
    cx: &mut Context<'_>,
    tools: &mut Tools<'_>,
    answer: i64,
    asked: Option<Asked>,
    head: PartitionHead<'_>,
) -> Reading {
    let spot = (tools.cluster.name(head.topic), head.partition);
    let from = tools.fetches.offsets.get(&spot).copied().filter(|_| asked.is_some());
    let Fetches { group, last, .. } = &*tools.fetches;
    let whose = tools.groups.whose(tools.client, &spot, from, group.as_ref(), last.as_ref());
    if whose.ambiguous {
        cx.env.metrics.undecodable("group_ambiguous");
    } else if let Some(group) = &whose.group {
        tools.fetches.group = Some(Arc::clone(group));
        tools.fetches.last = Some(whose.clone());
    }
    let by = By { peer: Arc::clone(tools.peer), member: whose.member.clone(), answer };
    let read_committed = asked.is_some_and(|asked| asked.read_committed);
    let aborted = head.aborted.filter(|_| read_committed).unwrap_or_default();
    let aborted = aborted.into_iter().map(|(producer, first)| Reverse((first, producer)));
    Reading {
        spot,
        whose,
        by: Arc::new(by),
        from,
        next: None,
        aborted: aborted.collect(),
        skipped: HashSet::new(),
        range: None,
    }
}

/// A partition is read to its end, or as far as it came. `blind_since`: nobody knows what of it the
/// client asked for.
fn finish(
    cx: &mut Context<'_>,
    tools: &mut Tools<'_>,
    reading: Option<Reading>,
    blind_since: Option<Micros>,
    delivered: &mut Vec<(Spot, Option<Arc<str>>, Range)>,
) {
    let Some(Reading { spot, whose, next, range, .. }) = reading else { return };
    if let Some(next) = next {
        tools.groups.read_until(tools.client, &spot, &whose, next, cx.now);
    }
    match (range, blind_since) {
        (Some(range), Some(since)) => {
            let mut gap = unread("request_unread", &spot.0, spot.1);
            gap.group = whose.group.as_deref();
            (gap.from, gap.count) = (Some(since), Some(range.count));
            gap.details = json!({
                "api": "Fetch",
                "first_offset": range.first,
                "last_offset": range.last,
            });
            cx.gap(tools.peer, &gap);
        }
        (Some(range), None) => delivered.push((spot, whose.group, range)),
        (None, _) => {}
    }
}

fn last_offset(head: &BatchHead) -> i64 {
    head.base_offset.saturating_add(i64::from(head.last_offset_delta))
}

impl Reading {
    fn add(&mut self, offset: i64, count: i64) {
        let range = self.range.get_or_insert(Range { first: offset, last: offset, count: 0 });
        range.last = offset;
        range.count = range.count.saturating_add(count);
    }

    /// Whether the consumer leaves the batch out. The order of the tests is that of the Java
    /// client's `CompletedFetch`.
    fn leaves_out(&mut self, head: &BatchHead, bytes: &[u8], scratch: &mut Scratch) -> bool {
        let last = last_offset(head);
        while let Some(Reverse((first, producer))) = self.aborted.peek().copied()
            && first <= last
        {
            self.aborted.pop();
            self.skipped.insert(producer);
        }
        if head.control {
            // A marker that can't be read ends nothing.
            let _ = for_each_record(bytes, MAX_INFLATED, scratch, |record| {
                if record.key.and_then(control_type) == Some(Control::Abort) {
                    self.skipped.remove(&head.producer_id);
                }
            });
            return true;
        }
        head.transactional && self.skipped.contains(&head.producer_id)
    }
}

fn batch(cx: &mut Context<'_>, tools: &mut Tools<'_>, reading: &mut Reading, bytes: &[u8]) {
    let Ok(head) = BatchHead::read(bytes) else {
        let mut gap = unread("message_format", &reading.spot.0, reading.spot.1);
        gap.group = reading.whose.group.as_deref();
        tools.sums.add(cx, tools.peer, gap);
        return;
    };
    let leaves_out = reading.leaves_out(&head, bytes, tools.scratch);
    reading.next = Some(last_offset(&head).saturating_add(1));
    if leaves_out {
        return;
    }
    let Reading { spot, whose, by, from, range, .. } = reading;
    let group = whose.group.as_ref();
    let before = group.map(|group| tools.groups.delivered_until(group, spot));
    let mut kept: Vec<(i64, Kept)> = Vec::new();
    let mut done_until = head.base_offset;
    let read = for_each_record(bytes, MAX_INFLATED, tools.scratch, |record| {
        let offset = head.base_offset.saturating_add(i64::from(record.offset_delta));
        if from.is_some_and(|from| offset < from) {
            return;
        }
        let place = Place {
            topic: &spot.0,
            partition: spot.1,
            group: group.map(AsRef::as_ref),
            member: whose.member.as_deref(),
            answer: Some(by.answer),
            redelivered: before.map(|before| offset < before),
            broker_txn: None,
            confirm_expected: None,
        };
        let row = records::record(cx, tools.peer, &place, &head, &record, tools.texts);
        kept.extend(row.map(|row| (offset, row)));
        range.get_or_insert(Range { first: offset, last: offset, count: 0 });
        if let Some(range) = range {
            (range.last, range.count) = (offset, range.count + 1);
        }
        done_until = offset.saturating_add(1);
    });
    if let Err(fault) = read {
        let mut gap = unread("batch", &spot.0, spot.1);
        gap.group = whose.group.as_deref();
        gap.details = json!({
            "fault": fault.to_string(),
            "first_offset": done_until,
            "last_offset": last_offset(&head),
        });
        cx.gap(tools.peer, &gap);
    }
    if let Some(group) = group {
        tools.groups.delivered(cx, group, spot, kept.into_iter(), by);
    }
}
