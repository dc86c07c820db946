//! What is consumed: groups of every client, who commits how, and partitions that change hands.

use std::collections::{BTreeMap, BTreeSet};

use flowtap_tests::client::Client;
use flowtap_tests::kafka::Version;
use flowtap_tests::wait_until;
use serde_json::{Value, json};

use crate::rows::place;
use crate::support::{Place, Scene, committed, number, received, scene};

/// As many records as asked for, in so many partitions, by the fastest client there is.
fn filled(scene: &Scene<'_>, partitions: i32, records: usize) -> String {
    let topic = scene.topic(partitions, &[]);
    fill(scene, &topic, records);
    topic
}

fn fill(scene: &Scene<'_>, topic: &str, records: usize) {
    let did = Client::Franz.run(&json!({
        "role": "produce", "bootstrap": scene.kafka.bootstrap(), "topic": topic, "count": records,
        "keys": (0..20).map(|key| format!("k{key}")).collect::<Vec<_>>(),
    }));
    assert_eq!(number(&did, "confirmed"), records as i64);
}

fn ends(scene: &Scene<'_>, topic: &str) -> BTreeMap<(String, i32), i64> {
    let ends = scene.kafka.end_offsets(topic).into_iter();
    ends.map(|(partition, offset)| ((topic.to_owned(), partition), offset)).collect()
}

/// One member reads all and commits after each batch; then another that commits by itself.
fn committed_by_the_batch_and_by_itself(client: Client, version: Version) {
    if !client.available() || !Client::Franz.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let topic = filled(&scene, 3, 200);
    let start = |commit: &str| {
        let way = scene.way(commit);
        let group = scene.kafka.name("factory");
        let service = client.start(&json!({
            "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
            "commit": commit, "records": 200,
        }));
        (way, group, service)
    };
    for (way, group, mut service) in ["batch", "auto"].map(start) {
        let told = service.finish_lines();
        let got = received(&told);
        assert_eq!(got.len(), 200);
        assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), scene.places(&topic, false));
        let at_brokers = scene.kafka.committed(&group);
        assert_eq!(at_brokers, ends(&scene, &topic), "what the group {group} committed");
        let said = committed(&told);
        assert!(said.is_empty() || said == at_brokers, "{said:?}");
        let Some(rows) = scene.rows(&way) else { continue };
        rows.assert_no_gap();
        let delivered = rows.delivered(&topic, Some(&group));
        assert_eq!(delivered.len() as i64, rows.count("deliver", &topic), "all are the group's");
        assert_eq!(sorted(delivered), sorted(received(&told)));
        assert!(rows.kind("deliver").all(|row| row["redelivered"] == false));
        let members: BTreeSet<_> =
            rows.kind("deliver").map(|row| row["consumer"].as_str()).collect();
        assert!(members.len() == 1 && !members.contains(&None), "{members:?}");
        rows.assert_settled_exactly_once();
        rows.assert_committed(&group, &at_brokers);
        assert_eq!(rows.settles(&topic, &group), BTreeMap::from([("committed".to_owned(), 200)]));
    }
}

fn sorted(mut places: Vec<Place>) -> Vec<Place> {
    places.sort();
    places
}

fn partitions_change_hands(client: Client, version: Version) {
    partitions_change_hands_by("classic", client, version);
}

/// A second member comes, and goes again; a third comes and is killed.
fn partitions_change_hands_by(protocol: &str, client: Client, version: Version) {
    if !client.available() || !Client::Franz.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let topic = scene.topic(4, &[]);
    let group = scene.kafka.name("factory");
    let way = scene.way("factory");
    let member = || {
        client.start(&json!({
            "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
            "commit": "batch", "protocol": protocol, "session_ms": 3000, "max_batch": 20,
        }))
    };
    let mut first = member();
    first.await_ready();
    let mut producer = Client::Franz.start(&json!({
        "role": "produce", "bootstrap": scene.kafka.bootstrap(), "topic": topic, "count": 100_000,
        "keys": (0..20).map(|key| format!("k{key}")).collect::<Vec<_>>(), "every_ms": 4,
    }));
    producer.await_ready();
    let works = |line: &Value| line["topic"].is_string();
    let mut second = member();
    second.await_line("the second member works", works);
    let left = second.terminate_lines();
    let mut third = member();
    third.await_line("the third member works", works);
    third.kill9();
    let killed = third.lines();
    let sent = producer.terminate_lines();
    let all = scene.places(&topic, false);
    assert_eq!(all.len() as i64, number(sent.last().expect("its last word"), "confirmed"));
    wait_until("the first member has committed everything", || {
        scene.kafka.committed(&group) == ends(&scene, &topic)
    });
    let stayed = first.terminate_lines();
    let mut seen: BTreeSet<_> = received(&stayed).into_iter().collect();
    seen.extend(received(&left));
    seen.extend(received(&killed));
    assert_eq!(seen, all, "nothing is left out");
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    let delivered: BTreeSet<_> = rows.delivered(&topic, Some(&group)).into_iter().collect();
    assert_eq!(rows.deliveries(&topic, None).count(), 0, "all are the group's");
    assert_eq!(delivered, all);
    rows.assert_settled_exactly_once();
    rows.assert_committed(&group, &ends(&scene, &topic));
    let members: BTreeSet<_> = rows.kind("deliver").map(|row| row["consumer"].as_str()).collect();
    assert!(members.len() >= 3 && !members.contains(&None), "{members:?}");
}

