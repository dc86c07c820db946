use super::*;

fn consuming(queue: &str, bits: u8) -> Wire {
    let mut wire = Wire::open();
    wire.client(&consume(1, queue, "c", bits));
    wire.broker(&method(1, 60, 21, &short("c")));
    wire.forget();
    wire
}

fn outcome(word: &str, tag: u64) -> (String, Json) {
    (word.to_owned(), json!(tag))
}

#[test]
fn a_delivery_knows_its_queue_and_its_settlement_repeats_it() {
    let mut wire = consuming("factory", 0);
    wire.broker(&deliver(1, "c", 1, "placed", "m-1"));
    wire.client(&ack(1, 1, false));
    let (deliver, settle) = (wire.rows("Deliver")[0], wire.rows("Settle")[0]);
    for field in ["destination", "routing_key", "subscription"] {
        assert_eq!(deliver["place"][field], settle["place"][field], "{field}");
    }
    assert_eq!(deliver["place"]["subscription"], "factory");
    assert_eq!(settle["concludes"]["seq"], deliver["seq"]);
    assert_eq!(settle["message"]["message"], deliver["message"]["message"]);
    assert_eq!(settle["who"]["consumer"], "c");
    assert_eq!(settle["session"]["took_us"], 10);
    assert_eq!(settle["details"]["multiple"], false);
    assert_eq!(settle["outcome"], "Acked");
}

#[test]
fn settlements_say_what_became_of_each() {
    let mut wire = consuming("q", 0);
    for tag in 1..=6 {
        wire.broker(&deliver(1, "c", tag, "k", "m"));
    }
    wire.client(&ack(1, 2, true));
    wire.client(&nack(1, 3, false, true));
    wire.client(&nack(1, 4, false, false));
    wire.client(&method(1, 60, 90, &[5u64.to_be_bytes().as_slice(), &[0]].concat()));
    wire.client(&ack(1, 0, true));
    assert_eq!(
        wire.outcomes("Settle"),
        [
            outcome("Acked", 1),
            outcome("Acked", 2),
            outcome("Requeued", 3),
            outcome("Rejected", 4),
            outcome("Rejected", 5),
            outcome("Acked", 6)
        ]
    );
}

#[test]
fn an_unknown_tag_settles_nothing_and_the_channels_end_abandons_all() {
    let mut wire = consuming("q", 0);
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.broker(&deliver(1, "c", 2, "k", "m"));
    wire.client(&ack(1, 9, true));
    assert!(wire.rows("Settle").is_empty());
    let close = channel_close(1, 406, "PRECONDITION_FAILED - unknown delivery tag 9");
    wire.broker(&close);
    // 3.10.8 repeats a consumer timeout's close until the client answers.
    wire.broker(&close);
    assert_eq!(wire.outcomes("Settle"), [outcome("Abandoned", 1), outcome("Abandoned", 2)]);
    let reason = wire.rows("Settle")[0]["reason"].as_str().unwrap();
    assert_eq!(reason, "broker: 406 PRECONDITION_FAILED - unknown delivery tag 9");
    assert_eq!(wire.to_client.len(), 2 * deliver(1, "c", 1, "k", "m").len() + 2 * close.len());
}

#[test]
fn auto_acknowledged_deliveries_are_settled_at_once() {
    let mut wire = consuming("q", 2);
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    assert_eq!(wire.outcomes("Settle"), [outcome("Auto", 1)]);
    wire.end();
    assert_eq!(wire.rows("Settle").len(), 1);
}

#[test]
fn direct_replies_may_repeat_a_tag() {
    let mut wire = consuming("q", 0);
    wire.client(&consume(1, "amq.rabbitmq.reply-to", "r", 2));
    wire.broker(&method(1, 60, 21, &short("r")));
    wire.broker(&deliver(1, "r", 1, "k", "a"));
    wire.broker(&deliver(1, "r", 1, "k", "b"));
    wire.broker(&deliver(1, "c", 1, "k", "c"));
    wire.client(&ack(1, 1, false));
    assert_eq!(
        wire.outcomes("Settle"),
        [outcome("Auto", 1), outcome("Auto", 1), outcome("Acked", 1)]
    );
    assert_eq!(wire.rows("Settle")[2]["place"]["subscription"], "q");
}

