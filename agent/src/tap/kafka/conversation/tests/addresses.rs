//! Answers that name brokers: what the client gets is what the broker would have written had it
//! been given the local addresses, byte for byte, in every version.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::share_acknowledge_response::{
    NodeEndpoint as ShareNode, PartitionData, ShareAcknowledgeTopicResponse,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterResponse, FindCoordinatorResponse, MetadataResponse, ProduceResponse,
    ShareAcknowledgeResponse, TopicName,
};
use kafka_protocol::protocol::Message as _;

use super::*;

/// Where a broker is said to be: its own place, or the tap's.
type Place<'a> = &'a dyn Fn(i32) -> (StrBytes, i32);

fn real(id: i32) -> (StrBytes, i32) {
    (text(&format!("kafka-{id}.example.org")), 9092 + id)
}

/// Whether the client gets the answer with local addresses in place of the real ones.
fn is_rewritten(key: ApiKey, version: i16, ids: &[i32], make: impl Fn(Place<'_>) -> Vec<u8>) {
    let mut wire = Wire::new();
    let got = wire.answered(key, version, &make(&real));
    assert!(!wire.refused, "{key:?} v{version} is refused");
    let local = |id| (text(LOCAL), i32::from(wire.port(id)));
    assert_eq!(got, answer(key, version, 5, &make(&local)), "{key:?} v{version}");
    for id in ids {
        let address = wire.around.brokers.address(*id).unwrap();
        assert_eq!((address.host, i32::from(address.port)), (real(*id).0.to_string(), 9092 + id));
        let port = wire.port(*id);
        let opened = wire.opened.try_recv().unwrap();
        assert_eq!(opened.listener.local_addr().unwrap().port(), port, "bound before it is told");
    }
    let again = wire.answered(key, version, &make(&real));
    assert_eq!(again, got, "the same port at the second time");
    assert!(wire.opened.try_recv().is_err());
}

#[test]
fn metadata() {
    for version in MetadataResponse::VERSIONS.min..=MetadataResponse::VERSIONS.max {
        let make = |place: Place<'_>| {
            let broker = |id| {
                let (host, port) = place(id);
                let rack = (version >= 1 && id == 2).then(|| text("rack-b"));
                MetadataResponseBroker::default()
                    .with_node_id(BrokerId(id))
                    .with_host(host)
                    .with_port(port)
                    .with_rack(rack)
            };
            let partition = MetadataResponsePartition::default()
                .with_leader_id(BrokerId(2))
                .with_replica_nodes(vec![BrokerId(1), BrokerId(2)]);
            let topic = MetadataResponseTopic::default()
                .with_name(Some(TopicName(text("orders"))))
                .with_partitions(vec![partition]);
            let mut answer = MetadataResponse::default()
                .with_brokers(vec![broker(1), broker(2), broker(1003)])
                .with_topics(vec![topic]);
            if version >= 1 {
                answer = answer.with_controller_id(BrokerId(2));
            }
            if version >= 2 {
                answer = answer.with_cluster_id(Some(text("cluster")));
            }
            if version >= 3 {
                answer = answer.with_throttle_time_ms(9);
            }
            encoded(&answer, version)
        };
        is_rewritten(ApiKey::Metadata, version, &[1, 2, 1003], make);
    }
}

#[test]
fn find_coordinator() {
    let range = FindCoordinatorResponse::VERSIONS;
    for version in range.min..=range.max {
        let make = |place: Place<'_>| {
            let (host, port) = place(3);
            let answer = FindCoordinatorResponse::default();
            let answer = if version >= 4 {
                let found = Coordinator::default()
                    .with_key(text("group"))
                    .with_node_id(BrokerId(3))
                    .with_host(host)
                    .with_port(port);
                let none = Coordinator::default()
                    .with_key(text("other"))
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(15)
                    .with_error_message(Some(text("not now")));
                answer.with_coordinators(vec![none.clone(), found, none])
            } else {
                answer.with_node_id(BrokerId(3)).with_host(host).with_port(port)
            };
            encoded(&answer, version)
        };
        is_rewritten(ApiKey::FindCoordinator, version, &[3], make);
    }
}

#[test]
fn a_coordinator_that_was_not_found_gets_no_listener() {
    for version in FindCoordinatorResponse::VERSIONS.min..=3 {
        let none = FindCoordinatorResponse::default()
            .with_error_code(15)
            .with_node_id(BrokerId(-1))
            .with_port(-1);
        let mut wire = Wire::new();
        let body = encoded(&none, version);
        let got = wire.answered(ApiKey::FindCoordinator, version, &body);
        assert_eq!(got, answer(ApiKey::FindCoordinator, version, 5, &body));
        assert!(wire.opened.try_recv().is_err());
    }
}

