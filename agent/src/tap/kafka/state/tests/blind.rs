//! What is not read, and that it is said: from when to when, once, and without leaving anything
//! behind.

use super::consume::{fetch, fetched};
use super::produce::{IDEMPOTENT, VERSION, request, response};
use super::*;
use crate::tap::kafka::feed::Loss;

impl Stage {
    /// Reasons, counts and how many seconds each takes.
    fn gaps(&self) -> Vec<Json> {
        let short = |row: &Json| {
            let at = |name: &str| row["gap"][name].as_i64().unwrap();
            json!([row["reason"], row["gap"]["count"], (at("to") - at("from")) / 1_000_000])
        };
        self.of("gap").iter().map(short).collect()
    }

    fn waiting(&self) -> usize {
        self.state.shared.publishes.waiting()
    }

    fn begins(&mut self, connection: i64, side: Side, key: i16, body: &impl Encodable) -> Bytes {
        self.correlation += 1;
        let version = match key {
            key::PRODUCE => VERSION,
            key::JOIN_GROUP => 5,
            _ => 11,
        };
        let mut bytes = BytesMut::new();
        body.encode(&mut bytes, version).unwrap();
        let correlation = self.correlation;
        let head = Head { key, version, correlation, size: bytes.len(), ..Head::of_nothing() };
        self.item(connection, What::Begin(side, Box::new(head)));
        bytes.freeze()
    }
}

#[test]
fn a_connection_that_is_only_passed_on_is_a_gap_as_long_as_it_lasts() {
    let mut stage = Stage::new();
    stage.item(1, What::Opaque("it speaks Greek"));
    assert_eq!(stage.gaps(), [json!(["opaque", null, 0])]);
    stage.later(5);
    stage.later(6);
    assert_eq!(stage.gaps()[1..], [json!(["opaque", null, 11])]);
    stage.now += 4_000_000;
    stage.closes(1);
    assert_eq!(stage.gaps()[2..], [json!(["opaque", null, 4])]);
    let gaps = stage.of("gap");
    assert_eq!(gaps[1]["gap"]["from"], gaps[0]["gap"]["to"], "without a hole");
    assert_eq!(gaps[2]["gap"]["from"], gaps[1]["gap"]["to"]);
    stage.later(100);
    assert_eq!(stage.gaps().len(), 3);
}

#[test]
fn a_fetch_whose_request_was_not_read_is_a_gap_if_it_holds_records() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    for (records, want) in [(vec![], 1), (vec![batch(PLAIN, &["a", "b"])], 2)] {
        let mut stage = Stage::new();
        stage.joins(1, "m-1", 1, &[0]);
        stage.begins(2, Side::Client, key::FETCH, &fetch(0, false));
        stage.item(2, What::Lost(Side::Client, Loss::Memory));
        stage.now += 3_000_000;
        let asked = Head {
            key: key::FETCH,
            version: 11,
            correlation: stage.correlation,
            ..Head::of_nothing()
        };
        stage.answer(2, &asked, &fetched(&records, None));
        assert_eq!(stage.of("deliver").len(), 0);
        assert_eq!(stage.gaps().len(), want);
        let gap = stage.of("gap").pop().unwrap();
        if want == 2 {
            assert_eq!(stage.gaps()[1], json!(["request_unread", 2, 3]));
            assert_eq!(gap["place"]["destination"], "orders");
            assert_eq!(gap["place"]["subscription"], "billing");
            assert_eq!(gap["details"]["last_offset"], 1);
        }
    }
    // One that came while nothing was told at all.
    let asked = Head { key: key::FETCH, version: 11, correlation: 999, ..Head::of_nothing() };
    stage.answer(2, &asked, &fetched(&[batch(PLAIN, &["a"])], None));
    assert_eq!(stage.gaps(), [json!(["request_unread", 1, 0])]);
}

