//! The bit that the tap sets and the returns that come of it: where it must not be set, whose
//! return it is, and that nobody waits for it.

use flowtap_tests::rabbitmq::Version;
use flowtap_tests::raw::{self, Args, HEADERS, REPLY_TO, Raw, method};
use flowtap_tests::{raw::Frame, wait_until};

use crate::stage::{Place, all, play, play_through, play_with, shape};

on_both! {
    a_direct_reply_is_delivered_and_not_returned,
    a_client_gets_the_returns_that_it_asked_for_and_no_other,
    a_return_knows_its_publish_without_the_bcc_header,
    an_alternate_exchange_and_exchange_bindings_count_as_routes_only_with_a_queue_behind,
    a_return_on_a_channel_that_the_client_closes_is_not_for_the_client,
    a_body_above_the_limit_does_not_come_back,
    returns_are_taken_from_the_broker_while_the_client_does_not_read,
    a_client_that_leaves_deliveries_unread_gets_no_bit_and_nothing_stalls,
    switched_off_nothing_is_changed,
    messages_of_a_queue_whose_connection_is_gone_are_known_as_unroutable,
}

/// The token that stands for `amq.rabbitmq.reply-to` in a delivered header.
fn reply_token(header: &Frame) -> Vec<u8> {
    let prefix = b"amq.rabbitmq.reply-to.";
    let at = header.payload.windows(prefix.len()).position(|bytes| bytes == prefix);
    let at = at.expect("the header has a reply-to");
    let length = usize::from(header.payload[at - 1]);
    header.payload[at..at + length].to_vec()
}

fn a_direct_reply_is_delivered_and_not_returned(version: Version) {
    let Some(played) = play(version, |place| {
        let mut asker = place.client();
        let mut answerer = place.client();
        asker.queue(1, "rpc");
        asker.consume(1, "amq.rabbitmq.reply-to", "replies", 2);
        let to = Args::new().short("amq.rabbitmq.reply-to");
        asker.send(&raw::message(1, b"", b"rpc", 0, (REPLY_TO, to.as_ref()), b"how many"));
        asker.fence(1);
        let (header, _) = answerer.get(1, "rpc").expect("the question");
        let token = reply_token(&header);
        answerer.ack(1, 1, false);
        for answer in [b"one", b"two"] {
            answerer.send(&raw::message(1, b"", &token, 0, (0, b""), answer));
        }
        answerer.fence(1);
        let tags = [asker.delivery().0, asker.delivery().0];
        // The counter of ordinary deliveries has not moved (before 4.2): the tag comes again.
        assert_eq!(tags, [1, 1]);
        asker.queue(1, "plain");
        asker.consume(1, "plain", "plain", 0);
        asker.send(&raw::message(1, b"", b"plain", 0, (0, b""), b"plain"));
        assert_eq!(asker.delivery().0, 1);
        asker.ack(1, 1, false);
        asker.close();
        // Nobody is there any more: that is not what a return would say, so none is asked for.
        answerer.send(&raw::message(1, b"", &token, 0, (0, b""), b"late"));
        answerer.fence(1);
        answerer.close();
        [shape(&asker), shape(&answerer)].concat()
    }) else {
        return;
    };
    let kinds = played.lines(
        "SELECT details AS a, count(*) AS b FROM history WHERE kind = 'publish' \
         GROUP BY details ORDER BY details",
    );
    assert_eq!(kinds, [r#"{"mandatory":"reply_to"} 3"#, r#"{"mandatory":"set"} 2"#]);
    assert_eq!(played.number("SELECT count(*) FROM history WHERE kind = 'return'"), 0);
    let ends = played.lines(
        "SELECT consumer AS a, delivery_tag AS b, outcome AS c FROM consumes \
         WHERE consumer IS NOT NULL ORDER BY seq",
    );
    assert_eq!(ends, ["replies 1 auto", "replies 1 auto", "plain 1 acked"]);
}

fn returned_bodies(client: &Raw) -> Vec<Vec<u8>> {
    let frames = client.transcript.iter().enumerate();
    let returns = frames.filter(|(_, frame)| frame.id() == Some((60, 50)));
    returns.map(|(at, _)| client.transcript[at + 2].payload.clone()).collect()
}

fn a_client_gets_the_returns_that_it_asked_for_and_no_other(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.confirms(1);
        // To one place, alike but for the body: what comes back must be the client's own.
        for (bits, body) in [(0, b"tap 1"), (1, b"own 1"), (0, b"tap 2"), (1, b"own 2")] {
            client.send(&raw::message(1, b"", b"nowhere", bits, (0, b""), body));
            client.until((60, 80));
        }
        // The same in one burst, without waiting for the answers.
        client.open(2);
        let mut burst = Vec::new();
        for (bits, body) in [(0, b"tap 3"), (1, b"own 3"), (0, b"tap 4"), (1, b"own 4")] {
            burst.extend(raw::message(2, b"", b"nowhere", bits, (0, b""), body));
        }
        client.send(&burst);
        client.fence(2);
        assert_eq!(returned_bodies(&client), [b"own 1", b"own 2", b"own 3", b"own 4"]);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let asked = played.lines(
        "SELECT r.details AS a, p.details AS b, count(*) AS c FROM history r JOIN history p \
         ON p.seq = r.ref_seq AND p.message = r.message \
         WHERE r.kind = 'return' GROUP BY r.details, p.details ORDER BY r.details",
    );
    let want = [
        r#"{"asked_by":"client"} {"mandatory":"client"} 4"#,
        r#"{"asked_by":"tap"} {"mandatory":"set"} 4"#,
    ];
    assert_eq!(asked, want);
}

fn a_return_knows_its_publish_without_the_bcc_header(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.queue(1, "there");
        let headers = |bcc: &str| {
            let table = Args::new().texts("CC", &["no-cc"]).texts("BCC", &[bcc]).number("n", 7);
            Args::new().long(table)
        };
        // Nobody gets the first; somebody the second, by BCC alone.
        for bcc in ["no-bcc", "there"] {
            let properties = (HEADERS, headers(bcc));
            let properties = (properties.0, properties.1.as_ref());
            client.send(&raw::message(1, b"", b"nowhere", 0, properties, b"x"));
        }
        client.fence(1);
        client.get(1, "there").expect("the second");
        client.ack(1, 1, false);
        client.close();
        all(&client)
    }) else {
        return;
    };
    assert_eq!(played.publishes(), ["nowhere unroutable set", "nowhere - set"]);
    let equal = "SELECT count(DISTINCT message) FROM history \
                 WHERE kind IN ('publish', 'return', 'deliver', 'settle')";
    assert_eq!(played.number(equal), 1, "the header that the broker removes is no part of it");
}

