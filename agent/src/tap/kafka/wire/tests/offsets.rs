//! OffsetCommit, TxnOffsetCommit, OffsetFetch, Fetch requests and Produce answers.

use kafka_protocol::messages::{
    self, BrokerId, GroupId, ProducerId, TransactionalId, fetch_request, offset_commit_request,
    offset_commit_response, offset_fetch_request, offset_fetch_response, produce_response,
    txn_offset_commit_request, txn_offset_commit_response,
};
use proptest::prelude::*;

use super::*;

fn commit(version: i16, dice: &mut Dice) {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    let mut message = messages::OffsetCommitRequest::default()
        .with_group_id(GroupId(dice.text()))
        .with_generation_id_or_member_epoch(dice.any())
        .with_member_id(dice.text())
        .with_topics(dice.some(|dice| {
            let mut topic = OffsetCommitRequestTopic::default().with_name(dice.topic());
            topic.partitions = dice.some(|dice| {
                let mut partition = OffsetCommitRequestPartition::default()
                    .with_partition_index(dice.any())
                    .with_committed_offset(dice.any())
                    .with_committed_metadata(dice.text_if_any());
                if version >= 6 {
                    partition.committed_leader_epoch = dice.any();
                }
                tagged!(dice, partition)
            });
            tagged!(dice, topic)
        }));
    if version >= 7 {
        message.group_instance_id = dice.text_if_any();
    }
    if version <= 4 {
        message.retention_time_ms = dice.any();
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let expected = CommitRequest {
        group: text(&message.group_id.0),
        transaction: None,
        generation: message.generation_id_or_member_epoch,
        member: text(&message.member_id),
        topics: message
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter();
                let partitions = partitions.map(|it| (it.partition_index, it.committed_offset));
                (TopicRef::Name(text(&topic.name.0)), partitions.collect())
            })
            .collect(),
    };
    assert_eq!(CommitRequest::decode(key::OFFSET_COMMIT, version, &bytes), Ok(expected));
}

fn transactional_commit(version: i16, dice: &mut Dice) {
    use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
    let mut message = messages::TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(dice.text()))
        .with_group_id(GroupId(dice.text()))
        .with_producer_id(ProducerId(dice.any()))
        .with_producer_epoch(dice.any())
        .with_topics(dice.some(|dice| {
            let mut topic = TxnOffsetCommitRequestTopic::default().with_name(dice.topic());
            topic.partitions = dice.some(|dice| {
                let mut partition = TxnOffsetCommitRequestPartition::default()
                    .with_partition_index(dice.any())
                    .with_committed_offset(dice.any())
                    .with_committed_metadata(dice.text_if_any());
                if version >= 2 {
                    partition.committed_leader_epoch = dice.any();
                }
                tagged!(dice, partition)
            });
            tagged!(dice, topic)
        }));
    if version >= 3 {
        message.generation_id = dice.any();
        message.member_id = dice.text();
        message.group_instance_id = dice.text_if_any();
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let expected = CommitRequest {
        group: text(&message.group_id.0),
        transaction: Some((
            text(&message.transactional_id.0),
            message.producer_id.0,
            message.producer_epoch,
        )),
        generation: if version >= 3 { message.generation_id } else { -1 },
        member: text(&message.member_id),
        topics: message
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter();
                let partitions = partitions.map(|it| (it.partition_index, it.committed_offset));
                (TopicRef::Name(text(&topic.name.0)), partitions.collect())
            })
            .collect(),
    };
    assert_eq!(CommitRequest::decode(key::TXN_OFFSET_COMMIT, version, &bytes), Ok(expected));
}

