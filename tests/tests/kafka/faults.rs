//! Answers that are lost, agents and brokers that are killed or restarted under load: services go
//! on, and what they were told is recorded, once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use flowtap_tests::client::{Client, KAFKA, Service};
use flowtap_tests::kafka::cutter::Cutter;
use flowtap_tests::kafka::{Kafka, Listener, Options, Version};
use flowtap_tests::{net, wait_until};
use serde_json::{Value, json};

use crate::rows::Rows;
use crate::support::{Scene, Way, direct, number, received, scene, scene_on, sent};

/// The broker has written a batch, and its answer is lost on the way to the sidecar: the producer
/// sends the batch again on another connection, and nothing is published twice.
#[test]
#[ignore = "long: make test-long"]
fn a_batch_that_is_sent_again_is_published_once() {
    let port = net::free_port();
    let cutter = Cutter::start(SocketAddr::from(([127, 0, 0, 1], port)));
    let listener = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{}", cutter.port());
    let options = Options { port: Some(port), config: vec![listener], ..Options::default() };
    let Some(kafka) = Kafka::start_with(Version::V4, &options) else { return };
    let scene = scene_on(&kafka);
    let way = scene.way("shop");
    cutter.lose(5);
    let start = |client: &Client| {
        let topic = scene.topic(1, &[]);
        let service = client.start(&json!({
            "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 40,
            "idempotent": true, "every_ms": 10, "batch": 1, "linger_ms": 0,
        }));
        (*client, topic, service)
    };
    let services: Vec<_> = KAFKA.iter().filter(|client| client.available()).map(start).collect();
    let mut topics = Vec::new();
    for (client, topic, mut service) in services {
        let did = service.finish();
        assert_eq!(number(&did, "confirmed"), 40, "{client:?}: {did}");
        topics.push((client, topic));
    }
    assert!(cutter.lost() > 5, "answers were lost: {}", cutter.lost());
    cutter.lose(0);
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    for (client, topic) in topics {
        let places = scene.places(&topic, false);
        assert_eq!(places.len(), 40, "{client:?}");
        rows.assert_published(&topic, &places);
    }
}

/// A service that reads what another one writes, both without end.
struct Load {
    client: Client,
    topic: String,
    group: String,
    consumer: Service,
    producer: Service,
}

/// What is said of it in the end.
struct Told {
    client: Client,
    topic: String,
    group: String,
    produced: Vec<Value>,
    consumed: Vec<Value>,
}

fn load(scene: &Scene<'_>, way: &Way, client: Client) -> Load {
    let topic = scene.topic(2, &[]);
    let group = scene.kafka.name("factory");
    let consumer = client.start(&json!({
        "role": "consume", "bootstrap": way.bootstrap(), "topics": [topic], "group": group,
        "commit": "batch", "session_ms": 30_000,
    }));
    let producer = client.start(&json!({
        "role": "produce", "bootstrap": way.bootstrap(), "topic": topic, "count": 100_000,
        "keys": ["a", "b", "c", "d", "e"], "every_ms": 20, "batch": 1, "idempotent": true,
    }));
    Load { client, topic, group, consumer, producer }
}

impl Load {
    fn confirmed(&self) -> usize {
        sent(&self.topic, &self.producer.lines()).len()
    }

    /// Waits until records are published and read that were not before.
    fn await_more(&mut self) {
        let (sent, read) = (self.producer.lines().len(), received(&self.consumer.lines()).len());
        wait_until(&format!("{:?} goes on", self.client), || {
            self.producer.lines().len() > sent + 5
                && received(&self.consumer.lines()).len() > read + 5
        });
    }

    fn said(&self) -> Said {
        Said { producer: self.producer.lines().len(), consumer: self.consumer.lines().len() }
    }

    fn end(mut self, scene: &Scene<'_>) -> Told {
        let produced = self.producer.terminate_lines();
        wait_until(&format!("{:?} has read it all", self.client), || {
            let ends = scene.kafka.end_offsets(&self.topic).into_iter();
            let ends = ends.map(|(partition, end)| ((self.topic.clone(), partition), end));
            scene.kafka.committed(&self.group) == ends.filter(|(_, end)| *end > 0).collect()
        });
        let consumed = self.consumer.terminate_lines();
        let Self { client, topic, group, .. } = self;
        Told { client, topic, group, produced, consumed }
    }
}