fn an_alternate_exchange_and_exchange_bindings_count_as_routes_only_with_a_queue_behind(
    version: Version,
) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.queue(1, "q");
        client.exchange(1, "spare", "fanout", &Args::new());
        client.exchange(1, "caught", "direct", &Args::new().text("alternate-exchange", "spare"));
        client.exchange(1, "empty", "fanout", &Args::new());
        client.exchange(1, "leaky", "direct", &Args::new().text("alternate-exchange", "empty"));
        client.exchange(1, "broken", "direct", &Args::new().text("alternate-exchange", "gone"));
        client.exchange(1, "chain", "fanout", &Args::new());
        let link = Args::new().u16(0).short("empty").short("chain").short("").u8(0).long("");
        client.call(1, (40, 30), link, (40, 31));
        client.bind(1, "q", "spare", "");
        for exchange in ["caught", "leaky", "broken", "chain"] {
            let key = format!("to-{exchange}");
            client.send(&raw::message(1, exchange.as_bytes(), key.as_bytes(), 0, (0, b""), b"x"));
        }
        client.fence(1);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let want = [
        "to-caught - set",
        "to-leaky unroutable set",
        "to-broken unroutable set",
        "to-chain unroutable set",
    ];
    assert_eq!(played.publishes(), want);
    let places =
        played.lines("SELECT destination AS a FROM history WHERE kind = 'return' ORDER BY seq");
    assert_eq!(places, ["leaky", "broken", "chain"], "the original exchange");
}

fn a_return_on_a_channel_that_the_client_closes_is_not_for_the_client(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        for _ in 0..20 {
            // Both in one write: the channel closes while the return is on its way.
            let mut burst = raw::message(1, b"", b"nowhere", 0, (0, b""), b"x");
            burst.extend(method(1, (20, 40), Args::new().u16(200).short("").u16(0).u16(0)));
            client.send(&burst);
            client.until((20, 41));
            client.open(1);
        }
        // The connection closes while returns are on their way.
        let mut burst = raw::message(1, b"", b"nowhere", 0, (0, b""), b"x").repeat(20);
        burst.extend(method(0, (10, 50), Args::new().u16(200).short("").u16(0).u16(0)));
        client.send(&burst);
        client.until((10, 51));
        client.drop_socket();
        all(&client)
    }) else {
        return;
    };
    let known = "SELECT count(*) FROM history r JOIN history p ON p.seq = r.ref_seq \
                 AND p.kind = 'publish' WHERE r.kind = 'return'";
    let returns = played.number("SELECT count(*) FROM history WHERE kind = 'return'");
    assert!(returns >= 20, "{returns}");
    assert_eq!(played.number(known), returns, "each return names its publish");
}

fn a_body_above_the_limit_does_not_come_back(version: Version) {
    let Some(played) = play_with(version, &["unroutable_max_body = 5000"], |place| {
        let mut client = place.client();
        for size in [5000, 5001, 1_000_000] {
            let body = vec![b'x'; size];
            client.send(&raw::message(1, b"", b"nowhere", 0, (0, b""), &body));
            client.fence(1);
        }
        client.close();
        all(&client)
    }) else {
        return;
    };
    let want = ["nowhere unroutable set", "nowhere - large", "nowhere - large"];
    assert_eq!(played.publishes(), want);
    let bytes = "SELECT coalesce(sum(size), 0) FROM history WHERE kind = 'return'";
    assert_eq!(played.number(bytes), 5000);
}