fn committed(version: i16, dice: &mut Dice) {
    use offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    let by_id = version >= 10;
    let mut message = messages::OffsetCommitResponse::default().with_topics(dice.some(|dice| {
        let mut topic = OffsetCommitResponseTopic::default();
        if by_id {
            topic.topic_id = dice.id();
        } else {
            topic.name = dice.topic();
        }
        topic.partitions = dice.some(|dice| {
            let partition = OffsetCommitResponsePartition::default()
                .with_partition_index(dice.any())
                .with_error_code(dice.any());
            tagged!(dice, partition)
        });
        tagged!(dice, topic)
    }));
    if version >= 3 {
        message.throttle_time_ms = dice.any();
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let topics = message.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|it| (it.partition_index, it.error_code)).collect();
        (name_or_id(by_id, &topic.name, topic.topic_id), partitions)
    });
    let expected = CommitResponse { topics: topics.collect() };
    assert_eq!(CommitResponse::decode(key::OFFSET_COMMIT, version, &bytes), Ok(expected));
}

fn transactionally_committed(version: i16, dice: &mut Dice) {
    use txn_offset_commit_response::{
        TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
    };
    let message = messages::TxnOffsetCommitResponse::default()
        .with_throttle_time_ms(dice.any())
        .with_topics(dice.some(|dice| {
            let mut topic = TxnOffsetCommitResponseTopic::default().with_name(dice.topic());
            topic.partitions = dice.some(|dice| {
                let partition = TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(dice.any())
                    .with_error_code(dice.any());
                tagged!(dice, partition)
            });
            tagged!(dice, topic)
        }));
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let topics = message.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|it| (it.partition_index, it.error_code)).collect();
        (TopicRef::Name(text(&topic.name.0)), partitions)
    });
    let expected = CommitResponse { topics: topics.collect() };
    assert_eq!(CommitResponse::decode(key::TXN_OFFSET_COMMIT, version, &bytes), Ok(expected));
}

fn offset_fetch(version: i16, dice: &mut Dice) {
    use offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };
    let mut message = messages::OffsetFetchRequest::default();
    if version >= 7 {
        message.require_stable = dice.any();
    }
    let all = version >= 2 && dice.any();
    if version >= 8 {
        message.groups = dice.some(|dice| {
            let mut group = OffsetFetchRequestGroup::default().with_group_id(GroupId(dice.text()));
            if version >= 9 {
                group.member_id = dice.text_if_any();
                group.member_epoch = dice.any();
            }
            group.topics = (!all).then(|| {
                dice.some(|dice| {
                    let topic = OffsetFetchRequestTopics::default()
                        .with_name(dice.topic())
                        .with_partition_indexes(dice.integers());
                    tagged!(dice, topic)
                })
            });
            tagged!(dice, group)
        });
    } else {
        message.group_id = GroupId(dice.text());
        message.topics = (!all).then(|| {
            dice.some(|dice| {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(dice.topic())
                    .with_partition_indexes(dice.integers());
                tagged!(dice, topic)
            })
        });
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let groups = if version >= 8 {
        message
            .groups
            .iter()
            .map(|group| {
                let topics = group.topics.as_ref().map(|topics| {
                    topics
                        .iter()
                        .map(|it| (TopicRef::Name(text(&it.name.0)), it.partition_indexes.clone()))
                        .collect()
                });
                (text(&group.group_id.0), text_of(group.member_id.as_ref()), topics)
            })
            .collect()
    } else {
        let topics = message.topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|it| (TopicRef::Name(text(&it.name.0)), it.partition_indexes.clone()))
                .collect()
        });
        vec![(text(&message.group_id.0), None, topics)]
    };
    assert_eq!(OffsetFetchRequest::decode(version, &bytes), Ok(OffsetFetchRequest { groups }));
}

