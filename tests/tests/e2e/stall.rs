//! The service's traffic goes before the record: a disk that hangs holds nobody, a body of any
//! size goes through in little memory.

use flowtap_tests::disk::StallableDisk;
use flowtap_tests::rabbitmq::{Options as BrokerOptions, RabbitMq, Version};
use flowtap_tests::sidecar::{Options, Sidecar};
use lapin::BasicProperties;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;

use crate::support::{channel, scene, scene_on};

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_disk_holds_no_publish_and_no_confirm() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let Some(disk) = StallableDisk::new(64) else { return };
    let options = Options { spool: Some(disk.path().join("spool")), ..scene.options("shop") };
    let mut shop = Sidecar::start(&options);
    let (connection, channel) = channel(&scene.url(&shop)).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let queue = QueueDeclareOptions::default();
    channel.queue_declare("q".into(), queue, FieldTable::default()).await.expect("declared");
    let publish = async |number: usize| {
        let properties = BasicProperties::default().with_message_id(format!("m-{number}").into());
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), "q".into(), options, b"x", properties).await;
        sent.expect("published").await.expect("confirmed");
    };
    publish(0).await;
    disk.stall();
    // Each is published only after the one before was confirmed: all come through while it hangs.
    for number in 1..100 {
        publish(number).await;
    }
    disk.recover();
    connection.close(200, "".into()).await.expect("closed");
    shop.terminate();
    let rows = scene.store.number("SELECT count(*) FROM history WHERE kind = 'confirm'");
    let gaps = scene.store.number("SELECT count(*) FROM history WHERE kind = 'gap'");
    assert!(rows == 100 || gaps > 0, "{rows} of 100 confirms and no gap");
    scene.store.assert_no_hole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_at_the_start_keeps_no_service_from_its_broker() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let Some(disk) = StallableDisk::new(64) else { return };
    let options = Options { spool: Some(disk.path().join("spool")), ..scene.options("shop") };
    disk.stall();
    let mut shop = Sidecar::start(&options);
    let (connection, channel) = channel(&scene.url(&shop)).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let queue = QueueDeclareOptions::default();
    channel.queue_declare("q".into(), queue, FieldTable::default()).await.expect("declared");
    for _ in 0..10 {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let sent = channel.basic_publish("".into(), "q".into(), options, b"x", properties).await;
        sent.expect("published").await.expect("confirmed");
    }
    assert!(shop.log().contains("the disk does not answer"), "{}", shop.log());
    disk.recover();
    connection.close(200, "".into()).await.expect("closed");
    shop.terminate();
    let confirms = scene.store.number("SELECT count(*) FROM history WHERE kind = 'confirm'");
    assert_eq!(confirms, 10, "they waited in memory");
    scene.store.assert_no_hole();
}

/// Sends a body through a sidecar and back, and returns the most memory that the sidecar had, in KiB.
async fn memory_for_a_body(broker: &RabbitMq, size: usize) -> u64 {
    let scene = scene_on(broker);
    let mut shop = scene.sidecar("shop");
    let (connection, channel) = channel(&scene.url(&shop)).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let queue = QueueDeclareOptions::default();
    channel.queue_declare("q".into(), queue, FieldTable::default()).await.expect("declared");
    let body: Vec<u8> = (0..size).map(|at| (at * 31 / 7) as u8).collect();
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let sent = channel.basic_publish("".into(), "q".into(), options, &body, properties).await;
    sent.expect("published").await.expect("confirmed");
    let got = channel.basic_get("q".into(), BasicGetOptions { no_ack: true }).await;
    assert!(got.expect("got").expect("a message").data == body, "it is the same body");
    let status = std::fs::read_to_string(format!("/proc/{}/status", shop.pid())).expect("it lives");
    connection.close(200, "".into()).await.expect("closed");
    shop.terminate();
    let size = i64::try_from(size).expect("a test's body");
    let rows = scene.store.sql("SELECT DISTINCT size, message FROM history WHERE size > 0");
    assert_eq!(rows.len(), 1, "publish and delivery are one message: {rows:?}");
    assert_eq!(rows[0]["size"], size);
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.split_whitespace().next()).expect("the kernel says it");
    peak.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_100_mb_goes_through_in_little_memory() {
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let peak = memory_for_a_body(broker, 100 << 20).await;
    assert!(peak < 64 << 10, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: needs 3 GB of memory; make test-long"]
async fn a_body_of_500_mb_goes_through_in_little_memory() {
    let options = BrokerOptions {
        config: vec!["max_message_size = 536870912".to_owned()],
        ..BrokerOptions::default()
    };
    let Some(broker) = RabbitMq::start_with(Version::V3_10, &options) else { return };
    let peak = memory_for_a_body(&broker, 500 << 20).await;
    assert!(peak < 64 << 10, "{peak} KiB");
}
