//! One message, one fingerprint: whatever brokers do to headers and properties on the way, the
//! column `message` of a publish equals that of all its deliveries.

use flowtap_tests::rabbitmq::Version;
use flowtap_tests::raw::{self, Args, Frame, HEADERS, Raw};

use crate::stage::{Played, play_through};

on_both! {
    a_message_without_properties_is_one_on_every_kind_of_queue,
    a_message_with_every_property_is_one_on_every_kind_of_queue,
    a_header_of_every_type_is_one_on_every_kind_of_queue,
    a_message_with_cc_and_bcc_is_one,
    a_message_is_one_through_dead_letters_and_redelivery,
    of_two_headers_of_one_name_the_one_counts_that_the_broker_delivers,
}

const QUEUES: [&str; 3] = ["classic", "quorum", "stream"];

fn declare_queues(client: &mut Raw) {
    client.exchange(1, "x", "fanout", &Args::new());
    for queue in QUEUES {
        client.declare(1, queue, 2, &Args::new().text("x-queue-type", queue));
        client.bind(1, queue, "x", "");
    }
    client.call(1, (60, 10), Args::new().u32(0).u16(100).u8(0), (60, 11));
}

/// Consumes one message from each kind of queue, gives it back where that is possible, and takes
/// it again. Returns the headers as they came.
fn take_from_all(client: &mut Raw) -> Vec<Frame> {
    let mut headers = Vec::new();
    for queue in QUEUES {
        let from = Args::new().text("x-stream-offset", "last");
        let table = if queue == "stream" { from } else { Args::new() };
        let arguments = Args::new().u16(0).short(queue).short(queue).u8(0).long(table);
        client.call(1, (60, 20), arguments, (60, 21));
        let (tag, header, _) = client.delivery();
        headers.push(header);
        if queue == "stream" {
            client.ack(1, tag, false);
        } else {
            client.nack(1, tag, 2);
            let (tag, header, _) = client.delivery();
            headers.push(header);
            client.ack(1, tag, false);
        }
        client.call(1, (60, 30), Args::new().short(queue).u8(0), (60, 31));
    }
    headers
}

/// Publishes to all kinds of queues and takes from each.
fn through_all(version: Version, flags: u16, properties: &[u8]) -> Option<Played> {
    let played = play_through(version, &[], |place| {
        let mut client = place.client();
        declare_queues(&mut client);
        client.confirms(1);
        client.send(&raw::message(1, b"x", b"k", 0, (flags, properties), b"body"));
        client.until((60, 80));
        let headers = take_from_all(&mut client);
        client.close();
        headers.iter().map(|header| format!("{header:?}")).collect()
    })?;
    assert_one(&played, 5);
    Some(played)
}

fn assert_one(played: &Played, deliveries: i64) {
    let rows = played.lines(
        "SELECT kind AS a, subscription AS b, message AS c FROM history \
         WHERE kind IN ('publish', 'deliver') ORDER BY seq",
    );
    let count = "SELECT count(*) FROM history WHERE kind = 'deliver'";
    assert_eq!(played.number(count), deliveries, "{rows:#?}");
    let distinct =
        "SELECT count(DISTINCT message) FROM history WHERE kind IN ('publish', 'deliver')";
    assert_eq!(played.number(distinct), 1, "{rows:#?}\n{:#?}", played.sight);
}

fn a_message_without_properties_is_one_on_every_kind_of_queue(version: Version) {
    through_all(version, 0, b"");
}

fn a_message_with_every_property_is_one_on_every_kind_of_queue(version: Version) {
    let properties = Args::new()
        .short("application/json")
        .short("gzip")
        .long(Args::new().number("n", 1))
        .u8(2)
        .u8(7)
        .short("corr")
        .short("reply")
        .short("600000")
        .short("id-1")
        .u64(1_700_000_000)
        .short("OrderPlaced")
        .short("guest")
        .short("shop")
        .short("");
    through_all(version, 0xfffc, properties.as_ref());
}

/// One entry of every type of RabbitMQ's dialect, in no order.
fn every_type() -> Args {
    every_type_but_decimal().short("decimal").u8(b'D').u8(2).u32(12345)
}

