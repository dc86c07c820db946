use kafka_protocol::messages::consumer_group_heartbeat_request as ghq;
use kafka_protocol::messages::consumer_group_heartbeat_response as ghr;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request as ocq;
use kafka_protocol::messages::offset_commit_response as ocr;
use kafka_protocol::messages::txn_offset_commit_request as tcq;
use kafka_protocol::messages::txn_offset_commit_response as tcr;

use super::*;

pub(super) fn fetch(from: i64, committed: bool) -> m::FetchRequest {
    let partition = FetchPartition::default().with_partition(0).with_fetch_offset(from);
    let topic = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    m::FetchRequest::default()
        .with_replica_id((-1).into())
        .with_isolation_level(i8::from(committed))
        .with_topics(vec![topic])
}

pub(super) fn fetched(batches: &[Bytes], aborted: Option<Vec<(i64, i64)>>) -> m::FetchResponse {
    let aborted = aborted.map(|aborted| {
        let one = |(producer, first): (i64, i64)| {
            AbortedTransaction::default().with_producer_id(producer.into()).with_first_offset(first)
        };
        aborted.into_iter().map(one).collect()
    });
    let partition = PartitionData::default()
        .with_partition_index(0)
        .with_records(Some(batches.concat().into()))
        .with_aborted_transactions(aborted);
    let topic =
        FetchableTopicResponse::default().with_topic(topic()).with_partitions(vec![partition]);
    m::FetchResponse::default().with_responses(vec![topic])
}

pub(super) fn member(name: &str) -> StrBytes {
    text(name)
}

/// Sessions last ten seconds, rebalances a minute.
pub(super) fn join(name: &str) -> m::JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff"));
    m::JoinGroupRequest::default()
        .with_group_id(text("billing").into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(member(name))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

impl Stage {
    pub(super) fn fetches(&mut self, connection: i64, from: i64, batches: &[Bytes]) {
        let answer = fetched(batches, None);
        self.exchange(connection, key::FETCH, 11, &fetch(from, false), &answer);
    }

    pub(super) fn joins(
        &mut self,
        connection: i64,
        name: &str,
        generation: i32,
        partitions: &[i32],
    ) {
        let request = join(name);
        let answer = m::JoinGroupResponse::default()
            .with_generation_id(generation)
            .with_protocol_name(Some(text("range")))
            .with_member_id(member(name));
        self.exchange(connection, key::JOIN_GROUP, 5, &request, &answer);
        let request = m::SyncGroupRequest::default()
            .with_group_id(text("billing").into())
            .with_generation_id(generation)
            .with_member_id(member(name));
        let mut assignment = b"\0\0\0\0\0\x01\0\x06orders".to_vec();
        assignment.extend((partitions.len() as i32).to_be_bytes());
        assignment.extend(partitions.iter().flat_map(|number| number.to_be_bytes()));
        assignment.extend(b"\xff\xff\xff\xff");
        let answer = m::SyncGroupResponse::default().with_assignment(assignment.into());
        self.exchange(connection, key::SYNC_GROUP, 3, &request, &answer);
    }

    pub(super) fn leaves(&mut self, connection: i64, name: &str) {
        let request = m::LeaveGroupRequest::default()
            .with_group_id(text("billing").into())
            .with_members(vec![MemberIdentity::default().with_member_id(member(name))]);
        let answer = m::LeaveGroupResponse::default();
        self.exchange(connection, key::LEAVE_GROUP, 4, &request, &answer);
    }

    pub(super) fn commits(&mut self, connection: i64, name: &str, offset: i64, error: i16) {
        let partition = ocq::OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset);
        let topics = ocq::OffsetCommitRequestTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]);
        let request = m::OffsetCommitRequest::default()
            .with_group_id(text("billing").into())
            .with_generation_id_or_member_epoch(if name.is_empty() { -1 } else { 1 })
            .with_member_id(member(name))
            .with_topics(vec![topics]);
        let partition = ocr::OffsetCommitResponsePartition::default()
            .with_partition_index(0)
            .with_error_code(error);
        let topics = ocr::OffsetCommitResponseTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]);
        let answer = m::OffsetCommitResponse::default().with_topics(vec![topics]);
        self.exchange(connection, key::OFFSET_COMMIT, 7, &request, &answer);
    }
}

