//! What messages say, as far as the tap wants to know it. Texts borrow from the frame. How each is
//! read stands in `produce.rs`, `fetch.rs`, `offsets.rs`, `groups.rs`, `transactions.rs`,
//! `cluster.rs`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A topic's id, in place of its name in newer versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicId(pub(crate) [u8; 16]);

impl fmt::Display for TopicId {
    /// As Kafka's tools write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// How a message names a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicRef<'a> {
    Name(&'a [u8]),
    Id(TopicId),
}

/// Something said of each of a topic's partitions.
pub(crate) type ByTopic<'a, T> = Vec<(TopicRef<'a>, Vec<T>)>;

/// Partitions of topics that are named, in what members of a group tell each other.
pub(crate) type NamedPartitions<'a> = Vec<(&'a [u8], Vec<i32>)>;

// === record streams ===

/// The head of a Produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProduceHead<'a> {
    pub(crate) transactional_id: Option<&'a [u8]>,
    /// 0: no answer will come.
    pub(crate) acks: i16,
}

/// One partition of a Produce request or a Fetch answer, before its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionHead<'a> {
    pub(crate) topic: TopicRef<'a>,
    pub(crate) partition: i32,
    /// Fetch: the error code.
    pub(crate) error: i16,
    /// Fetch: transactions that readers of committed records leave out, as (producer id, first
    /// offset); `None` for readers of everything.
    pub(crate) aborted: Option<Vec<(i64, i64)>>,
}

/// What a Produce request or a Fetch answer consists of, in the order of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Produce only, first.
    Produce(ProduceHead<'a>),
    /// Fetch only, first: the error code of the whole and the session's id.
    Fetch { error: i16, session: i32 },
    /// A partition begins; its batches follow.
    Partition(PartitionHead<'a>),
    /// One whole batch, from `baseOffset` on, of any format.
    Batch(&'a [u8]),
    /// A batch that was passed over, for it is larger than the limit.
    TooLarge { base_offset: i64, bytes: usize },
}

/// A Fetch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchRequest<'a> {
    /// Not negative: a follower, not a consumer.
    pub(crate) replica: i32,
    /// Whether it reads committed records only.
    pub(crate) read_committed: bool,
    /// 0 opens a session.
    pub(crate) session: i32,
    /// 0 with session 0 opens one, -1 is without a session.
    pub(crate) epoch: i32,
    /// (partition, offset to fetch from), for those that are new in the session or have moved.
    pub(crate) topics: ByTopic<'a, (i32, i64)>,
    /// Partitions that leave the session.
    pub(crate) forgotten: ByTopic<'a, i32>,
}

/// One partition of a Produce answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Produced<'a> {
    pub(crate) partition: i32,
    pub(crate) error: i16,
    /// -1 when unknown.
    pub(crate) base_offset: i64,
    /// Milliseconds; -1 when the topic keeps the producer's times.
    pub(crate) append_time: i64,
    /// Index within the batch of each record at fault.
    pub(crate) at_fault: Vec<i32>,
    pub(crate) message: Option<&'a [u8]>,
}

/// A Produce answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProduceResponse<'a> {
    pub(crate) topics: ByTopic<'a, Produced<'a>>,
}

// === offsets ===

/// An OffsetCommit or TxnOffsetCommit request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRequest<'a> {
    pub(crate) group: &'a [u8],
    /// TxnOffsetCommit: transactional id, producer id, producer epoch.
    pub(crate) transaction: Option<(&'a [u8], i64, i16)>,
    /// Generation, or member epoch (KIP-848); -1 for a consumer that is no member.
    pub(crate) generation: i32,
    /// Empty for a consumer that is no member.
    pub(crate) member: &'a [u8],
    /// (partition, offset).
    pub(crate) topics: ByTopic<'a, (i32, i64)>,
}

/// An OffsetCommit or TxnOffsetCommit answer: (partition, error).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitResponse<'a> {
    pub(crate) topics: ByTopic<'a, (i32, i16)>,
}

/// One group of an OffsetFetch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetFetchRequest<'a> {
    /// The groups, each with its member id where given (v9) and its partitions, `None` for all.
    #[allow(clippy::type_complexity)] // read once, by one function
    pub(crate) groups: Vec<(&'a [u8], Option<&'a [u8]>, Option<ByTopic<'a, i32>>)>,
}

/// An OffsetFetch answer. The group is empty before v8: the request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetFetchResponse<'a> {
    /// The groups, each with its error and (partition, committed offset or -1, error).
    #[allow(clippy::type_complexity)] // read once, by one function
    pub(crate) groups: Vec<(&'a [u8], i16, ByTopic<'a, (i32, i64, i16)>)>,
}

// === groups ===

/// A JoinGroup request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinRequest<'a> {
    pub(crate) group: &'a [u8],
    pub(crate) session_timeout_ms: i32,
    /// How long members may take to join; before v1 the session's timeout.
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) member: &'a [u8],
    pub(crate) instance: Option<&'a [u8]>,
    pub(crate) protocol_type: &'a [u8],
    /// (name, metadata); for `consumer` the metadata is a [`Subscription`].
    pub(crate) protocols: Vec<(&'a [u8], &'a [u8])>,
}

