//! The same stories told by four client libraries on two brokers: what is recorded equals what the
//! service says that it did, and what the broker counted.

use std::collections::BTreeMap;

use flowtap_tests::client::Client;
use flowtap_tests::rabbitmq::{BOTH, RabbitMq, Version};
use flowtap_tests::sql::tally;
use serde_json::{Value, json};

use crate::support::{said, scene, scene_on};

macro_rules! on_both_brokers {
    ($($story:ident: $($name:ident $client:ident),*;)*) => {
        $(mod $story {
            $(#[test]
            fn $name() {
                for version in super::BOTH {
                    super::$story(super::Client::$client, version);
                }
            })*
        })*
    };
}

on_both_brokers! {
    settled_every_way: with_pika Pika, with_bunny Bunny, with_amqplib Amqplib, with_java Java;
    dies_with_deliveries_open: with_pika Pika, with_bunny Bunny, with_amqplib Amqplib, with_java Java;
    acknowledged_many_at_once: with_pika Pika, with_bunny Bunny, with_amqplib Amqplib, with_java Java;
    recovered: with_pika Pika, with_bunny Bunny, with_amqplib Amqplib, with_java Java;
    acknowledged_as_delivered: with_pika Pika, with_bunny Bunny, with_amqplib Amqplib, with_java Java;
}

const VERBS: [&str; 10] =
    ["ack", "ack", "nack", "reject", "requeue", "reject_requeue", "leave", "ack", "ack", "ack"];

fn plan(rounds: usize) -> Vec<&'static str> {
    VERBS.iter().copied().cycle().take(rounds * VERBS.len()).collect()
}

/// `fanout('orders', durable: true)`, a `history` queue with dead letters, manual acks, confirms.
fn settled_every_way(client: Client, version: Version) {
    if !client.available() {
        return;
    }
    let Some(broker) = RabbitMq::alone(version) else { return };
    let scene = scene_on(&broker);
    let before = scene.broker.counters();
    let mut shop = scene.sidecar("shop");
    let mut factory = scene.sidecar("factory");
    let mut morgue = scene.sidecar("morgue");

    let plan = plan(4);
    let count = |verbs: &[&str]| plan.iter().filter(|verb| verbs.contains(verb)).count() as i64;
    let requeued = count(&["requeue", "reject_requeue"]);
    let rejected = count(&["nack", "reject"]);
    let unroutable = 5;
    let mut dead = client.start(&json!({
        "role": "consume", "url": scene.url(&morgue), "exchange": "orders.dead", "type": "fanout",
        "queue": "dead", "prefetch": 3, "deliveries": rejected,
    }));
    dead.await_ready();
    let mut consumer = client.start(&json!({
        "role": "consume", "url": scene.url(&factory), "exchange": "orders", "type": "fanout",
        "queue": "history", "arguments": {"x-dead-letter-exchange": "orders.dead"},
        "prefetch": 50, "deliveries": plan.len() as i64 + requeued,
    }));
    consumer.await_ready();
    let publisher = client.run(&json!({
        "role": "publish", "url": scene.url(&shop), "exchange": "orders", "type": "fanout",
        "plan": plan, "unroutable": unroutable, "confirm": true, "mandatory": false,
        "headers": {"tenant": "edison"},
    }));
    let consumer = consumer.finish();
    let dead = dead.finish();
    for sidecar in [&mut shop, &mut factory, &mut morgue] {
        sidecar.terminate();
    }

    // The returns that the publisher did not ask for were kept from it.
    assert_eq!(said(&publisher, "returned"), 0);
    let published = said(&publisher, "published");
    assert_eq!(
        scene.store.tally("shop"),
        tally([
            ("publish", published),
            ("confirm confirmed", said(&publisher, "confirmed")),
            ("confirm refused", said(&publisher, "refused")),
            ("return unroutable", unroutable),
        ])
    );
    assert_eq!(scene.store.tally("factory"), as_recorded(&consumer));
    assert_eq!(scene.store.tally("morgue"), as_recorded(&dead));
    assert_eq!(said(&dead, "deaths"), rejected);

    let counted = scene.broker.counters() - before;
    assert_eq!(counted.received, published);
    assert_eq!(counted.confirmed, said(&publisher, "confirmed"));
    assert_eq!(counted.returned, unroutable);
    assert_eq!(counted.dropped, 0);
    assert_eq!(counted.delivered, said(&consumer, "delivered") + said(&dead, "delivered"));
    assert_eq!(counted.redelivered, said(&consumer, "redelivered"));
    assert_eq!(counted.acknowledged, said(&consumer, "acked") + said(&dead, "acked"));
    assert_eq!(scene.vhost.queues()["history"].ready, said(&consumer, "open"));

    assert_eq!(
        scene.outcomes("publishes", "shop"),
        tally([("confirmed", published - unroutable), ("unroutable", unroutable)])
    );
    assert_eq!(
        scene.outcomes("consumes", "factory"),
        tally([
            ("acked", said(&consumer, "acked")),
            ("rejected", rejected),
            ("requeued", requeued),
            ("abandoned", said(&consumer, "open")),
        ])
    );
    // One message is one fingerprint, from the publish over each delivery to the dead letter.
    let joined = |service: &str| {
        scene.store.number(&format!(
            "SELECT count(DISTINCT p.message) FROM publishes p JOIN consumes c \
             ON p.message = c.message AND p.event_id = c.event_id \
             WHERE p.service = 'shop' AND c.service = '{service}'"
        ))
    };
    assert_eq!(joined("factory"), plan.len() as i64);
    assert_eq!(joined("morgue"), rejected);
    let ids = scene.store.sql(
        "SELECT DISTINCT event_id_from, event_type, subscription, destination FROM consumes \
         WHERE service = 'factory'",
    );
    let expected = json!([{"event_id_from": "property:message_id", "event_type": "OrderPlaced",
        "subscription": "history", "destination": "orders"}]);
    assert_eq!(Value::from(ids), expected);
    // A dead letter says why it is here and from where.
    let deaths = scene.store.number(
        "SELECT count(*) FROM history WHERE service = 'morgue' AND kind = 'deliver' \
         AND details LIKE '%rejected%' AND details LIKE '%history%'",
    );
    assert_eq!(deaths, rejected);
    scene.assert_each_delivery_is_settled_once();
    scene.store.assert_no_hole();
}

