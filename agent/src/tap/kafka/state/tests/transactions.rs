//! Transactions whose end is in doubt, of both protocols, and those that are older than the agent.

use kafka_protocol::messages::txn_offset_commit_request as tcq;
use kafka_protocol::messages::txn_offset_commit_response as tcr;

use super::consume::member;
use super::produce::{IN_TRANSACTION, VERSION, end, request, response};
use super::*;

impl Stage {
    fn publishes_in_transaction(&mut self, sequence: i32) {
        let like = Batch { sequence, ..IN_TRANSACTION };
        let asked = self.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(like, &["a"])]));
        self.answer(1, &asked, &response(0, 40));
    }

    fn initialises(&mut self, connection: i64, epoch: i16) {
        let init =
            m::InitProducerIdRequest::default().with_transactional_id(Some(text("tx-1").into()));
        let answer = m::InitProducerIdResponse::default()
            .with_producer_id(7.into())
            .with_producer_epoch(epoch);
        self.exchange(connection, key::INIT_PRODUCER_ID, 2, &init, &answer);
    }

    fn ends_with(&mut self, connection: i64, committed: bool, error: i16) {
        let answer = m::EndTxnResponse::default().with_error_code(error);
        self.exchange(connection, key::END_TXN, 3, &end(committed), &answer);
    }

    fn unseen(&self) -> Vec<Json> {
        let gaps = self.of("gap");
        gaps.into_iter().filter(|gap| gap["reason"] == "transaction_end_unseen").collect()
    }

    /// Takes the offset 1 into the transaction.
    pub(super) fn commits_in_transaction(&mut self, connection: i64, name: &str, offset: i64) {
        let partition = tcq::TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset);
        let topics = tcq::TxnOffsetCommitRequestTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]);
        let request = m::TxnOffsetCommitRequest::default()
            .with_transactional_id(text("tx-1").into())
            .with_group_id(text("billing").into())
            .with_producer_id(7.into())
            .with_producer_epoch(3)
            .with_member_id(member(name))
            .with_topics(vec![topics]);
        let partition = tcr::TxnOffsetCommitResponsePartition::default().with_partition_index(0);
        let topics = tcr::TxnOffsetCommitResponseTopic::default()
            .with_name(topic())
            .with_partitions(vec![partition]);
        let answer = m::TxnOffsetCommitResponse::default().with_topics(vec![topics]);
        self.exchange(connection, key::TXN_OFFSET_COMMIT, 3, &request, &answer);
    }
}

const FENCED: i16 = 90;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const CONCURRENT_TRANSACTIONS: i16 = 51;

#[test]
fn a_commit_whose_answer_is_lost_is_not_called_aborted_when_the_service_starts_again() {
    let mut stage = Stage::new();
    stage.initialises(1, 3);
    stage.publishes_in_transaction(0);
    let since = stage.of("publish")[0]["at"].clone();
    stage.ask(2, key::END_TXN, 3, &end(true));
    stage.closes(2);
    stage.initialises(3, 4);
    assert_eq!(stage.of("transaction").len(), 0);
    let gaps = stage.unseen();
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0]["details"]["broker_txn"], "7/3/1");
    assert_eq!(gaps[0]["gap"]["from"], since, "all rows of the transaction are within it");
}

#[test]
fn what_follows_an_end_whose_answer_was_not_seen_is_the_next_transaction() {
    use crate::tap::kafka::feed::Loss;
    let mut stage = Stage::new();
    stage.publishes_in_transaction(0);
    let asked = stage.ask(2, key::END_TXN, 3, &end(true));
    stage.item(2, What::Begin(Side::Broker, Box::new(asked)));
    stage.item(2, What::Lost(Side::Broker, Loss::Memory));
    assert_eq!(stage.unseen().len(), 0);
    stage.publishes_in_transaction(1);
    assert_eq!(stage.unseen()[0]["details"]["broker_txn"], "7/3/1");
    // The second one's abort says nothing of the first.
    stage.ends_with(2, false, 0);
    let ended = stage.of("transaction");
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["session"]["broker_txn"], "7/3/2");
}

#[test]
fn a_commit_that_is_asked_for_again_and_then_refused_may_have_been_done_at_first() {
    let mut stage = Stage::new();
    stage.publishes_in_transaction(0);
    stage.ask(2, key::END_TXN, 3, &end(true));
    stage.closes(2);
    stage.ends_with(3, true, FENCED);
    assert_eq!((stage.of("transaction").len(), stage.unseen().len()), (0, 1));

    // The same where the coordinator itself does not know whether its log has it.
    let mut stage = Stage::new();
    stage.publishes_in_transaction(0);
    stage.ends_with(2, true, COORDINATOR_NOT_AVAILABLE);
    stage.initialises(3, 4);
    assert_eq!((stage.of("transaction").len(), stage.unseen().len()), (0, 1));
}

