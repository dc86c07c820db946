//! Frames of records, in pieces of every size.

use kafka_protocol::messages::{
    self, BrokerId, ProducerId, TransactionalId, fetch_response, produce_request,
    share_fetch_response,
};
use proptest::prelude::*;

use super::*;

/// A part, kept.
#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Produce(Option<Vec<u8>>, i16),
    Fetch(i16, i32),
    Partition(String, i32, i16, Option<Vec<(i64, i64)>>),
    Batch(Vec<u8>),
    TooLarge(i64, usize),
}

fn keep(part: &Part<'_>) -> Kept {
    match part {
        Part::Produce(head) => Kept::Produce(head.transactional_id.map(<[u8]>::to_vec), head.acks),
        Part::Fetch { error, session } => Kept::Fetch(*error, *session),
        Part::Partition(head) => Kept::Partition(
            format!("{:?}", head.topic),
            head.partition,
            head.error,
            head.aborted.clone(),
        ),
        Part::Batch(bytes) => Kept::Batch(bytes.to_vec()),
        Part::TooLarge { base_offset, bytes } => Kept::TooLarge(*base_offset, *bytes),
    }
}

const MAX: usize = 1000;

fn stream(key: i16, version: i16) -> RecordStream {
    if key == key::PRODUCE {
        RecordStream::produce(version, MAX)
    } else {
        RecordStream::fetch(version, MAX)
    }
}

fn feed<'a>(
    key: i16,
    version: i16,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Kept>, Result<(), Fault>) {
    let mut stream = stream(key, version);
    let mut parts = Vec::new();
    let mut result = Ok(());
    for piece in pieces {
        result = result.and_then(|()| stream.feed(piece, &mut |part| parts.push(keep(&part))));
    }
    (parts, result.and_then(|()| stream.end()))
}

/// Something that a stream takes for a batch.
fn batch(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.any::<i64>().to_be_bytes().to_vec();
    let length = 14 + dice.below_one_of([20, 300, 1500]);
    bytes.extend((length as i32).to_be_bytes());
    bytes.extend((0..length).map(|_| dice.any::<u8>()));
    bytes
}

/// A partition's records, with what is to come of them. Some of the last batch may be cut off.
fn records(dice: &mut Dice) -> (Option<Bytes>, Vec<Kept>) {
    if dice.below(5) == 0 {
        return (None, Vec::new());
    }
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..dice.below(5) {
        let batch = batch(dice);
        bytes.extend(&batch);
        expected.push(if batch.len() > MAX {
            let base_offset = i64::from_be_bytes(batch[..8].try_into().unwrap());
            Kept::TooLarge(base_offset, batch.len())
        } else {
            Kept::Batch(batch)
        });
    }
    if dice.any() {
        let cut = batch(dice);
        bytes.extend(&cut[..dice.below(cut.len())]);
    }
    (Some(bytes.into()), expected)
}

fn produce(version: i16, dice: &mut Dice) -> (Vec<u8>, Vec<Kept>) {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let mut message = messages::ProduceRequest::default()
        .with_transactional_id(dice.text_if_any().map(TransactionalId))
        .with_acks(dice.one_of([-1, 0, 1]))
        .with_timeout_ms(dice.any());
    let id = message.transactional_id.as_ref().map(|id| text(&id.0).to_vec());
    let mut expected = vec![Kept::Produce(id, message.acks)];
    message.topic_data = dice.some(|dice| {
        let mut topic = TopicProduceData::default();
        if version >= 13 {
            topic.topic_id = dice.id();
        } else {
            topic.name = dice.topic();
        }
        let name = format!("{:?}", name_or_id(version >= 13, &topic.name, topic.topic_id));
        topic.partition_data = dice.some(|dice| {
            let (records, parts) = records(dice);
            let partition =
                PartitionProduceData::default().with_index(dice.any()).with_records(records);
            expected.push(Kept::Partition(name.clone(), partition.index, 0, None));
            expected.extend(parts);
            tagged!(dice, partition)
        });
        tagged!(dice, topic)
    });
    (encode(&tagged!(dice, message), version), expected)
}

