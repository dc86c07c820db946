//! `flowtap verify --against-broker`: the history against what RabbitMQ counted itself.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use flowtap_tests::program;
use flowtap_tests::rabbitmq::{Options, RabbitMq, Version};
use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use serde_json::Value;

use crate::support::{Scene, channel, scene_on};

/// Figures come late, and what is younger than 15 seconds is not judged.
const SETTLED: Duration = Duration::from_secs(17);

/// Declares `q`, publishes so many messages to it and takes all.
async fn traffic(channel: &Channel, count: usize) {
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let declare = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("q".into(), declare, FieldTable::default()).await.expect("declared");
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("q".into(), "c".into(), options, FieldTable::default());
    let mut consumer = consumer.await.expect("consuming");
    for _ in 0..count {
        let options = BasicPublishOptions::default();
        let sent =
            channel.basic_publish("".into(), "q".into(), options, b"x", BasicProperties::default());
        sent.await.expect("sent").await.expect("confirmed");
        let delivery = consumer.next().await.expect("one more").expect("a delivery");
        delivery.acker.ack(BasicAckOptions::default()).await.expect("acked");
    }
}

/// Exit code and report.
fn verify(scene: &Scene<'_>, more: &[&str]) -> (Option<i32>, Value) {
    let url = format!("http://127.0.0.1:{}", scene.broker.management_port());
    let mut command = Command::new(program("flowtap"));
    command.args(["verify", "--json", "--store", &scene.folder.url(), "--against-broker", &url]);
    command.env("FLOWTAP_BROKER_USER", "guest").env("FLOWTAP_BROKER_PASSWORD", "guest");
    let output = command.args(more).output().expect("flowtap is there");
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// Until the broker's figures have come: then this is the outcome.
async fn verify_settled(scene: &Scene<'_>, more: &[&str], want: i32) -> Value {
    let started = Instant::now();
    tokio::time::sleep(SETTLED).await;
    loop {
        let (code, report) = verify(scene, more);
        if code == Some(want) {
            return report;
        }
        assert!(started.elapsed() < SETTLED * 3, "exit code {code:?}, want {want}: {report:#}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A difference: what, counter, the broker's figure and ours.
fn differences(report: &Value) -> Vec<(&str, &str, i64, i64)> {
    let all = report["broker"]["differences"].as_array().expect("a list").iter();
    let number = |one: &Value, name: &str| one[name].as_i64().expect("a number");
    all.map(|one| {
        let text = |name: &str| one[name].as_str().expect("a text");
        (text("what"), text("counter"), number(one, "broker"), number(one, "history"))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_held_against_what_rabbitmq_3_10_counted() {
    held_against(Version::V3_10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_held_against_what_rabbitmq_4_0_counted() {
    held_against(Version::V4_0).await;
}

async fn held_against(version: Version) {
    let options = Options { plugins: vec!["rabbitmq_management"], ..Options::default() };
    let Some(broker) = RabbitMq::start_with(version, &options) else { return };
    // How long it runs it says with its figures, a little late: what came right after its start might
    // have come before it.
    tokio::time::sleep(SETTLED).await;
    let scene = scene_on(&broker);
    let mut sidecar = scene.sidecar("shop");
    let (connection, through) = channel(&scene.url(&sidecar)).await;
    traffic(&through, 20).await;
    through.close(200, "done".into()).await.expect("closed");

    // Since the broker counts: all that it counted went by a sidecar.
    let figures = scene.folder.path().join("figures.json");
    let figures = figures.to_str().expect("a path in UTF-8");
    let report = verify_settled(&scene, &["--save", figures], 0).await;
    assert_eq!(report["broker"]["published"], 20, "{report:#}");

    tokio::time::sleep(SETTLED).await;
    let second = connection.create_channel().await.expect("a channel opens");
    traffic(&second, 7).await;
    second.close(200, "done".into()).await.expect("closed");
    let report = verify_settled(&scene, &["--since", figures], 0).await;
    assert_eq!(report["broker"]["published"], 7, "{report:#}");

    // Somebody goes around it: while he is there it shows, then it is what it looks like.
    let (around, direct) = channel(&scene.vhost.direct()).await;
    traffic(&direct, 3).await;
    direct.close(200, "done".into()).await.expect("closed");
    tokio::time::sleep(SETTLED).await;
    let (code, report) = verify(&scene, &["--since", figures]);
    assert_eq!(code, Some(4), "{report:#}");
    let why = report["broker"]["unproven"].to_string();
    assert!(why.contains("goes around the sidecars"), "{why}");
    around.close(200, "done".into()).await.expect("closed");
    let report = verify_settled(&scene, &["--since", figures], 1).await;
    assert_eq!(
        differences(&report),
        [
            ("missing", "published", 10, 7),
            ("missing", "delivered", 10, 7),
            ("missing", "acked", 10, 7),
        ]
    );

    connection.close(200, "done".into()).await.expect("closed");
    sidecar.terminate();
    broker.restart();
    let (code, report) = verify(&scene, &["--since", figures]);
    assert_eq!(code, Some(4), "{report:#}");
    assert!(report["broker"]["unproven"].to_string().contains("started at"), "{report:#}");

    let object = first_object(&scene.folder.path().join("inbox"));
    std::fs::remove_file(object).expect("it is there");
    let (code, report) = verify(&scene, &[]);
    assert_eq!((code, &report["problems"][0]["what"]), (Some(1), &Value::from("missing")));
}

/// Some file below a folder.
fn first_object(folder: &Path) -> std::path::PathBuf {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    let first = entries.swap_remove(0);
    if first.is_dir() { first_object(&first) } else { first }
}