impl Told {
    /// Whatever the services were told is in a row.
    fn assert_recorded(&self, rows: &Rows) {
        let Self { client, topic, .. } = self;
        let sent: BTreeSet<_> = sent(topic, &self.produced).into_iter().collect();
        let confirmed: BTreeSet<_> = rows.places("confirm", topic).into_iter().collect();
        let missing: Vec<_> = sent.difference(&confirmed).collect();
        assert!(missing.is_empty(), "{client:?} was told of {missing:?}");
        let published = number(self.produced.last().expect("its last word"), "published");
        assert!(rows.count("publish", topic) >= published, "{client:?}");
        // Of a group, or of nobody's while a new agent does not know yet who reads what.
        let delivered: BTreeSet<_> = rows.places("deliver", topic).into_iter().collect();
        let read: BTreeSet<_> = received(&self.consumed).into_iter().collect();
        let missing: Vec<_> = read.difference(&delivered).collect();
        assert!(missing.is_empty(), "{client:?} read {missing:?}");
    }

    /// Whatever the services were told is in a row, or was told just as an agent was killed: answers
    /// wait for their rows, but not for long. Of each kill: how much the services had said before it,
    /// and when the next agent was there.
    fn assert_recorded_or_lost_with(&self, kills: &[(Said, Said)], rows: &Rows) {
        let Self { client, topic, .. } = self;
        let at_a_kill = |line: usize, of: fn(&Said) -> usize| {
            let near = |(before, after): &(Said, Said)| {
                (of(before).saturating_sub(FEW)..of(after) + FEW).contains(&line)
            };
            kills.iter().any(near)
        };
        let orders: BTreeSet<_> = rows.all("publish", topic).filter_map(order).collect();
        for (line, said) in self.produced.iter().enumerate() {
            if said["offset"].is_i64() && said["sent"].is_i64() {
                let order = format!("order-{}", said["sent"]);
                let seen = orders.contains(&order) || at_a_kill(line, |said| said.producer);
                assert!(seen, "{client:?} was told of {order} in line {line}: {kills:?}");
            }
        }
        let delivered: BTreeSet<_> = rows.places("deliver", topic).into_iter().collect();
        for (line, said) in self.consumed.iter().enumerate() {
            for place in received(std::slice::from_ref(said)) {
                let seen = delivered.contains(&place) || at_a_kill(line, |said| said.consumer);
                assert!(seen, "{client:?} read {place:?} in line {line}: {kills:?}");
            }
        }
    }
}

/// How many lines two services have said.
#[derive(Debug)]
struct Said {
    producer: usize,
    consumer: usize,
}

/// So many lines a service may say while an answer passes whose row is not written, and then some
/// for a busy machine.
const FEW: usize = 100;

/// The business key that each record of these services has in its body.
fn order(row: &Value) -> Option<String> {
    let keys = row["keys"].as_array()?;
    let order = keys.iter().find(|key| key["name"] == "order_id")?;
    Some(order["value"].as_str()?.to_owned())
}

fn clients() -> Vec<Client> {
    KAFKA.into_iter().filter(|client| client.available()).collect()
}

/// An agent that is restarted listens where it did: clients go on with the addresses that they
/// know, and topics that they name by an id keep their names.
#[test]
#[ignore = "long: make test-long"]
fn clients_go_on_when_the_agent_is_restarted() {
    if direct() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way_with("shop", Listener::Plain, |options| {
        options.lines.push("drain = \"100ms\"".to_owned());
    });
    let mut loads: Vec<_> =
        clients().into_iter().map(|client| load(&scene, &way, client)).collect();
    loads.iter_mut().for_each(Load::await_more);
    {
        let mut sidecar = way.sidecar().expect("there is one");
        sidecar.terminate();
        sidecar.restart();
    }
    loads.iter_mut().for_each(Load::await_more);
    let told: Vec<_> = loads.into_iter().map(|load| load.end(&scene)).collect();
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_settled_at_most_once();
    for told in &told {
        told.assert_recorded(&rows);
        assert_known_again(&rows, told);
    }
    let strange: BTreeSet<_> = ["publish", "deliver", "confirm"]
        .into_iter()
        .flat_map(|kind| rows.kind(kind))
        .filter_map(|row| row["destination"].as_str())
        .filter(|name| !told.iter().any(|told| told.topic == *name))
        .collect();
    assert!(strange.is_empty(), "topics without their names: {strange:?}");
}