#[test]
fn a_delivery_is_its_groups_and_ends_with_the_commit_past_it() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0, 1]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a", "b", "c"])]);
    let deliveries = stage.of("deliver");
    assert_eq!(deliveries.len(), 3);
    assert_eq!(deliveries[2]["message"]["message"], "c1/orders/0/2");
    assert_eq!(deliveries[2]["place"]["subscription"], "billing");
    assert_eq!(deliveries[2]["who"]["consumer"], "m-1");
    assert_eq!(deliveries[2]["who"]["delivery_tag"], 1);
    assert_eq!(deliveries[2]["session"]["redelivered"], false);
    stage.commits(1, "m-1", 2, 27);
    assert_eq!(stage.of("settle").len(), 0, "the broker has refused that");
    stage.commits(1, "m-1", 2, 0);
    let settled = stage.ends("settle");
    assert_eq!(settled, [json!([0, "Committed", null]), json!([1, "Committed", null])]);
    let settle = &stage.of("settle")[1];
    assert_eq!(settle["concludes"]["seq"], deliveries[1]["seq"]);
    assert_eq!(settle["message"]["ids"]["event_id"]["value"], "b");
    assert_eq!(settle["who"]["connection"], 2, "where it was delivered");
    let position = stage.of("position");
    assert_eq!(position[0]["place"]["log_offset"], 2);
    stage.commits(1, "m-1", 2, 0);
    assert_eq!(stage.of("position").len(), 1, "nothing has changed");
}

#[test]
fn records_before_the_asked_offset_are_not_delivered() {
    let mut stage = Stage::new();
    stage.fetches(1, 2, &[batch(PLAIN, &["a", "b", "c"])]);
    let deliveries = stage.of("deliver");
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0]["place"]["log_offset"], 2);
    assert_eq!(deliveries[0]["place"]["subscription"], Json::Null, "nobody's group");
}

#[test]
fn followers_are_no_consumers() {
    let mut stage = Stage::new();
    let request = fetch(0, false).with_replica_id(2.into());
    let answer = fetched(&[batch(PLAIN, &["a"])], None);
    stage.exchange(1, key::FETCH, 11, &request, &answer);
    assert_eq!(stage.of("deliver").len(), 0);
}

#[test]
fn a_reader_of_committed_records_gets_none_of_an_aborted_transaction() {
    let transactional = |base, producer| Batch {
        base,
        producer: (producer, 0),
        sequence: 0,
        transactional: true,
        ..PLAIN
    };
    let marker = Batch { control: true, ..transactional(3, 7) };
    let batches = [
        batch(transactional(0, 7), &["aborted"]),
        batch(transactional(1, 8), &["other"]),
        batch(transactional(2, 7), &["aborted too"]),
        batch(marker, &["\0\0\0\0\0\0"]),
        batch(transactional(4, 7), &["next"]),
    ];
    let offsets = |stage: &Stage| -> Vec<i64> {
        let offset = |row: &Json| row["place"]["log_offset"].as_i64().unwrap();
        stage.of("deliver").iter().map(offset).collect()
    };
    let mut stage = Stage::new();
    let answer = fetched(&batches, Some(vec![(7, 0)]));
    stage.exchange(1, key::FETCH, 11, &fetch(0, true), &answer);
    assert_eq!(offsets(&stage), [1, 4]);
    let mut stage = Stage::new();
    stage.exchange(1, key::FETCH, 11, &fetch(0, false), &fetched(&batches, None));
    assert_eq!(offsets(&stage), [0, 1, 2, 4], "a reader of everything gets all but the marker");
}

#[test]
fn what_a_member_did_not_commit_is_abandoned_with_its_partition() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0, 1]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a", "b"])]);
    stage.commits(1, "m-1", 1, 0);
    // It joins again and owns nothing meanwhile; the other one gets the partition.
    stage.joins(1, "m-1", 2, &[1]);
    stage.joins(3, "m-2", 2, &[0]);
    let settled = stage.ends("settle");
    assert_eq!(settled[1], json!([1, "Abandoned", "partition revoked"]));
    stage.fetches(3, 1, &[batch(Batch { base: 1, ..PLAIN }, &["b"])]);
    let again = stage.of("deliver").pop().unwrap();
    assert_eq!(again["session"]["redelivered"], true);
    assert_eq!(again["who"]["consumer"], "m-2");
    assert_eq!(stage.of("settle").len(), 2, "exactly one each");
}

