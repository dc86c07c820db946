//! What is published: every client, codec and kind of acknowledgement.

use std::collections::BTreeSet;

use flowtap_tests::client::{Client, KAFKA};
use flowtap_tests::kafka::{Listener, Version};
use serde_json::{Value, json};

use crate::support::{Scene, number, scene, sent};

fn codecs(client: Client) -> &'static [&'static str] {
    match client {
        // Of those that are made of JavaScript alone.
        Client::Kafkajs => &["none", "gzip", "snappy"],
        // Of those that are in librdkafka itself.
        Client::Rdkafka => &["none", "snappy", "lz4"],
        _ => &["none", "gzip", "snappy", "lz4", "zstd"],
    }
}

/// One service for each codec and each kind of `acks`, all told of every record's place.
fn produced_with_every_codec(client: Client, version: Version) {
    if !client.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let way = scene.way_with("shop", Listener::Plain, |options| {
        options.tables.push("[record]\nheaders = \"all\"".to_owned());
    });
    let start = |(number, codec): (usize, &&'static str)| {
        let topic = scene.topic(2, &[]);
        let acks = if number % 2 == 0 { "all" } else { "1" };
        let service = client.start(&json!({
            "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 40,
            "keys": ["a", "b", "c", "d", "e"], "bytes": 300, "compression": codec,
            "acks": acks, "idempotent": number % 2 == 0,
            "headers": [["event-id", "e"], ["trace", "1"], ["trace", "2"], ["empty", null]],
        }));
        (topic, *codec, service)
    };
    let services: Vec<_> = codecs(client).iter().enumerate().map(start).collect();
    let mut topics = Vec::new();
    for (topic, codec, mut service) in services {
        let told = service.finish_lines();
        let did = told.last().expect("it says what it did");
        assert_eq!((number(did, "confirmed"), number(did, "refused")), (40, 0), "{codec}");
        assert_eq!(scene.places(&topic, false).len(), 40);
        if client != Client::Kafkajs {
            let told: BTreeSet<_> = sent(&topic, &told).into_iter().collect();
            assert_eq!(told, scene.places(&topic, false));
        }
        let used: BTreeSet<_> = scene.batches(&topic).iter().map(|batch| batch.codec).collect();
        assert_eq!(used, BTreeSet::from([codec]), "what {client:?} made of it");
        headers_arrive(&scene, &topic, client, codec);
        topics.push((topic, codec));
    }
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    for (topic, codec) in topics {
        rows.assert_published(&topic, &scene.places(&topic, false));
        for row in rows.all("publish", &topic) {
            assert_eq!(headers(row), expected_headers(client), "{codec}");
            assert_eq!(details(row)["compression"].as_str().unwrap_or("none"), codec);
            assert!(row["routing_key"].is_string(), "{row}");
        }
    }
}

fn details(row: &Value) -> Value {
    let details = row["details"].as_str().expect("a record has a time at least");
    serde_json::from_str(details).expect("details are JSON")
}

/// The headers of a row, in their order.
fn headers(row: &Value) -> Vec<Value> {
    let headers = row["headers"].as_array().unwrap_or_else(|| panic!("no headers in {row}"));
    let value = |each: &Value| match each["encoding"].as_str() {
        Some("json") => {
            serde_json::from_str(each["value"].as_str().expect("a text")).expect("it is JSON")
        }
        _ => each["value"].clone(),
    };
    headers.iter().map(|each| json!([each["name"], value(each)])).collect()
}

/// Those that every service here gives its records: kafkajs leaves out what is null.
fn expected_headers(client: Client) -> Vec<Value> {
    let mut all = vec![json!(["event-id", "e"]), json!(["trace", "1"]), json!(["trace", "2"])];
    if client != Client::Kafkajs {
        all.push(json!(["empty", null]));
    }
    all
}

/// Headers arrive as they were given, also those whose names repeat.
fn headers_arrive(scene: &Scene<'_>, topic: &str, wrote: Client, codec: &str) {
    if codec != "none" || !Client::Franz.available() {
        return;
    }
    let read = Client::Franz.run_lines(&json!({
        "role": "consume", "bootstrap": scene.kafka.bootstrap(), "topics": [topic], "records": 40,
    }));
    let first = read.iter().find(|line| line["topic"].is_string()).expect("it read some");
    assert_eq!(first["headers"], Value::from(expected_headers(wrote)), "headers of {wrote:?}");
}

with_every_client!(produced_with_every_codec:
    with_confluent Confluent V4;
    long: with_java KafkaJava V4, with_aiokafka Aiokafka V4, with_kafkajs Kafkajs V4,
    with_franz Franz V4, with_rdkafka Rdkafka V4, with_confluent_on_3_9 Confluent V3_9,
);

/// Nobody answers, and nobody waits.
#[test]
#[ignore = "long: make test-long"]
fn unacknowledged() {
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("shop");
    let topic = scene.topic(1, &[]);
    let clients: Vec<_> = KAFKA.into_iter().filter(|client| client.available()).collect();
    let scenario = json!({
        "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 20, "acks": "0",
    });
    let services: Vec<_> = clients.iter().map(|client| client.start(&scenario)).collect();
    for mut service in services {
        assert_eq!(number(&service.finish(), "published"), 20);
    }
    flowtap_tests::wait_until("all arrived", || {
        scene.kafka.end_offsets(&topic)[&0] == 20 * clients.len() as i64
    });
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    assert_eq!(rows.count("publish", &topic), 20 * clients.len() as i64);
    assert_eq!(rows.count("confirm", &topic), 0);
    assert!(rows.all("publish", &topic).all(|row| row["confirm_expected"] == false));
}

/// A record without a value says that what had its key is gone.
#[test]
#[ignore = "long: make test-long"]
fn tombstones() {
    if !Client::Confluent.available() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("shop");
    let topic = scene.topic(1, &[]);
    let did = Client::Confluent.run(&json!({
        "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 10,
        "keys": ["a", "b"], "tombstones": true,
    }));
    assert_eq!(number(&did, "confirmed"), 10);
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_published(&topic, &scene.places(&topic, false));
    for row in rows.all("publish", &topic) {
        assert_eq!((&details(row)["tombstone"], &row["size"]), (&json!(true), &json!(0)));
    }
}

/// librdkafka before 2.11 stops compressing, silently, where a broker does not offer Produce from
/// version 0 on.
#[test]
fn an_old_librdkafka_goes_on_compressing() {
    if !Client::ConfluentOld.available() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("shop");
    let start = |codec: &'static str| {
        let topic = scene.topic(1, &[]);
        let service = Client::ConfluentOld.start(&json!({
            "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 100,
            "bytes": 500, "compression": codec, "linger_ms": 50,
        }));
        (codec, topic, service)
    };
    let mut topics = Vec::new();
    for (codec, topic, mut service) in ["gzip", "snappy", "lz4", "zstd"].map(start) {
        assert_eq!(number(&service.finish(), "confirmed"), 100);
        let used: BTreeSet<_> = scene.batches(&topic).iter().map(|batch| batch.codec).collect();
        assert_eq!(used, BTreeSet::from([codec]));
        topics.push(topic);
    }
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    for topic in topics {
        rows.assert_published(&topic, &scene.places(&topic, false));
    }
}