#[test]
fn a_fetch_that_is_cut_short_delivered_nothing() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    stage.ask(2, key::FETCH, 11, &fetch(0, false));
    stage.correlation -= 1;
    let records = [batch(PLAIN, &["a", "b"]), batch(Batch { base: 2, ..PLAIN }, &["c"])];
    let bytes = stage.begins(2, Side::Broker, key::FETCH, &fetched(&records, None));
    stage.item(2, What::Piece(Side::Broker, bytes.slice(..bytes.len() - 3)));
    assert_eq!(stage.of("deliver").len(), 2);
    stage.item(2, What::Lost(Side::Broker, Loss::Cut));
    stage.closes(2);
    assert_eq!(stage.gaps(), [json!(["cut", 2, 0])]);
    let gap = &stage.of("gap")[0];
    assert_eq!(gap["details"]["delivered"], false);
    assert_eq!(gap["place"]["subscription"], "billing");
    assert_eq!(stage.of("settle").len(), 0, "a connection alone ends nothing");
    // They come again, for the first time.
    stage.fetches(3, 0, &records);
    assert!(stage.of("deliver").iter().all(|row| row["session"]["redelivered"] == false));
    stage.commits(1, "m-1", 3, 0);
    assert_eq!(stage.of("settle").len(), stage.of("deliver").len(), "one each");
}

#[test]
fn nothing_waits_for_an_answer_that_cannot_come() {
    let body = request(-1, &[batch(PLAIN, &["a"])]);
    // Cut within the request, behind its only batch.
    let mut stage = Stage::new();
    let bytes = stage.begins(1, Side::Client, key::PRODUCE, &body);
    stage.item(1, What::Piece(Side::Client, bytes.slice(..bytes.len() - 1)));
    assert_eq!(stage.waiting(), 1);
    stage.item(1, What::Lost(Side::Client, Loss::Cut));
    stage.closes(1);
    assert_eq!(stage.waiting(), 0);
    // The answer is lost.
    let mut stage = Stage::new();
    stage.ask(1, key::PRODUCE, VERSION, &body);
    stage.correlation -= 1;
    stage.begins(1, Side::Broker, key::PRODUCE, &response(0, 4));
    stage.item(1, What::Lost(Side::Broker, Loss::Memory));
    assert_eq!(stage.waiting(), 0);
    // It can't be read.
    let mut stage = Stage::new();
    let asked = stage.ask(1, key::PRODUCE, VERSION, &body);
    stage.frame(1, Side::Broker, &asked, b"\xff\xff");
    assert_eq!(stage.waiting(), 0);
    // It says nothing of the partition.
    let mut stage = Stage::new();
    let asked = stage.ask(1, key::PRODUCE, VERSION, &body);
    stage.answer(1, &asked, &m::ProduceResponse::default());
    assert_eq!(stage.waiting(), 0);
    // A later request is answered before it.
    let mut stage = Stage::new();
    stage.ask(1, key::PRODUCE, VERSION, &body);
    let asked = stage.ask(1, key::PRODUCE, VERSION, &body);
    stage.answer(1, &asked, &response(0, 4));
    assert_eq!(stage.waiting(), 0);
    // More requests than any client leaves without an answer.
    let mut stage = Stage::new();
    for _ in 0..4100 {
        stage.ask(1, key::PRODUCE, VERSION, &body);
    }
    assert_eq!(stage.waiting(), 4096);
    // The decoder gives the connection up.
    stage.state.give_up(1, Micros(stage.now), &mut stage.rows);
    assert_eq!(stage.waiting(), 0);
    // Nothing at all comes.
    let mut stage = Stage::new();
    stage.ask(1, key::PRODUCE, VERSION, &body);
    stage.ask(2, key::PRODUCE, VERSION, &request(-1, &[batch(IDEMPOTENT, &["a"])]));
    stage.later(200);
    assert_eq!(stage.waiting(), 0);
}

#[test]
fn what_passes_unread_again_and_again_is_one_gap_for_some_seconds() {
    let mut stage = Stage::new();
    let unread = |stage: &mut Stage| {
        let head = Head { key: key::SHARE_FETCH, version: 1, ..Head::of_nothing() };
        stage.item(1, What::Unread(Box::new(head)));
    };
    for _ in 0..500 {
        unread(&mut stage);
    }
    assert_eq!(stage.gaps().len(), 1, "the first is said at once");
    stage.later(10);
    assert_eq!(stage.gaps()[1..], [json!(["version_unknown", 499, 0])]);
    unread(&mut stage);
    stage.closes(1);
    assert_eq!(stage.gaps()[2..], [json!(["version_unknown", 1, 0])]);
}