#[test]
fn a_member_that_leaves_or_falls_silent_abandons_what_is_open() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    stage.leaves(1, "m-1");
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "member left"])]);

    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    stage.closes(1);
    stage.closes(2);
    assert_eq!(stage.of("settle").len(), 0, "a connection alone ends nothing");
    stage.later(11);
    assert_eq!(stage.of("settle").len(), 0);
    stage.later(2);
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "member expelled"])]);
    let closed = stage.of("session").pop().unwrap();
    assert_eq!(
        (&closed["outcome"], &closed["details"]["what"]),
        (&json!("Closed"), &json!("member"))
    );
}

#[test]
fn what_comes_after_its_member_has_left_is_the_groups_and_ends_at_once() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    stage.commits(1, "m-1", 1, 0);
    let asked = stage.ask(2, key::FETCH, 11, &fetch(1, false));
    stage.leaves(1, "m-1");
    stage.answer(2, &asked, &fetched(&[batch(Batch { base: 1, ..PLAIN }, &["b"])], None));
    let late = stage.of("deliver").pop().unwrap();
    assert_eq!(
        (&late["place"]["subscription"], &late["who"]["consumer"]),
        (&json!("billing"), &json!("m-1"))
    );
    assert_eq!(stage.ends("settle")[1], json!([1, "Abandoned", "member has left"]));
    // A consumer that nobody knows stays without a group.
    stage.fetches(3, 2, &[batch(Batch { base: 2, ..PLAIN }, &["c"])]);
    assert_eq!(stage.of("deliver")[2]["place"]["subscription"], Json::Null);
}

#[test]
fn a_consumer_without_membership_is_known_by_its_commits() {
    let mut stage = Stage::new();
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    stage.commits(1, "", 1, 0);
    stage.fetches(2, 1, &[batch(Batch { base: 1, ..PLAIN }, &["b"])]);
    let deliveries = stage.of("deliver");
    assert_eq!(deliveries[0]["place"]["subscription"], Json::Null);
    assert_eq!(deliveries[1]["place"]["subscription"], "billing");
    stage.commits(1, "", 2, 0);
    assert_eq!(stage.ends("settle"), [json!([1, "Committed", null])]);
    stage.commits(1, "", 0, 0);
    let position = stage.of("position").pop().unwrap();
    assert_eq!(position["details"]["from"], 2, "it went back");
}

#[test]
fn members_of_the_newer_protocol_hold_what_the_coordinator_gives() {
    let mut stage = Stage::new();
    let beat = |epoch: i32, owned: Option<Vec<i32>>| {
        let topics = owned.map(|partitions| {
            let topic = ghq::TopicPartitions::default()
                .with_topic_id(uuid::Uuid::from_u128(TOPIC_ID))
                .with_partitions(partitions);
            vec![topic]
        });
        m::ConsumerGroupHeartbeatRequest::default()
            .with_group_id(text("billing").into())
            .with_member_id(member("m-9"))
            .with_member_epoch(epoch)
            .with_topic_partitions(topics)
    };
    let answer = |epoch: i32, assigned: Option<Vec<i32>>| {
        let assignment = assigned.map(|partitions| {
            let topic = ghr::TopicPartitions::default()
                .with_topic_id(uuid::Uuid::from_u128(TOPIC_ID))
                .with_partitions(partitions);
            ghr::Assignment::default().with_topic_partitions(vec![topic])
        });
        m::ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(member("m-9")))
            .with_member_epoch(epoch)
            .with_assignment(assignment)
    };
    let key = key::CONSUMER_GROUP_HEARTBEAT;
    stage.exchange(1, key, 0, &beat(0, Some(vec![])), &answer(1, Some(vec![0, 1])));
    stage.exchange(1, key, 0, &beat(1, Some(vec![0, 1])), &answer(1, None));
    stage.fetches(2, 0, &[batch(PLAIN, &["a", "b"])]);
    assert_eq!(stage.of("deliver")[0]["who"]["consumer"], "m-9");
    stage.commits(1, "m-9", 1, 0);
    stage.exchange(1, key, 0, &beat(1, None), &answer(2, Some(vec![1])));
    assert_eq!(stage.of("settle").len(), 1, "it may still commit what it gives back");
    stage.exchange(1, key, 0, &beat(2, Some(vec![1])), &answer(2, None));
    assert_eq!(stage.ends("settle")[1], json!([1, "Abandoned", "partition revoked"]));
}

