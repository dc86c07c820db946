//! Members of groups, transactions, SASL.

use kafka_protocol::messages::{
    self, GroupId, ProducerId, TransactionalId, consumer_group_heartbeat_request,
    consumer_group_heartbeat_response, consumer_protocol_assignment,
    consumer_protocol_subscription, join_group_request, join_group_response, leave_group_request,
    leave_group_response,
};
use proptest::prelude::*;

use super::*;

fn join(version: i16, dice: &mut Dice) {
    let mut message = messages::JoinGroupRequest::default()
        .with_group_id(GroupId(dice.text()))
        .with_session_timeout_ms(dice.any())
        .with_member_id(dice.text())
        .with_protocol_type(dice.text())
        .with_protocols(dice.some(|dice| {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(dice.text())
                .with_metadata(dice.bytes());
            tagged!(dice, protocol)
        }));
    if version >= 1 {
        message.rebalance_timeout_ms = dice.any();
    }
    if version >= 5 {
        message.group_instance_id = dice.text_if_any();
    }
    if version >= 8 {
        message.reason = dice.text_if_any();
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let expected = JoinRequest {
        group: text(&message.group_id.0),
        session_timeout_ms: message.session_timeout_ms,
        rebalance_timeout_ms: if version >= 1 {
            message.rebalance_timeout_ms
        } else {
            message.session_timeout_ms
        },
        member: text(&message.member_id),
        instance: text_of(message.group_instance_id.as_ref()),
        protocol_type: text(&message.protocol_type),
        protocols: message.protocols.iter().map(|it| (text(&it.name), &it.metadata[..])).collect(),
    };
    assert_eq!(JoinRequest::decode(version, &bytes), Ok(expected));
}

fn joined(version: i16, dice: &mut Dice) {
    let mut message = messages::JoinGroupResponse::default()
        .with_error_code(dice.any())
        .with_generation_id(dice.any())
        .with_protocol_name(Some(dice.text()))
        .with_leader(dice.text())
        .with_member_id(dice.text())
        .with_members(dice.some(|dice| {
            let mut member = join_group_response::JoinGroupResponseMember::default()
                .with_member_id(dice.text())
                .with_metadata(dice.bytes());
            if version >= 5 {
                member.group_instance_id = dice.text_if_any();
            }
            tagged!(dice, member)
        }));
    if version >= 2 {
        message.throttle_time_ms = dice.any();
    }
    if version >= 7 {
        message.protocol_type = dice.text_if_any();
        message.protocol_name = dice.text_if_any();
    }
    if version >= 9 {
        message.skip_assignment = dice.any();
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let expected = JoinResponse {
        error: message.error_code,
        generation: message.generation_id,
        protocol: text_of(message.protocol_name.as_ref()),
        leader: text(&message.leader),
        member: text(&message.member_id),
    };
    assert_eq!(JoinResponse::decode(version, &bytes), Ok(expected));
}

fn sync(version: i16, dice: &mut Dice) {
    let mut message = messages::SyncGroupRequest::default()
        .with_group_id(GroupId(dice.text()))
        .with_generation_id(dice.any())
        .with_member_id(dice.text());
    if version >= 3 {
        message.group_instance_id = dice.text_if_any();
    }
    let bytes = encode(&tagged!(dice, message.clone()), version);
    let expected = MemberRequest {
        group: text(&message.group_id.0),
        generation: message.generation_id,
        member: text(&message.member_id),
    };
    assert_eq!(MemberRequest::decode(key::SYNC_GROUP, version, &bytes), Ok(expected.clone()));

    if version <= 4 {
        let beat = messages::HeartbeatRequest::default()
            .with_group_id(message.group_id.clone())
            .with_generation_id(message.generation_id)
            .with_member_id(message.member_id.clone());
        let bytes = encode(&beat, version);
        assert_eq!(MemberRequest::decode(key::HEARTBEAT, version, &bytes), Ok(expected));
        let answer = messages::HeartbeatResponse::default().with_error_code(dice.any());
        let bytes = encode(&answer, version);
        assert_eq!(heartbeat_error(key::HEARTBEAT, version, &bytes), Ok(answer.error_code));
    }

    let mut answer = messages::SyncGroupResponse::default()
        .with_error_code(dice.any())
        .with_assignment(dice.bytes());
    if version >= 1 {
        answer.throttle_time_ms = dice.any();
    }
    if version >= 5 {
        answer.protocol_type = dice.text_if_any();
        answer.protocol_name = dice.text_if_any();
    }
    let bytes = encode(&tagged!(dice, answer.clone()), version);
    let expected = SyncResponse {
        error: answer.error_code,
        protocol_type: text_of(answer.protocol_type.as_ref()),
        assignment: &answer.assignment,
    };
    assert_eq!(SyncResponse::decode(version, &bytes), Ok(expected));
}

fn leave(version: i16, dice: &mut Dice) {
    let mut message = messages::LeaveGroupRequest::default().with_group_id(GroupId(dice.text()));
    let mut answer = messages::LeaveGroupResponse::default().with_error_code(dice.any());
    if version >= 3 {
        message.members = dice.some(|dice| {
            let mut member = leave_group_request::MemberIdentity::default()
                .with_member_id(dice.text())
                .with_group_instance_id(dice.text_if_any());
            if version >= 5 {
                member.reason = dice.text_if_any();
            }
            tagged!(dice, member)
        });
        answer.members = dice.some(|dice| {
            let member = leave_group_response::MemberResponse::default()
                .with_member_id(dice.text())
                .with_group_instance_id(dice.text_if_any())
                .with_error_code(dice.any());
            tagged!(dice, member)
        });
    } else {
        message.member_id = dice.text();
    }
    let bytes = encode(&message, version);
    let members = if version >= 3 {
        let members = message.members.iter();
        let members =
            members.map(|it| (text(&it.member_id), text_of(it.group_instance_id.as_ref())));
        members.collect()
    } else {
        vec![(text(&message.member_id), None)]
    };
    let expected = LeaveRequest { group: text(&message.group_id.0), members };
    assert_eq!(LeaveRequest::decode(version, &bytes), Ok(expected));
    let bytes = encode(&answer, version);
    let members = answer
        .members
        .iter()
        .map(|it| (text(&it.member_id), text_of(it.group_instance_id.as_ref()), it.error_code));
    let expected = LeaveResponse { error: answer.error_code, members: members.collect() };
    assert_eq!(LeaveResponse::decode(version, &bytes), Ok(expected));
}

fn heartbeat(version: i16, dice: &mut Dice) {
    let mut message = messages::ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(dice.text()))
        .with_member_id(dice.text())
        .with_member_epoch(dice.any())
        .with_instance_id(dice.text_if_any())
        .with_rack_id(dice.text_if_any())
        .with_server_assignor(dice.text_if_any());
    if dice.any() {
        message.subscribed_topic_names = Some(dice.some(Dice::topic));
    }
    if version >= 1 {
        message.subscribed_topic_regex = dice.text_if_any();
    }
    if dice.any() {
        message.topic_partitions = Some(dice.some(|dice| {
            let topic = consumer_group_heartbeat_request::TopicPartitions::default()
                .with_topic_id(dice.id())
                .with_partitions(dice.integers());
            tagged!(dice, topic)
        }));
    }
    let message = tagged!(dice, message);
    let bytes = encode(&message, version);
    let owned = message.topic_partitions.as_ref().map(|topics| {
        topics.iter().map(|it| (TopicId(it.topic_id.into_bytes()), it.partitions.clone())).collect()
    });
    let expected = GroupHeartbeatRequest {
        group: text(&message.group_id.0),
        member: text(&message.member_id),
        epoch: message.member_epoch,
        instance: text_of(message.instance_id.as_ref()),
        owned,
    };
    assert_eq!(GroupHeartbeatRequest::decode(version, &bytes), Ok(expected));

    let mut answer = messages::ConsumerGroupHeartbeatResponse::default()
        .with_throttle_time_ms(dice.any())
        .with_error_code(dice.any())
        .with_error_message(dice.text_if_any())
        .with_member_id(dice.text_if_any())
        .with_member_epoch(dice.any());
    if dice.any() {
        let topics = dice.some(|dice| {
            let topic = consumer_group_heartbeat_response::TopicPartitions::default()
                .with_topic_id(dice.id())
                .with_partitions(dice.integers());
            tagged!(dice, topic)
        });
        let assignment = consumer_group_heartbeat_response::Assignment::default();
        answer.assignment = Some(tagged!(dice, assignment.with_topic_partitions(topics)));
    }
    let answer = tagged!(dice, answer);
    let bytes = encode(&answer, version);
    let assignment = answer.assignment.as_ref().map(|assignment| {
        let topics = assignment.topic_partitions.iter();
        topics.map(|it| (TopicId(it.topic_id.into_bytes()), it.partitions.clone())).collect()
    });
    let expected = GroupHeartbeatResponse {
        error: answer.error_code,
        member: text_of(answer.member_id.as_ref()),
        epoch: answer.member_epoch,
        assignment,
    };
    assert_eq!(GroupHeartbeatResponse::decode(version, &bytes), Ok(expected));
}

fn consumer_protocol(version: i16, dice: &mut Dice) {
    let mut message = messages::ConsumerProtocolSubscription::default()
        .with_topics(dice.some(Dice::text))
        .with_user_data(dice.any::<bool>().then(|| dice.bytes()));
    if version >= 1 {
        message.owned_partitions = dice.some(|dice| {
            consumer_protocol_subscription::TopicPartition::default()
                .with_topic(dice.topic())
                .with_partitions(dice.integers())
        });
    }
    if version >= 2 {
        message.generation_id = dice.any();
    }
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend(encode(&message, version));
    let owned = message.owned_partitions.iter();
    let expected = Subscription {
        topics: message.topics.iter().map(text).collect(),
        owned: owned.map(|it| (text(&it.topic.0), it.partitions.clone())).collect(),
    };
    assert_eq!(Subscription::decode(&bytes), Ok(expected));

    let message = messages::ConsumerProtocolAssignment::default()
        .with_assigned_partitions(dice.some(|dice| {
            consumer_protocol_assignment::TopicPartition::default()
                .with_topic(dice.topic())
                .with_partitions(dice.integers())
        }))
        .with_user_data(dice.any::<bool>().then(|| dice.bytes()));
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend(encode(&message, version));
    let topics = message.assigned_partitions.iter();
    let topics = topics.map(|it| (text(&it.topic.0), it.partitions.clone()));
    assert_eq!(Assignment::decode(&bytes), Ok(Assignment { topics: topics.collect() }));
}

fn transactions(version: i16, dice: &mut Dice) {
    let message = messages::InitProducerIdRequest::default()
        .with_transactional_id(dice.text_if_any().map(TransactionalId))
        .with_transaction_timeout_ms(dice.any());
    let bytes = encode(&tagged!(dice, message.clone()), version);
    let expected = InitProducerRequest {
        transactional_id: message.transactional_id.as_ref().map(|id| text(&id.0)),
        timeout_ms: message.transaction_timeout_ms,
    };
    assert_eq!(InitProducerRequest::decode(version, &bytes), Ok(expected));

    let answer = messages::InitProducerIdResponse::default()
        .with_error_code(dice.any())
        .with_producer_id(ProducerId(dice.any()))
        .with_producer_epoch(dice.any());
    let bytes = encode(&tagged!(dice, answer.clone()), version);
    let expected = InitProducerResponse {
        error: answer.error_code,
        producer_id: answer.producer_id.0,
        epoch: answer.producer_epoch,
    };
    assert_eq!(InitProducerResponse::decode(version, &bytes), Ok(expected));

    let message = messages::EndTxnRequest::default()
        .with_transactional_id(TransactionalId(dice.text()))
        .with_producer_id(ProducerId(dice.any()))
        .with_producer_epoch(dice.any())
        .with_committed(dice.any());
    let bytes = encode(&tagged!(dice, message.clone()), version);
    let expected = EndTxnRequest {
        transactional_id: text(&message.transactional_id.0),
        producer_id: message.producer_id.0,
        epoch: message.producer_epoch,
        committed: message.committed,
    };
    assert_eq!(EndTxnRequest::decode(version, &bytes), Ok(expected));

    let mut answer = messages::EndTxnResponse::default().with_error_code(dice.any());
    let mut next = None;
    if version >= 5 {
        let id = dice.any::<i64>() & i64::MAX;
        let (id, epoch) = if dice.any() { (id, dice.any()) } else { (-1, -1) };
        answer = answer.with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
        next = (id >= 0).then_some((id, epoch));
    }
    let bytes = encode(&tagged!(dice, answer.clone()), version);
    let expected = EndTxnResponse { error: answer.error_code, next };
    assert_eq!(EndTxnResponse::decode(version, &bytes), Ok(expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn members_are_read_in_every_version(seed: u64) {
        let mut dice = Dice::new(seed);
        for version in 0..=9 {
            join(version, &mut dice);
            joined(version, &mut dice);
        }
        for version in 0..=5 {
            sync(version, &mut dice);
            leave(version, &mut dice);
            transactions(version, &mut dice);
        }
        for version in 0..=1 {
            heartbeat(version, &mut dice);
        }
        for version in 0..=3 {
            consumer_protocol(version, &mut dice);
        }
    }
}

#[test]
fn newer_versions_of_what_members_tell_are_read_as_far_as_known() {
    let bytes = b"\0\x09\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x02and more";
    let expected = Assignment { topics: vec![(b"t", vec![2])] };
    assert_eq!(Assignment::decode(bytes), Ok(expected));
    assert_eq!(Assignment::decode(b""), Ok(Assignment::default()));
    assert_eq!(Subscription::decode(b""), Ok(Subscription::default()));
    assert!(Assignment::decode(b"\xff\xff\0\0\0\0").is_err());
}

/// Mechanism, token, name.
type Case = (&'static [u8], &'static [u8], Option<&'static [u8]>);

#[test]
fn of_sasl_only_the_name_is_taken() {
    let handshake = messages::SaslHandshakeRequest::default().with_mechanism("PLAIN".into());
    for version in 0..=1 {
        assert_eq!(handshake_mechanism(version, &encode(&handshake, version)), Ok(&b"PLAIN"[..]));
    }
    let token = Bytes::from_static(b"\0ada\0secret");
    let authenticate = messages::SaslAuthenticateRequest::default().with_auth_bytes(token.clone());
    for version in 0..=2 {
        assert_eq!(auth_bytes(version, &encode(&authenticate, version)), Ok(&token[..]));
    }
    let cases: &[Case] = &[
        (b"PLAIN", b"\0ada\0secret", Some(b"ada")),
        (b"PLAIN", b"other\0ada\0secret", Some(b"ada")),
        (b"PLAIN", b"ada secret", None),
        (b"PLAIN", b"\0\0secret", None),
        (b"SCRAM-SHA-256", b"n,,n=ada,r=nonce", Some(b"ada")),
        (b"SCRAM-SHA-512", b"n,a=other,n=a=2Cd=3Da=,r=nonce,tokenauth=true", Some(b"a,d=a=")),
        (b"SCRAM-SHA-512", b"y,,m=ext,n=ada,r=n=x", Some(b"ada")),
        (b"SCRAM-SHA-512", b"c=biws,r=nonce,p=cHJvb2Y=", None),
        (b"SCRAM-SHA-512", b"", None),
        (b"OAUTHBEARER", b"n,,\x01auth=Bearer abc\x01\x01", None),
        (b"GSSAPI", b"n,,n=ada,r=nonce", None),
    ];
    for (mechanism, token, name) in cases {
        assert_eq!(user_name(mechanism, token).as_deref(), *name, "{token:?}");
    }
}
