//! Where records stand: holes and cut batches, topics by id and made anew, consumers that go back,
//! several groups under one client id.

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::offset_commit_request as ocq;
use kafka_protocol::messages::offset_commit_response as ocr;
use kafka_protocol::messages::offset_fetch_request as ofq;
use kafka_protocol::messages::offset_fetch_response as ofr;

use super::consume::{fetch, fetched, member};
use super::*;

impl Stage {
    fn offsets_of(&self, kind: &str) -> Vec<i64> {
        let offset = |row: &Json| row["place"]["log_offset"].as_i64().unwrap();
        self.of(kind).iter().map(offset).collect()
    }

    fn is_told(&mut self, id: u128) {
        let told = m::metadata_response::MetadataResponseTopic::default()
            .with_name(Some(topic()))
            .with_topic_id(uuid::Uuid::from_u128(id))
            .with_partitions(vec![m::metadata_response::MetadataResponsePartition::default()]);
        let answer = m::MetadataResponse::default().with_topics(vec![told]);
        self.exchange(1, key::METADATA, 12, &m::MetadataRequest::default(), &answer);
    }

    /// Asks for the offset of a group, which is no member's business.
    fn starts(&mut self, connection: i64, group: &str, offset: i64) {
        let asked = ofq::OffsetFetchRequestTopic::default()
            .with_name(topic())
            .with_partition_indexes(vec![0]);
        let request = m::OffsetFetchRequest::default()
            .with_group_id(text(group).into())
            .with_topics(Some(vec![asked]));
        let partition = ofr::OffsetFetchResponsePartition::default().with_committed_offset(offset);
        let told = ofr::OffsetFetchResponseTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]);
        let answer = m::OffsetFetchResponse::default().with_topics(vec![told]);
        self.exchange(connection, key::OFFSET_FETCH, 5, &request, &answer);
    }

    fn looks_for(&mut self, connection: i64, group: &str) {
        let request = m::FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
        self.ask(connection, key::FIND_COORDINATOR, 4, &request);
    }
}

#[test]
fn a_batch_that_the_broker_cuts_short_is_delivered_when_it_comes_whole() {
    let second = batch(Batch { base: 2, ..PLAIN }, &["c", "d"]);
    for cut in [1, 12, 40, 61, second.len() - 1] {
        let mut stage = Stage::new();
        stage.joins(1, "m-1", 1, &[0]);
        stage.fetches(2, 0, &[batch(PLAIN, &["a", "b"]), second.slice(..cut)]);
        stage.fetches(2, 2, std::slice::from_ref(&second));
        assert_eq!(stage.offsets_of("deliver"), [0, 1, 2, 3], "cut at {cut}");
        assert_eq!(stage.of("gap").len(), 0);
        assert!(stage.of("deliver").iter().all(|row| row["session"]["redelivered"] == false));
    }
}

#[test]
fn a_reader_goes_on_behind_a_batch_whose_last_records_are_compacted_away() {
    let mut stage = Stage::new();
    // Two groups of one client: only where each would go on tells them apart.
    stage.starts(1, "billing", 0);
    stage.starts(1, "mailing", 50);
    let mut holes = batch(PLAIN, &["a", "b"]).to_vec();
    holes[23..27].copy_from_slice(&9_i32.to_be_bytes());
    let crc = crc32c::crc32c(&holes[21..]).to_be_bytes();
    holes[17..21].copy_from_slice(&crc);
    stage.fetches(2, 0, &[holes.into()]);
    // The position is 10, not the last record's offset and one more.
    stage.fetches(3, 10, &[batch(Batch { base: 10, ..PLAIN }, &["k"])]);
    let groups: Vec<Json> =
        stage.of("deliver").iter().map(|row| row["place"]["subscription"].clone()).collect();
    assert_eq!(groups, ["billing", "billing", "billing"]);
}

#[test]
fn topics_by_id_are_the_same_as_by_name() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    let id = uuid::Uuid::from_u128(TOPIC_ID);
    let partition = FetchPartition::default().with_partition(0).with_fetch_offset(0);
    let asked = FetchTopic::default().with_topic_id(id).with_partitions(vec![partition]);
    let request = m::FetchRequest::default().with_topics(vec![asked]);
    let records = Some(batch(PLAIN, &["a"]));
    let partition = PartitionData::default().with_partition_index(0).with_records(records);
    let told = FetchableTopicResponse::default().with_topic_id(id).with_partitions(vec![partition]);
    let answer = m::FetchResponse::default().with_responses(vec![told]);
    stage.exchange(2, key::FETCH, 13, &request, &answer);
    let delivery = &stage.of("deliver")[0];
    assert_eq!(delivery["place"]["destination"], "orders");
    assert_eq!(delivery["who"]["consumer"], "m-1");

    // Version 10 names topics by id alone; the other codec does not know it.
    let name = [&b"\x08billing\0\0\0\x01\x04m-1\0"[..], b"\x02", id.as_bytes(), b"\x02"].concat();
    let ask = [&name[..], &[0; 4], &1_i64.to_be_bytes(), &[0xff; 4], b"\x01\0\0\0"].concat();
    let done = [&[0, 0, 0, 0, 2][..], id.as_bytes(), b"\x02", &[0; 4], &[0, 0], b"\0\0\0"].concat();
    stage.correlation += 1;
    let head = Head {
        key: key::OFFSET_COMMIT,
        version: 10,
        correlation: stage.correlation,
        ..Head::of_nothing()
    };
    stage.frame(1, Side::Client, &head, &ask);
    stage.frame(1, Side::Broker, &head, &done);
    assert_eq!(stage.ends("settle"), [json!([0, "Committed", null])], "{:?}", stage.of("gap"));
}

