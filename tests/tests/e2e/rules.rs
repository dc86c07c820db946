//! What RabbitMQ really does and a naive tap gets wrong, on real brokers, with lapin.

use flowtap_tests::rabbitmq::{BOTH, Options as BrokerOptions, RabbitMq, Version};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::tally;
use flowtap_tests::wait_until;
use futures::StreamExt;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};

use crate::support::{Scene, channel, scene, scene_on};

async fn queue(channel: &Channel, name: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions::default();
    channel.queue_declare(name.into(), options, arguments).await.expect("declared");
}

async fn exchange(channel: &Channel, name: &str, arguments: FieldTable) {
    let options = ExchangeDeclareOptions::default();
    let declared =
        channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, arguments).await;
    declared.expect("declared");
}

async fn bind(channel: &Channel, queue: &str, exchange: &str) {
    let options = QueueBindOptions::default();
    let bound = channel
        .queue_bind(queue.into(), exchange.into(), "".into(), options, FieldTable::default())
        .await;
    bound.expect("bound");
}

/// Publishes and, on a confirm channel, waits for the broker's answer.
async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    let confirm = channel
        .basic_publish(exchange.into(), key.into(), options, b"{\"order_id\": 1}", properties)
        .await
        .expect("published");
    confirm.await.expect("answered");
}

