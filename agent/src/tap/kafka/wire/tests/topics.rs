//! What is said of topics, and who the client is.

use kafka_protocol::messages::{
    self, BrokerId, create_topics_response, delete_topics_response,
    describe_topic_partitions_response, metadata_response,
};
use proptest::prelude::*;

use super::*;

fn id_or_zeros(dice: &mut Dice) -> Uuid {
    if dice.any() { dice.id() } else { Uuid::nil() }
}

fn some_id(id: Uuid) -> Option<TopicId> {
    (!id.is_nil()).then(|| TopicId(id.into_bytes()))
}

fn brokers(dice: &mut Dice) -> Vec<BrokerId> {
    dice.integers().into_iter().map(BrokerId).collect()
}

fn metadata(version: i16, dice: &mut Dice) {
    use metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    let mut message = messages::MetadataResponse::default().with_brokers(dice.some(|dice| {
        let mut broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(dice.any()))
            .with_host(dice.text())
            .with_port(dice.any());
        if version >= 1 {
            broker.rack = dice.text_if_any();
        }
        tagged!(dice, broker)
    }));
    if version >= 1 {
        message.controller_id = BrokerId(dice.any());
    }
    if version >= 2 {
        message.cluster_id = dice.text_if_any();
    }
    if version >= 3 {
        message.throttle_time_ms = dice.any();
    }
    if (8..=10).contains(&version) {
        message.cluster_authorized_operations = dice.any();
    }
    if version >= 13 {
        message.error_code = dice.any();
    }
    message.topics = dice.some(|dice| {
        let mut topic = MetadataResponseTopic::default()
            .with_error_code(i16::from(dice.any::<bool>()) * 3)
            .with_name(Some(dice.topic()));
        if version >= 1 {
            topic.is_internal = dice.any();
        }
        if version >= 8 {
            topic.topic_authorized_operations = dice.any();
        }
        if version >= 10 {
            topic.topic_id = id_or_zeros(dice);
        }
        if version >= 12 && dice.any() {
            topic.name = None;
        }
        topic.partitions = dice.some(|dice| {
            let mut partition = MetadataResponsePartition::default()
                .with_error_code(dice.any())
                .with_partition_index(dice.any())
                .with_leader_id(BrokerId(dice.any()))
                .with_replica_nodes(brokers(dice))
                .with_isr_nodes(brokers(dice));
            if version >= 5 {
                partition.offline_replicas = brokers(dice);
            }
            if version >= 7 {
                partition.leader_epoch = dice.any();
            }
            tagged!(dice, partition)
        });
        tagged!(dice, topic)
    });
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let topics = message.topics.iter().map(|it| Topic {
        error: it.error_code,
        name: it.name.as_ref().map(|name| text(&name.0)),
        id: some_id(it.topic_id),
        internal: it.is_internal,
        partitions: Some(it.partitions.len() as i32)
            .filter(|count| *count > 0 || it.error_code == 0),
    });
    let expected =
        Topics { cluster_id: text_of(message.cluster_id.as_ref()), topics: topics.collect() };
    assert_eq!(Topics::metadata(version, &bytes), Ok(expected));
}

fn created(version: i16, dice: &mut Dice) {
    use create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
    let message = messages::CreateTopicsResponse::default().with_topics(dice.some(|dice| {
        let mut topic = CreatableTopicResult::default()
            .with_name(dice.topic())
            .with_error_code(dice.any())
            .with_error_message(dice.text_if_any());
        if version >= 5 {
            topic.topic_config_error_code = dice.any();
            topic.num_partitions = dice.one_of([-1, 0, 12]);
            topic.replication_factor = dice.any();
            topic.configs = dice.any::<bool>().then(|| {
                dice.some(|dice| {
                    let config = CreatableTopicConfigs::default()
                        .with_name(dice.text())
                        .with_value(dice.text_if_any());
                    tagged!(dice, config)
                })
            });
        }
        if version >= 7 {
            topic.topic_id = id_or_zeros(dice);
        }
        tagged!(dice, topic)
    }));
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let topics = message.topics.iter().map(|it| Topic {
        error: it.error_code,
        name: Some(text(&it.name.0)),
        id: some_id(it.topic_id),
        internal: false,
        partitions: Some(it.num_partitions).filter(|count| *count >= 0),
    });
    let expected = Topics { cluster_id: None, topics: topics.collect() };
    assert_eq!(Topics::create_topics(version, &bytes), Ok(expected));
}

