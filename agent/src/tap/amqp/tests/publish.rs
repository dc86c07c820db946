use super::*;

const MANDATORY: u8 = 1;

fn confirm_mode(wire: &mut Wire) {
    wire.client(&method(1, 85, 10, b"\0"));
    wire.broker(&method(1, 85, 11, b""));
    wire.forget();
}

/// Details and size of publishes as the rows say.
fn mandatory(wire: &Wire) -> Vec<Json> {
    wire.rows("Publish").iter().map(|row| row["details"]["mandatory"].clone()).collect()
}

#[test]
fn a_publish_is_recorded_with_the_bit_set_and_nothing_else_changed() {
    let mut wire = Wire::open();
    let bytes = publish(1, "orders", "placed", 0, "m-1");
    wire.client(&bytes);
    let different: Vec<usize> =
        (0..bytes.len()).filter(|i| bytes[*i] != wire.to_broker[*i]).collect();
    assert_eq!(wire.to_broker.len(), bytes.len());
    assert_eq!(different, [publish_method(1, "orders", "placed", 0).len() - 2]);
    let row = wire.rows("Publish")[0];
    assert_eq!(row["place"]["destination"], "orders");
    assert_eq!(row["place"]["routing_key"], "placed");
    assert_eq!(row["place"]["cluster"], "rabbit@one");
    assert_eq!(row["who"]["principal"], "shop");
    assert_eq!(row["who"]["client"], "pika 1.3");
    assert_eq!(row["message"]["size"], 2);
    assert_eq!(row["session"]["confirm_expected"], false);
    assert!(row["message"]["message"].as_str().unwrap().starts_with("f1:"));
    assert_eq!(mandatory(&wire), ["set"]);
}

#[test]
fn a_publish_and_its_delivery_have_the_same_message() {
    let mut wire = Wire::open();
    wire.client(&publish(1, "orders", "placed", 0, "m-1"));
    wire.broker(&deliver(1, "c", 1, "other.key", "m-1"));
    assert_eq!(
        wire.rows("Publish")[0]["message"]["message"],
        wire.rows("Deliver")[0]["message"]["message"]
    );
}

#[test]
fn the_bit_is_left_alone_where_it_would_lie_or_cost_too_much() {
    let mut wire = Wire::open();
    wire.client(&publish(1, "orders", "k", MANDATORY, "client"));
    wire.client(&publish(1, "", "amq.rabbitmq.reply-to.g1h2AA", 0, "reply"));
    wire.client(&publish(1, "orders", "k", 2, "immediate"));
    let large =
        [publish_method(1, "orders", "k", 0), content(1, "large", &vec![b'x'; 65_537])].concat();
    wire.client(&large);
    assert_eq!(mandatory(&wire), ["client", "reply_to", "immediate", "large"]);
    let mut env = env();
    env.detect_unroutable = false;
    let mut off = Wire::open_with(env);
    off.client(&publish(1, "orders", "k", 0, "m"));
    assert_eq!(mandatory(&off), ["off"]);
    assert_eq!(off.to_broker, publish(1, "orders", "k", 0, "m"));
    let mut slow = Wire::open();
    slow.session.client_is_slow(true);
    slow.client(&publish(1, "orders", "k", 0, "m"));
    assert_eq!(mandatory(&slow), ["slow_client"]);
}

#[test]
fn frames_of_another_channel_between_method_and_header_pass_in_order() {
    let mut wire = Wire::open();
    wire.client(&method(2, 20, 10, b"\0"));
    wire.to_broker.clear();
    let bytes = [
        publish_method(1, "orders", "a", 0),
        publish_method(2, "orders", "b", 0),
        content(1, "m-1", b"one"),
        content(2, "m-2", b"two"),
    ]
    .concat();
    wire.client(&bytes);
    assert_eq!(wire.to_broker, bytes);
    assert_eq!(mandatory(&wire), ["interleaved", "interleaved"]);
}