fn offsets_fetched(version: i16, dice: &mut Dice) {
    use offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
        OffsetFetchResponseTopic, OffsetFetchResponseTopics,
    };
    let by_id = version >= 10;
    let mut message = messages::OffsetFetchResponse::default();
    if version >= 3 {
        message.throttle_time_ms = dice.any();
    }
    if version >= 8 {
        message.groups = dice.some(|dice| {
            let mut group = OffsetFetchResponseGroup::default()
                .with_group_id(GroupId(dice.text()))
                .with_error_code(dice.any());
            group.topics = dice.some(|dice| {
                let mut topic = OffsetFetchResponseTopics::default();
                if by_id {
                    topic.topic_id = dice.id();
                } else {
                    topic.name = dice.topic();
                }
                topic.partitions = dice.some(|dice| {
                    let partition = OffsetFetchResponsePartitions::default()
                        .with_partition_index(dice.any())
                        .with_committed_offset(dice.any())
                        .with_committed_leader_epoch(dice.any())
                        .with_metadata(dice.text_if_any())
                        .with_error_code(dice.any());
                    tagged!(dice, partition)
                });
                tagged!(dice, topic)
            });
            tagged!(dice, group)
        });
    } else {
        if version >= 2 {
            message.error_code = dice.any();
        }
        message.topics = dice.some(|dice| {
            let mut topic = OffsetFetchResponseTopic::default().with_name(dice.topic());
            topic.partitions = dice.some(|dice| {
                let mut partition = OffsetFetchResponsePartition::default()
                    .with_partition_index(dice.any())
                    .with_committed_offset(dice.any())
                    .with_metadata(dice.text_if_any())
                    .with_error_code(dice.any());
                if version >= 5 {
                    partition.committed_leader_epoch = dice.any();
                }
                tagged!(dice, partition)
            });
            tagged!(dice, topic)
        });
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let groups = if version >= 8 {
        message
            .groups
            .iter()
            .map(|group| {
                let topics = group.topics.iter().map(|topic| {
                    let partitions = topic.partitions.iter();
                    let partitions = partitions
                        .map(|it| (it.partition_index, it.committed_offset, it.error_code));
                    (name_or_id(by_id, &topic.name, topic.topic_id), partitions.collect())
                });
                (text(&group.group_id.0), group.error_code, topics.collect())
            })
            .collect()
    } else {
        let topics = message.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter();
            let partitions =
                partitions.map(|it| (it.partition_index, it.committed_offset, it.error_code));
            (TopicRef::Name(text(&topic.name.0)), partitions.collect())
        });
        vec![(&b""[..], message.error_code, topics.collect())]
    };
    assert_eq!(OffsetFetchResponse::decode(version, &bytes), Ok(OffsetFetchResponse { groups }));
}

fn fetch(version: i16, dice: &mut Dice) {
    use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
    let by_id = version >= 13;
    let mut message = messages::FetchRequest::default()
        .with_max_wait_ms(dice.any())
        .with_min_bytes(dice.any())
        .with_max_bytes(dice.any())
        .with_isolation_level(dice.any::<bool>().into());
    if version >= 7 {
        (message.session_id, message.session_epoch) = (dice.any(), dice.any());
    }
    if version >= 11 {
        message.rack_id = dice.text();
    }
    if version >= 12 {
        message.cluster_id = dice.text_if_any();
    }
    if version >= 15 {
        message.replica_state =
            ReplicaState::default().with_replica_id(BrokerId(dice.one_of([-1, 3])));
    } else {
        message.replica_id = BrokerId(dice.any());
    }
    message.topics = dice.some(|dice| {
        let mut topic = FetchTopic::default();
        if by_id {
            topic.topic_id = dice.id();
        } else {
            topic.topic = dice.topic();
        }
        topic.partitions = dice.some(|dice| {
            let mut partition = FetchPartition::default()
                .with_partition(dice.any())
                .with_fetch_offset(dice.any())
                .with_partition_max_bytes(dice.any());
            if version >= 5 {
                partition.log_start_offset = dice.any();
            }
            if version >= 9 {
                partition.current_leader_epoch = dice.any();
            }
            if version >= 12 {
                partition.last_fetched_epoch = dice.any();
            }
            if version >= 17 {
                partition.replica_directory_id = dice.id();
            }
            if version >= 18 {
                partition.high_watermark = dice.any();
            }
            tagged!(dice, partition)
        });
        tagged!(dice, topic)
    });
    if version >= 7 {
        message.forgotten_topics_data = dice.some(|dice| {
            let mut topic = ForgottenTopic::default().with_partitions(dice.integers());
            if by_id {
                topic.topic_id = dice.id();
            } else {
                topic.topic = dice.topic();
            }
            tagged!(dice, topic)
        });
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let expected = FetchRequest {
        replica: if version >= 15 {
            message.replica_state.replica_id.0
        } else {
            message.replica_id.0
        },
        read_committed: message.isolation_level == 1,
        session: message.session_id,
        epoch: message.session_epoch,
        topics: message
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter();
                let partitions = partitions.map(|it| (it.partition, it.fetch_offset)).collect();
                (name_or_id(by_id, &topic.topic, topic.topic_id), partitions)
            })
            .collect(),
        forgotten: message
            .forgotten_topics_data
            .iter()
            .map(|topic| {
                (name_or_id(by_id, &topic.topic, topic.topic_id), topic.partitions.clone())
            })
            .collect(),
    };
    assert_eq!(FetchRequest::decode(version, &bytes), Ok(expected));
}

