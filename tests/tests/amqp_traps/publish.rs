//! Confirms: what the broker's answers cover, and what they say nothing about.

use std::collections::BTreeMap;

use flowtap_tests::rabbitmq::Version;
use flowtap_tests::raw::{self, Args, BODY, Frame, MESSAGE_ID, Raw, frame, method};

use crate::stage::{all, play, play_through};

on_both! {
    an_unroutable_publish_is_confirmed_and_yet_known_as_unroutable,
    a_nack_with_multiple_covers_only_what_is_open,
    numbers_start_at_confirm_select_and_again_on_a_channel_opened_again,
    what_is_unconfirmed_when_the_channel_dies_is_neither_confirmed_nor_lost,
    what_was_published_to_a_queue_that_is_deleted_is_confirmed,
    immediate_ends_the_connection_as_it_does_without,
    a_transaction_that_is_rolled_back_published_nothing,
    contents_of_two_channels_may_interleave,
    publishing_where_it_is_forbidden_or_missing_closes_the_channel,
}

fn an_unroutable_publish_is_confirmed_and_yet_known_as_unroutable(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.queue(1, "there");
        client.confirms(1);
        for key in ["there", "nowhere", "there", "nowhere"] {
            client.send(&raw::message(1, b"", key.as_bytes(), 0, (0, b""), b"hello"));
            client.until((60, 80));
        }
        // Without a body: the return has no body frame either.
        client.send(&raw::message(1, b"", b"nowhere", 0, (0, b""), b""));
        client.until((60, 80));
        client.close();
        all(&client)
    }) else {
        return;
    };
    let want = [
        "there confirmed set",
        "nowhere unroutable set",
        "there confirmed set",
        "nowhere unroutable set",
        "nowhere unroutable set",
    ];
    assert_eq!(played.publishes(), want);
    let tags = played.lines(
        "SELECT delivery_tag AS a, reason AS b, details AS c FROM history \
         WHERE kind = 'return' ORDER BY seq",
    );
    let asked = r#"312 NO_ROUTE {"asked_by":"tap"}"#;
    assert_eq!(tags, [2, 4, 5].map(|tag| format!("{tag} {asked}")));
    assert_eq!(played.number("SELECT count(*) FROM history WHERE outcome = 'confirmed'"), 5);
}

/// What the broker's answers say, by their own rules: tag to confirmed or refused.
fn answered(frames: &[Frame]) -> BTreeMap<u64, &'static str> {
    let mut answers = BTreeMap::new();
    let mut open: std::collections::BTreeSet<u64> = (1..=10_000).collect();
    for frame in frames {
        let outcome = match frame.id() {
            Some((60, 80)) => "confirmed",
            Some((60, 120)) => "refused",
            _ => continue,
        };
        let mut arguments = frame.arguments();
        let (tag, multiple) = (arguments.u64(), arguments.u8() & 1 != 0);
        let covered: Vec<u64> =
            open.iter().copied().filter(|&n| n == tag || multiple && n < tag).collect();
        for number in covered {
            open.remove(&number);
            answers.insert(number, outcome);
        }
    }
    answers
}

fn until_answered(client: &mut Raw, count: usize) {
    while answered(&client.transcript).len() < count {
        client.until_frame("an answer", |frame| matches!(frame.id(), Some((60, 80 | 120))));
    }
}

fn a_nack_with_multiple_covers_only_what_is_open(version: Version) {
    let count = 300;
    let Some(played) = play_through(version, &[], |place| {
        let mut client = place.client();
        // Full after one message: all others are refused. Some go to a queue that takes them,
        // some to none at all, and those are answered before the ones ahead of them.
        let full = Args::new().number("x-max-length", 1).text("x-overflow", "reject-publish");
        client.declare(1, "full", 2, &full);
        client.declare(1, "quorum", 2, &Args::new().text("x-queue-type", "quorum"));
        client.confirms(1);
        let mut burst = Vec::new();
        for number in 0..count {
            let key = ["quorum", "full", "nowhere"][number % 3].as_bytes();
            let id = Args::new().short(format!("m-{number}"));
            burst.extend(raw::message(1, b"", key, 0, (MESSAGE_ID, id.as_ref()), b"x"));
        }
        client.send(&burst);
        until_answered(&mut client, count);
        client.close();
        let answers = answered(&client.transcript);
        answers.iter().map(|(tag, outcome)| format!("{tag} {outcome}")).collect()
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT delivery_tag AS a, outcome AS b FROM history WHERE kind = 'confirm' \
         ORDER BY delivery_tag",
    );
    assert_eq!(rows, played.sight);
    assert!(rows.iter().filter(|row| row.ends_with("refused")).count() > 50, "{rows:?}");
    let unroutable = "SELECT count(*) FROM publishes WHERE outcome = 'unroutable' \
                      AND routing_key = 'nowhere'";
    assert_eq!(played.number(unroutable), count as i64 / 3);
    assert_eq!(played.number("SELECT count(*) FROM history WHERE kind = 'return'"), 100);
}

fn numbers_start_at_confirm_select_and_again_on_a_channel_opened_again(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.queue(1, "q");
        let send = |client: &mut Raw| {
            client.send(&raw::message(1, b"", b"q", 0, (0, b""), b"x"));
        };
        send(&mut client); // has no number
        client.confirms(1);
        send(&mut client);
        client.until((60, 80));
        client.confirms(1); // a second one changes nothing
        send(&mut client);
        client.until((60, 80));
        client.close_channel(1);
        client.open(1); // forgotten: no confirms here
        send(&mut client);
        client.fence(1);
        client.confirms(1);
        send(&mut client);
        client.until((60, 80));
        client.close();
        all(&client)
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT p.delivery_tag AS a, p.outcome AS b, p.confirm_expected AS c FROM publishes p \
         ORDER BY p.seq",
    );
    let want =
        ["- - false", "1 confirmed true", "2 confirmed true", "- - false", "1 confirmed true"];
    assert_eq!(rows, want);
}

