//! How deliveries end: what an ack covers, what it does not, and what ends them without one.

use flowtap_tests::rabbitmq::{Options, RabbitMq, Version};
use flowtap_tests::raw::{self, Args, Raw, method};

use crate::stage::{Place, all, play, play_on, play_through};

on_both! {
    an_ack_of_an_unknown_tag_settles_nothing_and_all_else_comes_back,
    acks_that_follow_an_unknown_tag_are_void,
    tag_0_with_multiple_settles_all_and_without_none,
    tags_are_counted_also_without_acks_and_anew_on_a_channel_opened_again,
    recover_gives_everything_back_under_new_tags,
    acks_that_cross_a_recover_are_void,
    recover_without_requeue_ends_the_connection,
    deliveries_of_a_cancelled_consumer_can_still_be_settled,
    deliveries_of_a_deleted_queue_can_still_be_settled,
    a_killed_client_leaves_its_deliveries_abandoned,
    a_timeout_of_the_consumer_is_told_again_and_again_and_recorded_once,
}

fn fill(client: &mut Raw, queue: &str, count: usize) {
    client.queue(1, queue);
    for number in 0..count {
        let body = format!("m-{number}");
        client.send(&raw::message(1, b"", queue.as_bytes(), 0, (0, b""), body.as_bytes()));
    }
    client.fence(1);
}

/// A client with a consumer that has been given as many messages as were there.
fn consumer(place: &Place<'_>, count: usize) -> Raw {
    let mut client = place.client();
    fill(&mut client, "q", count);
    client.consume(1, "q", "c", 0);
    for _ in 0..count {
        client.delivery();
    }
    client
}

fn ready(place: &Place<'_>, queue: &str) -> u32 {
    let mut bystander = place.bystander();
    let arguments = Args::new().u16(0).short(queue).u8(1).long("");
    let answer = bystander.call(1, (50, 10), arguments, (50, 11));
    let mut arguments = answer.arguments();
    arguments.short();
    u32::from_be_bytes(arguments.bytes(4).try_into().expect("four bytes"))
}

fn await_ready(place: &Place<'_>, queue: &str, count: u32) {
    let what = format!("{count} messages wait in {queue}");
    flowtap_tests::wait_until(&what, || ready(place, queue) == count);
}

fn an_ack_of_an_unknown_tag_settles_nothing_and_all_else_comes_back(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = consumer(place, 4);
        client.ack(1, 2, false);
        client.ack(1, 9, true);
        client.channel_closed(1);
        await_ready(place, "q", 3);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let ends = played.ends();
    assert_eq!(ends[1], "2 acked -");
    for at in [0, 2, 3] {
        let want = format!("{} abandoned broker: 406 PRECONDITION_FAILED - unknown", at + 1);
        assert!(ends[at].starts_with(&want), "{ends:?}");
    }
}

fn acks_that_follow_an_unknown_tag_are_void(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = consumer(place, 2);
        // In one write: the second is on its way when the broker closes the channel.
        let mut burst = method(1, (60, 80), Args::new().u64(9).u8(0));
        burst.extend(method(1, (60, 80), Args::new().u64(1).u8(0)));
        client.send(&burst);
        client.channel_closed(1);
        await_ready(place, "q", 2);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let ends = played.ends();
    assert!(ends.iter().all(|end| end.contains(" abandoned broker: 406")), "{ends:?}");
}

fn tag_0_with_multiple_settles_all_and_without_none(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = consumer(place, 3);
        client.ack(1, 0, true);
        client.ack(1, 0, true); // nothing is open: legal
        client.fence(1);
        client.send(&raw::message(1, b"", b"q", 0, (0, b""), b"x"));
        client.delivery();
        client.nack(1, 0, 1);
        client.send(&raw::message(1, b"", b"q", 0, (0, b""), b"x"));
        client.delivery();
        client.ack(1, 0, false);
        client.channel_closed(1);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let ends = played.ends();
    assert_eq!(ends[..4], ["1 acked -", "2 acked -", "3 acked -", "4 rejected -"]);
    assert!(ends[4].starts_with("5 abandoned broker: 406"), "{ends:?}");
}

fn tags_are_counted_also_without_acks_and_anew_on_a_channel_opened_again(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = place.client();
        fill(&mut client, "q", 2);
        client.consume(1, "q", "auto", 2);
        assert_eq!([client.delivery().0, client.delivery().0], [1, 2]);
        client.queue(1, "by-get");
        assert!(client.get(1, "by-get").is_none(), "nothing there: takes no tag");
        client.send(&raw::message(1, b"", b"by-get", 0, (0, b""), b"x"));
        client.fence(1);
        client.get(1, "by-get").expect("a message");
        client.ack(1, 3, false);
        client.ack(1, 2, false); // needs no ack, so it is not known
        client.channel_closed(1);
        client.open(1);
        client.send(&raw::message(1, b"", b"by-get", 0, (0, b""), b"x"));
        client.fence(1);
        client.get(1, "by-get").expect("a message");
        client.ack(1, 1, false);
        client.close();
        all(&client)
    }) else {
        return;
    };
    assert_eq!(played.ends(), ["1 auto -", "2 auto -", "3 acked -", "1 acked -"]);
}