/// An answer, what is in it, and where its tail begins.
fn fetch(version: i16, dice: &mut Dice) -> (Vec<u8>, Vec<Kept>, usize) {
    use fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
        PartitionData,
    };
    let mut message = messages::FetchResponse::default().with_throttle_time_ms(dice.any());
    if version >= 7 {
        (message.error_code, message.session_id) = (dice.any(), dice.any());
    }
    let mut expected = vec![Kept::Fetch(message.error_code, message.session_id)];
    message.responses = dice.some(|dice| {
        let mut topic = FetchableTopicResponse::default();
        if version >= 13 {
            topic.topic_id = dice.id();
        } else {
            topic.topic = dice.topic();
        }
        let name = format!("{:?}", name_or_id(version >= 13, &topic.topic, topic.topic_id));
        topic.partitions = dice.some(|dice| {
            let (records, parts) = records(dice);
            let mut partition = PartitionData::default()
                .with_partition_index(dice.any())
                .with_error_code(dice.any())
                .with_high_watermark(dice.any())
                .with_last_stable_offset(dice.any())
                .with_aborted_transactions(None)
                .with_records(records);
            if version >= 5 {
                partition.log_start_offset = dice.any();
            }
            if version >= 11 {
                partition.preferred_read_replica = BrokerId(dice.any());
            }
            if version >= 12 && dice.any() {
                partition.diverging_epoch = EpochEndOffset::default().with_epoch(3);
                partition.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(BrokerId(dice.any()));
            }
            if dice.any() {
                partition.aborted_transactions = Some(dice.some(|dice| {
                    let aborted = AbortedTransaction::default()
                        .with_producer_id(ProducerId(dice.any()))
                        .with_first_offset(dice.any());
                    tagged!(dice, aborted)
                }));
            }
            let aborted = partition.aborted_transactions.as_ref();
            let aborted = aborted.map(|aborted| {
                aborted.iter().map(|it| (it.producer_id.0, it.first_offset)).collect()
            });
            let (index, error) = (partition.partition_index, partition.error_code);
            expected.push(Kept::Partition(name.clone(), index, error, aborted));
            expected.extend(parts);
            tagged!(dice, partition)
        });
        tagged!(dice, topic)
    });
    let bare = encode(&message, version);
    // Without fields it is one byte: that there are none.
    let tail = if version >= 12 { bare.len() - 1 } else { bare.len() };
    if version >= 16 {
        message.node_endpoints =
            dice.some(|dice| NodeEndpoint::default().with_host(dice.text()).with_port(9092));
    }
    (encode(&tagged!(dice, message), version), expected, tail)
}

fn share_fetch(dice: &mut Dice) -> (Vec<u8>, usize) {
    use share_fetch_response::{
        AcquiredRecords, LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareFetchableTopicResponse,
    };
    let mut message = messages::ShareFetchResponse::default()
        .with_error_code(dice.any())
        .with_error_message(dice.text_if_any());
    message.responses = dice.some(|dice| {
        let mut topic = ShareFetchableTopicResponse::default().with_topic_id(dice.id());
        topic.partitions = dice.some(|dice| {
            let leader = LeaderIdAndEpoch::default().with_leader_id(dice.any());
            let partition = PartitionData::default()
                .with_error_message(dice.text_if_any())
                .with_acknowledge_error_message(dice.text_if_any())
                .with_current_leader(tagged!(dice, leader))
                // Version 1 may not be null.
                .with_records(Some(records(dice).0.unwrap_or_default()))
                .with_acquired_records(dice.some(|dice| {
                    let range = AcquiredRecords::default()
                        .with_first_offset(dice.any())
                        .with_delivery_count(dice.any());
                    tagged!(dice, range)
                }));
            tagged!(dice, partition)
        });
        tagged!(dice, topic)
    });
    // An empty array, no tagged fields.
    let tail = encode(&message, 1).len() - 2;
    message.node_endpoints =
        dice.some(|dice| NodeEndpoint::default().with_host(dice.text()).with_port(9092));
    (encode(&tagged!(dice, message), 1), tail)
}

