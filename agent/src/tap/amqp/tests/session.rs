use super::*;

#[test]
fn the_handshake_tells_who_and_never_the_password() {
    let mut wire = Wire::new(env());
    wire.handshake();
    let row = wire.rows("Session")[0];
    assert_eq!(row["details"]["client_properties"]["product"], "pika");
    assert_eq!((&row["who"]["principal"], &row["place"]["vhost"]), (&json!("shop"), &json!("/")));
    assert_eq!(row["details"]["server"]["product"], "RabbitMQ");
    assert!(!serde_json::to_string(&wire.rows.rows).unwrap().contains("s3cret"));
}

#[test]
fn external_is_refused_unless_allowed() {
    let start_ok = [table(&[]).as_slice(), b"\x08EXTERNAL\0\0\0\0\x05en_US"].concat();
    let mut wire = Wire::new(env());
    wire.client(b"AMQP\0\0\x09\x01");
    wire.client(&method(0, 10, 11, &start_ok));
    let refusal = wire.refused.unwrap();
    assert_eq!(refusal[7..13], [0, 10, 0, 50, 1, 0x93]);
    assert_eq!(wire.to_broker, b"AMQP\0\0\x09\x01");

    let mut allowed = env();
    allowed.allow_external = true;
    let mut wire = Wire::new(allowed);
    wire.client(b"AMQP\0\0\x09\x01");
    wire.client(&method(0, 10, 11, &start_ok));
    assert!(wire.refused.is_none());
}

#[test]
fn other_protocols_pass_and_are_a_gap() {
    for bytes in [b"AMQP\0\x01\0\0".as_slice(), b"GET / HTTP/1.1\r\n\r\n", b"A\0", &[0x16, 3, 1]] {
        let mut wire = Wire::new(env());
        wire.client(bytes);
        wire.broker(b"AMQP\0\0\x09\x01 and anything");
        assert_eq!(wire.to_broker, bytes);
        wire.end();
        let gaps = wire.rows("Gap");
        assert_eq!(gaps.len(), 2, "{bytes:?}");
        assert_eq!(
            (&gaps[0]["gap"]["to"], &gaps[0]["reason"]),
            (&Json::Null, &json!("not AMQP 0-9-1"))
        );
        assert!(gaps[1]["gap"]["to"].is_number());
    }
}

#[test]
fn garbage_in_the_middle_is_passed_on_and_said() {
    let mut wire = Wire::open();
    wire.client(&consume(1, "q", "c", 0));
    wire.broker(&method(1, 60, 21, &short("c")));
    wire.broker(&deliver(1, "c", 1, "k", "m"));
    wire.client(b"\x63garbage");
    wire.client(&ack(1, 1, false));
    assert!(wire.to_broker.ends_with(&[b"\x63garbage".as_slice(), &ack(1, 1, false)].concat()));
    assert_eq!(wire.rows("Gap")[0]["reason"], "unknown frame type");
    assert_eq!(wire.outcomes("Settle"), [("Abandoned".to_owned(), json!(1))]);
    assert_eq!(wire.rows("Settle")[0]["reason"], "out of sight");
}

#[test]
fn unknown_methods_are_forwarded_untouched() {
    let mut wire = Wire::open();
    let secret = method(0, 10, 70, b"\0\0\0\x06s3cret\x03why");
    wire.client(&secret);
    wire.broker(&method(0, 10, 71, b""));
    wire.client(&method(1, 60, 999, b"?"));
    assert_eq!(wire.to_broker, [secret, method(1, 60, 999, b"?")].concat());
    assert!(wire.rows.rows.is_empty());
}

#[test]
fn header_frames_above_any_frame_max_pass() {
    let mut wire = Wire::open();
    let headers = table(&[("big", text(&"x".repeat(100_000)))]);
    let arguments = [short("c").as_slice(), &1u64.to_be_bytes(), &[0], b"\0", &short("k")].concat();
    let bytes =
        [method(1, 60, 60, &arguments), content_with(1, &[0x20, 0], &headers, b"x")].concat();
    wire.broker(&bytes);
    assert_eq!(wire.to_client, bytes);
    assert_eq!(wire.rows("Deliver").len(), 1);
}

#[test]
fn a_blocked_connection_is_a_row() {
    let mut wire = Wire::open();
    wire.broker(&method(0, 10, 60, &short("low on memory")));
    wire.broker(&method(0, 10, 61, b""));
    let rows = wire.rows("Session");
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["reason"]),
        (&json!("Blocked"), &json!("low on memory"))
    );
    assert_eq!(rows[1]["outcome"], "Unblocked");
}

#[test]
fn names_that_are_not_utf8_become_text() {
    let mut wire = Wire::open();
    let arguments = b"\0\0\x06orders\x02\xff\xfe\0";
    wire.client(&[method(1, 60, 40, arguments), content(1, "m", b"")].concat());
    assert_eq!(wire.rows("Publish")[0]["place"]["routing_key"], "\\xff\\xfe");
}