fn deleted(version: i16, dice: &mut Dice) {
    let message = messages::DeleteTopicsResponse::default().with_responses(dice.some(|dice| {
        let mut topic = delete_topics_response::DeletableTopicResult::default()
            .with_name(Some(dice.topic()))
            .with_error_code(dice.any());
        if version >= 5 {
            topic.error_message = dice.text_if_any();
        }
        if version >= 6 {
            topic.topic_id = id_or_zeros(dice);
            topic.name = dice.text_if_any().map(TopicName);
        }
        tagged!(dice, topic)
    }));
    let bytes = encode(&message, version);
    let topics = message.responses.iter().map(|it| Topic {
        error: it.error_code,
        name: it.name.as_ref().map(|name| text(&name.0)),
        id: some_id(it.topic_id),
        internal: false,
        partitions: None,
    });
    let expected = Topics { cluster_id: None, topics: topics.collect() };
    assert_eq!(Topics::delete_topics(version, &bytes), Ok(expected));
}

fn described(dice: &mut Dice) {
    use describe_topic_partitions_response::{
        Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
    };
    let mut message = messages::DescribeTopicPartitionsResponse::default();
    message.topics = dice.some(|dice| {
        let mut topic = DescribeTopicPartitionsResponseTopic::default()
            .with_name(dice.text_if_any().map(TopicName))
            .with_topic_id(id_or_zeros(dice))
            .with_is_internal(dice.any());
        let first = dice.one_of([0, 7]);
        topic.partitions = (0..dice.one_of([0, 1, 4]))
            .map(|index| {
                let partition = DescribeTopicPartitionsResponsePartition::default()
                    .with_partition_index(first + index)
                    .with_replica_nodes(brokers(dice))
                    .with_eligible_leader_replicas(dice.any::<bool>().then(|| brokers(dice)))
                    .with_last_known_elr(dice.any::<bool>().then(|| brokers(dice)));
                tagged!(dice, partition)
            })
            .collect();
        tagged!(dice, topic)
    });
    if let Some(last) = message.topics.last().filter(|last| last.name.is_some() && dice.any()) {
        let cursor = Cursor::default().with_topic_name(last.name.clone().unwrap());
        message.next_cursor = Some(tagged!(dice, cursor));
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, 0);
    let topics = message.topics.iter().map(|it| Topic {
        error: it.error_code,
        name: it.name.as_ref().map(|name| text(&name.0)),
        id: some_id(it.topic_id),
        internal: it.is_internal,
        partitions: match (&message.next_cursor, it.partitions.first()) {
            (Some(cursor), _) if it.name.as_ref() == Some(&cursor.topic_name) => None,
            (_, Some(first)) if first.partition_index == 0 => Some(it.partitions.len() as i32),
            _ => None,
        },
    });
    let expected = Topics { cluster_id: None, topics: topics.collect() };
    assert_eq!(Topics::describe_topic_partitions(0, &bytes), Ok(expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn topics_are_read_in_every_version(seed: u64) {
        let mut dice = Dice::new(seed);
        for version in 0..=13 {
            metadata(version, &mut dice);
        }
        for version in 2..=7 {
            created(version, &mut dice);
        }
        for version in 1..=6 {
            deleted(version, &mut dice);
        }
        described(&mut dice);
    }
}

#[test]
fn clients_name_themselves_from_version_3_on() {
    let message = messages::ApiVersionsRequest::default()
        .with_client_software_name("apache-kafka-java".into())
        .with_client_software_version("4.3.1".into());
    let named = ClientSoftware { name: Some(b"apache-kafka-java"), version: Some(b"4.3.1") };
    for version in 0..=4 {
        let bytes = if version < 3 { Vec::new() } else { encode(&message, version) };
        let expected = if version < 3 { ClientSoftware::default() } else { named };
        assert_eq!(ClientSoftware::decode(version, &bytes), Ok(expected));
    }
}