/// Pieces of random sizes, with empty ones.
fn pieces<'a>(bytes: &'a [u8], dice: &mut Dice) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let most = dice.one_of([1, 2, 30, 400, 4000]);
        let (piece, after) = rest.split_at(dice.below(most + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// Where a finder says that the tail begins, counted from the start of the body.
fn tail_in<'a>(
    mut finder: TailFinder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<usize>, Fault> {
    let mut before = 0;
    let mut tail = None;
    for piece in pieces {
        if let Some(index) = finder.feed(piece)? {
            assert!(tail.is_none() && index <= piece.len());
            tail = Some(before + index);
        }
        before += piece.len();
    }
    Ok(tail)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn produce_requests_give_the_same_parts_however_they_are_cut(seed: u64) {
        let mut dice = Dice::new(seed);
        for version in 3..=13 {
            let (bytes, expected) = produce(version, &mut dice);
            let expected = (expected, Ok(()));
            assert_eq!(feed(key::PRODUCE, version, [&bytes[..]]), expected);
            assert_eq!(feed(key::PRODUCE, version, bytes.chunks(1)), expected);
            assert_eq!(feed(key::PRODUCE, version, pieces(&bytes, &mut dice)), expected);
        }
    }

    #[test]
    fn fetch_answers_give_the_same_parts_and_tail_however_they_are_cut(seed: u64) {
        let mut dice = Dice::new(seed);
        for version in 4..=18 {
            let (bytes, expected, tail) = fetch(version, &mut dice);
            let expected = (expected, Ok(()));
            assert_eq!(feed(key::FETCH, version, [&bytes[..]]), expected);
            assert_eq!(feed(key::FETCH, version, bytes.chunks(1)), expected);
            assert_eq!(feed(key::FETCH, version, pieces(&bytes, &mut dice)), expected);
            let finder = || TailFinder::fetch(version);
            assert_eq!(tail_in(finder(), [&bytes[..]]), Ok(Some(tail)));
            assert_eq!(tail_in(finder(), bytes.chunks(1)), Ok(Some(tail)));
            assert_eq!(tail_in(finder(), pieces(&bytes, &mut dice)), Ok(Some(tail)));
        }
    }

    #[test]
    fn the_tail_of_share_fetch_answers_is_found(seed: u64) {
        let mut dice = Dice::new(seed);
        let (bytes, tail) = share_fetch(&mut dice);
        // What Kafka added with version 2 is in the request only.
        for version in 1..=2 {
            let finder = || TailFinder::share_fetch(version);
            assert_eq!(tail_in(finder(), [&bytes[..]]), Ok(Some(tail)));
            assert_eq!(tail_in(finder(), bytes.chunks(1)), Ok(Some(tail)));
            assert_eq!(tail_in(finder(), pieces(&bytes, &mut dice)), Ok(Some(tail)));
        }
    }

    #[test]
    fn garbage_is_a_fault_or_short_and_no_more_is_kept_than_came(
        seed: u64,
        version in 3i16..=18,
        junk: Vec<u8>,
    ) {
        let mut dice = Dice::new(seed);
        let mut bytes = produce(version.min(13), &mut dice).0;
        for _ in 0..=dice.below(4) {
            let at = dice.below(bytes.len());
            bytes[at] = dice.any();
        }
        for bytes in [&junk, &bytes] {
            for mut stream in [stream(key::PRODUCE, version), stream(key::FETCH, version)] {
                for piece in pieces(bytes, &mut dice) {
                    if stream.feed(piece, &mut |part| drop(keep(&part))).is_err() {
                        break;
                    }
                    assert!(stream.kept() <= 2 * bytes.len() + 64);
                }
            }
            let _ = tail_in(TailFinder::fetch(version), pieces(bytes, &mut dice));
            let _ = tail_in(TailFinder::share_fetch(version), pieces(bytes, &mut dice));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_frame_that_is_cut_gives_what_came_before(seed: u64) {
        let mut dice = Dice::new(seed);
        let (bytes, expected) = produce(9, &mut dice);
        for end in (0..bytes.len()).take(3000) {
            let (parts, result) = feed(key::PRODUCE, 9, [&bytes[..end]]);
            assert_eq!(result, Err(Fault::Short));
            assert!(expected.starts_with(&parts));
        }
    }
}

#[test]
fn a_batch_that_lies_whole_in_a_piece_is_not_copied() {
    let mut dice = Dice::new(0);
    let records: Vec<u8> = (0..50).flat_map(|_| batch(&mut dice)).collect();
    let message = messages::FetchResponse::default().with_responses(vec![
        fetch_response::FetchableTopicResponse::default().with_partitions(vec![
            fetch_response::PartitionData::default().with_records(Some(records.into())),
        ]),
    ]);
    let bytes = encode(&message, 16);
    let mut stream = RecordStream::fetch(16, MAX);
    let (mut lent, mut copied) = (0, 0);
    for piece in bytes.chunks(8000) {
        let within = piece.as_ptr_range();
        stream
            .feed(piece, &mut |part| {
                if let Part::Batch(batch) = part {
                    let inside = within.contains(&batch.as_ptr());
                    *(if inside { &mut lent } else { &mut copied }) += 1;
                }
            })
            .unwrap();
    }
    assert_eq!(stream.end(), Ok(()));
    assert!(lent > 20 && copied < bytes.len().div_ceil(8000), "{lent} lent, {copied} copied");
}

#[test]
fn message_sets_of_old_formats_come_as_batches() {
    let mut message = vec![0; 8];
    message.extend(22i32.to_be_bytes());
    message.extend([9, 9, 9, 9, 1, 0]); // checksum, format 1, attributes
    message.extend([0; 8]); // time
    message.extend([255; 8]); // neither key nor value
    let request = messages::ProduceRequest::default().with_topic_data(vec![
        produce_request::TopicProduceData::default().with_partition_data(vec![
            produce_request::PartitionProduceData::default()
                .with_records(Some([&message[..], &message[..]].concat().into())),
        ]),
    ]);
    let (parts, result) = feed(key::PRODUCE, 3, [&encode(&request, 3)[..]]);
    assert_eq!(result, Ok(()));
    assert_eq!(parts[2..], [Kept::Batch(message.clone()), Kept::Batch(message.clone())]);
    assert_eq!(magic(&message), Some(1));
}

#[test]
fn versions_that_are_not_known_are_not_read() {
    for (key, version) in [(key::PRODUCE, 2), (key::PRODUCE, 14), (key::FETCH, 3), (key::FETCH, 19)]
    {
        assert!(matches!(feed(key, version, [&[0; 9][..]]).1, Err(Fault::Bad(_))));
    }
    assert!(TailFinder::share_fetch(0).feed(&[0; 9]).is_err(), "the preview had another form");
    assert!(TailFinder::share_fetch(3).feed(&[0; 9]).is_err());
}