fn recover_gives_everything_back_under_new_tags(version: Version) {
    let Some(played) = play_through(version, &[], |place| {
        let mut client = consumer(place, 3);
        client.ack(1, 2, false);
        client.call(1, (60, 110), Args::new().u8(1), (60, 111));
        let again = [client.delivery().0, client.delivery().0];
        assert_eq!(again, [4, 5]);
        client.ack(1, 4, false);
        // The same without an answer.
        client.send(&method(1, (60, 100), Args::new().u8(1)));
        assert_eq!(client.delivery().0, 6);
        client.ack(1, 6, false);
        client.close();
        Vec::new()
    }) else {
        return;
    };
    let rows = played.lines(
        "SELECT delivery_tag AS a, outcome AS b, reason AS c, redelivered AS d FROM consumes \
         ORDER BY delivery_tag",
    );
    let want = [
        "1 requeued recover false",
        "2 acked - false",
        "3 requeued recover false",
        "4 acked - true",
        "5 requeued recover true",
        "6 acked - true",
    ];
    assert_eq!(rows, want);
}

fn acks_that_cross_a_recover_are_void(version: Version) {
    let Some(played) = play_through(version, &[], |place| {
        let mut client = consumer(place, 2);
        let mut burst = method(1, (60, 110), Args::new().u8(1));
        burst.extend(method(1, (60, 80), Args::new().u64(1).u8(0)));
        client.send(&burst);
        client.channel_closed(1);
        await_ready(place, "q", 2);
        client.close();
        Vec::new()
    }) else {
        return;
    };
    let acked = "SELECT count(*) FROM consumes WHERE outcome = 'acked'";
    assert_eq!(played.number(acked), 0, "{:?}", played.ends());
}

fn recover_without_requeue_ends_the_connection(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = consumer(place, 1);
        client.send(&method(1, (60, 110), Args::new().u8(0)));
        client.connection_closed();
        all(&client)
    }) else {
        return;
    };
    let ends = played.ends();
    assert!(ends.len() == 1 && ends[0].starts_with("1 abandoned broker: 540"), "{ends:?}");
}

fn deliveries_of_a_cancelled_consumer_can_still_be_settled(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = consumer(place, 2);
        client.call(1, (60, 30), Args::new().short("c").u8(0), (60, 31));
        // Of one that nobody knows: answered all the same.
        client.call(1, (60, 30), Args::new().short("nobody").u8(0), (60, 31));
        client.ack(1, 1, false);
        client.fence(1);
        assert_eq!(ready(place, "q"), 0, "the second is still this client's");
        client.close_channel(1);
        await_ready(place, "q", 1);
        client.close();
        all(&client)
    }) else {
        return;
    };
    let ends = played.ends();
    assert_eq!(ends[0], "1 acked -");
    assert!(ends[1].starts_with("2 abandoned client: 200"), "{ends:?}");
    let consumers = played.lines(
        "SELECT consumer AS a, outcome AS b, reason AS c FROM history WHERE kind = 'session' \
         AND consumer IS NOT NULL ORDER BY seq",
    );
    assert_eq!(consumers, ["c opened -", "c closed cancelled by the client"]);
}

fn deliveries_of_a_deleted_queue_can_still_be_settled(version: Version) {
    for capabilities in [true, false] {
        let Some(played) = play(version, |place| {
            let hello = raw::Hello { capabilities, ..raw::Hello::new(place.vhost) };
            let mut client = place.client_with(&hello);
            fill(&mut client, "q", 1);
            client.consume(1, "q", "c", 0);
            client.delivery();
            let mut other = place.bystander();
            other.call(1, (50, 40), Args::new().u16(0).short("q").u8(0), (50, 41));
            if capabilities {
                client.until((60, 30));
            }
            client.ack(1, 1, false);
            client.fence(1);
            client.close();
            all(&client)
        }) else {
            return;
        };
        assert_eq!(played.ends(), ["1 acked -"]);
        let closed = played.lines(
            "SELECT reason AS a FROM history WHERE kind = 'session' AND consumer = 'c' \
             AND outcome = 'closed'",
        );
        // Who did not say that it wants to hear of it, is not told.
        let want = if capabilities { "cancelled by the broker" } else { "client: 200 " };
        assert_eq!(closed, [want]);
    }
}

fn a_killed_client_leaves_its_deliveries_abandoned(version: Version) {
    let Some(played) = play(version, |place| {
        let mut client = consumer(place, 2);
        client.ack(1, 1, false);
        client.fence(1);
        client.drop_socket();
        await_ready(place, "q", 1);
        Vec::new()
    }) else {
        return;
    };
    assert_eq!(played.ends(), ["1 acked -", "2 abandoned client closed the socket"]);
}

fn a_timeout_of_the_consumer_is_told_again_and_again_and_recorded_once(version: Version) {
    let options = Options {
        config: vec!["consumer_timeout = 1000".to_owned()],
        advanced: vec!["{channel_tick_interval, 1000}"],
        ..Options::default()
    };
    let Some(broker) = RabbitMq::start_with(version, &options) else { return };
    // How often it is told before the client answers is a matter of time.
    let played = play_on(&broker, &[], |place| {
        let mut client = consumer(place, 2);
        let times = if version == Version::V3_10 { 3 } else { 1 };
        for _ in 0..times {
            let close = client.until((20, 40));
            assert!(String::from_utf8_lossy(&close.payload).contains("timed out"), "{close:?}");
        }
        client.send(&method(1, (20, 41), b""));
        await_ready(place, "q", 2);
        client.open(1);
        client.close();
        Vec::new()
    });
    let ends = played.ends();
    assert_eq!(ends.len(), 2, "{ends:?}");
    for end in &ends {
        assert!(end.contains(" abandoned broker: 406 PRECONDITION_FAILED - "), "{end}");
        assert!(end.contains("timed out"), "{end}");
    }
    let closed = "SELECT count(*) FROM history WHERE kind = 'session' AND outcome = 'closed' \
                  AND channel = 1 AND consumer IS NULL AND reason LIKE 'broker: 406%'";
    assert_eq!(played.number(closed), 1);
}