fn produced(version: i16, dice: &mut Dice) {
    use produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
        TopicProduceResponse,
    };
    let by_id = version >= 13;
    let mut message = messages::ProduceResponse::default().with_throttle_time_ms(dice.any());
    message.responses = dice.some(|dice| {
        let mut topic = TopicProduceResponse::default();
        if by_id {
            topic.topic_id = dice.id();
        } else {
            topic.name = dice.topic();
        }
        topic.partition_responses = dice.some(|dice| {
            let mut partition = PartitionProduceResponse::default()
                .with_index(dice.any())
                .with_error_code(dice.any())
                .with_base_offset(dice.any())
                .with_log_append_time_ms(dice.any());
            if version >= 5 {
                partition.log_start_offset = dice.any();
            }
            if version >= 8 {
                partition.error_message = dice.text_if_any();
                partition.record_errors = dice.some(|dice| {
                    let error = BatchIndexAndErrorMessage::default()
                        .with_batch_index(dice.any())
                        .with_batch_index_error_message(dice.text_if_any());
                    tagged!(dice, error)
                });
            }
            if version >= 10 {
                partition.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(BrokerId(dice.any()));
            }
            tagged!(dice, partition)
        });
        tagged!(dice, topic)
    });
    if version >= 10 {
        message.node_endpoints =
            dice.some(|dice| NodeEndpoint::default().with_host(dice.text()).with_port(9092));
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let topics = message.responses.iter().map(|topic| {
        let partitions = topic.partition_responses.iter().map(|it| Produced {
            partition: it.index,
            error: it.error_code,
            base_offset: it.base_offset,
            append_time: it.log_append_time_ms,
            at_fault: it.record_errors.iter().map(|error| error.batch_index).collect(),
            message: text_of(it.error_message.as_ref()),
        });
        (name_or_id(by_id, &topic.name, topic.topic_id), partitions.collect())
    });
    let expected = ProduceResponse { topics: topics.collect() };
    assert_eq!(ProduceResponse::decode(version, &bytes), Ok(expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn offsets_are_read_in_every_version(seed: u64) {
        let mut dice = Dice::new(seed);
        for version in 2..=9 {
            commit(version, &mut dice);
        }
        for version in 2..=10 {
            committed(version, &mut dice);
        }
        for version in 0..=5 {
            transactional_commit(version, &mut dice);
            transactionally_committed(version, &mut dice);
        }
        for version in 1..=9 {
            offset_fetch(version, &mut dice);
        }
        for version in 1..=10 {
            offsets_fetched(version, &mut dice);
        }
    }

    #[test]
    fn fetch_requests_and_produce_answers_are_read_in_every_version(seed: u64) {
        let mut dice = Dice::new(seed);
        for version in 4..=18 {
            fetch(version, &mut dice);
        }
        for version in 3..=13 {
            produced(version, &mut dice);
        }
    }
}