#[test]
fn recover_requeues_what_is_open() {
    let mut wire = consuming("q", 0);
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.client(&method(1, 60, 110, b"\x01"));
    wire.broker(&method(1, 60, 111, b""));
    wire.broker(&deliver(1, "c", 2, "k", "m"));
    wire.client(&ack(1, 2, false));
    assert_eq!(wire.outcomes("Settle"), [outcome("Requeued", 1), outcome("Acked", 2)]);
    assert_eq!(wire.rows("Settle")[0]["reason"], "recover");
}

#[test]
fn a_cancelled_consumers_deliveries_can_still_be_acknowledged() {
    let mut wire = consuming("q", 0);
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.client(&method(1, 60, 30, &[short("c").as_slice(), &[0]].concat()));
    wire.broker(&method(1, 60, 31, &short("c")));
    wire.client(&ack(1, 1, false));
    assert_eq!(wire.outcomes("Settle"), [outcome("Acked", 1)]);
    let closed = wire.rows("Session")[0];
    assert_eq!(
        (&closed["outcome"], &closed["details"]["what"]),
        (&json!("Closed"), &json!("consumer"))
    );
    // The broker cancels: the channel stays.
    let mut wire = consuming("q", 0);
    wire.broker(&method(1, 60, 30, &[short("c").as_slice(), &[1]].concat()));
    assert_eq!(wire.rows("Session")[0]["reason"], "cancelled by the broker");
}

#[test]
fn an_empty_queue_name_is_the_last_declared_one() {
    let mut wire = Wire::open();
    let declare = |queue: &str| {
        method(1, 50, 10, &[b"\0\0".as_slice(), &short(queue), &[0b0100], &table(&[])].concat())
    };
    wire.client(&declare(""));
    wire.client(&consume(1, "", "", 0));
    let bind = [b"\0\0\0".as_slice(), &short("orders"), b"\0\0", &table(&[])].concat();
    wire.client(&method(1, 50, 20, &bind));
    wire.broker(&method(1, 50, 11, &[short("amq.gen-1").as_slice(), &[0; 8]].concat()));
    wire.broker(&method(1, 60, 21, &short("amq.ctag-1")));
    wire.broker(&method(1, 50, 21, b""));
    wire.broker(&deliver(1, "amq.ctag-1", 1, "k", "m"));
    assert_eq!(wire.rows("Deliver")[0]["place"]["subscription"], "amq.gen-1");
    let topology = wire.rows("Topology");
    assert_eq!(topology[0]["place"]["subscription"], "amq.gen-1");
    assert_eq!(topology[0]["details"]["exclusive"], true);
    assert_eq!(topology[1]["place"]["destination"], "orders");
    // With both names empty the broker takes the queue's name as the key.
    assert_eq!(topology[1]["place"]["routing_key"], "amq.gen-1");
}

#[test]
fn without_waiting_names_are_found_when_they_show() {
    let mut wire = Wire::open();
    let declare = [b"\0\0".as_slice(), &short(""), &[0b1_0000], &table(&[])].concat();
    wire.client(&method(1, 50, 10, &declare));
    wire.client(&consume(1, "", "", 0b1000));
    wire.broker(&deliver(1, "amq.ctag-9", 1, "k", "m"));
    assert_eq!(wire.rows("Deliver")[0]["place"]["subscription"], "(anonymous #1.1)");
    let opened = wire.rows("Session")[0];
    assert_eq!(opened["who"]["consumer"], "amq.ctag-9");
}

#[test]
fn a_get_is_a_delivery_without_a_consumer() {
    let mut wire = Wire::open();
    let get = |queue: &str| method(1, 60, 70, &[b"\0\0".as_slice(), &short(queue), &[0]].concat());
    wire.client(&[get("empty"), get("full")].concat());
    wire.broker(&method(1, 60, 72, b"\0"));
    let ok = [1u64.to_be_bytes().as_slice(), &[1], &short(""), &short("full"), &[0; 4]].concat();
    wire.broker(&[method(1, 60, 71, &ok), content(1, "m", b"x")].concat());
    let row = wire.rows("Deliver")[0];
    assert_eq!(
        (&row["place"]["subscription"], &row["details"]["get"]),
        (&json!("full"), &json!(true))
    );
    assert_eq!(
        (&row["place"]["destination"], &row["session"]["redelivered"]),
        (&json!(""), &json!(true))
    );
    assert_eq!(row["session"]["attempt"], Json::Null);
}