/// The same without what a stream ends the connection for (541 `INTERNAL_ERROR`).
fn every_type_but_decimal() -> Args {
    let nested = Args::new().text("z", "1").number("a", -5).short("v").u8(b'V');
    let items = Args::new().u8(b'S').long("one").u8(b'I').u32(7).u8(b'F').long(&nested);
    Args::new()
        .short("void")
        .u8(b'V')
        .short("bool")
        .u8(b't')
        .u8(2)
        .short("i8")
        .u8(b'b')
        .u8(0xff)
        .short("u8")
        .u8(b'B')
        .u8(0xff)
        .short("i16")
        .u8(b's')
        .u16(0xfffe)
        .short("u16")
        .u8(b'u')
        .u16(0xfffe)
        .short("i32")
        .u8(b'I')
        .u32(0xffff_fffe)
        .short("u32")
        .u8(b'i')
        .u32(0xffff_fffe)
        .short("i64")
        .u8(b'l')
        .u64(u64::MAX - 1)
        .short("f32")
        .u8(b'f')
        .u32(1.1_f32.to_bits())
        .short("f64")
        .u8(b'd')
        .u64(1.1_f64.to_bits())
        .short("text")
        .u8(b'S')
        .long("grüße")
        .short("binary-in-text")
        .u8(b'S')
        .long(b"\0\xff")
        .short("bytes")
        .u8(b'x')
        .long(b"\0\xff")
        .short("time")
        .u8(b'T')
        .u64(1_700_000_000)
        .short("table")
        .u8(b'F')
        .long(nested)
        .short("array")
        .u8(b'A')
        .long(items)
        .short("empty-table")
        .u8(b'F')
        .long("")
        .short("empty-array")
        .u8(b'A')
        .long("")
}

fn a_header_of_every_type_is_one_on_every_kind_of_queue(version: Version) {
    let properties = Args::new().long(every_type_but_decimal());
    through_all(version, HEADERS, properties.as_ref());
}

fn a_message_with_cc_and_bcc_is_one(version: Version) {
    let Some(played) = play_through(version, &[], |place| {
        let mut client = place.client();
        for queue in ["a", "b", "c"] {
            client.queue(1, queue);
        }
        client.confirms(1);
        let table = Args::new().texts("CC", &["b"]).texts("BCC", &["c"]).raw(every_type());
        let properties = Args::new().long(table);
        client.send(&raw::message(1, b"", b"a", 0, (HEADERS, properties.as_ref()), b"body"));
        client.until((60, 80));
        for queue in ["a", "b", "c"] {
            client.get(1, queue).expect("a copy");
        }
        client.ack(1, 0, true);
        client.close();
        Vec::new()
    }) else {
        return;
    };
    assert_one(&played, 3);
}

fn a_message_is_one_through_dead_letters_and_redelivery(version: Version) {
    let Some(played) = play_through(version, &[], |place| {
        let mut client = place.client();
        for kind in ["classic", "quorum"] {
            let dead = format!("dead-{kind}");
            client.declare(1, &dead, 2, &Args::new().text("x-queue-type", kind));
            let table = Args::new()
                .text("x-queue-type", kind)
                .text("x-dead-letter-exchange", "")
                .text("x-dead-letter-routing-key", &dead);
            client.declare(1, kind, 2, &table);
        }
        client.confirms(1);
        client.exchange(1, "x", "fanout", &Args::new());
        client.bind(1, "classic", "x", "");
        client.bind(1, "quorum", "x", "");
        let table = Args::new().texts("CC", &["nowhere"]).raw(every_type());
        let properties = Args::new().long(table).u8(2).short("600000");
        let flags = HEADERS | 1 << 12 | 1 << 8;
        client.send(&raw::message(1, b"x", b"k", 0, (flags, properties.as_ref()), b"body"));
        client.until((60, 80));
        for kind in ["classic", "quorum"] {
            client.consume(1, kind, kind, 0);
            for _ in 0..2 {
                let tag = client.delivery().0;
                client.nack(1, tag, 2);
            }
            let tag = client.delivery().0;
            client.nack(1, tag, 0);
            let dead = format!("dead-{kind}");
            client.consume(1, &dead, &dead, 0);
            let tag = client.delivery().0;
            client.ack(1, tag, false);
        }
        client.close();
        Vec::new()
    }) else {
        return;
    };
    assert_one(&played, 8);
}

fn of_two_headers_of_one_name_the_one_counts_that_the_broker_delivers(version: Version) {
    let table = Args::new()
        .text("other", "x")
        .text("twice", "first")
        .text("between", "x")
        .text("twice", "second");
    let properties = Args::new().long(table);
    let Some(played) = through_all(version, HEADERS, properties.as_ref()) else { return };
    // 3.10 delivers both, 4.0 the first: that is the one that the fingerprint takes.
    for header in &played.sight {
        assert!(header.contains("first"), "{header}");
        assert_eq!(header.contains("second"), version == Version::V3_10, "{header}");
    }
}