#[test]
fn offsets_in_a_transaction_settle_when_it_commits() {
    for (committed, outcome) in [(true, json!("Committed")), (false, Json::Null)] {
        let mut stage = Stage::new();
        stage.joins(1, "m-1", 1, &[0]);
        stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
        let partition = tcq::TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(1);
        let topics = tcq::TxnOffsetCommitRequestTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]);
        let request = m::TxnOffsetCommitRequest::default()
            .with_transactional_id(text("tx-1").into())
            .with_group_id(text("billing").into())
            .with_producer_id(7.into())
            .with_producer_epoch(3)
            .with_member_id(member("m-1"))
            .with_topics(vec![topics]);
        let partition = tcr::TxnOffsetCommitResponsePartition::default().with_partition_index(0);
        let topics = tcr::TxnOffsetCommitResponseTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]);
        let answer = m::TxnOffsetCommitResponse::default().with_topics(vec![topics]);
        stage.exchange(3, key::TXN_OFFSET_COMMIT, 3, &request, &answer);
        assert_eq!(stage.of("settle").len(), 0);
        let end = m::EndTxnRequest::default()
            .with_transactional_id(text("tx-1").into())
            .with_producer_id(7.into())
            .with_producer_epoch(3)
            .with_committed(committed);
        stage.exchange(3, key::END_TXN, 3, &end, &m::EndTxnResponse::default());
        let settle = stage.of("settle").pop().unwrap_or_default();
        assert_eq!(settle["outcome"], outcome);
        if committed {
            assert_eq!(settle["session"]["broker_txn"], "7/3/1");
        }
    }
}

#[test]
fn what_arrives_late_is_of_the_group_until_somebody_else_has_the_partition() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    // The partition is to go to another member; a fetch is still on its way.
    stage.joins(1, "m-1", 2, &[]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    let delivery = &stage.of("deliver")[0];
    assert_eq!(delivery["place"]["subscription"], "billing");
    assert_eq!(delivery["who"]["consumer"], "m-1");
    stage.joins(3, "m-2", 2, &[0]);
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "partition revoked"])]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    assert_eq!(stage.of("deliver")[1]["who"]["consumer"], "m-2");
}

#[test]
fn a_member_from_before_the_agents_start_is_known_by_its_commits() {
    let mut stage = Stage::new();
    stage.commits(1, "m-0", 3, 0);
    stage.fetches(2, 3, &[batch(Batch { base: 3, ..PLAIN }, &["a", "b"])]);
    let delivery = &stage.of("deliver")[0];
    assert_eq!(delivery["place"]["subscription"], "billing");
    assert_eq!(delivery["who"]["consumer"], "m-0");
    stage.commits(1, "m-0", 4, 0);
    assert_eq!(stage.ends("settle"), [json!([3, "Committed", null])]);
    stage.joins(3, "m-2", 2, &[0]);
    assert_eq!(stage.ends("settle")[1], json!([4, "Abandoned", "partition revoked"]));
}

#[test]
fn a_member_that_was_silent_as_long_as_its_broker_goes_on() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    stage.later(13);
    assert_eq!(stage.of("session").last().unwrap()["reason"], "member expelled");
    // The broker still knows it.
    stage.commits(1, "m-1", 0, 0);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    assert_eq!(stage.of("deliver")[0]["who"]["consumer"], "m-1");
}

#[test]
fn a_topic_may_get_its_name_after_a_member_got_its_partitions() {
    let mut stage = Stage::new();
    let id = uuid::Uuid::from_u128(77);
    let partitions = ghr::TopicPartitions::default().with_topic_id(id).with_partitions(vec![0]);
    let assignment = ghr::Assignment::default().with_topic_partitions(vec![partitions]);
    let request = m::ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text("billing").into())
        .with_member_id(member("m-1"))
        .with_topic_partitions(Some(vec![]));
    let answer = m::ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(member("m-1")))
        .with_member_epoch(1)
        .with_assignment(Some(assignment));
    stage.exchange(1, key::CONSUMER_GROUP_HEARTBEAT, 0, &request, &answer);
    let told = m::metadata_response::MetadataResponseTopic::default()
        .with_name(Some(topic()))
        .with_topic_id(id)
        .with_partitions(vec![m::metadata_response::MetadataResponsePartition::default()]);
    let answer = m::MetadataResponse::default().with_topics(vec![told]);
    stage.exchange(1, key::METADATA, 12, &m::MetadataRequest::default(), &answer);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    assert_eq!(stage.of("deliver")[0]["who"]["consumer"], "m-1");
}
