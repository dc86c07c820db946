use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

use super::*;

pub(super) const VERSION: i16 = 9;

pub(super) fn request(acks: i16, batches: &[Bytes]) -> m::ProduceRequest {
    let partition = |(index, batch): (usize, &Bytes)| {
        PartitionProduceData::default().with_index(index as i32).with_records(Some(batch.clone()))
    };
    let topic = TopicProduceData::default()
        .with_name(topic())
        .with_partition_data(batches.iter().enumerate().map(partition).collect());
    m::ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic])
}

pub(super) fn response(error: i16, base: i64) -> m::ProduceResponse {
    let partition = PartitionProduceResponse::default()
        .with_index(0)
        .with_error_code(error)
        .with_base_offset(base)
        .with_log_append_time_ms(-1);
    let topic = TopicProduceResponse::default()
        .with_name(topic())
        .with_partition_responses(vec![partition]);
    m::ProduceResponse::default().with_responses(vec![topic])
}

pub(super) const IDEMPOTENT: Batch = Batch { producer: (7, 0), sequence: 5, ..PLAIN };

#[test]
fn each_record_is_a_publish_and_gets_its_place_with_the_confirm() {
    let mut stage = Stage::new();
    let asked = stage.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(PLAIN, &["a", "b"])]));
    let publishes = stage.of("publish");
    assert_eq!(publishes.len(), 2);
    let first = &publishes[0];
    assert_eq!(first["place"]["destination"], "orders");
    assert_eq!(first["place"]["partition"], 0);
    assert_eq!(first["place"]["cluster"], "c1");
    assert_eq!(first["place"]["log_offset"], Json::Null);
    assert_eq!(first["place"]["routing_key"], "order-1");
    assert_eq!(first["session"]["confirm_expected"], true);
    assert_eq!(first["who"]["client"], "librdkafka 2.8 (shop-1)");
    assert_eq!(first["message"]["ids"]["event_id"]["value"], "a");
    assert_eq!(first["details"]["create_time"], 1_700_000_000_000_i64);
    assert_eq!(stage.of("confirm").len(), 0);
    stage.answer(1, &asked, &response(0, 40));
    let confirms = stage.of("confirm");
    assert_eq!(confirms[1]["message"]["message"], "c1/orders/0/41");
    assert_eq!(confirms[1]["place"]["log_offset"], 41);
    assert_eq!(confirms[1]["concludes"]["seq"], publishes[1]["seq"]);
    assert_eq!(confirms[1]["message"]["ids"]["event_id"]["value"], "b");
    assert_eq!(stage.ends("confirm")[0], json!([40, "Confirmed", null]));
}

#[test]
fn nothing_answers_a_publish_without_acks() {
    let mut stage = Stage::new();
    stage.ask(1, key::PRODUCE, VERSION, &request(0, &[batch(PLAIN, &["a"])]));
    assert_eq!(stage.of("publish")[0]["session"]["confirm_expected"], false);
    // The next answer on the connection is to the next request.
    let asked = stage.ask(1, key::PRODUCE, VERSION, &request(1, &[batch(PLAIN, &["b"])]));
    stage.answer(1, &asked, &response(0, 2));
    assert_eq!(stage.ends("confirm"), [json!([2, "Confirmed", null])]);
}

#[test]
fn a_refused_batch_says_by_which_error() {
    let mut stage = Stage::new();
    let asked = stage.ask(1, key::PRODUCE, VERSION, &request(1, &[batch(PLAIN, &["a"])]));
    stage.answer(1, &asked, &response(10, -1));
    assert_eq!(stage.ends("confirm"), [json!([null, "Refused", "MESSAGE_TOO_LARGE"])]);
}

#[test]
fn an_idempotent_retry_is_the_same_publish_on_whatever_connection() {
    let mut stage = Stage::new();
    let body = request(-1, &[batch(IDEMPOTENT, &["a", "b"])]);
    stage.ask(1, key::PRODUCE, VERSION, &body);
    stage.closes(1);
    let asked = stage.ask(2, key::PRODUCE, VERSION, &body);
    stage.answer(2, &asked, &response(0, 4));
    assert_eq!(stage.of("publish").len(), 2);
    assert_eq!(stage.ends("confirm").len(), 2);
    let asked = stage.ask(2, key::PRODUCE, VERSION, &body);
    stage.answer(2, &asked, &response(0, 4));
    assert_eq!(stage.ends("confirm").len(), 2, "a late retry is confirmed already");
}

#[test]
fn a_retriable_error_of_an_idempotent_producer_is_not_its_end() {
    const OUT_OF_ORDER: i16 = 45;
    for error in [6, OUT_OF_ORDER] {
        let mut stage = Stage::new();
        let body = request(-1, &[batch(IDEMPOTENT, &["a"])]);
        let asked = stage.ask(1, key::PRODUCE, VERSION, &body);
        stage.answer(1, &asked, &response(error, -1));
        assert_eq!(stage.of("confirm").len(), 0);
        let asked = stage.ask(2, key::PRODUCE, VERSION, &body);
        stage.answer(2, &asked, &response(0, 9));
        assert_eq!(stage.ends("confirm"), [json!([9, "Confirmed", null])]);
    }
}