fn what_is_unconfirmed_when_the_channel_dies_is_neither_confirmed_nor_lost(version: Version) {
    let Some(played) = play_through(version, &[], |place| {
        let mut client = place.client();
        client.queue(1, "q");
        client.confirms(1);
        let mut burst = Vec::new();
        for (exchange, key) in [("", "q"), ("", "nowhere"), ("", "q"), ("missing", "x"), ("", "q")]
        {
            let exchange = exchange.as_bytes();
            burst.extend(raw::message(1, exchange, key.as_bytes(), 0, (0, b""), b"x"));
        }
        client.send(&burst);
        client.until((20, 40));
        // The broker has closed the channel and ignores this.
        client.send(&raw::message(1, b"", b"nowhere", 0, (0, b""), b"x"));
        client.send(&method(1, (20, 41), b""));
        client.close();
        assert!(client.transcript.iter().all(|frame| frame.id() != Some((60, 50))));
        let answers = answered(&client.transcript);
        answers.iter().map(|(tag, outcome)| format!("{tag} {outcome}")).collect()
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT delivery_tag AS a, outcome AS b FROM history WHERE kind = 'confirm' ORDER BY seq",
    );
    assert_eq!(rows, played.sight, "what was answered, and no more");
    let rows = played.publishes();
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert_eq!(rows[1], "nowhere unroutable set");
    assert_eq!(rows[5], "nowhere - closing");
    let closed = played.lines(
        "SELECT reason AS a FROM history WHERE kind = 'session' AND outcome = 'closed' \
         AND channel = 1",
    );
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert!(closed[0].starts_with("broker: 404 NOT_FOUND - no exchange 'missing'"), "{closed:?}");
}

fn what_was_published_to_a_queue_that_is_deleted_is_confirmed(version: Version) {
    let Some(played) = play_through(version, &[], |place| {
        let mut client = place.client();
        client.queue(1, "q");
        client.open(2);
        client.confirms(1);
        let mut burst = Vec::new();
        for _ in 0..50 {
            burst.extend(raw::message(1, b"", b"q", 0, (1 << 12, b"\x02"), &[b'x'; 2000]));
        }
        burst.extend(method(2, (50, 40), Args::new().u16(0).short("q").u8(0)));
        client.send(&burst);
        until_answered(&mut client, 50);
        client.close();
        let answers = answered(&client.transcript);
        answers.iter().map(|(tag, outcome)| format!("{tag} {outcome}")).collect()
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT delivery_tag AS a, outcome AS b FROM history WHERE kind = 'confirm' \
         ORDER BY delivery_tag",
    );
    assert_eq!(rows, played.sight);
    assert!(rows.iter().all(|row| row.ends_with("confirmed")), "{rows:?}");
}

fn immediate_ends_the_connection_as_it_does_without(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.send(&raw::message(1, b"", b"nowhere", 2, (0, b""), b"x"));
        client.connection_closed();
        all(&client)
    }) else {
        return;
    };
    assert_eq!(played.publishes(), ["nowhere - immediate"]);
    let closed = played.lines(
        "SELECT reason AS a FROM history WHERE kind = 'session' AND outcome = 'closed' \
         AND channel IS NULL",
    );
    assert!(closed.len() == 1 && closed[0].starts_with("broker: 540"), "{closed:?}");
}

