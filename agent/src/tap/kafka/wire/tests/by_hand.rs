//! Versions that the other implementation lacks, from Kafka's schemas (`common/message/*.json`),
//! and some whole messages byte by byte, so that no two implementations share a mistake.

use super::*;

const ID: [u8; 16] = *b"0123456789abcdef";
const TOPIC: TopicRef<'_> = TopicRef::Id(TopicId(ID));

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn offset_commit_10_names_topics_by_id() {
    let bytes = join(&[
        b"\x02g",      // group
        &[0, 0, 0, 5], // member epoch
        b"\x02m\0",    // member, static id
        &[2],
        &ID,  // topics
        &[3], // partitions
        &[0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 9],
        &[0, 0, 0, 2],
        b"\x03hi",
        &[0],
        &[0, 0, 0, 2],
        &[0, 0, 0, 0, 0, 0, 0, 8],
        &[255; 4],
        &[0],
        &[1, 100, 2, 7, 7],
        &[0], // of the topic
        &[0], // of the message
    ]);
    let expected = CommitRequest {
        group: b"g",
        transaction: None,
        generation: 5,
        member: b"m",
        topics: vec![(TOPIC, vec![(1, 9), (2, 8)])],
    };
    assert_eq!(CommitRequest::decode(key::OFFSET_COMMIT, 10, &bytes), Ok(expected));
    let bytes = join(&[&[0; 4], &[2], &ID, &[2], &[0, 0, 0, 1, 0, 27, 0], &[0], &[0]]);
    let expected = CommitResponse { topics: vec![(TOPIC, vec![(1, 27)])] };
    assert_eq!(CommitResponse::decode(key::OFFSET_COMMIT, 10, &bytes), Ok(expected));
}

#[test]
fn txn_offset_commit_6_names_topics_by_id() {
    let bytes = join(&[
        b"\x02t\x02g", // transactional id, group
        &[0, 0, 0, 0, 0, 0, 0, 7],
        &[0, 3],       // producer id and epoch
        &[0, 0, 0, 5], // generation
        b"\x02m\x02i", // member, static id
        &[2],
        &ID,  // topics
        &[2], // partitions
        &[0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 9],
        &[255; 4],
        &[1],
        &[0],
        &[0],
        &[0],
    ]);
    let expected = CommitRequest {
        group: b"g",
        transaction: Some((b"t", 7, 3)),
        generation: 5,
        member: b"m",
        topics: vec![(TOPIC, vec![(1, 9)])],
    };
    assert_eq!(CommitRequest::decode(key::TXN_OFFSET_COMMIT, 6, &bytes), Ok(expected));
    let bytes = join(&[&[0; 4], &[2], &ID, &[2], &[0, 0, 0, 1, 0, 0, 0], &[0], &[0]]);
    let expected = CommitResponse { topics: vec![(TOPIC, vec![(1, 0)])] };
    assert_eq!(CommitResponse::decode(key::TXN_OFFSET_COMMIT, 6, &bytes), Ok(expected));
}

#[test]
fn offset_fetch_10_names_topics_by_id() {
    let bytes = join(&[
        &[3], // groups
        b"\x02g\x02m",
        &[0, 0, 0, 4], // group, member, its epoch
        &[2],
        &ID,
        &[2, 0, 0, 0, 1],
        &[0], // topics
        &[0],
        b"\x02h\0",
        &[255; 4], // another group, no member
        &[0],      // all topics
        &[0],
        &[1], // no open transactions
        &[0],
    ]);
    let groups =
        vec![(&b"g"[..], Some(&b"m"[..]), Some(vec![(TOPIC, vec![1])])), (&b"h"[..], None, None)];
    assert_eq!(OffsetFetchRequest::decode(10, &bytes), Ok(OffsetFetchRequest { groups }));
    let bytes = join(&[
        &[0; 4],
        &[2],
        b"\x02g",
        &[2],
        &ID,
        &[2],
        &[0, 0, 0, 1],
        &[255; 8],
        &[255; 4],
        &[1],
        &[0, 3],
        &[0],
        &[0],
        &[0, 16], // error of the group
        &[0],
        &[0],
    ]);
    let groups = vec![(&b"g"[..], 16, vec![(TOPIC, vec![(1, -1, 3)])])];
    assert_eq!(OffsetFetchResponse::decode(10, &bytes), Ok(OffsetFetchResponse { groups }));
}