#[test]
fn messages_of_an_old_format_are_a_gap_of_their_partition_not_one_each() {
    // One of format 1: key null, value "x".
    let message = |offset: i64| {
        let inner = [&[0; 4][..], &[1, 0], &[0; 8], &[0xff; 4], b"\0\0\0\x01x"].concat();
        [&offset.to_be_bytes()[..], &(inner.len() as i32).to_be_bytes(), &inner].concat()
    };
    let mut stage = Stage::new();
    let set: Vec<u8> = (0..100).flat_map(message).collect();
    stage.fetches(2, 0, &[set.into()]);
    stage.closes(2);
    assert_eq!(
        stage.gaps(),
        [json!(["message_format", null, 0]), json!(["message_format", 99, 0])]
    );
    assert_eq!(stage.of("gap")[1]["place"]["partition"], 0);
}

#[test]
fn what_is_kept_of_frames_that_are_not_complete_is_counted() {
    let mut stage = Stage::new();
    let value = "x".repeat(100_000);
    let body = request(-1, &[batch(PLAIN, &[&value])]);
    let bytes = stage.begins(1, Side::Client, key::PRODUCE, &body);
    stage.item(1, What::Piece(Side::Client, bytes.slice(..90_000)));
    assert!(stage.state.kept() > 80_000, "{}", stage.state.kept());
    stage.item(1, What::Piece(Side::Client, bytes.slice(90_000..)));
    stage.item(1, What::End(Side::Client));
    assert_eq!(stage.state.kept(), 0);
    let long = consume::join(&"m".repeat(20_000));
    let bytes = stage.begins(2, Side::Client, key::JOIN_GROUP, &long);
    stage.item(2, What::Piece(Side::Client, bytes.slice(..10_000)));
    assert!(stage.state.kept() >= 10_000);
    stage.closes(2);
    assert_eq!(stage.state.kept(), 0);
}

#[test]
fn a_batch_that_is_too_large_is_sent_again_in_parts_which_are_other_publishes() {
    let mut stage = Stage::new();
    let asked =
        stage.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(IDEMPOTENT, &["a", "b"])]));
    stage.answer(1, &asked, &response(10, -1));
    // Java's client splits it, under new sequence numbers.
    for (sequence, value, offset) in [(7, "a", 40), (8, "b", 41)] {
        let like = Batch { sequence, ..IDEMPOTENT };
        let asked = stage.ask(1, key::PRODUCE, VERSION, &request(-1, &[batch(like, &[value])]));
        stage.answer(1, &asked, &response(0, offset));
    }
    let refused = json!([null, "Refused", "MESSAGE_TOO_LARGE"]);
    assert_eq!(
        stage.ends("confirm"),
        [refused.clone(), refused, json!([40, "Confirmed", null]), json!([41, "Confirmed", null])]
    );
    assert_eq!(stage.of("publish").len(), 4);
}

#[test]
fn deliveries_beyond_what_can_be_kept_are_said_at_once() {
    let mut stage = Stage::new();
    stage.joins(1, "m-1", 1, &[0]);
    let values = ["v"; 100];
    let fetches = |stage: &mut Stage, at: i64| {
        stage.fetches(2, at * 100, &[batch(Batch { base: at * 100, ..PLAIN }, &values)]);
    };
    for at in 0..10 {
        fetches(&mut stage, at);
    }
    assert_eq!(stage.gaps().len(), 0);
    fetches(&mut stage, 10);
    assert_eq!(stage.gaps(), [json!(["settle_forgotten", 100, 0])]);
    fetches(&mut stage, 11);
    assert_eq!(stage.gaps().len(), 1);
    stage.commits(1, "m-1", 1200, 0);
    assert_eq!(stage.of("settle").len(), 1000);
    assert_eq!(stage.gaps()[1..], [json!(["settle_forgotten", 100, 0])]);
    // There is room again, and then none once more.
    for at in 12..23 {
        fetches(&mut stage, at);
    }
    assert_eq!(stage.gaps()[2..], [json!(["settle_forgotten", 100, 0])]);
}