/// Gets the next message, which may still be on its way.
async fn get(channel: &Channel, queue: &str) -> BasicGetMessage {
    for _ in 0..600 {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
        if let Some(message) = got.expect("answered") {
            return message;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("nothing comes to {queue}");
}

async fn confirming(channel: &Channel) {
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn list(values: &[&str]) -> AMQPValue {
    AMQPValue::FieldArray(values.iter().map(|value| text(value)).collect::<Vec<_>>().into())
}

fn id(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into())
}

/// The message ids of what a service published that no queue took.
fn unroutable(scene: &Scene<'_>, service: &str) -> Vec<String> {
    let rows = scene.store.sql(&format!(
        "SELECT event_id FROM publishes WHERE service = '{service}' AND outcome = 'unroutable' \
         ORDER BY event_id"
    ));
    rows.iter().map(|row| row["event_id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The broker returns what it delivers to a direct reply-to: nothing may be said about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_a_direct_reply_queue_is_not_called_unroutable() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut asks = scene.sidecar("asks");
        let mut answers = scene.sidecar("answers");
        let (client_connection, client) = channel(&scene.url(&asks)).await;
        let (server_connection, server) = channel(&scene.url(&answers)).await;
        queue(&server, "rpc", FieldTable::default()).await;
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let reply_to: ShortString = "amq.rabbitmq.reply-to".into();
        let mut replies = client
            .basic_consume(reply_to.clone(), "".into(), no_ack, FieldTable::default())
            .await
            .expect("consumes");
        for number in 0..3 {
            let question = id(&format!("question-{number}")).with_reply_to(reply_to.clone());
            publish(&client, "", "rpc", question).await;
            let got = get(&server, "rpc").await;
            got.ack(BasicAckOptions::default()).await.expect("acked");
            let to = got.properties.reply_to().clone().expect("a place to answer");
            assert_ne!(to, reply_to, "the broker made an address of it");
            publish(&server, "", to.as_str(), id(&format!("answer-{number}"))).await;
            let reply = replies.next().await.expect("a reply").expect("delivered");
            let reply_id = reply.properties.message_id().clone().expect("with its id");
            assert_eq!(reply_id.as_str(), format!("answer-{number}"));
        }
        client_connection.close(200, "".into()).await.expect("closed");
        server_connection.close(200, "".into()).await.expect("closed");
        asks.terminate();
        answers.terminate();
        assert!(unroutable(&scene, "answers").is_empty());
        assert!(unroutable(&scene, "asks").is_empty());
        let asked = tally([("publish", 3), ("deliver", 3), ("settle auto", 3)]);
        assert_eq!(scene.store.tally("asks"), asked);
        let answered = tally([("publish", 3), ("deliver", 3), ("settle acked", 3)]);
        assert_eq!(scene.store.tally("answers"), answered);
        scene.assert_each_delivery_is_settled_once();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alternate_exchange_counts_only_if_a_queue_is_behind_it() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let (connection, channel) = channel(&scene.url(&shop)).await;
        confirming(&channel).await;
        exchange(&channel, "spare", FieldTable::default()).await;
        queue(&channel, "spares", FieldTable::default()).await;
        bind(&channel, "spares", "spare").await;
        exchange(&channel, "empty", FieldTable::default()).await;
        exchange(&channel, "x-spare", table(&[("alternate-exchange", text("spare"))])).await;
        exchange(&channel, "x-empty", table(&[("alternate-exchange", text("empty"))])).await;
        exchange(&channel, "x-none", table(&[("alternate-exchange", text("nobody"))])).await;
        for name in ["x-spare", "x-empty", "x-none"] {
            publish(&channel, name, "", id(name)).await;
        }
        connection.close(200, "".into()).await.expect("closed");
        shop.terminate();
        assert_eq!(unroutable(&scene, "shop"), ["x-empty", "x-none"]);
    }
}

/// CC and BCC route as well; BCC is taken off on the way, and it stays one message.
#[tokio::test(flavor = "multi_thread")]
async fn blind_copies_route_and_stay_the_same_message() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let (connection, channel) = channel(&scene.url(&shop)).await;
        confirming(&channel).await;
        queue(&channel, "copies", FieldTable::default()).await;
        let headers = |entries: &[(&str, AMQPValue)]| table(entries);
        let to_copy = headers(&[("BCC", list(&["copies"])), ("tenant", text("edison"))]);
        publish(&channel, "", "missing", id("hit").with_headers(to_copy)).await;
        let to_nobody = headers(&[("BCC", list(&["nobody"])), ("CC", list(&["no one"]))]);
        publish(&channel, "", "missing", id("miss").with_headers(to_nobody)).await;
        let got = channel.basic_get("copies".into(), BasicGetOptions { no_ack: true }).await;
        assert!(got.expect("got").is_some());
        connection.close(200, "".into()).await.expect("closed");
        shop.terminate();
        assert_eq!(unroutable(&scene, "shop"), ["miss"]);
        let same = scene.store.number(
            "SELECT count(*) FROM publishes p JOIN consumes c ON p.message = c.message \
             WHERE p.event_id = 'hit'",
        );
        assert_eq!(same, 1);
    }
}

/// Publishes of a transaction are answered at its commit; after a rollback they never were.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_recorded_with_its_end() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let (connection, channel) = channel(&scene.url(&shop)).await;
        queue(&channel, "q", FieldTable::default()).await;
        channel.tx_select().await.expect("transactional");
        publish(&channel, "", "q", id("a")).await;
        publish(&channel, "", "missing", id("b")).await;
        channel.tx_commit().await.expect("committed");
        publish(&channel, "", "q", id("c")).await;
        publish(&channel, "", "missing", id("d")).await;
        channel.tx_rollback().await.expect("rolled back");
        connection.close(200, "".into()).await.expect("closed");
        shop.terminate();
        let counts = scene.store.tally("shop");
        assert_eq!((counts["publish"], counts["return unroutable"]), (4, 1));
        assert_eq!(unroutable(&scene, "shop"), ["b"]);
        assert_eq!(scene.vhost.queues()["q"].ready, 1);
        let joined = scene.store.sql(
            "SELECT t.outcome, count(*) AS n FROM history p JOIN history t \
             ON p.broker_txn = t.broker_txn AND p.boot = t.boot AND t.kind = 'transaction' \
             WHERE p.kind = 'publish' GROUP BY t.outcome ORDER BY t.outcome",
        );
        let expected = serde_json::json!([
            {"outcome": "aborted", "n": 2},
            {"outcome": "committed", "n": 2},
        ]);
        assert_eq!(serde_json::Value::from(joined), expected);
    }
}

/// A full queue refuses: a nack, never a return. Its `multiple` covers what is still open.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_by_nack() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let (connection, channel) = channel(&scene.url(&shop)).await;
        confirming(&channel).await;
        let small =
            [("x-max-length", AMQPValue::LongInt(3)), ("x-overflow", text("reject-publish"))];
        queue(&channel, "small", table(&small)).await;
        let mut answers = Vec::new();
        for _ in 0..10 {
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let sent =
                channel.basic_publish("".into(), "small".into(), options, b"x", properties).await;
            answers.push(sent.expect("published"));
        }
        let mut refused = 0;
        for answer in answers {
            refused += i64::from(answer.await.expect("answered").is_nack());
        }
        connection.close(200, "".into()).await.expect("closed");
        shop.terminate();
        assert!(refused > 0);
        let counts =
            [("publish", 10), ("confirm confirmed", 10 - refused), ("confirm refused", refused)];
        assert_eq!(scene.store.tally("shop"), tally(counts));
    }
}