#[test]
fn a_consumer_that_goes_back_gets_again_and_settles_each_delivery_once() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    let records = batch(PLAIN, &["a", "b", "c"]);
    stage.fetches(2, 0, std::slice::from_ref(&records));
    stage.fetches(2, 1, &[records]);
    stage.fetches(2, 3, &[batch(Batch { base: 3, ..PLAIN }, &["d"])]);
    assert_eq!(stage.offsets_of("deliver"), [0, 1, 2, 1, 2, 3]);
    let again: Vec<Json> =
        stage.of("deliver").iter().map(|row| row["session"]["redelivered"].clone()).collect();
    assert_eq!(again, [false, false, false, true, true, false]);
    stage.commits(1, "m-1", 2, 0);
    let mut settled = stage.offsets_of("settle");
    settled.sort_unstable();
    assert_eq!(settled, [0, 1, 1]);
    stage.commits(1, "m-1", 4, 0);
    let mut ends: Vec<_> =
        stage.of("settle").iter().map(|row| row["concludes"]["seq"].as_i64()).collect();
    ends.sort_unstable();
    let mut deliveries: Vec<_> =
        stage.of("deliver").iter().map(|row| row["seq"].as_i64()).collect();
    deliveries.sort_unstable();
    assert_eq!(ends, deliveries, "exactly one each");
}

#[test]
fn a_topic_that_is_made_anew_begins_anew() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a", "b"])]);
    stage.commits(1, "m-1", 1, 0);
    stage.is_told(77);
    assert_eq!(stage.ends("settle")[1], json!([1, "Abandoned", "topic deleted"]));
    stage.fetches(2, 0, &[batch(PLAIN, &["new a", "new b"])]);
    let new = stage.of("deliver").pop().unwrap();
    assert_eq!(new["session"]["redelivered"], false);
    assert_eq!(new["who"]["consumer"], "m-1", "the member holds it still");
    stage.commits(1, "m-1", 1, 0);
    assert_eq!(stage.ends("settle")[2], json!([0, "Committed", null]));
    assert_eq!(stage.of("position").len(), 2, "the same offset, of another log");
}

#[test]
fn what_is_open_of_a_deleted_topic_is_abandoned() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    let request = m::DeleteTopicsRequest::default().with_topic_names(vec![topic()]);
    let result =
        m::delete_topics_response::DeletableTopicResult::default().with_name(Some(topic()));
    let failed =
        m::DeleteTopicsResponse::default().with_responses(vec![result.clone().with_error_code(41)]);
    stage.exchange(3, key::DELETE_TOPICS, 4, &request, &failed);
    assert_eq!(stage.of("settle").len(), 0);
    let done = m::DeleteTopicsResponse::default().with_responses(vec![result]);
    stage.exchange(3, key::DELETE_TOPICS, 4, &request, &done);
    assert_eq!(stage.ends("settle"), [json!([0, "Abandoned", "topic deleted"])]);
}

#[test]
fn a_connection_stays_with_the_group_that_it_was_seen_to_belong_to() {
    let mut stage = Stage::new();
    let group = |stage: &Stage| stage.of("deliver").pop().unwrap()["place"]["subscription"].clone();
    stage.starts(1, "billing", 0);
    stage.starts(1, "mailing", 5);
    stage.fetches(2, 0, &[batch(PLAIN, &["a"])]);
    assert_eq!(group(&stage), "billing");
    // Both have come to the same place now; the offset says nothing any more.
    stage.starts(1, "mailing", 1);
    stage.fetches(2, 1, &[batch(Batch { base: 1, ..PLAIN }, &["b"])]);
    assert_eq!(group(&stage), "billing");
    stage.fetches(3, 1, &[batch(Batch { base: 1, ..PLAIN }, &["b"])]);
    assert_eq!(group(&stage), "mailing", "who alone is still there");
    stage.fetches(3, 2, &[batch(Batch { base: 2, ..PLAIN }, &["c"])]);
    assert_eq!(group(&stage), "mailing");
}

#[test]
fn a_connection_belongs_to_the_group_whose_coordinator_it_asks_for() {
    let mut stage = Stage::new();
    for group in ["billing", "mailing"] {
        stage.starts(1, group, 0);
    }
    stage.looks_for(2, "mailing");
    stage.looks_for(3, "billing");
    for connection in [2, 3] {
        let answer = fetched(&[batch(PLAIN, &["a"])], None);
        stage.exchange(connection, key::FETCH, 11, &fetch(0, false), &answer);
    }
    let groups: Vec<Json> =
        stage.of("deliver").iter().map(|row| row["place"]["subscription"].clone()).collect();
    assert_eq!(groups, ["mailing", "billing"]);
}

#[test]
fn many_places_that_nobody_uses_are_forgotten() {
    let mut stage = Stage::new();
    for partition in 0..100 {
        let asked =
            ocq::OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![
                ocq::OffsetCommitRequestPartition::default()
                    .with_partition_index(partition)
                    .with_committed_offset(1),
            ]);
        let request = m::OffsetCommitRequest::default()
            .with_group_id(text("billing").into())
            .with_generation_id_or_member_epoch(-1)
            .with_member_id(member(""))
            .with_topics(vec![asked]);
        let told =
            ocr::OffsetCommitResponseTopic::default().with_name(topic()).with_partitions(vec![
                ocr::OffsetCommitResponsePartition::default().with_partition_index(partition),
            ]);
        let answer = m::OffsetCommitResponse::default().with_topics(vec![told]);
        stage.exchange(1, key::OFFSET_COMMIT, 7, &request, &answer);
    }
    stage.later(60);
    assert_eq!(stage.state.shared.groups.sizes(), (1, 100, 100));
    stage.later(100_000);
    assert_eq!(stage.state.shared.groups.sizes(), (0, 0, 0));
}
