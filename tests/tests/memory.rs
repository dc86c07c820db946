//! A body of half a gigabyte goes through a sidecar that stays small.
//!
//! It needs 2 GB of memory for the broker; `FLOWTAP_BODY_MB` makes it smaller.

use std::io::Write;

use flowtap_tests::process::Folder;
use flowtap_tests::rabbitmq::{Options as BrokerOptions, RabbitMq, Version};
use flowtap_tests::raw::{self, Args, BODY, Hello, Raw};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;

/// The most memory that a process had so far, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.split_whitespace().next()).expect("the kernel says it");
    peak.parse().expect("a number")
}

/// Bytes that depend on where they stand, so that a piece out of place is seen.
fn fill(piece: &mut [u8], from: u64) {
    for (byte, at) in piece.iter_mut().zip(from..) {
        *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
}

#[test]
fn a_body_of_500_mb_passes_unchanged_in_little_memory() {
    let megabytes = std::env::var("FLOWTAP_BODY_MB")
        .map_or(500, |text| text.parse().expect("FLOWTAP_BODY_MB is a number"));
    let size: u64 = megabytes << 20;
    let options = BrokerOptions {
        config: vec![
            "max_message_size = 536870912".to_owned(),
            "vm_memory_high_watermark.relative = 0.9".to_owned(),
        ],
        ..BrokerOptions::default()
    };
    let Some(broker) = RabbitMq::start_with(Version::V3_10, &options) else { return };
    let vhost = broker.vhost();
    let folder = Folder::new("store");
    let mut shop = Sidecar::start(&Options::new("shop", broker.port(), folder.url()));
    let mut client = Raw::connect(shop.port(), &Hello::new(vhost.name()));
    client.open(1);
    client.queue(1, "q");
    client.confirms(1);
    let before = peak(shop.pid());

    client.send(&raw::publish(1, b"", b"q", 0));
    client.send(&raw::header(1, size, 0, b""));
    let mut piece = vec![0; 131_064];
    let mut sent = 0;
    while sent < size {
        let length = (size - sent).min(piece.len() as u64);
        fill(&mut piece[..length as usize], sent);
        let frame = raw::frame(BODY, 1, &piece[..length as usize]);
        client.stream().write_all(&frame).expect("the broker takes it");
        sent += length;
    }
    client.until((60, 80));

    client.transcript.clear();
    client.send(&raw::method(1, (60, 70), Args::new().u16(0).short("q").u8(0)));
    client.until_frame("the content header", |frame| frame.kind == raw::HEADER);
    let mut got = 0;
    let mut want = Vec::new();
    while got < size {
        let frame = client.read().expect("the body goes on");
        assert_eq!(frame.kind, BODY);
        want.resize(frame.payload.len(), 0);
        fill(&mut want, got);
        assert!(want == frame.payload, "the bytes at {got}");
        got += frame.payload.len() as u64;
        // Or else it is this test that needs the memory.
        client.transcript.clear();
    }
    client.ack(1, 1, false);
    let after = peak(shop.pid());
    client.close();
    shop.terminate();

    eprintln!("{megabytes} MB: {before} KiB before, {after} KiB at most");
    assert!(after < before + (64 << 10), "{before} KiB before, then {after} KiB");
    assert!(after < 128 << 10, "{after} KiB");
    let store = Store::new(folder.url());
    let rows = "SELECT count(*) FROM history WHERE kind IN ('publish', 'deliver') AND size = ";
    assert_eq!(store.number(&format!("{rows}{size}")), 2);
    let messages = "SELECT count(DISTINCT message) FROM history WHERE message IS NOT NULL";
    assert_eq!(store.number(messages), 1);
}
