//! A Produce request while it is being received: each batch is told to [`super::publishes`] as soon
//! as it is whole.

use std::sync::Arc;

use serde_json::json;

use super::Shared;
use super::context::{Context, Peer, Unseen};
use super::groups::Spot;
use super::publishes::{BatchNumber, MAX_BATCH, Sent};
use crate::tap::kafka::feed::Head;
use crate::tap::kafka::wire::{Fault, Part, RecordStream, TopicId, TopicRef};

/// A Produce request that is being received.
pub(crate) struct Producing {
    pub(crate) head: Box<Head>,
    stream: RecordStream,
    pub(crate) acks: i16,
    /// The partition that is being read, and the id by which its topic is named.
    pub(crate) spot: Option<Spot>,
    id: Option<TopicId>,
    /// How the answer will name each batch.
    pub(crate) batches: Vec<SentBatch>,
}

/// A batch that an answer will tell of.
#[derive(Debug)]
pub(crate) struct SentBatch {
    pub(crate) spot: Spot,
    pub(crate) id: Option<TopicId>,
    pub(crate) number: BatchNumber,
}

impl Producing {
    pub(crate) fn new(head: Box<Head>) -> Self {
        Self {
            stream: RecordStream::produce(head.version, MAX_BATCH),
            head,
            acks: 1,
            spot: None,
            id: None,
            batches: Vec::new(),
        }
    }

    /// How many bytes are kept until more come.
    pub(crate) fn kept(&self) -> usize {
        self.stream.kept()
    }

    /// A piece of the request.
    pub(crate) fn piece(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        peer: &Arc<Peer>,
        piece: &[u8],
    ) -> Result<(), Fault> {
        let Self { stream, acks, spot, id, batches, .. } = self;
        stream.feed(piece, &mut |part| match part {
            Part::Produce(head) => *acks = head.acks,
            Part::Partition(head) => {
                *id = match head.topic {
                    TopicRef::Id(id) => Some(id),
                    TopicRef::Name(_) => None,
                };
                *spot = Some((shared.cluster.name(head.topic), head.partition));
            }
            Part::Batch(bytes) => {
                let Some(spot) = spot else { return };
                let sent = Sent { peer, topic: &spot.0, partition: spot.1, acks: *acks };
                let number = shared.publishes.batch(
                    cx,
                    &sent,
                    bytes,
                    &mut shared.transactions,
                    &mut shared.scratch,
                    &mut shared.texts,
                );
                batches.extend(number.map(|number| SentBatch {
                    spot: spot.clone(),
                    id: *id,
                    number,
                }));
            }
            Part::TooLarge { bytes, .. } => {
                let Some((topic, partition)) = spot else { return };
                let mut gap = Unseen::new("batch_too_large", json!({"bytes": bytes}));
                (gap.topic, gap.partition) = (Some(topic.as_ref()), Some(*partition));
                cx.gap(peer, &gap);
            }
            Part::Fetch { .. } => {}
        })
    }
}