/// The consumer's process is killed with deliveries open; the publisher asks for returns itself.
fn dies_with_deliveries_open(client: Client, version: Version) {
    if !client.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let mut shop = scene.sidecar("shop");
    let mut factory = scene.sidecar("factory");
    let plan = plan(2);
    let requeued =
        plan.iter().filter(|verb| ["requeue", "reject_requeue"].contains(verb)).count() as i64;
    let mut consumer = client.start(&json!({
        "role": "consume", "url": scene.url(&factory), "exchange": "orders", "type": "fanout",
        "queue": "history", "prefetch": 50, "deliveries": plan.len() as i64 + requeued,
        "end": "crash",
    }));
    consumer.await_ready();
    let publisher = client.run(&json!({
        "role": "publish", "url": scene.url(&shop), "exchange": "orders", "type": "fanout",
        "plan": plan, "unroutable": 3, "confirm": true, "mandatory": true,
    }));
    let consumer = consumer.await_line("the consumer's last word", |line| line["open"].is_i64());
    factory.terminate();
    shop.terminate();

    assert_eq!(said(&publisher, "returned"), 3, "it gets the returns that it asked for");
    assert_eq!(scene.outcomes("publishes", "shop")["unroutable"], 3);
    assert_eq!(scene.store.tally("factory"), as_recorded(&consumer));
    assert!(said(&consumer, "open") > 0);
    let by_client = scene.store.number(
        "SELECT count(*) FROM history WHERE service = 'shop' AND kind = 'publish' \
         AND details LIKE '%\"mandatory\":\"client\"%'",
    );
    assert_eq!(by_client, said(&publisher, "published"));
    scene.assert_each_delivery_is_settled_once();
    scene.store.assert_no_hole();
}