/// A JoinGroup answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinResponse<'a> {
    pub(crate) error: i16,
    pub(crate) generation: i32,
    pub(crate) protocol: Option<&'a [u8]>,
    pub(crate) leader: &'a [u8],
    pub(crate) member: &'a [u8],
}

/// ConsumerProtocolSubscription, v0 to v3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription<'a> {
    pub(crate) topics: Vec<&'a [u8]>,
    /// From v1 on: what a member that rebalances cooperatively still holds.
    pub(crate) owned: NamedPartitions<'a>,
}

/// A SyncGroup request, a Heartbeat request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberRequest<'a> {
    pub(crate) group: &'a [u8],
    pub(crate) generation: i32,
    pub(crate) member: &'a [u8],
}

/// A SyncGroup answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncResponse<'a> {
    pub(crate) error: i16,
    /// From v5 on.
    pub(crate) protocol_type: Option<&'a [u8]>,
    /// For `consumer` an [`Assignment`].
    pub(crate) assignment: &'a [u8],
}

/// ConsumerProtocolAssignment, v0 to v3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment<'a> {
    pub(crate) topics: NamedPartitions<'a>,
}

/// A LeaveGroup request: the members that leave, each with its static id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaveRequest<'a> {
    pub(crate) group: &'a [u8],
    pub(crate) members: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

/// A LeaveGroup answer: the error of the whole, and from v3 on of each member, with its static id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaveResponse<'a> {
    pub(crate) error: i16,
    #[allow(clippy::type_complexity)] // read once, by one function
    pub(crate) members: Vec<(&'a [u8], Option<&'a [u8]>, i16)>,
}

/// A StreamsGroupHeartbeat request (KIP-1071): as much of it as says who is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamsHeartbeatRequest<'a> {
    pub(crate) group: &'a [u8],
    pub(crate) member: &'a [u8],
    /// 0 joins, -1 leaves, -2 leaves for a while (static members).
    pub(crate) epoch: i32,
}

/// A ConsumerGroupHeartbeat request (KIP-848). `None` is "as before".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeartbeatRequest<'a> {
    pub(crate) group: &'a [u8],
    pub(crate) member: &'a [u8],
    /// 0 joins, -1 leaves, -2 leaves for a while (static members).
    pub(crate) epoch: i32,
    pub(crate) instance: Option<&'a [u8]>,
    /// What the member holds now.
    pub(crate) owned: Option<Vec<(TopicId, Vec<i32>)>>,
}

/// A ConsumerGroupHeartbeat answer. `None` is "as before".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeartbeatResponse<'a> {
    pub(crate) error: i16,
    pub(crate) member: Option<&'a [u8]>,
    pub(crate) epoch: i32,
    pub(crate) assignment: Option<Vec<(TopicId, Vec<i32>)>>,
}

// === transactions ===

/// An InitProducerId request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InitProducerRequest<'a> {
    pub(crate) transactional_id: Option<&'a [u8]>,
    pub(crate) timeout_ms: i32,
}

/// An InitProducerId answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InitProducerResponse {
    pub(crate) error: i16,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// An EndTxn request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndTxnRequest<'a> {
    pub(crate) transactional_id: &'a [u8],
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) committed: bool,
}

/// An EndTxn answer; from v5 on with the producer's next id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndTxnResponse {
    pub(crate) error: i16,
    pub(crate) next: Option<(i64, i16)>,
}

// === the cluster ===

/// A Metadata answer (less the addresses, which the relay rewrites), and what CreateTopics,
/// DeleteTopics and DescribeTopicPartitions tell of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topics<'a> {
    /// Metadata only.
    pub(crate) cluster_id: Option<&'a [u8]>,
    pub(crate) topics: Vec<Topic<'a>>,
}

/// What is said of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic<'a> {
    pub(crate) error: i16,
    pub(crate) name: Option<&'a [u8]>,
    /// `None` in versions without ids, and where it is zero.
    pub(crate) id: Option<TopicId>,
    pub(crate) internal: bool,
    /// Number of partitions, where told.
    pub(crate) partitions: Option<i32>,
}

/// An ApiVersions request, from v3 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientSoftware<'a> {
    pub(crate) name: Option<&'a [u8]>,
    pub(crate) version: Option<&'a [u8]>,
}

/// One record of a batch. Header names may repeat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record<'a> {
    pub(crate) offset_delta: i32,
    /// Milliseconds; with log-append time the batch's maximum.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// Names and values, in order.
    pub(crate) headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// What the head of a batch of format 2 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // the bits of `attributes`
pub(crate) struct BatchHead {
    pub(crate) base_offset: i64,
    pub(crate) last_offset_delta: i32,
    pub(crate) codec: Codec,
    pub(crate) log_append_time: bool,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
    /// Milliseconds; what the records' times are relative to.
    pub(crate) base_timestamp: i64,
    /// Milliseconds.
    pub(crate) max_timestamp: i64,
    /// -1 without idempotence.
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// -1 without idempotence.
    pub(crate) base_sequence: i32,
    pub(crate) count: i32,
    pub(crate) crc: u32,
}

/// What a control record says: that its producer's transaction has ended, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Abort,
    Commit,
}

/// How a batch is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}
