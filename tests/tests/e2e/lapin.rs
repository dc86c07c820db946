//! What `services.rs` tells of clients in other languages, with lapin: settled in every way, given
//! back, left open, and held against what the broker counted.

use flowtap_tests::rabbitmq::{BOTH, RabbitMq};
use flowtap_tests::sql::tally;
use futures::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions,
    BasicRecoverOptions, BasicRejectOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Consumer};

use crate::support::{channel, scene_on};

async fn next(consumer: &mut Consumer) -> lapin::message::Delivery {
    consumer.next().await.expect("one more").expect("a delivery")
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_every_way_with_lapin() {
    for version in BOTH {
        let Some(broker) = RabbitMq::alone(version) else { continue };
        let scene = scene_on(&broker);
        let before = scene.broker.counters();
        let mut shop = scene.sidecar("shop");
        let mut factory = scene.sidecar("factory");
        let (publishing, publisher) = channel(&scene.url(&shop)).await;
        let (consuming, worker) = channel(&scene.url(&factory)).await;
        publisher.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
        let declare = QueueDeclareOptions::default();
        worker.queue_declare("q".into(), declare, FieldTable::default()).await.expect("declared");
        for number in 0..20 {
            let properties =
                BasicProperties::default().with_message_id(format!("m-{number}").into());
            let options = BasicPublishOptions::default();
            let sent =
                publisher.basic_publish("".into(), "q".into(), options, b"x", properties).await;
            sent.expect("sent").await.expect("confirmed");
        }
        let options = BasicConsumeOptions::default();
        let mut consumer = worker
            .basic_consume("q".into(), "c".into(), options, FieldTable::default())
            .await
            .expect("consuming");
        let mut first = Vec::new();
        for _ in 0..20 {
            first.push(next(&mut consumer).await);
        }
        // Four of each; the last four stay open until they are given back all at once.
        for (number, delivery) in first.iter().take(16).enumerate() {
            let acker = &delivery.acker;
            let settled = match number % 4 {
                0 => acker.ack(BasicAckOptions::default()).await,
                1 => acker.nack(BasicNackOptions { requeue: false, multiple: false }).await,
                2 => acker.reject(BasicRejectOptions { requeue: false }).await,
                _ => acker.nack(BasicNackOptions { requeue: true, multiple: false }).await,
            };
            settled.expect("settled");
        }
        let mut again = Vec::new();
        for _ in 0..4 {
            again.push(next(&mut consumer).await);
        }
        again
            .last()
            .expect("four")
            .acker
            .ack(BasicAckOptions { multiple: false })
            .await
            .expect("acked");
        worker.basic_recover(BasicRecoverOptions { requeue: true }).await.expect("recovered");
        for _ in 0..7 {
            next(&mut consumer).await;
        }
        consuming.close(200, "done".into()).await.expect("closed");
        publishing.close(200, "done".into()).await.expect("closed");
        for sidecar in [&mut shop, &mut factory] {
            sidecar.terminate();
        }

        assert_eq!(scene.store.tally("shop"), tally([("publish", 20), ("confirm confirmed", 20)]));
        assert_eq!(
            scene.store.tally("factory"),
            tally([
                ("deliver", 31),
                ("settle acked", 5),
                ("settle rejected", 8),
                ("settle requeued", 4 + 7),
                ("settle abandoned", 7),
            ])
        );
        let counted = scene.broker.counters() - before;
        assert_eq!((counted.received, counted.confirmed), (20, 20));
        assert_eq!((counted.delivered, counted.redelivered), (31, 11));
        assert_eq!(counted.acknowledged, 5);
        assert_eq!(scene.vhost.queues()["q"].ready, 7, "what was open is back");
        scene.assert_each_delivery_is_settled_once();
        scene.store.assert_no_hole();
    }
}