#[test]
fn confirms_with_multiple_cover_only_what_is_still_open() {
    let mut wire = Wire::open();
    confirm_mode(&mut wire);
    for id in ["1", "2", "3", "4"] {
        wire.client(&publish(1, "orders", "k", 0, id));
    }
    wire.broker(&ack(1, 2, false));
    wire.broker(&nack(1, 3, true, false));
    wire.broker(&ack(1, 4, true));
    let outcome = |word: &str, tag: i64| (word.to_owned(), json!(tag));
    assert_eq!(
        wire.outcomes("Confirm"),
        [
            outcome("Confirmed", 2),
            outcome("Refused", 1),
            outcome("Refused", 3),
            outcome("Confirmed", 4)
        ]
    );
    let confirm = wire.rows("Confirm")[0];
    assert_eq!(confirm["concludes"]["seq"], 2);
    assert_eq!(confirm["message"]["message"], wire.rows("Publish")[1]["message"]["message"]);
    assert!(wire.rows("Publish").iter().all(|row| row["session"]["confirm_expected"] == true));
}

#[test]
fn a_second_confirm_select_does_not_start_over_and_a_new_channel_does() {
    let mut wire = Wire::open();
    wire.client(&publish(1, "orders", "k", 0, "before"));
    confirm_mode(&mut wire);
    wire.client(&publish(1, "orders", "k", 0, "1"));
    wire.client(&method(1, 85, 10, b"\0"));
    wire.client(&publish(1, "orders", "k", 0, "2"));
    let tags: Vec<_> =
        wire.rows("Publish").iter().map(|row| row["who"]["delivery_tag"].clone()).collect();
    assert_eq!(tags, [json!(1), json!(2)]);
    wire.client(&channel_close(1, 200, "bye"));
    wire.broker(&method(1, 20, 41, b""));
    wire.client(&method(1, 20, 10, b"\0"));
    wire.broker(&method(1, 20, 11, b"\0\0\0\0"));
    wire.client(&publish(1, "orders", "k", 0, "3"));
    assert_eq!(wire.rows("Publish")[2]["who"]["delivery_tag"], Json::Null);
}

#[test]
fn a_confirm_waits_until_its_publish_is_written() {
    let mut wire = Wire::open();
    confirm_mode(&mut wire);
    wire.rows.written = Some(0);
    wire.client(&publish(1, "orders", "k", 0, "1"));
    wire.broker(&ack(1, 1, false));
    assert_eq!(wire.held, [1]);
}

#[test]
fn a_return_that_nobody_asked_for_is_swallowed() {
    let mut wire = Wire::open();
    confirm_mode(&mut wire);
    wire.client(&publish(1, "orders", "routable", 0, "1"));
    wire.client(&publish(1, "orders", "nowhere", 0, "2"));
    wire.broker(
        &[ack(1, 1, false), returned(1, "orders", "nowhere", "2"), ack(1, 2, false)].concat(),
    );
    assert_eq!(wire.to_client, [ack(1, 1, false), ack(1, 2, false)].concat());
    let row = wire.rows("Return")[0];
    assert_eq!((&row["outcome"], &row["reason"]), (&json!("Unroutable"), &json!("312 NO_ROUTE")));
    assert_eq!((&row["concludes"]["seq"], &row["who"]["delivery_tag"]), (&json!(2), &json!(2)));
}

#[test]
fn a_return_that_the_client_asked_for_is_forwarded() {
    let mut wire = Wire::open();
    wire.client(&publish(1, "orders", "nowhere", MANDATORY, "1"));
    let bytes = returned(1, "orders", "nowhere", "1");
    wire.broker(&bytes);
    assert_eq!(wire.to_client, bytes);
    assert_eq!(wire.rows("Return")[0]["concludes"]["seq"], 1);
}

#[test]
fn where_both_asked_the_content_decides() {
    for cut in [0, 5, 20, 60] {
        let mut wire = Wire::open();
        wire.client(&publish(1, "orders", "k", 0, "ours"));
        wire.client(&publish(1, "orders", "k", MANDATORY, "theirs"));
        let (ours, theirs) =
            (returned(1, "orders", "k", "ours"), returned(1, "orders", "k", "theirs"));
        let bytes = [ours, theirs.clone()].concat();
        wire.broker(&bytes[..cut]);
        wire.broker(&bytes[cut..]);
        assert_eq!(wire.to_client, theirs);
        let concluded: Vec<_> =
            wire.rows("Return").iter().map(|r| r["concludes"]["seq"].clone()).collect();
        assert_eq!(concluded, [json!(1), json!(2)]);
    }
}