#[test]
fn what_the_coordinator_has_not_done_for_sure_is_aborted_by_a_newcomer() {
    let mut stage = Stage::new();
    stage.publishes_in_transaction(0);
    stage.ends_with(2, true, CONCURRENT_TRANSACTIONS);
    stage.initialises(3, 4);
    assert_eq!(stage.ends("transaction"), [json!([null, "Aborted", "fenced by InitProducerId"])]);

    let mut stage = Stage::new();
    stage.publishes_in_transaction(0);
    stage.ends_with(2, true, FENCED);
    assert_eq!(stage.ends("transaction"), [json!([null, "Aborted", "PRODUCER_FENCED"])]);
    assert_eq!(stage.unseen().len(), 0);
}

#[test]
fn an_end_that_may_have_passed_unread_aborts_nothing() {
    use crate::tap::kafka::feed::Loss;
    let lost = |stage: &mut Stage| {
        let head = Head { key: key::END_TXN, version: 3, ..Head::of_nothing() };
        stage.item(2, What::Begin(Side::Client, Box::new(head)));
        stage.item(2, What::Lost(Side::Client, Loss::Memory));
    };
    let opaque = |stage: &mut Stage| stage.item(2, What::Opaque("somebody speaks Greek"));
    let missed = |stage: &mut Stage| {
        let missed = What::Missed { side: Side::Client, frames: 3, since: Micros(stage.now) };
        stage.item(2, missed);
    };
    let newer = |stage: &mut Stage| {
        let head = Head { key: key::END_TXN, version: 99, ..Head::of_nothing() };
        stage.item(2, What::Unread(Box::new(head)));
    };
    for passes in [&lost as &dyn Fn(&mut Stage), &opaque, &missed, &newer] {
        let mut stage = Stage::new();
        stage.initialises(1, 3);
        stage.publishes_in_transaction(0);
        passes(&mut stage);
        stage.initialises(3, 4);
        assert_eq!((stage.of("transaction").len(), stage.unseen().len()), (0, 1));
    }
}

#[test]
fn the_second_protocol_gives_each_transaction_an_epoch_and_adds_nothing_beforehand() {
    let mut stage = Stage::new();
    for (epoch, number) in [(3, 1), (4, 2)] {
        let like = Batch { producer: (7, epoch), ..IN_TRANSACTION };
        let asked = stage.ask(1, key::PRODUCE, 12, &request(-1, &[batch(like, &["a"])]));
        stage.answer(1, &asked, &response(0, 40));
        let ask = end(true).with_producer_epoch(epoch);
        let answer =
            m::EndTxnResponse::default().with_producer_id(7.into()).with_producer_epoch(epoch + 1);
        stage.exchange(2, key::END_TXN, 5, &ask, &answer);
        let name = json!(format!("7/{epoch}/{number}"));
        let ended = stage.of("transaction").pop().unwrap();
        assert_eq!(
            (&ended["outcome"], &ended["session"]["broker_txn"]),
            (&json!("Committed"), &name)
        );
        assert_eq!(stage.of("publish").last().unwrap()["session"]["broker_txn"], name);
        assert_eq!(stage.of("confirm").last().unwrap()["session"]["broker_txn"], name);
    }
    assert_eq!(stage.of("confirm").len(), 2, "the same sequence in another epoch is another batch");
}

#[test]
fn an_end_of_a_transaction_that_is_older_than_the_agent_says_nothing() {
    let mut stage = Stage::new();
    stage.ends_with(2, true, 0);
    assert_eq!((stage.of("transaction").len(), stage.of("gap").len()), (0, 0));
    // The next one is seen whole.
    stage.publishes_in_transaction(0);
    stage.ends_with(2, true, 0);
    assert_eq!(stage.ends("transaction"), [json!([null, "Committed", null])]);
}

#[test]
fn a_transactional_consumer_from_before_the_agents_start_is_known_by_both_its_connections() {
    let mut stage = Stage::new();
    let beat = m::HeartbeatRequest::default()
        .with_group_id(text("billing").into())
        .with_generation_id(4)
        .with_member_id(member("m-0"));
    stage.exchange(1, key::HEARTBEAT, 3, &beat, &m::HeartbeatResponse::default());
    // Offsets go by the producer's connection, which has another client id.
    stage.software(3, "producer", "1");
    stage.commits_in_transaction(3, "m-0", 3);
    stage.ends_with(3, true, 0);
    stage.fetches(2, 3, &[batch(Batch { base: 3, ..PLAIN }, &["a"])]);
    let delivery = &stage.of("deliver")[0];
    assert_eq!(delivery["place"]["subscription"], "billing");
    assert_eq!(delivery["who"]["consumer"], "m-0");
    stage.commits_in_transaction(3, "m-0", 4);
    stage.ends_with(3, true, 0);
    assert_eq!(stage.ends("settle"), [json!([3, "Committed", null])]);
}