#[test]
fn a_batch_that_is_never_sent_again_was_refused() {
    let mut stage = Stage::new();
    let asked = stage.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(IDEMPOTENT, &["a"])]));
    stage.answer(1, &asked, &response(19, -1));
    stage.later(200);
    assert_eq!(stage.ends("confirm"), [json!([null, "Refused", "NOT_ENOUGH_REPLICAS"])]);
}

#[test]
fn a_duplicate_sequence_is_confirmed_without_a_place() {
    let mut stage = Stage::new();
    let asked = stage.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(IDEMPOTENT, &["a"])]));
    stage.answer(1, &asked, &response(46, -1));
    let want = json!([null, "Confirmed", "DUPLICATE_SEQUENCE_NUMBER"]);
    assert_eq!(stage.ends("confirm"), [want]);
    assert_eq!(stage.of("confirm")[0]["message"]["message"], Json::Null);
}

#[test]
fn a_batch_that_cannot_be_read_is_a_gap_and_no_more() {
    let mut stage = Stage::new();
    let mut broken = batch(PLAIN, &["a"]).to_vec();
    *broken.last_mut().unwrap() ^= 0xff;
    stage.ask(1, key::PRODUCE, VERSION, &request(1, &[broken.into(), batch(PLAIN, &["b"])]));
    let gaps = stage.of("gap");
    assert_eq!((&gaps[0]["reason"], &gaps[0]["gap"]["count"]), (&json!("batch"), &json!(1)));
    assert_eq!(gaps[0]["place"]["destination"], "orders");
    assert_eq!(stage.of("publish").len(), 1);
}

pub(super) const IN_TRANSACTION: Batch =
    Batch { transactional: true, sequence: 0, producer: (7, 3), ..PLAIN };

pub(super) fn end(committed: bool) -> m::EndTxnRequest {
    m::EndTxnRequest::default()
        .with_transactional_id(text("tx-1").into())
        .with_producer_id(7.into())
        .with_producer_epoch(3)
        .with_committed(committed)
}

#[test]
fn rows_of_a_transaction_share_its_name_and_its_end_is_a_row() {
    let mut stage = Stage::new();
    for (round, outcome) in [(1, "Committed"), (2, "Aborted")] {
        let like = Batch { sequence: round, ..IN_TRANSACTION };
        let asked = stage.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(like, &["a"])]));
        stage.answer(1, &asked, &response(0, 40));
        // The coordinator is busy at first.
        let busy = m::EndTxnResponse::default().with_error_code(51);
        stage.exchange(2, key::END_TXN, 3, &end(round == 1), &busy);
        stage.exchange(2, key::END_TXN, 3, &end(round == 1), &m::EndTxnResponse::default());
        stage.exchange(2, key::END_TXN, 3, &end(round == 1), &m::EndTxnResponse::default());
        let name = json!(format!("7/3/{round}"));
        let ended = stage.of("transaction");
        assert_eq!(ended.len(), round as usize, "an end told twice is one");
        let ended = ended.last().unwrap();
        assert_eq!((&ended["outcome"], &ended["session"]["broker_txn"]), (&json!(outcome), &name));
        assert_eq!(ended["details"]["transactional_id"], "tx-1");
        assert_eq!(stage.of("publish").last().unwrap()["session"]["broker_txn"], name);
        assert_eq!(stage.of("confirm").last().unwrap()["session"]["broker_txn"], name);
    }
}

#[test]
fn a_newcomer_with_the_same_transactional_id_aborts_what_was_open() {
    let mut stage = Stage::new();
    let init = m::InitProducerIdRequest::default().with_transactional_id(Some(text("tx-1").into()));
    let answer = |epoch| {
        m::InitProducerIdResponse::default().with_producer_id(7.into()).with_producer_epoch(epoch)
    };
    stage.exchange(1, key::INIT_PRODUCER_ID, 2, &init, &answer(3));
    stage.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(IN_TRANSACTION, &["a"])]));
    stage.exchange(2, key::INIT_PRODUCER_ID, 2, &init, &answer(4));
    let ended = stage.ends("transaction");
    assert_eq!(ended, [json!([null, "Aborted", "fenced by InitProducerId"])]);
}

#[test]
fn a_topic_keeps_its_id_over_the_pieces_of_a_frame() {
    let mut stage = Stage::new();
    let id = uuid::Uuid::from_u128(TOPIC_ID);
    // The first piece ends within the batch.
    let value = "x".repeat(1000);
    let partition = PartitionProduceData::default().with_records(Some(batch(PLAIN, &[&value])));
    let topic = TopicProduceData::default().with_topic_id(id).with_partition_data(vec![partition]);
    let request = m::ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
    let partition = PartitionProduceResponse::default().with_base_offset(9);
    let topic =
        TopicProduceResponse::default().with_topic_id(id).with_partition_responses(vec![partition]);
    let response = m::ProduceResponse::default().with_responses(vec![topic]);
    stage.exchange(1, key::PRODUCE, 13, &request, &response);
    assert_eq!(stage.of("publish")[0]["place"]["destination"], "orders");
    assert_eq!(stage.ends("confirm"), [json!([9, "Confirmed", null])]);
}
