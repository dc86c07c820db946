//! Fetch answers: the addresses stand behind the records, and the records are never waited for.

use kafka_protocol::messages::fetch_response::{
    FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::share_fetch_response::{
    NodeEndpoint as ShareNode, PartitionData as SharePartition, ShareFetchableTopicResponse,
};
use kafka_protocol::messages::{BrokerId, FetchResponse, ShareFetchResponse, TopicName};
use kafka_protocol::protocol::Message as _;

use super::*;

fn fetched(version: i16, records: usize, nodes: &[(i32, &str, i32)]) -> Vec<u8> {
    let mut partition = PartitionData::default()
        .with_partition_index(1)
        .with_high_watermark(99)
        .with_records(Some(Bytes::from(vec![7; records])));
    if version >= 12 && !nodes.is_empty() {
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(4)).with_leader_epoch(2);
        partition = partition.with_current_leader(leader);
    }
    let mut topic =
        FetchableTopicResponse::default().with_partitions(vec![partition.clone(), partition]);
    if version >= 13 {
        topic = topic.with_topic_id(uuid::Uuid::from_u128(9));
    } else {
        topic = topic.with_topic(TopicName(text("orders")));
    }
    let node = |(id, host, port): &(i32, &str, i32)| {
        NodeEndpoint::default()
            .with_node_id(BrokerId(*id))
            .with_host(text(host))
            .with_port(*port)
            .with_rack(Some(text("rack")))
    };
    let answer = FetchResponse::default()
        .with_responses(vec![topic])
        .with_node_endpoints(nodes.iter().map(node).collect());
    encoded(&answer, version)
}

const REAL: [(i32, &str, i32); 2] = [(4, "kafka-4.example.org", 9096), (5, "kafka-5", 9097)];

#[test]
fn a_fetch_that_names_no_broker_passes_as_it_is() {
    for version in 4..=FetchResponse::VERSIONS.max {
        for records in [0, 10, 100_000] {
            let mut wire = Wire::new();
            let body = fetched(version, records, &[]);
            let got = wire.answered(ApiKey::Fetch, version, &body);
            assert!(got == answer(ApiKey::Fetch, version, 5, &body), "v{version}, {records}");
            let size = body.len();
            let told = wire.told();
            assert_eq!(told[2], format!("Broker begins 1 v{version} #5 {size}"));
            assert_eq!(told[3], format!("Broker ends {size} {:08x}", crc32c::crc32c(&body)));
        }
    }
}

#[test]
fn a_small_fetch_gets_local_addresses() {
    for version in 16..=FetchResponse::VERSIONS.max {
        let mut wire = Wire::new();
        let got = wire.answered(ApiKey::Fetch, version, &fetched(version, 500, &REAL));
        let local: Vec<_> =
            REAL.iter().map(|(id, ..)| (*id, LOCAL, i32::from(wire.port(*id)))).collect();
        assert_eq!(got, answer(ApiKey::Fetch, version, 5, &fetched(version, 500, &local)));
    }
}

#[test]
fn a_large_fetch_keeps_its_length_and_loses_its_addresses() {
    for version in 16..=FetchResponse::VERSIONS.max {
        let mut wire = Wire::new();
        let body = fetched(version, 70_000, &REAL);
        let got = wire.answered(ApiKey::Fetch, version, &body);
        assert_eq!(got.len(), answer(ApiKey::Fetch, version, 5, &body).len());
        let mut read: FetchResponse = decoded(version, &got[9..]);
        assert!(read.node_endpoints.is_empty());
        assert_eq!(read.unknown_tagged_fields.keys().collect::<Vec<_>>(), [&100]);
        read.unknown_tagged_fields.clear();
        assert_eq!(encoded(&read, version), fetched_with_leaders(version));
    }
}

/// What is left of it: everything but the addresses.
fn fetched_with_leaders(version: i16) -> Vec<u8> {
    let mut read: FetchResponse = decoded(version, &fetched(version, 70_000, &REAL));
    read.node_endpoints.clear();
    encoded(&read, version)
}

fn share_fetched(records: usize, hosts: &[(i32, String, i32)]) -> Vec<u8> {
    let partition = SharePartition::default().with_records(Some(Bytes::from(vec![7; records])));
    let topic = ShareFetchableTopicResponse::default()
        .with_topic_id(uuid::Uuid::from_u128(9))
        .with_partitions(vec![partition]);
    let node = |(id, host, port): &(i32, String, i32)| {
        ShareNode::default().with_node_id(BrokerId(*id)).with_host(text(host)).with_port(*port)
    };
    let answer = ShareFetchResponse::default()
        .with_responses(vec![topic])
        .with_node_endpoints(hosts.iter().map(node).collect());
    encoded(&answer, 1)
}

#[test]
fn a_small_share_fetch_gets_local_addresses() {
    for version in [1, 2] {
        let mut wire = Wire::new();
        let real: Vec<_> =
            REAL.iter().map(|(id, host, port)| (*id, (*host).to_owned(), *port)).collect();
        let got = wire.answered(ApiKey::ShareFetch, version, &share_fetched(300, &real));
        let local: Vec<_> = REAL
            .iter()
            .map(|(id, ..)| (*id, LOCAL.to_owned(), i32::from(wire.port(*id))))
            .collect();
        assert_eq!(got, answer(ApiKey::ShareFetch, version, 5, &share_fetched(300, &local)));
        assert_eq!(wire.told(), [format!("unread 78 v{version}")]);
    }
}

#[test]
fn a_large_share_fetch_keeps_its_length_and_loses_its_addresses() {
    // Hosts of all lengths around those at which the size of the field takes one byte more.
    for length in (1..300).chain(16_360..16_390) {
        let mut wire = Wire::new();
        let body = share_fetched(70_000, &[(1, "h".repeat(length), 9)]);
        let got = wire.answered(ApiKey::ShareFetch, 1, &body);
        assert_eq!(got.len(), answer(ApiKey::ShareFetch, 1, 5, &body).len(), "{length}");
        let read: ShareFetchResponse = decoded(1, &got[9..]);
        assert!(read.node_endpoints.is_empty());
        assert_eq!(read.unknown_tagged_fields.keys().collect::<Vec<_>>(), [&100]);
        assert_eq!(read.responses[0].partitions[0].records.as_ref().unwrap().len(), 70_000);
    }
}

#[test]
fn records_go_on_before_the_last_of_them_is_there() {
    let mut wire = Wire::new();
    let whole = answer(ApiKey::Fetch, 17, 5, &fetched(17, 5_000_000, &REAL));
    wire.client(&request(ApiKey::Fetch, 17, 5, b""));
    for piece in whole.chunks(4096) {
        wire.broker(piece);
        let kept_back = wire.from[Side::Broker as usize].len();
        assert!(kept_back < 4096, "{kept_back} bytes are kept back");
    }
    assert_eq!(wire.at_client().len(), whole.len());
}