/// Queues and consumers that the server names are recorded with those names.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_declared_queue_and_server_names_are_known() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let (connection, channel) = channel(&scene.url(&shop)).await;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let declared = channel
            .queue_declare("".into(), exclusive, FieldTable::default())
            .await
            .expect("declared");
        let name = declared.name().as_str().to_owned();
        exchange(&channel, "orders", FieldTable::default()).await;
        bind(&channel, "", "orders").await;
        let mut consumer = channel
            .basic_consume(
                "".into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("consumes");
        publish(&channel, "orders", "", id("a")).await;
        let delivery = consumer.next().await.expect("one").expect("delivered");
        delivery.ack(BasicAckOptions::default()).await.expect("acked");
        let tag = consumer.tag().as_str().to_owned();
        connection.close(200, "".into()).await.expect("closed");
        shop.terminate();
        let rows = scene.store.sql("SELECT subscription, consumer, outcome FROM consumes");
        let expected =
            serde_json::json!([{"subscription": name, "consumer": tag, "outcome": "acked"}]);
        assert_eq!(serde_json::Value::from(rows), expected);
        let bound = scene.store.number(&format!(
            "SELECT count(*) FROM history WHERE kind = 'topology' AND outcome = 'bound' \
             AND subscription = '{name}' AND destination = 'orders'"
        ));
        assert_eq!(bound, 1);
    }
}

/// A channel that the broker closes: what is unanswered is neither confirmed nor refused by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_a_missing_exchange_closes_the_channel_as_without_a_sidecar() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let (connection, channel) = channel(&scene.url(&shop)).await;
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let sent =
            channel.basic_publish("missing".into(), "".into(), options, b"x", properties).await;
        sent.expect("written");
        wait_until("the channel is closed", || {
            !channel.status().connected() && !channel.status().closing()
        });
        // The connection lives on.
        connection.create_channel().await.expect("another channel");
        // lapin may refuse: now and then it still counts the dead channel among its own.
        let _closed = connection.close(200, "".into()).await;
        shop.terminate();
        let why = scene.store.number(
            "SELECT count(*) FROM history WHERE kind = 'session' AND outcome = 'closed' \
             AND reason LIKE '%NOT_FOUND%'",
        );
        assert_eq!(why, 1);
        assert!(unroutable(&scene, "shop").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_detection_off_nothing_is_changed_and_nothing_claimed() {
    let Some(broker) = RabbitMq::alone(Version::V3_10) else { return };
    let scene = scene_on(&broker);
    let before = scene.broker.counters();
    let options =
        Options { tap: vec!["detect_unroutable = false".to_owned()], ..scene.options("shop") };
    let mut shop = Sidecar::start(&options);
    let (connection, channel) = channel(&scene.url(&shop)).await;
    confirming(&channel).await;
    publish(&channel, "", "missing", id("a")).await;
    connection.close(200, "".into()).await.expect("closed");
    shop.terminate();
    let counted = scene.broker.counters() - before;
    assert_eq!((counted.returned, counted.dropped), (0, 1), "the broker saw no mandatory bit");
    assert_eq!(scene.store.tally("shop"), tally([("publish", 1), ("confirm confirmed", 1)]));
    let claimed = scene
        .store
        .number("SELECT count(*) FROM history WHERE details LIKE '%\"mandatory\":\"set\"%'");
    assert_eq!(claimed, 0);
}

/// 3.10 closes the channel of a consumer that is too slow, again at every tick until it is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_timeout_abandons_what_was_open() {
    let options = BrokerOptions {
        config: vec!["consumer_timeout = 1000".to_owned()],
        advanced: vec!["{channel_tick_interval, 500}"],
        ..BrokerOptions::default()
    };
    let Some(broker) = RabbitMq::start_with(Version::V3_10, &options) else { return };
    let scene = scene_on(&broker);
    let mut factory = scene.sidecar("factory");
    let (connection, channel) = channel(&scene.url(&factory)).await;
    queue(&channel, "slow", FieldTable::default()).await;
    let consume = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume("slow".into(), "".into(), consume, FieldTable::default())
        .await
        .expect("consumes");
    publish(&channel, "", "slow", id("a")).await;
    let delivery = consumer.next().await.expect("one").expect("delivered");
    wait_until("the broker closes the channel", || !channel.status().connected());
    drop(delivery);
    connection.close(200, "".into()).await.expect("closed");
    factory.terminate();
    let rows = scene.store.sql("SELECT outcome, reason FROM consumes");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["outcome"], "abandoned");
    assert!(rows[0]["reason"].as_str().is_some_and(|why| why.contains("timed out")), "{rows:?}");
    assert_eq!(scene.vhost.queues()["slow"].ready, 1);
}
