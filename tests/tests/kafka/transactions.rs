//! Transactions of both kinds: 3.9 has the first (partitions are added to it by requests of their
//! own), 4 the second.

use std::collections::{BTreeMap, BTreeSet};

use flowtap_tests::client::Client;
use flowtap_tests::kafka::Version;
use flowtap_tests::wait_until;
use serde_json::json;

use crate::rows::Rows;
use crate::support::{committed, number, received, scene, sent};

/// Six transactions of ten records, two of them aborted.
fn committed_and_aborted(client: Client, version: Version) {
    if !client.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let way = scene.way("shop");
    let topic = scene.topic(2, &[]);
    let told = client.run_lines(&json!({
        "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 60,
        "keys": ["a", "b", "c", "d", "e"],
        "transaction": {"id": scene.kafka.name("shop"), "size": 10, "abort": [1, 4]},
    }));
    let did = told.last().expect("it says what it did");
    assert_eq!((number(did, "committed"), number(did, "aborted")), (4, 2));
    assert_eq!(scene.places(&topic, false).len(), 60);
    wait_until("the marks are written", || scene.places(&topic, true).len() == 40);
    if client != Client::Kafkajs {
        assert_eq!(
            sent(&topic, &told).into_iter().collect::<BTreeSet<_>>(),
            scene.places(&topic, false)
        );
    }
    let batches = scene.batches(&topic);
    let marks = batches.iter().filter(|batch| batch.committed.is_some()).count();
    assert!((6..=12).contains(&marks), "an end of each transaction in each partition it wrote to");
    // Of the second kind is what gives each transaction an epoch of its own.
    let epochs: BTreeSet<_> = batches.iter().map(|batch| batch.producer_epoch).collect();
    let second_kind = client == Client::KafkaJava && version == Version::V4;
    if second_kind {
        assert!(epochs.len() >= 6, "{epochs:?}");
    }
    if let Some(rows) = scene.rows(&way) {
        rows.assert_no_gap();
        rows.assert_published(&topic, &scene.places(&topic, false));
        assert_transactions(&rows, &topic);
    }
    if !Client::Confluent.available() {
        return;
    }
    let way = scene.way("factory");
    let groups = [(true, 40), (false, 60)].map(|(read_committed, expected)| {
        let group = scene.kafka.name("factory");
        let read = Client::Confluent.run_lines(&json!({
            "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic],
            "group": group, "records": expected, "read_committed": read_committed,
        }));
        let read: BTreeSet<_> = received(&read).into_iter().collect();
        assert_eq!(read, scene.places(&topic, read_committed));
        (read_committed, group)
    });
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    for (read_committed, group) in groups {
        let delivered = rows.delivered(&topic, Some(&group));
        let expected = scene.places(&topic, read_committed);
        assert_eq!(delivered.len(), expected.len());
        assert_eq!(delivered.into_iter().collect::<BTreeSet<_>>(), expected);
        rows.assert_committed(&group, &scene.kafka.committed(&group));
    }
    rows.assert_settled_exactly_once();
}

/// Six ends, and ten publishes in each transaction.
fn assert_transactions(rows: &Rows, topic: &str) {
    let ends: BTreeMap<_, _> = rows
        .kind("transaction")
        .map(|row| (row["broker_txn"].as_str(), row["outcome"].as_str()))
        .collect();
    let outcomes: Vec<_> = rows.kind("transaction").map(|row| row["outcome"].as_str()).collect();
    let [c, a] = [Some("committed"), Some("aborted")];
    assert_eq!(outcomes, [c, a, c, c, a, c]);
    assert!(ends.len() == 6 && !ends.contains_key(&None), "{ends:?}");
    let mut members: BTreeMap<_, i64> = BTreeMap::new();
    for row in rows.all("publish", topic) {
        *members.entry(row["broker_txn"].as_str()).or_default() += 1;
    }
    assert_eq!(members, ends.keys().map(|&name| (name, 10)).collect());
}

/// Reads orders and writes payments, offsets and records in one transaction; the first is aborted
/// and done again.
fn consumed_and_produced(client: Client, version: Version) {
    if !client.available() || !Client::Franz.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let [orders, payments] = [(); 2].map(|()| scene.topic(1, &[]));
    let way = scene.way("billing");
    let group = scene.kafka.name("billing");
    Client::Franz.run(&json!({
        "role": "produce", "bootstrap": scene.kafka.bootstrap(), "topic": orders, "count": 50,
    }));
    let told = client.run_lines(&json!({
        "role": "consume", "bootstrap": way.bootstrap(), "topics": [orders], "group": group,
        "commit": "never", "read_committed": true, "max_batch": 10, "records": 60,
        "to": {"topic": payments, "transaction": scene.kafka.name("billing"), "abort": [0]},
    }));
    let did = told.last().expect("it says what it did");
    assert_eq!(number(did, "aborted"), 1);
    assert!(number(did, "committed") >= 1);
    let again = received(&told).len() - received(&told).into_iter().collect::<BTreeSet<_>>().len();
    assert!(again > 0, "what was aborted comes again");
    wait_until("the group's offset stands where the transactions left it", || {
        scene.kafka.committed(&group) == committed(&told)
    });
    let written = scene.kafka.committed(&group)[&(orders.clone(), 0)];
    wait_until("the marks are written", || scene.places(&payments, true).len() as i64 == written);
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_published(&payments, &scene.places(&payments, false));
    let ends = |outcome: &str| {
        rows.kind("transaction").filter(|row| row["outcome"] == outcome).count() as i64
    };
    // A client may drop the records of a transaction before it has sent any: then none was begun.
    let mut batches = scene.batches(&payments).into_iter();
    let aborted = i64::from(batches.any(|batch| batch.committed == Some(false)));
    assert_eq!((ends("committed"), ends("aborted")), (number(did, "committed"), aborted));
    let delivered: BTreeSet<_> = rows.delivered(&orders, Some(&group)).into_iter().collect();
    let read: BTreeSet<_> = received(&told).into_iter().collect();
    assert!(read.is_subset(&delivered), "{:?}", read.difference(&delivered));
    rows.assert_settled_exactly_once();
    rows.assert_committed(&group, &scene.kafka.committed(&group));
    let mut settles = rows.all("settle", &orders).filter(|row| row["outcome"] == "committed");
    assert!(settles.all(|row| row["broker_txn"].is_string()));
    assert!(rows.deliveries(&orders, Some(&group)).any(|row| row["redelivered"] == true));
}

with_every_client!(committed_and_aborted:
    with_java KafkaJava V4, with_java_on_3_9 KafkaJava V3_9;
    long: with_confluent Confluent V4, with_aiokafka Aiokafka V4, with_kafkajs Kafkajs V4,
    with_franz Franz V4, with_rdkafka Rdkafka V4, with_confluent_on_3_9 Confluent V3_9,
);

with_every_client!(consumed_and_produced: ;
    long: with_java KafkaJava V4, with_confluent Confluent V4, with_aiokafka Aiokafka V4,
    with_kafkajs Kafkajs V4, with_franz Franz V4, with_rdkafka Rdkafka V4,
    with_java_on_3_9 KafkaJava V3_9, with_confluent_on_3_9 Confluent V3_9,
);