/// The newer agent knows whose deliveries it sees as soon as the group has committed.
fn assert_known_again(rows: &Rows, told: &Told) {
    let boots: BTreeSet<_> = rows
        .deliveries(&told.topic, Some(&told.group))
        .map(|row| row["boot"].as_str().expect("a boot"))
        .collect();
    assert_eq!(boots.len(), 2, "{:?}", told.client);
}

/// What clients were told before an agent died is in a row; of the rest a gap speaks.
#[test]
#[ignore = "long: make test-long"]
fn a_killed_agent_has_recorded_whatever_was_answered() {
    if direct() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let way = scene.way("shop");
    let mut loads: Vec<_> =
        clients().into_iter().map(|client| load(&scene, &way, client)).collect();
    let kills = if flowtap_tests::long() { 6 } else { 2 };
    let mut said: Vec<Vec<(Said, Said)>> = loads.iter().map(|_| Vec::new()).collect();
    for _ in 0..kills {
        loads.iter_mut().for_each(Load::await_more);
        let before: Vec<_> = loads.iter().map(Load::said).collect();
        let mut sidecar = way.sidecar().expect("there is one");
        sidecar.kill9();
        sidecar.restart();
        for ((kills, before), load) in said.iter_mut().zip(before).zip(&loads) {
            kills.push((before, load.said()));
        }
    }
    loads.iter_mut().for_each(Load::await_more);
    let told: Vec<_> = loads.into_iter().map(|load| load.end(&scene)).collect();
    let Some(rows) = scene.rows(&way) else { return };
    let gaps: Vec<_> = rows.kind("gap").map(|row| row["reason"].as_str()).collect();
    assert_eq!(gaps, vec![Some("agent_died"); kills]);
    rows.assert_settled_at_most_once();
    for (told, kills) in told.iter().zip(&said) {
        told.assert_recorded_or_lost_with(kills, &rows);
    }
    // What a dead agent left open is what its group has committed since. An agent does not know at
    // first whose deliveries it sees: those have no group, and nobody settles them.
    let outcomes: BTreeMap<_, _> = scene
        .store
        .sql(
            "SELECT outcome, count(*) AS n FROM consumes WHERE subscription IS NOT NULL \
             GROUP BY outcome",
        )
        .iter()
        .map(|row| (row["outcome"].to_string(), row["n"].as_i64()))
        .collect();
    let known = [r#""committed""#, r#""abandoned""#];
    assert!(outcomes.keys().all(|it| known.contains(&it.as_str())), "{outcomes:?}");
}

/// A broker that dies leaves no hole in what is recorded.
#[test]
#[ignore = "long: make test-long"]
fn a_killed_broker_leaves_every_row_and_no_gap() {
    let Some(kafka) = Kafka::start(Version::V3_9) else { return };
    let scene = scene_on(&kafka);
    let way = scene.way("shop");
    let mut loads: Vec<_> =
        clients().into_iter().map(|client| load(&scene, &way, client)).collect();
    loads.iter_mut().for_each(Load::await_more);
    assert!(loads.iter().any(|load| load.confirmed() > 0));
    kafka.kill9(1);
    kafka.restart(1);
    loads.iter_mut().for_each(Load::await_more);
    let told: Vec<_> = loads.into_iter().map(|load| load.end(&scene)).collect();
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_settled_exactly_once();
    for told in &told {
        told.assert_recorded(&rows);
        let published = number(told.produced.last().expect("its last word"), "published");
        assert_eq!(rows.count("publish", &told.topic), published, "{:?}", told.client);
        let offsets = kafka.committed(&told.group);
        rows.assert_committed(&told.group, &offsets);
    }
}
