//! The harness itself: what the other tests rely on.

use std::time::Instant;

use flowtap_tests::client::Client;
use flowtap_tests::kafka::{Kafka, Options, Version};
use serde_json::json;

use crate::support::{number, sent};

fn a_node_survives_kill_9(version: Version) {
    if !Client::Franz.available() {
        return;
    }
    let began = Instant::now();
    let Some(kafka) = Kafka::start(version) else { return };
    eprintln!("{version:?} started in {:?}", began.elapsed());
    kafka.create_topic("orders", 2, &[]);
    let told = Client::Franz.run_lines(&json!({
        "role": "produce", "bootstrap": kafka.bootstrap(), "topic": "orders", "count": 10,
    }));
    assert_eq!(sent("orders", &told).len(), 10);
    let id = kafka.topic("orders").id;
    kafka.kill9(1);
    let began = Instant::now();
    kafka.restart(1);
    eprintln!("{version:?} restarted after kill -9 in {:?}", began.elapsed());
    assert_eq!(kafka.end_offsets("orders").values().sum::<i64>(), 10);
    assert_eq!(kafka.topic("orders").id, id);
    kafka.delete_topic("orders");
    kafka.create_topic("orders", 1, &[]);
    assert_ne!(kafka.topic("orders").id, id, "a topic made anew has another id");
}

#[test]
#[ignore = "long: make test-long"]
fn a_node_of_3_9_survives_kill_9() {
    a_node_survives_kill_9(Version::V3_9);
}

#[test]
#[ignore = "long: make test-long"]
fn a_node_of_4_survives_kill_9() {
    a_node_survives_kill_9(Version::V4);
}

#[test]
#[ignore = "long: make test-long"]
fn three_nodes_hand_over_what_one_of_them_led() {
    if !Client::Franz.available() {
        return;
    }
    let began = Instant::now();
    let options = Options { nodes: 3, host: "127.0.0.2".into(), ..Options::default() };
    let Some(kafka) = Kafka::start_with(Version::V4, &options) else { return };
    eprintln!("three nodes started in {:?}", began.elapsed());
    assert_eq!(kafka.metadata(None).brokers.len(), 3);
    kafka.create_topic("orders", 3, &[]);
    for broker in [2, 3, 1] {
        kafka.move_leader("orders", 0, broker);
    }
    let did = Client::Franz.run(&json!({
        "role": "produce", "bootstrap": kafka.bootstrap(), "topic": "orders", "count": 30,
        "keys": ["a", "b", "c", "d"],
    }));
    assert_eq!(number(&did, "confirmed"), 30);
    kafka.kill9(1);
    let began = Instant::now();
    flowtap_tests::wait_until("another node leads", || {
        let leader = kafka.topic("orders").partitions[&0].leader;
        leader == 2 || leader == 3
    });
    eprintln!("another node leads after {:?}", began.elapsed());
    assert_eq!(kafka.end_offsets("orders").values().sum::<i64>(), 30);
    let began = Instant::now();
    kafka.restart(1);
    eprintln!("the third is back after {:?}", began.elapsed());
}
