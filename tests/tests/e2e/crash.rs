//! `kill -9` at random points: what a client was told is recorded, and the rest is a gap that is
//! no longer than the time in which the killed one was away.

use std::collections::BTreeSet;
use std::time::Duration;

use flowtap_tests::rabbitmq::{Counters, RabbitMq, Version};
use flowtap_tests::sidecar::Sidecar;
use flowtap_tests::{chance, wait_until};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use rand::Rng;

use crate::support::{Scene, channel, scene, scene_on};

/// Time marks stand in the spool every second: an unclean end is known to a second, and a machine
/// that is busy with other tests gets another one.
const MARK: Duration = Duration::from_secs(2);

/// What the client is asked to wait for, or none if nothing came for so long that its connection
/// must be gone: lapin does not always say so when it breaks at an unlucky moment.
async fn while_it_lives<T>(waiting: impl IntoFuture<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(20), waiting.into_future()).await.ok()
}

async fn declare(channel: &Channel) {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("q".into(), options, FieldTable::default()).await.expect("declared");
}

/// Publishes without end until the connection breaks; returns the ids that were confirmed.
async fn publish_until_it_breaks(channel: Channel, run: usize) -> BTreeSet<String> {
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let mut confirmed = BTreeSet::new();
    for number in 0.. {
        let id = format!("m-{run}-{number}");
        let properties =
            BasicProperties::default().with_message_id(id.as_str().into()).with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), "q".into(), options, b"{}", properties);
        let Some(Ok(answer)) = while_it_lives(sent).await else { break };
        let Some(Ok(answer)) = while_it_lives(answer).await else { break };
        assert!(answer.is_ack(), "no queue of this test refuses");
        confirmed.insert(id);
    }
    confirmed
}

/// Consumes and acks until the connection breaks.
async fn consume_until_it_breaks(channel: Channel) {
    channel.basic_qos(10, BasicQosOptions::default()).await.expect("prefetch");
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume("q".into(), "".into(), options, FieldTable::default());
    let Some(Ok(mut consumer)) = while_it_lives(consuming).await else { return };
    while let Some(Some(Ok(delivery))) = while_it_lives(consumer.next()).await {
        let acked = delivery.ack(BasicAckOptions::default());
        let Some(Ok(_)) = while_it_lives(acked).await else { break };
    }
}

