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
    let refusal = wire.refused.take().unwrap();
    assert_eq!(refusal[7..13], [0, 10, 0, 50, 1, 0x93]);
    assert_eq!(wire.to_broker, b"AMQP\0\0\x09\x01");
    wire.session.end(Micros(2_000), "client refused by the sidecar", &mut wire.rows);
    let row = wire.rows("Session")[0];
    assert_eq!(
        (&row["details"]["opened"], &row["reason"]),
        (&json!(false), &json!("client refused by the sidecar"))
    );

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
    let gap = wire.rows("Gap")[0];
    assert_eq!(
        (&gap["reason"], &gap["who"]["connection"]),
        (&json!("unknown frame type"), &json!(7))
    );
    // Nobody knows how the delivery ends; what surely ends with the connection are its channel and
    // its consumer, not before.
    let closed = |wire: &Wire| {
        let closed = wire.rows("Session").into_iter().filter(|row| row["outcome"] == "Closed");
        closed.map(|row| row["details"]["what"].clone()).collect::<Vec<_>>()
    };
    assert!(closed(&wire).is_empty());
    wire.end();
    assert!(wire.rows("Settle").is_empty());
    assert_eq!(closed(&wire), ["consumer", "channel", "connection"]);
}

#[test]
fn a_return_that_is_being_swallowed_is_swallowed_to_its_end_whatever_the_client_says() {
    let body = b"0123456789";
    let arguments =
        [b"\x01\x38\x08NO_ROUTE".as_slice(), &short("orders"), &short("nowhere")].concat();
    let content = content(1, "1", body);
    let header_end = content.len() - (7 + body.len() + 1);
    let start = method(1, 60, 50, &arguments);
    let whole = [start.clone(), content].concat();
    for cut in [start.len(), start.len() + 3, start.len() + header_end + 9, whole.len() - 1] {
        let mut wire = Wire::open();
        wire.client(
            &[publish_method(1, "orders", "nowhere", 0), self::content(1, "1", body)].concat(),
        );
        wire.broker(&whole[..cut]);
        wire.client(b"\x63garbage");
        let behind = [frame(8, 0, b""), b"anything".to_vec()].concat();
        wire.broker(&[&whole[cut..], &behind].concat());
        assert_eq!(wire.to_client, behind, "cut at {cut}");
    }
}

#[test]
fn what_does_not_decode_is_a_gap_and_a_flood_of_it_one_a_second() {
    let mut wire = Wire::open();
    let broken = method(1, 60, 80, b"\0");
    for _ in 0..50 {
        wire.client(&broken);
    }
    let gaps = wire.rows("Gap");
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0]["reason"], "undecodable method");
    let (from, to) = (&gaps[0]["gap"]["from"], &gaps[0]["gap"]["to"]);
    assert_eq!(to.as_i64().unwrap() - from.as_i64().unwrap(), 1_000_000);
    assert_eq!((&gaps[0]["who"]["connection"], &gaps[0]["who"]["channel"]), (&json!(7), &json!(1)));
    wire.now += 1_000_000;
    wire.client(&broken);
    wire.broker(&frame(3, 1, b"a body that belongs to nothing"));
    let reasons: Vec<_> = wire.rows("Gap").iter().map(|row| row["reason"].clone()).collect();
    assert_eq!(reasons, ["undecodable method", "undecodable method", "undecodable body"]);
    assert_eq!(wire.to_broker.len(), 51 * broken.len());
}

#[test]
fn a_login_that_the_broker_refuses_is_a_row() {
    let mut wire = Wire::new(env());
    wire.client(b"AMQP\0\0\x09\x01");
    let properties = table(&[("product", text("RabbitMQ"))]);
    let start = [b"\0\x09".as_slice(), &properties, b"\0\0\0\0\0\0\0\0"].concat();
    wire.broker(&method(0, 10, 10, &start));
    let response = b"\x05PLAIN\0\0\0\x0c\0shop\0s3cret\x05en_US";
    wire.client(&method(0, 10, 11, &[table(&[]).as_slice(), response].concat()));
    wire.broker(&method(0, 10, 50, b"\x01\x93\x0eACCESS_REFUSED\0\0\0\0"));
    wire.end();
    wire.end();
    let rows = wire.rows("Session");
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["reason"]),
        (&json!("Closed"), &json!("broker: 403 ACCESS_REFUSED"))
    );
    assert_eq!(rows[0]["details"]["opened"], false);
    assert_eq!(rows[0]["who"]["principal"], "shop");
    assert!(!serde_json::to_string(&wire.rows.rows).unwrap().contains("s3cret"));
}

#[test]
fn who_connected_from_where_and_over_which_socket_stands_in_the_row() {
    let peers = Peers {
        client: Some("10.0.0.7:40000".into()),
        local: Some("10.0.0.8:50000".parse().unwrap()),
        broker: Some("rabbit-1:5672".into()),
    };
    let mut wire = Wire::new(env());
    wire.session = Session::new(Arc::new(env()), 7, peers);
    wire.handshake();
    let details = &wire.rows("Session")[0]["details"];
    assert_eq!(details["client_address"], "10.0.0.7:40000");
    assert_eq!(
        (&details["local_address"], &details["local_port"]),
        (&json!("10.0.0.8"), &json!(50000))
    );
    assert_eq!(details["broker_address"], "rabbit-1:5672");
}

#[test]
fn a_connection_that_was_never_introduced_is_no_session() {
    let mut wire = Wire::new(env());
    wire.client(b"AMQP\0\0\x09\x01");
    wire.end();
    assert!(wire.rows.rows.is_empty());
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
