//! Three brokers: leaders that move, a broker that dies, a topic that is made anew.

use std::collections::{BTreeMap, BTreeSet};

use flowtap_tests::client::{Client, KAFKA};
use flowtap_tests::kafka::{Kafka, Listener, Options, Version};
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

/// A broker comes back on another port: clients keep to the one that the sidecar told them, and
/// what they publish and read through it is recorded as before.
#[test]
#[ignore = "long: make test-long"]
fn a_broker_moves() {
    if !Client::Franz.available() || !Client::KafkaJava.available() {
        return;
    }
    let options = Options { nodes: 3, host: "127.0.0.2".into(), ..Options::default() };
    let Some(kafka) = Kafka::start_with(Version::V4, &options) else { return };
    let scene = scene_on(&kafka);
    let way = scene.way("shop");
    let topic = scene.topic(1, &[]);
    kafka.move_leader(&topic, 0, 3);
    let group = kafka.name("factory");
    let mut consumer = Client::KafkaJava.start(&json!({
        "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
        "commit": "batch", "session_ms": 30_000,
    }));
    let mut producer = Client::Franz.start(&json!({
        "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 100_000,
        "every_ms": 20, "idempotent": true,
    }));
    consumer.await_line("it reads from the third", |line| line["topic"].is_string());
    let old = kafka.address(3, Listener::Plain);
    kafka.stop(3);
    kafka.move_to_another_port(3);
    kafka.restart(3);
    assert_ne!(kafka.address(3, Listener::Plain), old);
    wait_until("the third is in sync again", || {
        kafka.topic(&topic).partitions[&0].in_sync.contains(&3)
    });
    kafka.move_leader(&topic, 0, 3);
    let sent_before = sent(&topic, &producer.lines()).len();
    wait_until("records go to the third at its new address", || {
        sent(&topic, &producer.lines()).len() > sent_before + 20
    });
    let read_before = received(&consumer.lines()).len();
    wait_until("records are read from there", || {
        received(&consumer.lines()).len() > read_before + 20
    });
    assert_only_the_sidecar(&[producer.pid(), consumer.pid()], &way, "after the move");
    let told = producer.terminate_lines();
    wait_until("all is read", || {
        kafka.committed(&group).values().sum::<i64>() == kafka.end_offsets(&topic)[&0]
    });
    let read = consumer.terminate_lines();
    let log = way.sidecar().map(|sidecar| sidecar.log());
    assert!(log.is_none_or(|log| log.contains("broker moved")), "the sidecar saw it move");
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_settled_exactly_once();
    let stored = kafka.end_offsets(&topic)[&0];
    assert_eq!(rows.count("publish", &topic), stored);
    let confirmed: BTreeSet<_> = rows.places("confirm", &topic).into_iter().collect();
    assert!(sent(&topic, &told).iter().all(|place| confirmed.contains(place)));
    let delivered: BTreeSet<_> = rows.delivered(&topic, Some(&group)).into_iter().collect();
    assert!(received(&read).iter().all(|place| delivered.contains(place)));
    rows.assert_committed(&group, &kafka.committed(&group));
}

/// A group reads a topic, and then another one of the same name from its beginning: what is
/// delivered of the new one is no redelivery of the old one's, and each is settled by itself.
#[test]
#[ignore = "long: make test-long"]
fn a_group_reads_a_topic_that_is_made_anew() {
    if !Client::KafkaJava.available() || !Client::Franz.available() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("factory");
    let topic = scene.topic(1, &[]);
    let group = scene.kafka.name("factory");
    let fill = |count: i64| {
        let did = Client::Franz.run(&json!({
            "role": "produce", "bootstrap": scene.kafka.bootstrap(), "topic": topic, "count": count,
        }));
        assert_eq!(number(&did, "confirmed"), count);
    };
    let read = |count: i64| {
        let told = Client::KafkaJava.run_lines(&json!({
            "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
            "commit": "batch", "records": count,
        }));
        assert_eq!(received(&told).len() as i64, count);
    };
    fill(30);
    read(30);
    scene.kafka.delete_topic(&topic);
    wait_until("the group's offsets are gone with it", || scene.kafka.committed(&group).is_empty());
    scene.kafka.create_topic(&topic, 1, &[]);
    fill(20);
    read(20);
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    assert_eq!(rows.deliveries(&topic, Some(&group)).count(), 50);
    assert!(rows.kind("deliver").all(|row| row["redelivered"] == false), "none came twice");
    rows.assert_settled_exactly_once();
    let settles = rows.settles(&topic, &group);
    assert_eq!(settles, BTreeMap::from([("committed".to_owned(), 50)]));
    let positions: Vec<_> = rows.places("position", &topic).into_iter().map(|at| at.2).collect();
    assert_eq!(positions.iter().max(), Some(&30), "{positions:?}");
    assert_eq!(positions.last(), Some(&20), "{positions:?}");
}
