//! A fetch of a hundred megabytes, and many connections, go through a sidecar that stays small.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use flowtap_tests::client::Client;
use flowtap_tests::kafka::{Kafka, Options, Version};
use serde_json::json;

use crate::support::{number, received, scene, scene_on};

/// The most memory that a process had so far, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.split_whitespace().next()).expect("the kernel says it");
    peak.parse().expect("a number")
}

#[test]
#[ignore = "long: make test-long"]
fn a_fetch_of_100_mb_passes_in_little_memory() {
    if !Client::Franz.available() || !Client::KafkaJava.available() {
        return;
    }
    let options =
        Options { config: vec!["fetch.max.bytes=209715200".to_owned()], ..Options::default() };
    let Some(kafka) = Kafka::start_with(Version::V4, &options) else { return };
    let scene = scene_on(&kafka);
    let way = scene.way("factory");
    let topic = scene.topic(1, &[]);
    let records = 115;
    let did = Client::Franz.run(&json!({
        "role": "produce", "bootstrap": kafka.bootstrap(), "topic": topic, "count": records,
        "bytes": 900_000,
    }));
    assert_eq!(number(&did, "confirmed"), records);
    let group = kafka.name("factory");
    let before = way.sidecar().map(|sidecar| peak(sidecar.pid()));
    // All of it in one answer.
    let read = Client::KafkaJava.run_lines(&json!({
        "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
        "records": records, "commit": "batch", "config": {
            "fetch.max.bytes": 150_000_000, "max.partition.fetch.bytes": 150_000_000,
            "fetch.min.bytes": 100_000_000, "fetch.max.wait.ms": 20_000,
        },
    }));
    let read: BTreeSet<_> = received(&read).into_iter().collect();
    assert_eq!(read, scene.places(&topic, false));
    let Some(before) = before else { return };
    let after = peak(way.sidecar().expect("there is one").pid());
    eprintln!("{before} KiB before, {after} KiB at most");
    // What waits to be decoded has a limit (`limits.decode`, 64 MiB); the rest is buffers.
    assert!(after < before + (112 << 10), "{before} KiB before, then {after} KiB");
    let Some(rows) = scene.rows(&way) else { return };
    // Where the limit was reached, a gap says so, with the offset from which it was.
    if rows.kind("gap").count() == 0 {
        let answers: BTreeSet<_> = rows.tags().collect();
        assert_eq!(rows.delivered(&topic, Some(&group)).len() as i64, records);
        assert_eq!(answers.len(), 1, "they came in one answer");
    } else {
        assert!(rows.kind("gap").all(|row| row["reason"] == "memory"));
    }
    rows.assert_committed(&group, &kafka.committed(&group));
}

/// ApiVersions in its first version: length, key, version, correlation id, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];

/// What a connection costs that has been used and is kept open, as those of clients are.
#[test]
fn many_connections_take_little_each() {
    const CONNECTIONS: u64 = 400;
    /// Of the sidecar's memory; a connection's buffers are given back while it is idle.
    const KIB_EACH: u64 = 40;
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("shop");
    let Some(port) = way.sidecar().map(|sidecar| sidecar.port()) else { return };
    let open = |_| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
        stream.set_read_timeout(Some(flowtap_tests::PATIENCE)).expect("it is a socket");
        for _ in 0..10 {
            stream.write_all(&API_VERSIONS).expect("it is connected");
            let mut length = [0; 4];
            stream.read_exact(&mut length).expect("an answer");
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut answer).expect("all of it");
        }
        stream
    };
    // What the first few take is not theirs alone.
    let first: Vec<_> = (0..10).map(open).collect();
    let before = peak(way.sidecar().expect("there is one").pid());
    let streams: Vec<_> = (0..CONNECTIONS).map(open).collect();
    let after = peak(way.sidecar().expect("there is one").pid());
    let each = (after - before) / CONNECTIONS;
    eprintln!("{before} KiB before, {after} KiB with {CONNECTIONS} more: {each} KiB each");
    assert!(each <= KIB_EACH, "{each} KiB each");
    drop((first, streams));
}
