//! Odd bytes: frames of every size, methods that nobody knows, texts that are no UTF-8, secrets,
//! protocols that are something else. Whatever it is, it passes.

use flowtap_tests::rabbitmq::Version;
use flowtap_tests::raw::{self, Args, BODY, HEADERS, HEARTBEAT, Hello, Raw, frame, method};
use flowtap_tests::secrets::files_with;

use crate::stage::{Sight, all, play, play_through};

on_both! {
    frames_up_to_and_above_frame_max_pass,
    a_frame_that_is_too_large_is_refused_by_the_broker_and_not_by_the_tap,
    methods_that_nobody_knows_pass,
    a_new_secret_passes_and_is_recorded_nowhere,
    names_that_are_no_utf_8_are_recorded_escaped,
    headers_that_cannot_be_read_pass_and_are_said_to_be_so,
    frames_out_of_place_end_the_connection_as_they_do_without,
    a_wrong_password_is_answered_as_without,
    protocols_that_are_not_amqp_0_9_1_are_answered_as_without,
}

fn frames_up_to_and_above_frame_max_pass(version: Version) {
    let Some(played) = play(version, |place| {
        let frame_max = 8192;
        let hello = Hello { frame_max, ..Hello::new(place.vhost) };
        let mut client = place.client_with(&hello);
        client.queue(1, "q");
        // The broker takes a payload of frame_max octets, which makes the frame eight larger.
        let mut bytes = raw::publish(1, b"", b"q", 0);
        bytes.extend(raw::header(1, u64::from(frame_max), 0, b""));
        bytes.extend(frame(BODY, 1, &vec![b'x'; frame_max as usize]));
        client.send(&bytes);
        client.fence(1);
        client.get(1, "q").expect("a message");
        client.ack(1, 1, false);
        // A header frame above the frame_max of who gets it: the broker sends it nevertheless.
        let mut other = place.bystander();
        let table = Args::new().text("long", &"y".repeat(20_000));
        let properties = Args::new().long(table);
        other.send(&raw::message(1, b"", b"q", 0, (HEADERS, properties.as_ref()), b"z"));
        other.fence(1);
        let (header, _) = client.get(1, "q").expect("a message");
        assert!(header.payload.len() > 20_000);
        client.ack(1, 2, false);
        client.close();
        all(&client)
    }) else {
        return;
    };
    assert_eq!(played.ends(), ["1 acked -", "2 acked -"]);
    let message = "SELECT count(DISTINCT message) FROM history WHERE size = 8192";
    assert_eq!(played.number(message), 1);
}

fn until_over(client: &mut Raw) -> Sight {
    // Whether the broker says why before it goes is part of what is seen.
    client.until_end();
    all(client)
}

fn a_frame_that_is_too_large_is_refused_by_the_broker_and_not_by_the_tap(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client_with(&Hello { frame_max: 8192, ..Hello::new(place.vhost) });
        let mut bytes = raw::publish(1, b"", b"q", 0);
        bytes.extend(raw::header(1, 8193, 0, b""));
        bytes.extend(frame(BODY, 1, &[b'x'; 8193]));
        client.send(&bytes);
        until_over(&mut client)
    }) else {
        return;
    };
    assert_eq!(played.number("SELECT count(*) FROM history WHERE kind = 'gap'"), 0);
}

fn methods_that_nobody_knows_pass(version: Version) {
    let Some(_played) = play(version, |place| {
        let mut sights = Vec::new();
        for id in [(60, 999), (999, 1), (85, 77)] {
            let mut client = place.client();
            client.send(&method(1, id, b"whatever"));
            sights.extend(until_over(&mut client));
        }
        sights
    }) else {
        return;
    };
}

fn a_new_secret_passes_and_is_recorded_nowhere(version: Version) {
    let secret = "planted-secret-31415";
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        let arguments = Args::new().long(secret).short("rotated");
        client.send(&method(0, (10, 70), arguments));
        client.until_frame("an answer", |frame| {
            frame.channel == 0 && matches!(frame.id(), Some((10, 50 | 71)))
        });
        if client.transcript.last().and_then(raw::Frame::id) == Some((10, 71)) {
            client.fence(1);
            client.close();
        } else {
            client.send(&method(0, (10, 51), b""));
            client.until_end();
        }
        all(&client)
    }) else {
        return;
    };
    for folder in [played.folder.path(), played.sidecar.folder()] {
        let found = files_with(folder, &[secret]);
        assert!(found.is_empty(), "{found:?}");
    }
}

fn names_that_are_no_utf_8_are_recorded_escaped(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.exchange(1, "x", "fanout", &Args::new());
        client.queue(1, "q");
        client.bind(1, "q", "x", "");
        // A declare or bind with such a name is refused; a publish is not.
        let key: &[u8] = b"\xff\xfe\\n";
        let table = Args::new().short(b"h\xff").u8(b'S').long(b"\0\xff");
        let properties = Args::new().short(b"type/\xff").long(table).short(b"id-\xfe");
        let flags = 1 << 15 | HEADERS | 1 << 7;
        client.send(&raw::message(1, b"x", key, 0, (flags, properties.as_ref()), b"\xff"));
        client.fence(1);
        client.get(1, "q").expect("a message");
        client.ack(1, 1, false);
        client.send(&raw::message(1, b"", b"\xfd", 0, (0, b""), b"x"));
        client.fence(1);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let keys = played.lines(
        "SELECT routing_key AS a, content_type AS b FROM history WHERE kind IN ('publish', \
         'return', 'deliver') ORDER BY seq",
    );
    let message = r"\xff\xfe\\n type/\xff";
    assert_eq!(keys, [message, message, r"\xfd -", r"\xfd -"]);
    let message = "SELECT count(DISTINCT message) FROM history WHERE content_type IS NOT NULL \
                   AND kind IN ('publish', 'deliver')";
    assert_eq!(played.number(message), 1);
}

