//! Celery through sidecars: tasks that fail, that Celery retries by publishing them anew, that it
//! rejects and that it gives back.

use flowtap_tests::client::Client;
use flowtap_tests::rabbitmq::BOTH;
use flowtap_tests::sql::tally;
use serde_json::json;

use crate::support::{said, scene};

#[test]
fn celery_tasks_are_counted_with_their_retries() {
    if !Client::Celery.available() {
        return;
    }
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let mut shop = scene.sidecar("shop");
        let mut factory = scene.sidecar("factory");
        let plan = ["ok", "retry", "fail", "reject", "requeue", "ok"];
        // Each as often as Celery runs it: a retry three times, a requeue twice.
        let runs = 1 + 3 + 1 + 1 + 2 + 1;
        let mut worker = Client::Celery
            .start(&json!({"role": "work", "url": scene.url(&factory), "runs": runs}));
        worker.await_ready();
        let producer =
            Client::Celery.run(&json!({"role": "produce", "url": scene.url(&shop), "plan": plan}));
        let worker = worker.finish();
        factory.terminate();
        shop.terminate();

        let published = said(&producer, "published");
        let confirmed = [("publish", published), ("confirm confirmed", published)];
        assert_eq!(scene.store.tally("shop"), tally(confirmed));
        let retried = said(&worker, "retried");
        assert_eq!(
            scene.store.tally("factory"),
            tally([
                ("publish", retried),
                ("confirm confirmed", retried),
                ("deliver", said(&worker, "runs")),
                ("settle acked", said(&worker, "acked")),
                ("settle rejected", said(&worker, "rejected")),
                ("settle requeued", said(&worker, "requeued")),
            ])
        );
        scene.assert_each_delivery_is_settled_once();
        scene.store.assert_no_hole();
    }
}