fn cluster(version: i16, endpoint_type: i8, place: Place<'_>) -> Vec<u8> {
    let broker = |id| {
        let (host, port) = place(id);
        let broker = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(id))
            .with_host(host)
            .with_port(port);
        if version >= 2 { broker.with_is_fenced(id == 2) } else { broker }
    };
    let mut answer = DescribeClusterResponse::default()
        .with_cluster_id(text("cluster"))
        .with_controller_id(BrokerId(1))
        .with_brokers(vec![broker(1), broker(2)])
        .with_cluster_authorized_operations(77);
    if version >= 1 {
        answer = answer.with_endpoint_type(endpoint_type);
    }
    encoded(&answer, version)
}

#[test]
fn describe_cluster() {
    let range = DescribeClusterResponse::VERSIONS;
    assert_eq!(range.max, 2);
    for version in range.min..=range.max {
        is_rewritten(ApiKey::DescribeCluster, version, &[1, 2], |place| cluster(version, 1, place));
    }
}

#[test]
fn controllers_are_no_brokers() {
    for version in 1..=DescribeClusterResponse::VERSIONS.max {
        let mut wire = Wire::new();
        let body = cluster(version, 2, &real);
        let got = wire.answered(ApiKey::DescribeCluster, version, &body);
        assert_eq!(got, answer(ApiKey::DescribeCluster, version, 5, &body));
        assert!(wire.opened.try_recv().is_err());
    }
}

fn produced(version: i16, place: Option<Place<'_>>) -> Vec<u8> {
    let mut partition = PartitionProduceResponse::default()
        .with_index(3)
        .with_error_code(6)
        .with_base_offset(77)
        .with_log_append_time_ms(8);
    if version >= 8 {
        let error = BatchIndexAndErrorMessage::default()
            .with_batch_index(1)
            .with_batch_index_error_message(Some(text("bad record")));
        partition =
            partition.with_record_errors(vec![error]).with_error_message(Some(text("moved")));
    }
    if version >= 10 && place.is_some() {
        let leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(4)).with_leader_epoch(2);
        partition = partition.with_current_leader(leader);
    }
    let mut topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
    if version >= 13 {
        topic = topic.with_topic_id(uuid::Uuid::from_u128(9));
    } else {
        topic = topic.with_name(TopicName(text("orders")));
    }
    let mut answer = ProduceResponse::default()
        .with_responses(vec![topic.clone(), topic])
        .with_throttle_time_ms(5);
    if let Some(place) = place {
        let node = |id| {
            let (host, port) = place(id);
            NodeEndpoint::default()
                .with_node_id(BrokerId(id))
                .with_host(host)
                .with_port(port)
                .with_rack(Some(text("rack")))
        };
        answer = answer.with_node_endpoints(vec![node(4), node(5)]);
    }
    encoded(&answer, version)
}

#[test]
fn produce() {
    let range = ProduceResponse::VERSIONS;
    for version in 10..=range.max {
        is_rewritten(ApiKey::Produce, version, &[4, 5], |place| produced(version, Some(place)));
    }
    for version in range.min..=range.max {
        let mut wire = Wire::new();
        let body = produced(version, None);
        let got = wire.answered(ApiKey::Produce, version, &body);
        assert_eq!(got, answer(ApiKey::Produce, version, 5, &body), "v{version}");
    }
}

fn acknowledged(place: Place<'_>) -> Vec<u8> {
    let node = |id| {
        let (host, port) = place(id);
        ShareNode::default().with_node_id(BrokerId(id)).with_host(host).with_port(port)
    };
    let partition = PartitionData::default().with_error_code(6).with_error_message(Some(text("x")));
    let topic = ShareAcknowledgeTopicResponse::default()
        .with_topic_id(uuid::Uuid::from_u128(3))
        .with_partitions(vec![partition.clone(), partition]);
    let answer = ShareAcknowledgeResponse::default()
        .with_error_message(Some(text("some")))
        .with_responses(vec![topic])
        .with_node_endpoints(vec![node(6), node(7)]);
    encoded(&answer, 1)
}

#[test]
fn share_acknowledge() {
    is_rewritten(ApiKey::ShareAcknowledge, 1, &[6, 7], acknowledged);
    // Version 2 has AcquisitionLockTimeoutMs behind the message: 4, 2, 1 + 4 bytes.
    is_rewritten(ApiKey::ShareAcknowledge, 2, &[6, 7], |place| {
        let mut body = acknowledged(place);
        body.splice(11..11, 30_000i32.to_be_bytes());
        body
    });
}

#[test]
fn an_answer_with_addresses_that_is_garbage_ends_the_connection() {
    let mut wire = Wire::new();
    let got = wire.answered(ApiKey::Metadata, 1, &[0x7f; 40]);
    assert!(wire.refused && got.is_empty());
}