#[test]
fn in_a_transaction_settlements_wait_for_the_commit() {
    let mut wire = consuming("q", 0);
    wire.client(&method(1, 90, 10, b""));
    wire.broker(&method(1, 90, 11, b""));
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.client(&ack(1, 1, false));
    wire.client(&method(1, 90, 30, b""));
    wire.broker(&method(1, 90, 31, b""));
    assert!(wire.rows("Settle").is_empty(), "rolled back: open again under the same tag");
    wire.client(&ack(1, 1, false));
    wire.client(&method(1, 90, 20, b""));
    wire.broker(&method(1, 90, 21, b""));
    assert_eq!(wire.outcomes("Settle"), [outcome("Acked", 1)]);
    assert_eq!(wire.rows("Settle")[0]["session"]["broker_txn"], "7/1/2");
}

#[test]
fn deaths_and_delivery_counts_tell_the_attempt() {
    let array =
        |items: &[u8]| [b"A".as_slice(), &(items.len() as u32).to_be_bytes(), items].concat();
    let long = |value: i64| [b"l".as_slice(), &value.to_be_bytes()].concat();
    let mut wire = consuming("work", 0);
    let death = table(&[
        ("count", long(2)),
        ("reason", text("rejected")),
        ("queue", text("work")),
        ("exchange", text("orders")),
    ]);
    let headers = table(&[("x-death", array(&[b"F".as_slice(), &death].concat()))]);
    let method_args =
        [short("c").as_slice(), &1u64.to_be_bytes(), &[0], &short("dlx"), &short("k")].concat();
    wire.broker(&method(1, 60, 60, &method_args));
    wire.broker(&content_with(1, &[0x20, 0], &headers, b"x"));
    let row = wire.rows("Deliver")[0];
    assert_eq!(row["session"]["attempt"], 3);
    assert_eq!(
        (&row["reason"], &row["details"]["death"]["exchange"]),
        (&json!("rejected"), &json!("orders"))
    );

    let headers = table(&[("x-delivery-count", long(1))]);
    wire.broker(&method(1, 60, 60, &method_args));
    wire.broker(&content_with(1, &[0x20, 0], &headers, b"x"));
    assert_eq!(wire.rows("Deliver")[1]["session"]["attempt"], 2);
}

#[test]
fn what_is_open_is_abandoned_when_the_connection_ends() {
    let mut wire = consuming("q", 0);
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.end();
    wire.end();
    assert_eq!(wire.outcomes("Settle"), [outcome("Abandoned", 1)]);
    let closed: Vec<_> =
        wire.rows("Session").iter().map(|row| row["details"]["what"].clone()).collect();
    assert_eq!(closed, ["consumer", "channel", "connection"]);
    assert!(wire.rows("Session").iter().all(|row| row["reason"] == "client closed the socket"));
}

#[test]
fn a_delivery_that_crosses_the_clients_close_is_abandoned() {
    let mut wire = consuming("q", 0);
    wire.client(&channel_close(1, 200, "bye"));
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.broker(&method(1, 20, 41, b""));
    assert_eq!(wire.outcomes("Settle"), [outcome("Abandoned", 1)]);
}

#[test]
fn an_ack_waits_until_its_delivery_is_written() {
    let mut wire = consuming("q", 0);
    wire.rows.written = Some(0);
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.client(&ack(1, 1, false));
    assert_eq!(wire.held, [1]);
}

#[test]
fn beyond_the_budget_only_the_row_is_remembered() {
    let mut env = env();
    env.budget = Arc::new(Budget::new(10));
    let metrics = env.metrics.clone();
    let mut wire = Wire::open_with(env);
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.client(&ack(1, 1, false));
    let settle = wire.rows("Settle")[0];
    assert_eq!(
        (&settle["concludes"]["seq"], &settle["message"]["message"]),
        (&json!(1), &Json::Null)
    );
    assert_eq!(settle["details"], json!({"multiple": false, "forgotten": true}));
    assert_eq!(metrics.forgotten.get(), 1);
}

/// An environment that keeps the first four bytes of what fails.
fn keeping_failed() -> Env {
    let record = crate::identify::RecordSpec {
        payload: crate::identify::PayloadPolicy::Failed,
        max_bytes: 4,
        ..Default::default()
    };
    Env { identifier: Identifier::new(&[], &record).unwrap(), ..env() }
}

fn deliver_body(tag: u64, body: &[u8]) -> Vec<u8> {
    let start = [short("c").as_slice(), &tag.to_be_bytes(), &[0], b"\0", &short("k")].concat();
    [method(1, 60, 60, &start), content(1, "m", body)].concat()
}

