//! Records on their way to a consumer: one `deliver` row each, for those that it hands to the
//! service. Not handed over are records before the offset that was asked for (a compressed batch is
//! sent whole), control batches, and for readers of committed records those of aborted
//! transactions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::json;

use super::context::{Context, Peer, Unseen};
use super::groups::{Client, Groups, Spot, Whose};
use super::open::By;
use super::publishes::{MAX_BATCH, MAX_INFLATED, unread};
use super::records::{self, Place, Texts};
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

    /// An answer begins.
    pub(crate) fn answer(&mut self, version: i16, asked: Asked) -> Answer {
        self.answers += 1;
        Answer {
            stream: RecordStream::fetch(version, MAX_BATCH),
            asked,
            number: self.answers,
            at: None,
        }
    }
}

/// A fetch answer that is being received.
#[derive(Debug)]
pub(crate) struct Answer {
    stream: RecordStream,
    asked: Asked,
    number: i64,
    at: Option<Reading>,
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
}

/// What an answer is read with.
pub(crate) struct Tools<'t> {
    pub(crate) cluster: &'t mut Cluster,
    pub(crate) groups: &'t mut Groups,
    pub(crate) offsets: &'t Fetches,
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
        let Self { stream, asked, number, at } = self;
        if asked.follower {
            return Ok(());
        }
        stream.feed(piece, &mut |part| match part {
            Part::Partition(head) => {
                finish(tools, at.take());
                *at = (head.error == 0).then(|| begin(cx, tools, *number, *asked, head));
            }
            Part::Batch(bytes) => {
                if let Some(reading) = at {
                    batch(cx, tools, reading, bytes);
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
    pub(crate) fn end(mut self, tools: &mut Tools<'_>) {
        finish(tools, self.at.take());
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
    asked: Asked,
    head: PartitionHead<'_>,
) -> Reading {
    let spot = (tools.cluster.name(head.topic), head.partition);
    let from = tools.offsets.offsets.get(&spot).copied();
    let whose = tools.groups.whose(tools.client, &spot, from);
    if whose.ambiguous {
        cx.env.metrics.undecodable("group_ambiguous");
    }
    let by = By { peer: Arc::clone(tools.peer), member: whose.member.clone(), answer };
    let aborted = head.aborted.filter(|_| asked.read_committed).unwrap_or_default();
    let aborted = aborted.into_iter().map(|(producer, first)| Reverse((first, producer)));
    Reading {
        spot,
        whose,
        by: Arc::new(by),
        from,
        next: None,
        aborted: aborted.collect(),
        skipped: HashSet::new(),
    }
}

fn finish(tools: &mut Tools<'_>, reading: Option<Reading>) {
    if let Some(Reading { spot, whose, next: Some(next), .. }) = reading {
        tools.groups.read_until(tools.client, &spot, &whose, next);
    }
}

impl Reading {
    /// Whether the consumer leaves the batch out. The order of the tests is that of the Java
    /// client's `CompletedFetch`.
    fn leaves_out(&mut self, head: &BatchHead, bytes: &[u8], scratch: &mut Scratch) -> bool {
        let last = head.base_offset + i64::from(head.last_offset_delta);
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
        cx.gap(tools.peer, &gap);
        return;
    };
    let leaves_out = reading.leaves_out(&head, bytes, tools.scratch);
    reading.next = Some(head.base_offset + i64::from(head.last_offset_delta) + 1);
    if leaves_out {
        return;
    }
    let Reading { spot, whose, by, from, .. } = reading;
    let group = whose.group.as_ref();
    let before = group.map(|group| tools.groups.delivered_until(group, spot));
    let mut kept: Vec<(i64, Kept)> = Vec::new();
    let mut last = head.base_offset - 1;
    let read = for_each_record(bytes, MAX_INFLATED, tools.scratch, |record| {
        let offset = head.base_offset + i64::from(record.offset_delta);
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
        last = offset;
    });
    if let Err(fault) = read {
        let mut gap = unread("batch", &spot.0, spot.1);
        gap.group = whose.group.as_deref();
        gap.details = json!({
            "fault": fault.to_string(),
            "first_offset": last + 1,
            "last_offset": head.base_offset + i64::from(head.last_offset_delta),
        });
        cx.gap(tools.peer, &gap);
    }
    if let Some(group) = group {
        tools.groups.delivered(group, spot, kept.into_iter(), by);
    }
}