fn acknowledged_many_at_once(client: Client, version: Version) {
    if !client.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let mut factory = scene.sidecar("factory");
    let mut consumer = client.start(&json!({
        "role": "consume", "url": scene.url(&factory), "exchange": "orders", "type": "fanout",
        "queue": "history", "prefetch": 50, "deliveries": 25, "multiple": 7,
    }));
    consumer.await_ready();
    client.run(&json!({
        "role": "publish", "url": scene.vhost.direct(), "exchange": "orders", "type": "fanout",
        "plan": vec!["ack"; 25],
    }));
    let consumer = consumer.finish();
    factory.terminate();
    assert_eq!(scene.store.tally("factory"), as_recorded(&consumer));
    let multiple = scene.store.number(
        "SELECT count(*) FROM history WHERE kind = 'settle' AND details LIKE '%\"multiple\":true%'",
    );
    assert_eq!(multiple, 25);
    scene.assert_each_delivery_is_settled_once();
}

/// `basic.recover` gives back what is open; it comes again with new tags.
fn recovered(client: Client, version: Version) {
    if !client.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let mut factory = scene.sidecar("factory");
    let plan = ["leave", "leave", "ack", "leave"];
    let mut consumer = client.start(&json!({
        "role": "consume", "url": scene.url(&factory), "exchange": "orders", "type": "fanout",
        "queue": "history", "prefetch": 50, "deliveries": 7, "recover": 4,
    }));
    consumer.await_ready();
    client.run(&json!({
        "role": "publish", "url": scene.vhost.direct(), "exchange": "orders", "type": "fanout",
        "plan": plan,
    }));
    let consumer = consumer.finish();
    factory.terminate();
    assert_eq!(said(&consumer, "requeued"), 3);
    assert_eq!(scene.store.tally("factory"), as_recorded(&consumer));
    let again = scene.store.number("SELECT count(*) FROM consumes WHERE redelivered");
    assert_eq!(again, 3);
    scene.assert_each_delivery_is_settled_once();
}

/// A direct exchange, one routing key an event, an exclusive queue named by the server, auto-ack.
fn acknowledged_as_delivered(client: Client, version: Version) {
    if !client.available() {
        return;
    }
    let Some(scene) = scene(version) else { return };
    let mut shop = scene.sidecar("shop");
    let mut factory = scene.sidecar("factory");
    let keys = ["order.placed", "order.paid", "order.cancelled"];
    let mut consumer = client.start(&json!({
        "role": "consume", "url": scene.url(&factory), "exchange": "events", "type": "direct",
        "queue": "", "auto_ack": true, "keys": &keys[..2], "deliveries": 20,
    }));
    let ready = consumer.await_line("it is ready", |line| line["ready"] == true);
    let publisher = client.run(&json!({
        "role": "publish", "url": scene.url(&shop), "exchange": "events", "type": "direct",
        "keys": keys, "plan": vec!["ack"; 30],
    }));
    let consumer = consumer.finish();
    factory.terminate();
    shop.terminate();

    let published = said(&publisher, "published");
    assert_eq!(
        scene.store.tally("shop"),
        tally([("publish", published), ("return unroutable", 10)]),
        "nobody is bound to order.cancelled"
    );
    let delivered = said(&consumer, "delivered");
    let recorded = tally([("deliver", delivered), ("settle auto", delivered)]);
    assert_eq!(scene.store.tally("factory"), recorded);
    let queues = scene.store.sql(
        "SELECT subscription, routing_key, count(*) AS n FROM consumes \
         GROUP BY subscription, routing_key ORDER BY routing_key",
    );
    let queue = &ready["queue"];
    let expected = json!([
        {"subscription": queue, "routing_key": "order.paid", "n": 10},
        {"subscription": queue, "routing_key": "order.placed", "n": 10},
    ]);
    assert_eq!(Value::from(queues), expected);
    scene.assert_each_delivery_is_settled_once();
}

/// What must be recorded of a consumer that did this, with manual acks.
fn as_recorded(did: &Value) -> BTreeMap<String, i64> {
    tally([
        ("deliver", said(did, "delivered")),
        ("settle acked", said(did, "acked")),
        ("settle rejected", said(did, "rejected")),
        ("settle requeued", said(did, "requeued")),
        ("settle abandoned", said(did, "open")),
    ])
}
