//! Who consumes from where: names that the broker makes up, and names that never appear.

use flowtap_tests::rabbitmq::Version;
use flowtap_tests::raw::{self, Args, Raw, method};

use crate::stage::{all, play, play_through, shape};

on_both! {
    an_empty_name_is_the_queue_last_declared_on_the_channel,
    a_queue_that_nobody_heard_the_name_of_is_still_told_from_others,
    a_consumer_tag_may_first_be_seen_in_a_delivery,
    a_consumer_tag_used_twice_ends_the_connection,
    an_exclusive_queue_is_refused_to_others_and_dies_with_its_connection,
    a_dead_letter_says_why_and_where_from_and_counts_as_a_further_attempt,
    a_stream_is_read_again_and_again,
    blocked_and_unblocked_are_recorded_and_nothing_is_lost,
}

fn send(client: &mut Raw, key: &str, body: &[u8]) {
    client.send(&raw::message(1, b"", key.as_bytes(), 0, (0, b""), body));
}

fn consume_nowait(client: &mut Raw, queue: &str, tag: &str) {
    let arguments = Args::new().u16(0).short(queue).short(tag).u8(8).long("");
    client.send(&method(1, (60, 20), arguments));
}

fn an_empty_name_is_the_queue_last_declared_on_the_channel(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        // None has been declared yet.
        client.send(&method(1, (60, 70), Args::new().u16(0).short("").u8(0)));
        client.channel_closed(1);
        client.open(1);
        client.queue(1, "one");
        client.queue(1, "two");
        client.exchange(1, "x", "direct", &Args::new());
        client.bind(1, "", "x", ""); // both empty: the name is the key, too
        client.send(&raw::message(1, b"x", b"two", 0, (0, b""), b"hello"));
        client.fence(1);
        client.get(1, "").expect("a message");
        client.ack(1, 1, false);
        client.declare(1, "one", 1, &Args::new()); // a passive one counts, too
        send(&mut client, "one", b"hello");
        client.consume(1, "", "c", 0);
        client.delivery();
        client.ack(1, 2, false);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let queues = played
        .lines("SELECT subscription AS a, consumer AS b, outcome AS c FROM consumes ORDER BY seq");
    assert_eq!(queues, ["two - acked", "one c acked"]);
    let bound = played.lines(
        "SELECT destination AS a, routing_key AS b, subscription AS c FROM history \
         WHERE kind = 'topology' AND outcome = 'bound'",
    );
    assert_eq!(bound, ["x two two"]);
}

fn a_queue_that_nobody_heard_the_name_of_is_still_told_from_others(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        let anonymous = Args::new().u16(0).short("").u8(4 | 16).long("");
        client.exchange(1, "x", "fanout", &Args::new());
        for tag in ["first", "second"] {
            client.send(&method(1, (50, 10), &anonymous));
            client.bind(1, "", "x", "");
            consume_nowait(&mut client, "", tag);
            client.fence(1);
        }
        client.send(&raw::message(1, b"x", b"", 0, (0, b""), b"hello"));
        client.delivery();
        client.delivery();
        client.ack(1, 2, true);
        client.close();
        shape(&client) // which of the two is served first is chance
    }) else {
        return;
    };
    let queues = played.lines(
        "SELECT subscription AS a, consumer AS b, outcome AS c FROM consumes ORDER BY consumer",
    );
    assert_eq!(queues, ["(anonymous #1.1) first acked", "(anonymous #1.2) second acked"]);
}

fn a_consumer_tag_may_first_be_seen_in_a_delivery(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.queue(1, "q");
        consume_nowait(&mut client, "q", "");
        send(&mut client, "q", b"hello");
        client.delivery();
        client.ack(1, 1, false);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let consumers = played.lines(
        "SELECT c.consumer = s.consumer AS a, c.outcome AS b, c.subscription AS c \
         FROM consumes c, history s WHERE s.kind = 'session' AND s.consumer IS NOT NULL \
         AND s.outcome = 'opened'",
    );
    assert_eq!(consumers, ["true acked q"]);
}

fn a_consumer_tag_used_twice_ends_the_connection(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.queue(1, "q");
        client.consume(1, "q", "c", 0);
        send(&mut client, "q", b"hello");
        client.delivery();
        let arguments = Args::new().u16(0).short("q").short("c").u8(0).long("");
        client.send(&method(1, (60, 20), arguments));
        client.connection_closed();
        all(&client)
    }) else {
        return;
    };
    let ends = played.ends();
    assert!(ends.len() == 1 && ends[0].starts_with("1 abandoned broker: 530"), "{ends:?}");
}

