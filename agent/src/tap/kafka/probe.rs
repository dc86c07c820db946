//! What benches and fuzz targets may call of the Kafka tap. Nothing else should.

mod whole;

use std::fmt::Write as _;

pub use whole::{Tap, addresses, neutralised, readdressed};

use super::wire::{
    Assignment, BatchHead, ClientSoftware, CommitRequest, CommitResponse, EndTxnRequest,
    EndTxnResponse, Fault, FetchRequest, GroupHeartbeatRequest, GroupHeartbeatResponse,
    InitProducerRequest, InitProducerResponse, JoinRequest, JoinResponse, LeaveRequest,
    LeaveResponse, MemberRequest, OffsetFetchRequest, OffsetFetchResponse, Part, ProduceResponse,
    RecordStream, RequestHeader, Scratch, StreamsHeartbeatRequest, Subscription, SyncResponse,
    TailFinder, Topics, auth_bytes, control_type, error_name, for_each_record, handshake_mechanism,
    heartbeat_error, is_retriable, key, magic, response_body, user_name,
};

/// A header of a record.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// Reads batches, with what is kept between them.
#[derive(Default)]
pub struct Batches(Scratch);

impl Batches {
    /// Key, value and headers of each record; how many there were, or why there can't be more.
    pub fn read(
        &mut self,
        batch: &[u8],
        limit: usize,
        mut each: impl FnMut(Option<&[u8]>, Option<&[u8]>, &[Header<'_>]),
    ) -> Result<usize, String> {
        let mut count = 0;
        for_each_record(batch, limit, &mut self.0, |record| {
            each(record.key, record.value, record.headers);
            count += 1;
        })
        .map(|()| count)
        .map_err(|fault| fault.to_string())
    }
}

/// Whether the checksum of a batch is right.
pub fn is_intact(batch: &[u8]) -> bool {
    BatchHead::read(batch).is_ok_and(|head| head.is_intact(batch))
}

/// Everything that a stream of records says of a frame, whose body comes in these pieces: of a
/// Fetch answer, or of a Produce request. `each` gets the batches.
pub fn stream<'a>(
    fetch: bool,
    version: i16,
    max_batch: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut each: impl FnMut(&[u8]),
) -> (String, bool) {
    let mut stream = if fetch {
        RecordStream::fetch(version, max_batch)
    } else {
        RecordStream::produce(version, max_batch)
    };
    let mut said = String::new();
    let mut result = Ok(());
    let mut came = 0;
    for piece in pieces {
        came += piece.len();
        result = stream.feed(piece, &mut |part| match part {
            Part::Batch(batch) => {
                each(batch);
                let _ = writeln!(said, "batch of {}", batch.len());
            }
            part => drop(writeln!(said, "{part:?}")),
        });
        if result.is_err() {
            break;
        }
        assert!(stream.kept() <= 2 * came + 64, "no more is kept than came");
    }
    (said, result.and_then(|()| stream.end()).is_ok())
}

/// Batches of a Fetch answer whose body comes in these pieces: only their number.
pub fn count_batches<'a>(version: i16, pieces: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let mut stream = RecordStream::fetch(version, usize::MAX);
    let mut count = 0;
    for piece in pieces {
        let result = stream.feed(piece, &mut |part| {
            count += usize::from(matches!(part, Part::Batch(_)));
        });
        if result.is_err() {
            break;
        }
    }
    count
}

/// Where the tail of a ShareFetch or Fetch answer begins, whose body comes in these pieces.
pub fn tail<'a>(
    share: bool,
    version: i16,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Option<usize> {
    let mut finder =
        if share { TailFinder::share_fetch(version) } else { TailFinder::fetch(version) };
    let mut before = 0;
    for piece in pieces {
        match finder.feed(piece) {
            Ok(Some(index)) => return Some(before + index),
            Ok(None) => before += piece.len(),
            Err(Fault::Short | Fault::Bad(_)) => return None,
        }
    }
    None
}

/// Every decoder of control messages, on the same bytes.
pub fn decode_all(version: i16, bytes: &[u8]) {
    let _ = FetchRequest::decode(version, bytes);
    let _ = ProduceResponse::decode(version, bytes);
    for key in [key::OFFSET_COMMIT, key::TXN_OFFSET_COMMIT, key::FETCH, -1] {
        let _ = CommitRequest::decode(key, version, bytes);
        let _ = CommitResponse::decode(key, version, bytes);
    }
    let _ = OffsetFetchRequest::decode(version, bytes);
    let _ = OffsetFetchResponse::decode(version, bytes);
    let _ = JoinRequest::decode(version, bytes);
    let _ = JoinResponse::decode(version, bytes);
    for key in [key::SYNC_GROUP, key::HEARTBEAT, key::FETCH, -1] {
        let _ = MemberRequest::decode(key, version, bytes);
    }
    let _ = SyncResponse::decode(version, bytes);
    for key in [key::HEARTBEAT, key::STREAMS_GROUP_HEARTBEAT] {
        let _ = heartbeat_error(key, version, bytes);
    }
    let _ = StreamsHeartbeatRequest::decode(version, bytes);
    let _ = LeaveRequest::decode(version, bytes);
    let _ = LeaveResponse::decode(version, bytes);
    let _ = Subscription::decode(bytes);
    let _ = Assignment::decode(bytes);
    let _ = GroupHeartbeatRequest::decode(version, bytes);
    let _ = GroupHeartbeatResponse::decode(version, bytes);
    let _ = InitProducerRequest::decode(version, bytes);
    let _ = InitProducerResponse::decode(version, bytes);
    let _ = EndTxnRequest::decode(version, bytes);
    let _ = EndTxnResponse::decode(version, bytes);
    let _ = Topics::metadata(version, bytes);
    let _ = Topics::create_topics(version, bytes);
    let _ = Topics::delete_topics(version, bytes);
    let _ = Topics::describe_topic_partitions(version, bytes);
    let _ = ClientSoftware::decode(version, bytes);
    let _ = handshake_mechanism(version, bytes);
    let _ = auth_bytes(version, bytes);
    for mechanism in [&b"PLAIN"[..], b"SCRAM-SHA-256"] {
        let _ = user_name(mechanism, bytes);
    }
    let _ = RequestHeader::read(bytes);
    let _ = response_body(version, version, bytes);
    let _ = BatchHead::read(bytes);
    let _ = (control_type(bytes), magic(bytes));
    let _ = (error_name(version), is_retriable(version));
}