#[test]
fn api_versions_5_names_the_client_before_the_broker() {
    let bytes = join(&[b"\x05java", b"\x044.4", b"\x02c", &[0, 0, 0, 1], &[0]]);
    let expected = ClientSoftware { name: Some(b"java"), version: Some(b"4.4") };
    assert_eq!(ClientSoftware::decode(5, &bytes), Ok(expected));
}

#[test]
fn versions_beyond_the_table_are_not_read() {
    assert!(InitProducerRequest::decode(6, &[0; 40]).is_err(), "unstable");
    assert!(CommitRequest::decode(key::OFFSET_COMMIT, 11, &[0; 40]).is_err());
    assert!(Topics::metadata(14, &[0; 40]).is_err());
    assert!(Topics::metadata(-1, &[0; 40]).is_err());
    assert!(EndTxnRequest::decode(6, &[0; 40]).is_err());
}

#[test]
fn share_fetch_2_ends_in_addresses() {
    let bytes = join(&[
        &[0; 4],
        &[0, 0],
        &[0],
        &[0, 0, 0x75, 0x30], // throttle time, error, message, lock
        &[2],
        &ID,
        &[2],
        &[0, 0, 0, 0],
        &[0, 0],
        &[0],
        &[0, 0],
        &[0],                         // partition, error and message twice
        &[0, 0, 0, 1, 0, 0, 0, 2, 0], // leader
        b"\x06bytes",                 // records
        &[2],
        &[0; 8],
        &[0, 0, 0, 0, 0, 0, 0, 3],
        &[0, 1],
        &[0], // acquired
        &[0],
        &[0],
    ]);
    let tail = join(&[&[2], &[0, 0, 0, 1], b"\x02h", &[0, 0, 0x23, 0x84], &[0], &[0], &[0]]);
    let whole = join(&[&bytes, &tail]);
    for split in 0..whole.len() {
        let mut finder = TailFinder::share_fetch(2);
        let (first, second) = whole.split_at(split);
        let found = match finder.feed(first).unwrap() {
            Some(index) => {
                assert_eq!(finder.feed(second), Ok(None));
                index
            }
            None => split + finder.feed(second).unwrap().unwrap(),
        };
        assert_eq!(found, bytes.len());
    }
}

#[test]
fn a_produce_request_is_read_byte_by_byte() {
    let records = b"\0\0\0\0\0\0\0\0\0\0\0\x0ffifteen bytes..";
    let bytes = join(&[
        &[0, 1, b't'],
        &[255, 255],
        &[0, 0, 0, 9], // transactional id, acks, timeout
        &[0, 0, 0, 1],
        &[0, 1, b'x'], // topics
        &[0, 0, 0, 1],
        &[0, 0, 0, 7],
        &[0, 0, 0, 27],
        records,
    ]);
    let mut parts = Vec::new();
    let mut stream = RecordStream::produce(7, 100);
    for byte in bytes.chunks(1) {
        stream.feed(byte, &mut |part| parts.push(format!("{part:?}"))).unwrap();
    }
    assert_eq!(stream.end(), Ok(()));
    let head = PartitionHead { topic: TopicRef::Name(b"x"), partition: 7, error: 0, aborted: None };
    let produce = ProduceHead { transactional_id: Some(b"t"), acks: -1 };
    let expected = [Part::Produce(produce), Part::Partition(head), Part::Batch(records)];
    assert_eq!(parts, expected.map(|part| format!("{part:?}")));
    assert_eq!(stream.feed(&[0], &mut |_| {}), Err(Fault::Bad("longer than what it says")));
}