#[test]
fn swallowed_returns_may_be_interleaved_with_other_channels() {
    let mut wire = Wire::open();
    wire.client(&method(2, 20, 10, b"\0"));
    wire.broker(&method(2, 20, 11, b"\0\0\0\0"));
    wire.to_client.clear();
    wire.client(&publish(1, "orders", "nowhere", 0, "1"));
    let arguments =
        [b"\x01\x38\x08NO_ROUTE".as_slice(), &short("orders"), &short("nowhere")].concat();
    let content = content(1, "1", b"{}");
    let header_end = content.len() - 10;
    let other = deliver(2, "c", 1, "k", "x");
    let heartbeat = frame(8, 0, b"");
    wire.broker(&method(1, 60, 50, &arguments));
    wire.broker(&other);
    wire.broker(&content[..header_end]);
    wire.broker(&heartbeat);
    wire.broker(&content[header_end..]);
    assert_eq!(wire.to_client, [other, heartbeat].concat());
    assert_eq!(wire.rows("Return").len(), 1);
}

#[test]
fn after_an_answer_to_a_later_method_nothing_earlier_can_come_back() {
    let mut wire = Wire::open();
    wire.client(&publish(1, "orders", "k", 0, "ours"));
    wire.client(&method(1, 60, 10, b"\0\0\0\0\0\x0a\0"));
    wire.broker(&method(1, 60, 11, b""));
    wire.client(&publish(1, "orders", "k", MANDATORY, "ours"));
    wire.broker(&returned(1, "orders", "k", "ours"));
    assert_eq!(wire.rows("Return")[0]["concludes"]["seq"], wire.rows("Publish")[1]["seq"]);
    assert!(!wire.to_client.is_empty(), "the client's own return reaches it");
}

#[test]
fn a_transaction_names_its_rows_and_ends_them() {
    let mut wire = Wire::open();
    wire.client(&method(1, 90, 10, b""));
    wire.broker(&method(1, 90, 11, b""));
    wire.client(&publish(1, "orders", "nowhere", 0, "1"));
    wire.client(&method(1, 90, 20, b""));
    wire.broker(&[returned(1, "orders", "nowhere", "1"), method(1, 90, 21, b"")].concat());
    wire.client(&publish(1, "orders", "k", 0, "2"));
    wire.client(&method(1, 90, 30, b""));
    wire.broker(&method(1, 90, 31, b""));
    let names: Vec<_> =
        wire.rows("Publish").iter().map(|r| r["session"]["broker_txn"].clone()).collect();
    assert_eq!(names, ["7/1/1", "7/1/2"]);
    assert_eq!(wire.rows("Return")[0]["session"]["broker_txn"], "7/1/1");
    let ends: Vec<_> = wire.rows("Transaction").iter().map(|r| r["outcome"].clone()).collect();
    assert_eq!(ends, ["Committed", "Aborted"]);
    wire.client(&channel_close(1, 200, "bye"));
    assert_eq!(wire.rows("Transaction").len(), 2, "nothing was in the last one");
}

#[test]
fn a_commit_that_is_not_answered_has_no_outcome() {
    let mut wire = Wire::open();
    wire.client(&method(1, 90, 10, b""));
    wire.broker(&method(1, 90, 11, b""));
    wire.client(&publish(1, "orders", "k", 0, "1"));
    wire.client(&method(1, 90, 20, b""));
    wire.end();
    let row = wire.rows("Transaction")[0];
    assert_eq!(row["outcome"], Json::Null, "the broker may have committed");
    assert_eq!(row["reason"], "tx.commit unanswered; client closed the socket");
}

/// Header and body frames of a message with one number among its headers.
fn with_header(name: &str, value: i64, body: &[u8]) -> Vec<u8> {
    let value = [b"l".as_slice(), &value.to_be_bytes()].concat();
    content_with(1, &[0x20, 0], &table(&[(name, value)]), body)
}

#[test]
fn a_delayed_message_is_not_made_mandatory() {
    let mut wire = Wire::open();
    let delayed = [publish_method(1, "later", "k", 0), with_header("x-delay", 5000, b"x")].concat();
    wire.client(&delayed);
    assert_eq!(wire.to_broker, delayed);
    let near = [publish_method(1, "later", "k", 0), with_header("x-delayed", 5000, b"\x07x-delay")];
    wire.client(&near.concat());
    wire.client(
        &[publish_method(1, "later", "k", MANDATORY), with_header("x-delay", 1, b"x")].concat(),
    );
    assert_eq!(mandatory(&wire), ["delayed", "set", "client"]);
    // The client's own return says so: the message comes all the same.
    let arguments = [b"\x01\x38\x08NO_ROUTE".as_slice(), &short("later"), &short("k")].concat();
    wire.broker(&[method(1, 60, 50, &arguments), with_header("x-delay", 1, b"x")].concat());
    assert_eq!(wire.rows("Return")[0]["details"], json!({"asked_by": "client", "delayed": true}));
}

