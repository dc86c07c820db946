//! Kafka's own tools as services: what they print is held against the brokers' offsets and the rows.

use std::collections::{BTreeMap, BTreeSet};

use flowtap_tests::client::Client;
use flowtap_tests::kafka::Version;
use flowtap_tests::kafka::tools::Tool;
use flowtap_tests::wait_until;
use serde_json::{Value, json};

use crate::support::{Place, Scene, assert_only_the_sidecar, number, scene};

const RECORDS: i64 = 200;

fn named<'a>(lines: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["name"] == name)
}

/// Writes records through a sidecar and holds what the tool says against the brokers and the rows.
fn verifiably_produced(scene: &Scene<'_>, topic: &str) {
    let way = scene.way("shop");
    let told = Tool::start(
        scene.kafka.version(),
        "VerifiableProducer",
        &[
            "--bootstrap-server",
            way.bootstrap(),
            "--topic",
            topic,
            "--max-messages",
            &RECORDS.to_string(),
            "--acks",
            "-1",
            "--repeating-keys",
            "20",
        ],
    )
    .finish_lines();
    let did = named(&told, "tool_data").last().expect("it says what it did");
    assert_eq!((number(did, "sent"), number(did, "acked")), (RECORDS, RECORDS));
    let places = scene.places(topic, false);
    let acked = named(&told, "producer_send_success").map(place).collect();
    assert_eq!(places, acked);
    assert_eq!(scene.kafka.end_offsets(topic).values().sum::<i64>(), RECORDS);
    let Some(rows) = scene.rows(&way) else { return };
    rows.assert_no_gap();
    rows.assert_published(topic, &places);
}

fn place(line: &Value) -> Place {
    let topic = line["topic"].as_str().unwrap_or_else(|| panic!("no topic in {line}"));
    (topic.to_owned(), number(line, "partition") as i32, number(line, "offset"))
}

/// Reads all of it through a sidecar of its own: what the group has committed then is all that there
/// is, and what rows say. Gives what the tool printed.
fn read(scene: &Scene<'_>, topic: &str, group: &str, of: Version, tool: &[&str]) -> String {
    let way = scene.way(group);
    let count = RECORDS.to_string();
    let (class, own) = tool.split_first().expect("a class");
    let arguments =
        [&["--bootstrap-server", way.bootstrap(), "--topic", topic, "--max-messages", &count], own];
    let said = Tool::start(of, class, &arguments.concat()).finish();
    let ends = scene.kafka.end_offsets(topic).into_iter();
    let ends: BTreeMap<_, _> =
        ends.map(|(partition, end)| ((topic.to_owned(), partition), end)).collect();
    assert_eq!(scene.kafka.committed(group), ends);
    let Some(rows) = scene.rows(&way) else { return said };
    rows.assert_no_gap();
    let delivered = rows.delivered(topic, Some(group));
    assert_eq!(delivered.len() as i64, rows.count("deliver", topic), "all are the group's");
    assert_eq!(delivered.len() as i64, RECORDS);
    assert_eq!(delivered.into_iter().collect::<BTreeSet<_>>(), scene.places(topic, false));
    rows.assert_settled_exactly_once();
    rows.assert_committed(group, &ends);
    said
}

fn kafkas_own_tools(version: Version) {
    let Some(scene) = scene(version) else { return };
    let topic = scene.topic(2, &[]);
    verifiably_produced(&scene, &topic);
    let group = scene.kafka.name("verifiable");
    let tool =
        ["VerifiableConsumer", "--group-id", &group, "--reset-policy", "earliest", "--verbose"];
    let said = read(&scene, &topic, &group, version, &tool);
    let lines: Vec<Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let consumed: i64 = named(&lines, "records_consumed").map(|line| number(line, "count")).sum();
    assert_eq!(consumed, RECORDS);
    let committed: BTreeMap<_, _> = named(&lines, "offsets_committed")
        .flat_map(|line| line["offsets"].as_array().into_iter().flatten())
        .map(place)
        .map(|(topic, partition, offset)| ((topic, partition), offset))
        .collect();
    assert_eq!(committed, scene.kafka.committed(&group));
    let group = scene.kafka.name("console");
    let tool = [
        "consumer.ConsoleConsumer",
        "--group",
        &group,
        "--from-beginning",
        "--property",
        "print.offset=true",
    ];
    // That of 3.9 on both: the newer one needs classes that the newest jars have elsewhere.
    let said = read(&scene, &topic, &group, Version::V3_9, &tool);
    let printed = said.lines().filter(|line| line.starts_with("Offset:")).count();
    assert_eq!(printed as i64, RECORDS);
}

#[test]
fn produce_and_consume_on_4() {
    kafkas_own_tools(Version::V4);
}

#[test]
fn produce_and_consume_on_3_9() {
    kafkas_own_tools(Version::V3_9);
}

/// A share group's records arrive by way of the sidecar's own addresses. They are not recorded, and
/// a gap says so.
#[test]
fn a_share_group_gets_its_records_and_a_gap_tells_of_them() {
    if !Client::Franz.available() {
        return;
    }
    let Some(scene) = scene(Version::V4) else { return };
    let topic = scene.topic(2, &[]);
    let group = scene.kafka.name("share");
    scene.kafka.alter_group(&group, &[("share.auto.offset.reset", "earliest")]);
    let did = Client::Franz.run(&json!({
        "role": "produce", "bootstrap": scene.kafka.bootstrap(), "topic": topic, "count": 50,
        "keys": ["a", "b", "c", "d"],
    }));
    assert_eq!(number(&did, "confirmed"), 50);
    let way = scene.way("desk");
    let arguments =
        ["--bootstrap-server", way.bootstrap(), "--topic", &topic, "--group-id", &group];
    let tool = Tool::start(scene.kafka.version(), "VerifiableShareConsumer", &arguments);
    let count =
        |name: &str| -> i64 { named(&tool.lines(), name).map(|line| number(line, "count")).sum() };
    wait_until("the share group has acknowledged its records", || {
        count("offsets_acknowledged") == 50
    });
    assert_eq!(count("records_consumed"), 50, "each came once");
    assert_only_the_sidecar(&[tool.pid()], &way, "while it reads");
    drop(tool);
    let Some(rows) = scene.rows(&way) else { return };
    let gaps: Vec<_> = rows.kind("gap").collect();
    assert!(!gaps.is_empty(), "nobody says that a share group was not recorded");
    assert_eq!(rows.count("deliver", &topic), 0);
    assert_eq!(rows.kind("settle").count(), 0);
}