fn recorded(scene: &Scene<'_>, kind: &str) -> BTreeSet<String> {
    let rows = scene.store.sql(&format!("SELECT event_id FROM history WHERE kind = '{kind}'"));
    rows.iter().map(|row| row["event_id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn missing<'a>(told: &'a BTreeSet<String>, recorded: &'a BTreeSet<String>) -> Vec<&'a String> {
    told.difference(recorded).collect()
}

/// The agent's gaps with their lengths.
fn assert_gaps_are_bounded(scene: &Scene<'_>, how_many: usize, at_most: Duration) {
    let gaps = scene.store.sql(
        "SELECT reason, gap_from, gap_to, ref_boot, \
         CAST(CAST(gap_to AS BIGINT) - CAST(gap_from AS BIGINT) AS BIGINT) AS length_us \
         FROM history WHERE kind = 'gap'",
    );
    assert_eq!(gaps.len(), how_many, "{gaps:?}");
    for gap in &gaps {
        assert_eq!(gap["reason"], "agent_died");
        let length = gap["length_us"].as_i64().expect("a gap has a length");
        assert!((0..=at_most.as_micros() as i64).contains(&length), "{gap}: above {at_most:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_has_recorded_whatever_was_answered() {
    let Some(broker) = RabbitMq::alone(Version::V3_10) else { return };
    let scene = scene_on(&broker);
    let before = scene.broker.counters();
    let mut chance = chance();
    let mut shop = scene.sidecar("shop");
    let mut told = BTreeSet::new();
    let mut longest_away = Duration::ZERO;
    let kills = 4;
    for run in 0..kills {
        let url = scene.url(&shop);
        let (_publisher_connection, publisher) = channel(&url).await;
        declare(&publisher).await;
        let (_consumer_connection, consumer) = channel(&url).await;
        let publishing = tokio::spawn(publish_until_it_breaks(publisher, run));
        let consuming = tokio::spawn(consume_until_it_breaks(consumer));
        // Not a wait for something: the point of the kill is what chance decides.
        tokio::time::sleep(Duration::from_millis(chance.random_range(1..1500))).await;
        let killed = std::time::Instant::now();
        shop.kill9();
        told.extend(publishing.await.expect("no panic"));
        consuming.await.expect("no panic");
        shop.restart();
        longest_away = longest_away.max(killed.elapsed());
    }
    shop.terminate();

    assert!(!told.is_empty(), "something was confirmed before a kill");
    let publishes = recorded(&scene, "publish");
    assert!(missing(&told, &publishes).is_empty(), "publishes: {:?}", missing(&told, &publishes));
    // A confirm waits for the row of its publish; its own row may be what the gap stands for.
    // Nothing else is said of such a publish, and here each waits for the one before.
    let confirms = recorded(&scene, "confirm");
    assert!(missing(&told, &confirms).len() <= kills, "{:?}", missing(&told, &confirms));
    let wrong = scene.outcomes("publishes", "shop");
    assert!(
        wrong.keys().all(|it| ["confirmed", "unknown", "null"].contains(&it.as_str())),
        "{wrong:?}"
    );
    // What the broker was told to be done is recorded as done, or as not known.
    let counted: Counters = scene.broker.counters() - before;
    let done = scene.store.number(
        "SELECT count(*) FROM consumes WHERE outcome = 'acked' \
         OR (outcome = 'unknown' AND reason = 'agent_died')",
    );
    assert!(done >= counted.acknowledged, "{done} of {} acks", counted.acknowledged);
    assert_gaps_are_bounded(&scene, kills, longest_away + MARK);
    // No settle is made up for what was open.
    let outcomes = scene.outcomes("consumes", "shop");
    let known = ["acked", "abandoned", "unknown"];
    assert!(outcomes.keys().all(|outcome| known.contains(&outcome.as_str())), "{outcomes:?}");
    scene.store.assert_no_hole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_leaves_every_row_and_no_gap() {
    for version in [Version::V3_10, Version::V4_0] {
        let Some(broker) = RabbitMq::start(version) else { continue };
        let scene = scene_on(&broker);
        let mut chance = chance();
        let mut shop = scene.sidecar("shop");
        let mut told = BTreeSet::new();
        for run in 0..2 {
            let url = scene.url(&shop);
            let (_publisher_connection, publisher) = channel(&url).await;
            declare(&publisher).await;
            let (_consumer_connection, consumer) = channel(&url).await;
            let publishing = tokio::spawn(publish_until_it_breaks(publisher, run));
            let consuming = tokio::spawn(consume_until_it_breaks(consumer));
            tokio::time::sleep(Duration::from_millis(chance.random_range(1..1000))).await;
            broker.kill9();
            told.extend(publishing.await.expect("no panic"));
            consuming.await.expect("no panic");
            broker.restart();
        }
        shop.terminate();
        let publishes = recorded(&scene, "publish");
        assert!(missing(&told, &publishes).is_empty(), "{:?}", missing(&told, &publishes));
        assert_gaps_are_bounded(&scene, 0, Duration::ZERO);
        scene.assert_each_delivery_is_settled_once();
        scene.store.assert_no_hole();
    }
}

/// An agent whose earlier boot died uploads that boot's rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_boot_uploads_what_an_earlier_one_left_in_the_spool() {
    let Some(scene) = scene(Version::V3_10) else { return };
    let mut shop: Sidecar = scene.sidecar("shop");
    let (_connection, publisher) = channel(&scene.url(&shop)).await;
    declare(&publisher).await;
    let publishing = tokio::spawn(publish_until_it_breaks(publisher, 0));
    wait_until("something is published", || {
        scene.vhost.queues().get("q").is_some_and(|queue| queue.ready > 0)
    });
    shop.kill9();
    let told = publishing.await.expect("no panic");
    shop.restart();
    shop.terminate();
    let boots = scene.store.number("SELECT count(DISTINCT boot) FROM history");
    assert_eq!(boots, 2);
    assert!(missing(&told, &recorded(&scene, "publish")).is_empty());
    scene.store.assert_no_hole();
}