#[test]
fn only_rabbitmq_is_asked_for_returns() {
    let mut wire = Wire::new(env());
    wire.client(b"AMQP\0\0\x09\x01");
    let properties = table(&[("product", text("LavinMQ"))]);
    let start = [b"\0\x09".as_slice(), &properties, b"\0\0\0\0\0\0\0\0"].concat();
    wire.broker(&method(0, 10, 10, &start));
    wire.client(&method(1, 20, 10, b"\0"));
    wire.broker(&method(1, 20, 11, b"\0\0\0\0"));
    wire.forget();
    let bytes = publish(1, "orders", "k", 0, "m");
    wire.client(&bytes);
    assert_eq!((mandatory(&wire), &wire.to_broker), (vec![json!("not_rabbitmq")], &bytes));
}

#[test]
fn a_return_of_what_is_forgotten_says_that_it_is() {
    let mut wire = Wire::open();
    wire.client(&publish(1, "orders", "first", 0, "1"));
    let bytes = publish(1, "orders", "k", 0, "m");
    for _ in 0..65_536 {
        wire.client(&bytes);
    }
    wire.forget();
    wire.broker(&returned(1, "orders", "first", "1"));
    let row = wire.rows("Return")[0];
    assert_eq!(row["concludes"], Json::Null);
    assert_eq!(row["details"], json!({"asked_by": "tap", "publish": "forgotten"}));
    assert!(wire.to_client.is_empty());
}

#[test]
fn unconfirmed_publishes_stay_unknown_when_the_channel_closes() {
    let mut wire = Wire::open();
    confirm_mode(&mut wire);
    wire.client(&publish(1, "missing", "k", 0, "1"));
    wire.client(&publish(1, "orders", "k", 0, "2"));
    wire.broker(&channel_close(1, 404, "NOT_FOUND - no exchange 'missing'"));
    wire.client(&publish(1, "orders", "k", 0, "late"));
    wire.client(&method(1, 20, 41, b""));
    assert!(wire.rows("Confirm").is_empty());
    assert_eq!(mandatory(&wire), ["set", "set", "closing"]);
    let late = wire.rows("Publish")[2];
    assert_eq!(late["reason"], "channel_closing");
    assert_eq!(late["session"]["confirm_expected"], false);
    let closed = wire.rows("Session").into_iter().find(|row| row["outcome"] == "Closed").unwrap();
    assert_eq!(closed["reason"], "broker: 404 NOT_FOUND - no exchange 'missing'");
}

#[test]
fn headers_that_cannot_be_read_are_forwarded_and_said() {
    let mut wire = Wire::open();
    let bytes = [
        publish_method(1, "orders", "k", 0),
        content_with(1, &[0x20, 0], b"\0\0\0\x04\x01aU\0", b"body"),
    ]
    .concat();
    wire.client(&bytes);
    assert_eq!(wire.to_broker.len(), bytes.len());
    let row = wire.rows("Publish")[0];
    assert_eq!(row["details"]["undecodable"], "headers");
    assert_eq!((&row["message"]["size"], &row["message"]["message"]), (&json!(4), &Json::Null));
}

#[test]
fn empty_bodies_and_empty_body_frames_are_messages() {
    let mut wire = Wire::open();
    wire.client(&[publish_method(1, "orders", "k", 0), content(1, "empty", b"")].concat());
    let header = content(1, "two", b"ab");
    let header_end = header.len() - 10;
    wire.client(&publish_method(1, "orders", "k", 0));
    wire.client(&header[..header_end]);
    wire.client(
        &[frame(3, 1, b""), frame(3, 1, b"a"), frame(3, 1, b""), frame(3, 1, b"b")].concat(),
    );
    let sizes: Vec<_> =
        wire.rows("Publish").iter().map(|row| row["message"]["size"].clone()).collect();
    assert_eq!(sizes, [json!(0), json!(2)]);
}