with_every_client!(committed_by_the_batch_and_by_itself:
    with_rdkafka Rdkafka V4;
    long: with_java KafkaJava V4, with_confluent Confluent V4, with_aiokafka Aiokafka V4,
    with_kafkajs Kafkajs V4, with_franz Franz V4, with_java_on_3_9 KafkaJava V3_9,
);

with_every_client!(partitions_change_hands:
    with_franz Franz V4, with_confluent_on_3_9 Confluent V3_9;
    long: with_java KafkaJava V4, with_confluent Confluent V4, with_aiokafka Aiokafka V4,
    with_kafkajs Kafkajs V4, with_rdkafka Rdkafka V4,
);

/// Groups that the brokers lead (`group.protocol=consumer`).
#[test]
#[ignore = "long: make test-long"]
fn the_brokers_assign_to_java() {
    partitions_change_hands_by("consumer", Client::KafkaJava, Version::V4);
}

/// Likewise.
#[test]
#[ignore = "long: make test-long"]
fn the_brokers_assign_to_librdkafka() {
    partitions_change_hands_by("consumer", Client::Confluent, Version::V4);
}

/// Every client but kafkajs can read without a group: deliveries that nobody settles.
#[test]
#[ignore = "long: make test-long"]
fn without_a_group() {
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("auditor");
    let topic = filled(&scene, 2, 50);
    let clients = [Client::KafkaJava, Client::Confluent, Client::Aiokafka, Client::Franz];
    let clients = clients.into_iter().filter(|client| client.available());
    let services: Vec<_> = clients
        .map(|client| {
            client.start(&json!({
                "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "records": 50,
            }))
        })
        .collect();
    let count = services.len();
    for mut service in services {
        let got: BTreeSet<_> = received(&service.finish_lines()).into_iter().collect();
        assert_eq!(got, scene.places(&topic, false));
    }
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    let mut by_client: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows.deliveries(&topic, None) {
        by_client.entry(row["client"].as_str()).or_default().push(place(row));
    }
    assert_eq!(by_client.len(), count, "{:?}", by_client.keys());
    for (client, got) in by_client {
        assert_eq!(got.len(), 50, "{client:?}");
        assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), scene.places(&topic, false));
    }
    assert_eq!(
        (rows.count("deliver", &topic), rows.kind("settle").count()),
        (50 * count as i64, 0)
    );
}

/// The broker gives the time; what the records say does not count.
#[test]
#[ignore = "long: make test-long"]
fn of_a_topic_with_the_brokers_time() {
    if !Client::Confluent.available() || !Client::Franz.available() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("factory");
    let topic = scene.topic(1, &[("message.timestamp.type", "LogAppendTime")]);
    let shop = scene.way("shop");
    let did = Client::Franz.run(&json!({
        "role": "produce", "bootstrap": shop.bootstrap(), "topic": topic, "count": 30,
    }));
    assert_eq!(number(&did, "confirmed"), 30);
    let batches = scene.batches(&topic);
    assert!(batches.iter().all(|batch| batch.log_append_time));
    let read = Client::Confluent.run_lines(&json!({
        "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "records": 30,
        "group": scene.kafka.name("factory"),
    }));
    let times: BTreeSet<_> = read.iter().filter_map(|line| line["timestamp"].as_i64()).collect();
    let of_batches: BTreeSet<_> = batches.iter().map(|batch| batch.max_timestamp).collect();
    assert_eq!(times, of_batches);
    for (way, kind) in [(shop, "confirm"), (way, "deliver")] {
        let Some(rows) = scene.rows(&way) else { return };
        let of_rows = rows.all(kind, &topic).map(|row| {
            let micros = row["broker_at"].as_i64();
            micros.unwrap_or_else(|| panic!("no time of the broker's in {row}")) / 1000
        });
        assert_eq!(of_rows.collect::<BTreeSet<_>>(), of_batches);
        assert_eq!(rows.count(kind, &topic), 30);
    }
}

/// Compaction leaves holes, and batches with nothing in them.
#[test]
#[ignore = "long: make test-long"]
fn of_a_compacted_topic() {
    if !Client::KafkaJava.available() || !Client::Franz.available() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("factory");
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.ms", "1000"),
        ("delete.retention.ms", "100"),
        ("max.compaction.lag.ms", "1000"),
    ];
    let topic = scene.topic(1, &settings);
    // The active segment is never compacted: each of these begins a new one.
    for _ in 0..3 {
        fill(&scene, &topic, 100);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    fill(&scene, &topic, 20);
    wait_until("the cleaner has been there", || {
        let left: i32 = scene.batches(&topic).iter().map(|batch| batch.count).sum();
        left <= 140
    });
    let group = scene.kafka.name("factory");
    let mut reader = Client::KafkaJava.start(&json!({
        "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
        "commit": "batch",
    }));
    wait_until("all is read", || scene.kafka.committed(&group) == ends(&scene, &topic));
    let read = reader.terminate_lines();
    assert!(received(&read).iter().any(|(_, _, offset)| *offset >= 100), "holes are passed over");
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    assert_eq!(rows.delivered(&topic, Some(&group)), received(&read));
    rows.assert_settled_exactly_once();
    rows.assert_committed(&group, &scene.kafka.committed(&group));
}