fn an_exclusive_queue_is_refused_to_others_and_dies_with_its_connection(version: Version) {
    let Some(played) = play(version, |place| {
        let mut owner = place.client();
        let mut other = place.client();
        let name = owner.declare(1, "", 4, &Args::new());
        let name = String::from_utf8(name).expect("the broker's names are plain");
        let arguments = Args::new().u16(0).short(&name).short("").u8(0).long("");
        other.send(&method(1, (60, 20), arguments));
        other.channel_closed(1); // RESOURCE_LOCKED
        owner.consume(1, &name, "", 2);
        send(&mut owner, &name, b"hello");
        owner.delivery();
        owner.close();
        other.close();
        [all(&owner), all(&other)].concat()
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT c.outcome AS a, c.subscription = t.subscription AS b FROM consumes c, history t \
         WHERE t.kind = 'topology' AND t.outcome = 'declared'",
    );
    assert_eq!(rows, ["auto true"]);
}

fn a_dead_letter_says_why_and_where_from_and_counts_as_a_further_attempt(version: Version) {
    // The header's fields have times in them: not compared with what comes directly.
    let Some(played) = play_through(version, &[], |place| {
        let mut client = place.client();
        let dead = Args::new().text("x-dead-letter-exchange", "").number("x-message-ttl", 1);
        let dead = dead.text("x-dead-letter-routing-key", "work");
        client.declare(1, "wait", 2, &dead);
        let work = Args::new().text("x-dead-letter-exchange", "");
        let work = work.text("x-dead-letter-routing-key", "wait");
        client.declare(1, "work", 2, &work);
        send(&mut client, "work", b"hello");
        client.consume(1, "work", "c", 0);
        for tag in 1..=3 {
            assert_eq!(client.delivery().0, tag);
            client.nack(1, tag, 0);
        }
        client.delivery();
        client.ack(1, 4, false);
        client.close();
        Vec::new()
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT delivery_tag AS a, outcome AS b, attempt AS c, redelivered AS d, \
         count(*) OVER (PARTITION BY message) AS e FROM consumes ORDER BY seq",
    );
    let want = [
        "1 rejected 1 false 4",
        "2 rejected 2 false 4",
        "3 rejected 3 false 4",
        "4 acked 4 false 4",
    ];
    assert_eq!(rows, want);
    let why = played.lines("SELECT reason AS a FROM history WHERE kind = 'deliver' ORDER BY seq");
    assert_eq!(why, ["-", "expired", "expired", "expired"]);
}

fn a_stream_is_read_again_and_again(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        client.declare(1, "s", 2, &Args::new().text("x-queue-type", "stream"));
        client.confirms(1);
        for body in [b"one", b"two"] {
            send(&mut client, "s", body);
            client.until((60, 80));
        }
        client.call(1, (60, 10), Args::new().u32(0).u16(10).u8(0), (60, 11));
        for tag in ["first", "second"] {
            let from = Args::new().text("x-stream-offset", "first");
            let arguments = Args::new().u16(0).short("s").short(tag).u8(0).long(from);
            client.call(1, (60, 20), arguments, (60, 21));
            let tags = [client.delivery().0, client.delivery().0];
            client.ack(1, tags[1], true);
            client.call(1, (60, 30), Args::new().short(tag).u8(0), (60, 31));
        }
        client.close();
        all(&client)
    }) else {
        return;
    };
    let rows = played
        .lines("SELECT consumer AS a, log_offset AS b, outcome AS c FROM consumes ORDER BY seq");
    assert_eq!(rows, ["first 0 acked", "first 1 acked", "second 0 acked", "second 1 acked"]);
    let messages = "SELECT count(DISTINCT message) FROM history \
                    WHERE kind IN ('publish', 'deliver')";
    assert_eq!(played.number(messages), 2);
}

fn blocked_and_unblocked_are_recorded_and_nothing_is_lost(version: Version) {
    use flowtap_tests::rabbitmq::RabbitMq;
    let Some(broker) = RabbitMq::start(version) else { return };
    let played = crate::stage::play_on(&broker, &[], |place| {
        let mut client = place.client();
        client.open(2);
        client.queue(1, "q");
        client.confirms(1);
        broker.ctl(&["set_vm_memory_high_watermark", "0.0001"]);
        send(&mut client, "q", b"hello");
        client.until((10, 60));
        // Every question on the connection waits, on the other channel, too.
        client.send(&method(2, (60, 10), Args::new().u32(0).u16(0).u8(0)));
        broker.ctl(&["set_vm_memory_high_watermark", "0.6"]);
        client.until((60, 11));
        client.fence(1);
        if !client.transcript.iter().any(|frame| frame.id() == Some((60, 80))) {
            client.until((60, 80));
        }
        client.close();
        let mut sight = all(&client);
        sight.sort(); // answers of two channels
        sight
    });
    let rows = played.lines(
        "SELECT outcome AS a, reason AS b FROM history WHERE kind = 'session' \
         AND outcome IN ('blocked', 'unblocked') ORDER BY seq",
    );
    assert_eq!(rows, ["blocked low on memory", "unblocked -"]);
    assert_eq!(played.publishes(), ["q confirmed set"]);
}
