//! Whatever the bytes are and however they are cut: what leaves equals what entered, but for the
//! mandatory bit and the swallowed returns, and the rows do not depend on the cuts.

use proptest::prelude::*;

use super::*;

/// A conversation: pieces of either side, each a list of whole frames.
fn conversation() -> impl Strategy<Value = Vec<(Side, Vec<u8>)>> {
    let body = prop::collection::vec(any::<u8>(), 0..6000);
    let publishes =
        (1u16..4, any::<bool>(), 0u8..2, body.clone()).prop_map(|(channel, routed, bits, body)| {
            let key = if routed { "k" } else { "amq.rabbitmq.reply-to.x" };
            let exchange = if routed { "orders" } else { "" };
            (
                Side::Client,
                [publish_method(channel, exchange, key, bits), content(channel, "id", &body)]
                    .concat(),
            )
        });
    let delivers = (1u16..4, 1u64..9, body).prop_map(|(channel, tag, body)| {
        let arguments =
            [short("c").as_slice(), &tag.to_be_bytes(), &[0], &short("x"), &short("k")].concat();
        (
            Side::Broker,
            [method(channel, 60, 60, &arguments), content(channel, "id", &body)].concat(),
        )
    });
    let settles = (1u16..4, 0u64..9, any::<bool>())
        .prop_map(|(c, tag, multiple)| (Side::Client, ack(c, tag, multiple)));
    let others = prop_oneof![
        Just((Side::Client, frame(8, 0, b""))),
        Just((Side::Broker, frame(8, 0, b""))),
        (1u16..4).prop_map(|c| (Side::Client, consume(c, "q", "c", 0))),
        (1u16..4).prop_map(|c| (Side::Broker, method(c, 60, 21, &short("c")))),
        (1u16..4).prop_map(|c| (Side::Client, method(c, 85, 10, b"\0"))),
        (1u16..4, 1u64..9).prop_map(|(c, tag)| (Side::Broker, ack(c, tag, true))),
        (1u16..4).prop_map(|c| (Side::Broker, channel_close(c, 406, "x"))),
        (1u16..4).prop_map(|c| (Side::Client, method(c, 20, 10, b"\0"))),
    ];
    prop::collection::vec(
        prop_oneof![3 => publishes, 3 => delivers, 2 => settles, 2 => others],
        1..25,
    )
}

fn opened() -> Wire {
    let mut wire = Wire::open();
    for channel in 2..4 {
        wire.client(&method(channel, 20, 10, b"\0"));
        wire.broker(&method(channel, 20, 11, b"\0\0\0\0"));
    }
    wire.forget();
    wire
}

/// Clears the bit of every publish, so that streams can be compared.
fn without_bits(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut position = 0;
    while let Some(length) = bytes.get(position + 3..position + 7) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let end = position + 7 + length;
        if end > bytes.len() {
            break;
        }
        if bytes[position] == 1 && bytes[position + 7..position + 11] == [0, 60, 0, 40] {
            bytes[end - 1] &= !1;
        }
        position = end + 1;
    }
    bytes
}

/// Rows without what depends on when they were read.
fn timeless(wire: &Wire) -> Vec<Json> {
    let mut rows = wire.rows.rows.clone();
    for row in &mut rows {
        row["at"] = Json::Null;
        row["gap"] = Json::Null;
        row["session"]["took_us"] = Json::Null;
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same_bytes_and_rows(pieces in conversation(), cuts in prop::collection::vec(1usize..5000, 1..40)) {
        let mut whole = opened();
        let mut cut = opened();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut sizes = cuts.iter().cycle();
        for (side, bytes) in &pieces {
            whole.feed(*side, bytes);
            if *side == Side::Client { up.extend_from_slice(bytes) } else { down.extend_from_slice(bytes) }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                cut.feed(*side, head);
                rest = tail;
            }
        }
        prop_assert_eq!(without_bits(&whole.to_broker), without_bits(&up));
        prop_assert_eq!(&whole.to_client, &down);
        prop_assert_eq!(&cut.to_broker, &whole.to_broker);
        prop_assert_eq!(&cut.to_client, &whole.to_client);
        prop_assert_eq!(timeless(&cut), timeless(&whole));
    }

    #[test]
    fn any_bytes_pass_unchanged(bytes: Vec<u8>, after: Vec<u8>, cut in 0usize..64) {
        let mut wire = opened();
        let all = [bytes.as_slice(), &after].concat();
        let (head, tail) = all.split_at(cut.min(all.len()));
        wire.client(head);
        wire.client(tail);
        wire.broker(tail);
        wire.broker(head);
        // What is undecided is forwarded when the stream ends.
        let out = [wire.to_broker.as_slice(), &wire.from_client].concat();
        prop_assert_eq!(&out, &all);
        let out = [wire.to_client.as_slice(), &wire.from_broker].concat();
        prop_assert_eq!(out, [tail, head].concat());
    }

    #[test]
    fn damaged_frames_neither_panic_nor_lose_bytes(pieces in conversation(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut wire = opened();
        let mut bytes: Vec<u8> = pieces.iter().filter(|(side, _)| *side == Side::Broker).flat_map(|(_, b)| b.clone()).collect();
        prop_assume!(!bytes.is_empty());
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        wire.broker(&bytes);
        let out = [wire.to_client.as_slice(), &wire.from_broker].concat();
        prop_assert_eq!(out, bytes);
        wire.end();
    }

    #[test]
    fn every_delivery_is_settled_exactly_once(pieces in conversation()) {
        let mut wire = opened();
        for (side, bytes) in &pieces {
            wire.feed(*side, bytes);
        }
        wire.end();
        let mut settled: Vec<i64> = wire.rows("Settle").iter().map(|row| row["concludes"]["seq"].as_i64().unwrap()).collect();
        let delivered: Vec<i64> = wire.rows("Deliver").iter().map(|row| row["seq"].as_i64().unwrap()).collect();
        settled.sort_unstable();
        prop_assert_eq!(settled, delivered);
    }
}