/// A number of the sidecar's `/metrics`, summed over its labels.
fn metric(place: &Place<'_>, name: &str) -> f64 {
    let metrics = place.sidecar.expect("it plays through a sidecar").metrics();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn returns_are_taken_from_the_broker_while_the_client_does_not_read(version: Version) {
    let count = 2000_u32;
    let Some(played) = play_through(version, &[], |place| {
        let mut client = place.client();
        let body = vec![b'x'; 20_000];
        for _ in 0..count {
            client.send(&raw::message(1, b"", b"nowhere", 0, (0, b""), &body));
        }
        // 40 MB came back, and the client has read nothing of it.
        wait_until("all returns are taken", || {
            metric(place, "flowtap_agent_returns_swallowed_total") >= f64::from(count)
        });
        client.fence(1);
        let came = client.transcript.len();
        client.close();
        assert_eq!(came, 5, "the handshake, the channel, the fence: {:?}", client.transcript);
        Vec::new()
    }) else {
        return;
    };
    let unroutable = "SELECT count(*) FROM publishes WHERE outcome = 'unroutable'";
    assert_eq!(played.number(unroutable), i64::from(count));
}

fn a_client_that_leaves_deliveries_unread_gets_no_bit_and_nothing_stalls(version: Version) {
    let Some(played) = play_through(version, &[], |place| {
        let mut filler = place.bystander();
        filler.queue(1, "full");
        let body = vec![b'x'; 100_000];
        for _ in 0..300 {
            filler.send(&raw::message(1, b"", b"full", 0, (0, b""), &body));
        }
        filler.fence(1);
        let mut client = place.client();
        client.open(2);
        client.consume(1, "full", "sleeper", 2);
        // What fits into the sockets' buffers goes out, the rest waits: the bit is not set then.
        let mut published = 0;
        wait_until("the sidecar notices that the client sleeps", || {
            client.send(&raw::message(2, b"", b"nowhere", 0, (0, b""), b"x"));
            published += 1;
            metric(place, "flowtap_agent_rows_total{kind=\"publish\"}") >= f64::from(published)
                && published > 100
                && metric(place, "flowtap_agent_returns_swallowed_total") + 5.0
                    < f64::from(published)
        });
        // It wakes: everything that was for it is there, and no return among it.
        for _ in 0..300 {
            let (_, _, delivered) = client.delivery();
            assert!(delivered == body);
        }
        client.fence(2);
        // Awake, the bit is set again.
        client.send(&raw::message(2, b"", b"nowhere", 0, (0, b""), b"awake"));
        client.fence(2);
        client.close();
        assert!(client.transcript.iter().all(|frame| frame.id() != Some((60, 50))));
        Vec::new()
    }) else {
        return;
    };
    let publishes = played.publishes();
    assert!(publishes.iter().any(|line| line == "nowhere - slow_client"), "{publishes:?}");
    assert_eq!(publishes.last().map(String::as_str), Some("nowhere unroutable set"));
    let auto = "SELECT count(*) FROM consumes WHERE outcome = 'auto'";
    assert_eq!(played.number(auto), 300);
}

fn switched_off_nothing_is_changed(version: Version) {
    let Some(played) = play_with(version, &["detect_unroutable = false"], |place| {
        let mut client = place.client();
        client.confirms(1);
        for bits in [0, 1] {
            client.send(&raw::message(1, b"", b"nowhere", bits, (0, b""), b"x"));
            client.until((60, 80));
        }
        client.close();
        all(&client)
    }) else {
        return;
    };
    assert_eq!(played.publishes(), ["nowhere confirmed off", "nowhere unroutable client"]);
}

fn messages_of_a_queue_whose_connection_is_gone_are_known_as_unroutable(version: Version) {
    let Some(played) = play(version, |place| {
        let mut owner = place.client();
        let mut other = place.client();
        owner.declare(1, "mine", 4, &Args::new());
        // Nobody else may touch it, but everybody may publish to it.
        other.send(&raw::message(1, b"", b"mine", 0, (0, b""), b"x"));
        other.fence(1);
        owner.consume(1, "mine", "c", 0);
        owner.delivery();
        owner.close();
        // The queue goes with its connection, a moment later.
        wait_until("the queue is gone", || {
            !place.broker.ctl(&["list_queues", "-p", place.vhost, "name"]).contains("mine")
        });
        other.send(&raw::message(1, b"", b"mine", 0, (0, b""), b"x"));
        other.fence(1);
        other.close();
        [all(&owner), all(&other)].concat()
    }) else {
        return;
    };
    assert_eq!(played.publishes(), ["mine - set", "mine unroutable set"]);
    let ends = played.ends();
    assert!(ends.len() == 1 && ends[0].starts_with("1 abandoned"), "{ends:?}");
}