fn a_transaction_that_is_rolled_back_published_nothing(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.queue(1, "q");
        client.call(1, (90, 10), b"", (90, 11));
        let send = |client: &mut Raw, key: &str| {
            client.send(&raw::message(1, b"", key.as_bytes(), 0, (0, b""), b"x"));
        };
        send(&mut client, "q");
        send(&mut client, "nowhere");
        client.call(1, (90, 30), b"", (90, 31));
        send(&mut client, "q");
        send(&mut client, "nowhere");
        client.call(1, (90, 20), b"", (90, 21));
        let (_, body) = client.get(1, "q").expect("the committed one");
        assert_eq!(body, b"x");
        assert!(client.get(1, "q").is_none());
        client.ack(1, 1, false);
        client.call(1, (90, 30), b"", (90, 31));
        client.ack(1, 1, false); // open again under the same tag
        client.call(1, (90, 20), b"", (90, 21));
        client.close();
        all(&client)
    }) else {
        return;
    };
    assert_eq!(
        played.publishes(),
        ["q - set", "nowhere - set", "q - set", "nowhere unroutable set"]
    );
    let transactions = played.lines(
        "SELECT h.outcome AS a, count(o.seq) AS b FROM history h LEFT JOIN history o \
         ON o.broker_txn = h.broker_txn AND o.kind <> 'transaction' \
         WHERE h.kind = 'transaction' GROUP BY h.outcome, h.seq ORDER BY h.seq",
    );
    // publish x 2; publish x 2 and return; the ack that was rolled back leaves no row; settle. The
    // one that was open when the channel was closed had nothing in it.
    assert_eq!(transactions, ["aborted 2", "committed 3", "aborted 0", "committed 1"]);
    assert_eq!(played.ends(), ["1 acked -"]);
}

fn contents_of_two_channels_may_interleave(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.open(2);
        client.queue(1, "q");
        for key in ["q", "nowhere"] {
            let mut bytes = raw::publish(1, b"", key.as_bytes(), 0);
            bytes.extend(raw::publish(2, b"", key.as_bytes(), 0));
            bytes.extend(raw::header(2, 6, 0, b""));
            bytes.extend(raw::header(1, 6, 0, b""));
            bytes.extend(frame(BODY, 1, b"one"));
            bytes.extend(frame(raw::HEARTBEAT, 0, b""));
            bytes.extend(frame(BODY, 2, b"two"));
            bytes.extend(frame(BODY, 1, b"")); // allowed within a content
            bytes.extend(frame(BODY, 2, b"two"));
            bytes.extend(frame(BODY, 1, b"one"));
            client.send(&bytes);
            client.fence(1);
            client.fence(2);
        }
        let mut bodies = Vec::new();
        while let Some((_, body)) = client.get(1, "q") {
            bodies.push(body);
        }
        bodies.sort();
        assert_eq!(bodies, [b"oneone", b"twotwo"]);
        client.close();
        let mut sight = all(&client);
        sight.retain(|frame| !frame.contains("oneone") && !frame.contains("twotwo"));
        sight
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT channel AS a, routing_key AS b, outcome AS c, details AS d FROM publishes \
         ORDER BY channel, seq",
    );
    assert_eq!(
        rows,
        [
            r#"1 q - {"mandatory":"interleaved"}"#,
            // Without the bit nothing comes back, and the row says so.
            r#"1 nowhere - {"mandatory":"interleaved"}"#,
            r#"2 q - {"mandatory":"set"}"#,
            r#"2 nowhere unroutable {"mandatory":"set"}"#,
        ]
    );
    let equal = "SELECT count(DISTINCT message) FROM history WHERE kind IN ('publish', 'deliver')";
    assert_eq!(played.number(equal), 2, "each message is known whichever way it came");
}

fn publishing_where_it_is_forbidden_or_missing_closes_the_channel(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        let arguments = Args::new().u16(0).short("inside").short("fanout").u8(2 | 8).long("");
        client.call(1, (40, 10), arguments, (40, 11));
        for exchange in ["inside", "missing"] {
            client.send(&raw::message(1, exchange.as_bytes(), b"k", 0, (0, b""), b"x"));
            client.channel_closed(1);
            client.open(1);
        }
        // A text that is no number of milliseconds.
        let expiration = Args::new().short("soon");
        client.send(&raw::message(1, b"", b"q", 0, (1 << 8, expiration.as_ref()), b"x"));
        client.until((20, 40));
        client.close();
        all(&client)
    }) else {
        return;
    };
    let closed = played.lines(
        "SELECT substr(reason, 1, 11) AS a FROM history WHERE kind = 'session' \
         AND outcome = 'closed' AND channel = 1 ORDER BY seq",
    );
    assert_eq!(closed, ["broker: 403", "broker: 404", "broker: 406"]);
    assert_eq!(played.number("SELECT count(*) FROM history WHERE kind = 'return'"), 0);
}