#[test]
fn a_failed_payload_that_is_cut_or_had_no_room_says_so() {
    let mut wire = Wire::open_with(keeping_failed());
    wire.broker(
        &[deliver_body(1, b"123456"), deliver_body(2, b"1234"), deliver_body(3, b"123456")]
            .concat(),
    );
    wire.client(&nack(1, 2, true, false));
    wire.client(&ack(1, 3, false));
    let details: Vec<_> = wire.rows("Settle").iter().map(|row| row["details"].clone()).collect();
    assert_eq!(
        details,
        [
            json!({"multiple": true, "payload": "truncated"}),
            json!({"multiple": true}),
            json!({"multiple": false})
        ]
    );

    let mut env = keeping_failed();
    env.budget = Arc::new(Budget::new(1));
    let mut wire = Wire::open_with(env);
    wire.broker(&deliver_body(1, b"12"));
    wire.client(&nack(1, 1, false, false));
    let settle = wire.rows("Settle")[0];
    let want = json!({"multiple": false, "forgotten": true, "payload": "forgotten"});
    assert_eq!((&settle["details"], &settle["message"]["payload"]), (&want, &Json::Null));
}

fn subscriptions(wire: &Wire) -> Vec<Json> {
    wire.rows("Settle").iter().map(|row| row["place"]["subscription"].clone()).collect()
}

#[test]
fn auto_acknowledged_deliveries_that_cross_an_end_are_settled_all_the_same() {
    // The channel's.
    let mut wire = consuming("q", 2);
    wire.client(&channel_close(1, 200, "bye"));
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.broker(&method(1, 20, 41, b""));
    assert_eq!(
        (wire.outcomes("Settle"), subscriptions(&wire)),
        (vec![outcome("Auto", 1)], vec![json!("q")])
    );
    // The consumer's, which does not wait.
    let mut wire = consuming("q", 2);
    wire.client(&method(1, 60, 30, &[short("c").as_slice(), &[1]].concat()));
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.end();
    assert_eq!(
        (wire.outcomes("Settle"), subscriptions(&wire)),
        (vec![outcome("Auto", 1)], vec![json!("q")])
    );
    // The channel's, before the broker has said that there is a consumer, and what its name is.
    let mut wire = Wire::open();
    wire.client(
        &[consume(1, "q", "", 2), consume(1, "r", "", 2 | 8), channel_close(1, 200, "bye")]
            .concat(),
    );
    wire.broker(&method(1, 60, 21, &short("one")));
    wire.broker(&[deliver(1, "one", 1, "k", "m"), deliver(1, "two", 2, "k", "m")].concat());
    wire.broker(&deliver(1, "two", 3, "k", "m"));
    assert_eq!(
        wire.outcomes("Settle"),
        [outcome("Auto", 1), outcome("Auto", 2), outcome("Auto", 3)]
    );
    assert_eq!(subscriptions(&wire), ["q", "r", "r"]);
    assert!(wire.rows("Session").iter().all(|row| row["details"]["what"] == "channel"));
    // The channel's, with a basic.get under way.
    let mut wire = Wire::open();
    let get = method(1, 60, 70, &[b"\0\0".as_slice(), &short("q"), &[1]].concat());
    wire.client(&[get, channel_close(1, 200, "bye")].concat());
    let ok = [1u64.to_be_bytes().as_slice(), &[0], &short(""), &short("q"), &[0; 4]].concat();
    wire.broker(&[method(1, 60, 71, &ok), content(1, "m", b"x")].concat());
    assert_eq!(
        (wire.outcomes("Settle"), subscriptions(&wire)),
        (vec![outcome("Auto", 1)], vec![json!("q")])
    );
}

#[test]
fn cancelled_consumers_do_not_pile_up() {
    let mut wire = Wire::open();
    for number in 0..300 {
        let tag = format!("c-{number}");
        wire.client(&consume(1, "q", &tag, 2));
        wire.broker(&method(1, 60, 21, &short(&tag)));
        wire.client(&method(1, 60, 30, &[short(&tag).as_slice(), &[1]].concat()));
    }
    wire.broker(&[deliver(1, "c-0", 1, "k", "m"), deliver(1, "c-299", 2, "k", "m")].concat());
    assert_eq!(wire.outcomes("Settle"), [outcome("Auto", 2)], "the first is forgotten");
}

