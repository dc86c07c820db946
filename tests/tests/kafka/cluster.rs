//! Three brokers: leaders that move, a broker that dies, a topic that is made anew.

use std::collections::BTreeSet;

use flowtap_tests::client::{Client, KAFKA};
use flowtap_tests::kafka::{Kafka, Options, Version};
use flowtap_tests::wait_until;
use serde_json::json;

use crate::support::{assert_only_the_sidecar, number, received, scene, scene_on, sent};

/// All clients go on when leaders move and when a broker is killed and comes back.
#[test]
#[ignore = "long: make test-long"]
fn every_client_recovers() {
    let options = Options { nodes: 3, host: "127.0.0.2".into(), ..Options::default() };
    let Some(kafka) = Kafka::start_with(Version::V4, &options) else { return };
    let scene = scene_on(&kafka);
    let way = scene.way("shop");
    let clients: Vec<_> = KAFKA.into_iter().filter(|client| client.available()).collect();
    let start = |client: &Client| {
        let topic = scene.topic(3, &[]);
        let group = kafka.name("factory");
        let consumer = client.start(&json!({
            "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
            "commit": "batch",
        }));
        let producer = client.start(&json!({
            "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 100_000,
            "keys": ["a", "b", "c", "d", "e"], "every_ms": 50, "batch": 1, "idempotent": true,
        }));
        (*client, topic, group, consumer, producer)
    };
    let mut services: Vec<_> = clients.iter().map(start).collect();
    for (_, _, _, consumer, producer) in &mut services {
        producer.await_ready();
        consumer.await_line("it works", |line| line["topic"].is_string());
    }
    let pids =
        services.iter().flat_map(|(.., consumer, producer)| [consumer.pid(), producer.pid()]);
    let pids: Vec<_> = pids.collect();
    let look = |when: &str| assert_only_the_sidecar(&pids, &way, when);
    look("at the beginning");
    for (_, topic, ..) in &services {
        let leader = kafka.topic(topic).partitions[&0].leader;
        kafka.move_leader(topic, 0, leader % 3 + 1);
    }
    look("after leaders have moved");
    kafka.kill9(3);
    wait_until("nobody waits for the third", || {
        services.iter().all(|(_, topic, ..)| {
            let partitions = kafka.topic(topic).partitions;
            partitions.values().all(|each| [1, 2].contains(&each.leader))
        })
    });
    look("without the third");
    kafka.restart(3);
    look("with the third again");
    let mut topics = Vec::new();
    for (client, topic, group, consumer, mut producer) in services {
        let told = producer.terminate_lines();
        let did = told.last().expect("it says what it did");
        assert!(number(did, "confirmed") > 0, "{client:?}: {did}");
        let mut consumer = consumer;
        wait_until(&format!("{client:?} has read it all"), || {
            let ends = kafka.end_offsets(&topic).into_iter().filter(|&(_, end)| end > 0);
            let ends = ends.map(|(partition, end)| ((topic.clone(), partition), end)).collect();
            kafka.committed(&group) == ends
        });
        let read: BTreeSet<_> = received(&consumer.terminate_lines()).into_iter().collect();
        let missing: Vec<_> =
            sent(&topic, &told).into_iter().filter(|at| !read.contains(at)).collect();
        assert!(missing.is_empty(), "{client:?} was told of {missing:?} and never read it");
        topics.push((client, topic, group, told, read));
    }
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_settled_exactly_once();
    for (client, topic, group, told, read) in topics {
        let ends = kafka.end_offsets(&topic);
        // Idempotent producers, none of them transactional: an offset for each record and nothing else.
        let stored: i64 = ends.values().sum();
        assert_eq!(rows.count("publish", &topic), stored, "publishes of {client:?}");
        let confirmed = rows.places("confirm", &topic);
        let places: BTreeSet<_> = confirmed.iter().cloned().collect();
        assert_eq!((confirmed.len(), places.len() as i64), (places.len(), stored), "{client:?}");
        let untold: Vec<_> =
            sent(&topic, &told).into_iter().filter(|at| !places.contains(at)).collect();
        assert!(untold.is_empty(), "{client:?} was told of {untold:?}, and no row says so");
        let delivered: BTreeSet<_> = rows.delivered(&topic, Some(&group)).into_iter().collect();
        let unseen: Vec<_> = read.difference(&delivered).collect();
        assert!(unseen.is_empty(), "{client:?} read {unseen:?}, and no row says so");
        rows.assert_committed(&group, &kafka.committed(&group));
    }
}

/// Another topic under the same name: another id, offsets from zero.
#[test]
#[ignore = "long: make test-long"]
fn a_topic_is_deleted_and_made_anew() {
    if !Client::KafkaJava.available() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("shop");
    let topic = scene.topic(1, &[]);
    let mut producer = Client::KafkaJava.start(&json!({
        "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 100_000,
        "every_ms": 20, "config": {"delivery.timeout.ms": 20_000, "request.timeout.ms": 5000},
    }));
    producer.await_line("a record is in", |line| line["sent"].is_i64());
    let first = scene.kafka.topic(&topic).id;
    scene.kafka.delete_topic(&topic);
    scene.kafka.create_topic(&topic, 1, &[]);
    assert_ne!(scene.kafka.topic(&topic).id, first);
    wait_until("the producer goes on in the new one", || scene.kafka.end_offsets(&topic)[&0] > 5);
    let told = producer.terminate_lines();
    let did = told.last().expect("its last word");
    assert!(number(did, "confirmed") > 6);
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    // Without idempotence nobody can tell that a batch is the one that was refused before.
    assert!(rows.count("publish", &topic) >= number(did, "published"));
    // What lies in the new one was confirmed after all that lay in the old one.
    let confirmed = rows.all("confirm", &topic).filter(|row| row["outcome"] == "confirmed");
    let offsets: Vec<_> = confirmed.map(|row| row["log_offset"].as_i64()).collect();
    assert_eq!(offsets.len() as i64, number(did, "confirmed"));
    let anew = offsets.iter().rposition(|&offset| offset == Some(0)).expect("it began anew");
    assert!(anew > 0, "{offsets:?}");
    let of_new = offsets[anew..].iter().flatten().count() as i64;
    assert_eq!(of_new, scene.kafka.end_offsets(&topic)[&0]);
    let says = |outcome: &str| {
        rows.all("topology", &topic).filter(|row| row["outcome"] == outcome).count()
    };
    assert_eq!((says("declared"), says("deleted")), (2, 1));
}