fn headers_that_cannot_be_read_pass_and_are_said_to_be_so(version: Version) {
    let unknown_type = Args::new().long(Args::new().short("u").u8(b'U').u16(7));
    let cut_short = Args::new().long(Args::new().short("u").u8(b'S').u32(100).raw("abc"));
    let more_flags = Args::new().u16(0);
    let cases = [(HEADERS, unknown_type), (HEADERS, cut_short), (1, more_flags)];
    let count = cases.len() as i64;
    let Some(played) = play(version, |place| {
        let mut sights = Vec::new();
        for (flags, properties) in &cases {
            let mut client = place.client();
            let properties = (*flags, properties.as_ref());
            client.send(&raw::message(1, b"", b"nowhere", 0, properties, b"x"));
            client.send(&method(1, (60, 10), Args::new().u32(0).u16(0).u8(0)));
            client.until_frame("an end or an answer", |frame| {
                matches!(frame.id(), Some((10, 50) | (20, 40) | (60, 11)))
            });
            if client.transcript.last().and_then(raw::Frame::id) == Some((10, 50)) {
                client.send(&method(0, (10, 51), b""));
                client.until_end();
            } else {
                client.drop_socket();
            }
            sights.extend(all(&client));
        }
        sights
    }) else {
        return;
    };
    let rows = "SELECT count(*) FROM history WHERE kind = 'publish' \
                AND details LIKE '%\"undecodable\":\"headers\"%' AND message IS NULL";
    assert_eq!(played.number(rows), count);
}

fn frames_out_of_place_end_the_connection_as_they_do_without(version: Version) {
    let header_without_method = raw::header(1, 3, 0, b"");
    let mut body_after_empty = raw::message(1, b"", b"q", 0, (0, b""), b"");
    body_after_empty.extend(frame(BODY, 1, b"late"));
    let mut method_in_content = raw::publish(1, b"", b"q", 0);
    method_in_content.extend(raw::header(1, 3, 0, b""));
    method_in_content.extend(method(1, (60, 10), Args::new().u32(0).u16(0).u8(0)));
    let mut publish_in_publish = raw::publish(1, b"", b"q", 0);
    publish_in_publish.extend(raw::message(1, b"", b"q", 0, (0, b""), b"x"));
    let cases = [
        header_without_method,
        body_after_empty,
        method_in_content,
        publish_in_publish,
        frame(HEARTBEAT, 1, b""),
        frame(HEARTBEAT, 0, b"loaded"),
        method(7, (60, 10), Args::new().u32(0).u16(0).u8(0)), // a channel that is not open
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x0a\x00".to_vec(), // another end octet
        b"\x09\x00\x01\x00\x00\x00\x00\xce".to_vec(),         // another type
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    let Some(_played) = play(version, |place| {
        let mut sights = Vec::new();
        for bytes in &cases {
            let mut client = place.client();
            client.queue(1, "q");
            client.send(bytes);
            client.until_frame_or_end(|frame| frame.id() == Some((10, 50)));
            client.send(&method(0, (10, 51), b""));
            client.drop_socket();
            sights.extend(all(&client));
            sights.push("--".to_owned());
        }
        sights
    }) else {
        return;
    };
}

fn a_wrong_password_is_answered_as_without(version: Version) {
    let Some(played) = play(version, |place| {
        let mut sights = Vec::new();
        for capable in [true, false] {
            let mut client = Raw::silent(place.port);
            client.send(b"AMQP\0\0\x09\x01");
            client.until((10, 10));
            let able = Args::new().truth("authentication_failure_close", capable);
            let properties = Args::new().short("capabilities").u8(b'F').long(able);
            let plain = b"\0guest\0planted-secret-27182";
            let arguments = Args::new().long(properties).short("PLAIN").long(plain).short("en_US");
            client.send(&method(0, (10, 11), arguments));
            client.until_frame_or_end(|frame| frame.id() == Some((10, 50)));
            client.send(&method(0, (10, 51), b""));
            client.until_end();
            sights.extend(all(&client));
        }
        sights
    }) else {
        return;
    };
    for folder in [played.folder.path(), played.sidecar.folder()] {
        let found = files_with(folder, &["planted-secret-27182"]);
        assert!(found.is_empty(), "{found:?}");
    }
}

fn protocols_that_are_not_amqp_0_9_1_are_answered_as_without(version: Version) {
    let headers: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x02\x01\x00\x00",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"AMQP\x01\x01\x00\x0a",
    ];
    let Some(played) = play_through(version, &[], |place| {
        for header in headers {
            let answer = |port: u16| {
                let mut client = Raw::silent(port);
                client.send(header);
                client.first_bytes(8)
            };
            let (direct, through) = (answer(place.broker.port()), answer(place.port));
            assert_eq!(direct, through, "{}", header.escape_ascii());
            assert_eq!(direct.len(), 8, "{}", header.escape_ascii());
        }
        Vec::new()
    }) else {
        return;
    };
    let begun = "SELECT count(*) FROM gaps WHERE reason = 'not AMQP 0-9-1'";
    assert!(played.number(begun) >= headers.len() as i64);
}