#[test]
fn expired_and_dropped_copies_were_no_attempts() {
    let long = |value: i64| [b"l".as_slice(), &value.to_be_bytes()].concat();
    let death = |reason: &str, count: i64| {
        let entry = [("count", long(count)), ("reason", text(reason)), ("queue", text("q"))];
        [b"F".as_slice(), &table(&entry)].concat()
    };
    let attempt = |deaths: &[Vec<u8>]| {
        let mut wire = consuming("q", 0);
        let items = deaths.concat();
        let array = [b"A".as_slice(), &(items.len() as u32).to_be_bytes(), &items].concat();
        let start = [short("c").as_slice(), &1u64.to_be_bytes(), &[0], b"\0", &short("k")].concat();
        wire.broker(&method(1, 60, 60, &start));
        wire.broker(&content_with(1, &[0x20, 0], &table(&[("x-death", array)]), b"x"));
        wire.rows("Deliver")[0]["session"]["attempt"].clone()
    };
    assert_eq!(attempt(&[death("expired", 4)]), 1);
    assert_eq!(attempt(&[death("maxlen", 1), death("rejected", 2)]), 3);
    assert_eq!(attempt(&[death("delivery_limit", 1), death("expired", 9)]), 2);
}

#[test]
fn the_brokers_own_time_is_taken_where_it_stands_in_the_message() {
    let long = |value: i64| [b"l".as_slice(), &value.to_be_bytes()].concat();
    let mut wire = consuming("q", 0);
    let start = [short("c").as_slice(), &1u64.to_be_bytes(), &[0], b"\0", &short("k")].concat();
    for time in [1_700_000_000_123, i64::MAX, -1] {
        wire.broker(&method(1, 60, 60, &start));
        let headers = table(&[("timestamp_in_ms", long(time))]);
        wire.broker(&content_with(1, &[0x20, 0], &headers, b"x"));
    }
    let times: Vec<_> = wire.rows("Deliver").iter().map(|row| row["broker_at"].clone()).collect();
    assert_eq!(times, [json!(1_700_000_000_123_000_i64), Json::Null, Json::Null]);
}

#[test]
fn a_consumers_row_says_how_it_consumes() {
    let mut wire = Wire::open();
    wire.client(&method(1, 60, 10, b"\0\0\0\0\0\x0a\0"));
    wire.client(&method(1, 60, 10, b"\0\0\0\0\0\x64\x01"));
    let arguments = table(&[
        ("x-priority", [b"I".as_slice(), &5i32.to_be_bytes()].concat()),
        ("a_token", text("s3cret")),
    ]);
    let start = [b"\0\0".as_slice(), &short("q"), &short("c"), &[0b0100], &arguments].concat();
    wire.client(&method(1, 60, 20, &start));
    wire.broker(
        &[method(1, 60, 11, b""), method(1, 60, 11, b""), method(1, 60, 21, &short("c"))].concat(),
    );
    let details = &wire.rows("Session")[0]["details"];
    let want = json!({
        "what": "consumer", "no_ack": false, "exclusive": true, "prefetch": 10,
        "channel_prefetch": 100, "priority": 5, "arguments": {"x-priority": 5},
    });
    assert_eq!(*details, want);
    wire.client(&channel_close(1, 200, "bye"));
    let closed = wire.rows("Session").pop().unwrap();
    assert_eq!(closed["details"], json!({"what": "channel", "prefetch": 100}));
}

#[test]
fn a_commit_that_is_not_answered_leaves_its_settlements_in_doubt() {
    let mut wire = consuming("q", 0);
    wire.client(&method(1, 90, 10, b""));
    wire.broker(&method(1, 90, 11, b""));
    wire.broker(&[deliver(1, "c", 1, "k", "m"), deliver(1, "c", 2, "k", "m")].concat());
    wire.client(&ack(1, 1, false));
    wire.client(&method(1, 90, 20, b""));
    wire.end();
    assert_eq!(wire.outcomes("Settle"), [outcome("Abandoned", 1), outcome("Abandoned", 2)]);
    let reasons: Vec<_> = wire.rows("Settle").iter().map(|row| row["reason"].clone()).collect();
    assert_eq!(
        reasons,
        ["tx.commit unanswered; client closed the socket", "client closed the socket"]
    );
    assert_eq!(wire.rows("Settle")[0]["session"]["broker_txn"], "7/1/1");
}
