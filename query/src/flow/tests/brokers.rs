//! What brokers do by themselves: delays, deletions, listeners that come and go.

use flowtap_record::{Kind, Outcome};
use serde_json::json;

use super::super::{Broker, Name, State};
use super::{Scene, at};

fn broker(scene: &mut Scene) -> Broker {
    scene.row(Kind::Publish, "shop", 0.0).broker()
}

impl Scene {
    fn changed(&mut self, outcome: Outcome, what: &str, name: &str, seconds: f64) {
        self.learn(Kind::Topology, outcome, |row| {
            row.at = at(seconds);
            match what {
                "queue" => row.subscription = Some(name.to_owned()),
                _ => row.destination = Some(name.to_owned()),
            }
            row.details = json!({"what": what, "type": "fanout", "arguments": {}});
        });
    }

    fn bound(&mut self, exchange: &str, queue: &str, seconds: f64) {
        self.learn(Kind::Topology, Outcome::Bound, |row| {
            row.at = at(seconds);
            row.destination = Some(exchange.to_owned());
            row.routing_key = Some(String::new());
            row.subscription = Some(queue.to_owned());
            row.details = json!({"what": "binding", "arguments": {}});
        });
    }
}

#[test]
fn a_return_from_an_exchange_that_delays_proves_nothing() {
    for known_by in ["type", "publish", "return"] {
        let mut scene = Scene::new();
        scene.learn(Kind::Topology, Outcome::Declared, |row| {
            row.destination = Some("slow".to_owned());
            let kind = if known_by == "type" { "x-delayed-message" } else { "direct" };
            let arguments = json!({"x-delayed-type": "direct"});
            row.details = json!({"what": "exchange", "type": kind, "arguments": arguments});
        });
        scene.bind("slow", "orders", "factory.orders");
        let broker = broker(&mut scene);
        scene.world.learn_route(&broker, "slow", "orders", at(-10.0));
        let publish = scene.publish_to("shop", "OrderPlaced-1", "slow", "orders", 0.0);
        scene.rows[publish].details =
            json!({"mandatory": if known_by == "publish" { "delayed" } else { "client" }});
        let returned = scene.conclude(publish, Kind::Return, Outcome::Unroutable, 0.01);
        if known_by == "return" {
            scene.rows[returned].details = json!({"asked_by": "client", "delayed": true});
        }
        assert_eq!(scene.judge().state, State::Running, "it may be held back for long");
        scene.now = 70.0;
        let verdict = scene.judge();
        assert_eq!(verdict.state, State::Unknown);
        assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at exchange slow, key orders");
        let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 65.0);
        scene.settle(delivery, Outcome::Acked, 65.1);
        scene.now = 200.0;
        for service in ["shop", "factory"] {
            let status = scene.of(service);
            (status.at, status.watermark) = (at(199.0), at(199.0));
        }
        assert_eq!(scene.judge().state, State::Healthy);
    }
}

#[test]
fn an_exchange_that_is_only_listened_to_may_have_no_listener() {
    for (flag, expected) in [("exclusive", State::Healthy), ("durable", State::Broken)] {
        let mut scene = Scene::new();
        scene.exchange("news", "fanout");
        scene.learn(Kind::Topology, Outcome::Declared, |row| {
            row.subscription = Some("amq.gen-1".to_owned());
            row.details = json!({"what": "queue", flag: true, "arguments": {}});
        });
        scene.bind("news", "", "amq.gen-1");
        let broker = broker(&mut scene);
        scene.world.learn_route(&broker, "news", "", at(-10.0));
        scene.learn(Kind::Session, Outcome::Closed, |row| {
            row.details = json!({"what": "connection"});
        });
        let publish = scene.publish_to("shop", "PriceChanged-1", "news", "", 0.0);
        scene.conclude(publish, Kind::Return, Outcome::Unroutable, 0.01);
        let verdict = scene.judge();
        assert_eq!(verdict.state, expected, "{verdict:#?}");
        if expected == State::Healthy {
            assert_eq!(verdict.notes, ["nobody listens at exchange news"]);
        }
    }
}

#[test]
fn bindings_go_with_their_queue_and_with_their_exchange() {
    for what in ["queue", "exchange"] {
        let name = if what == "queue" { "factory.orders" } else { "orders" };
        let mut scene = Scene::new();
        scene.publish("shop", "OrderPlaced-1", 0.0);
        assert_eq!(scene.judge().headline, "LATE in queue factory.orders");
        scene.changed(Outcome::Deleted, what, name, -5.0);
        scene.changed(Outcome::Declared, what, name, -4.0);
        let verdict = scene.judge();
        assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at exchange orders", "{what}");
        scene.bound("orders", "factory.orders", -3.0);
        assert_eq!(scene.judge().headline, "LATE in queue factory.orders", "bound again: {what}");
    }
}

#[test]
fn a_deletion_counts_whatever_order_it_is_learned_in() {
    let mut scene = Scene::new();
    scene.exchange("late", "fanout");
    scene.changed(Outcome::Deleted, "queue", "q", -5.0);
    scene.bound("late", "q", -8.0);
    scene.changed(Outcome::Declared, "queue", "q", -4.0);
    scene.publish_to("shop", "OrderPlaced-1", "late", "", 0.0);
    assert_eq!(scene.judge().headline, "UNKNOWN: left Flowtap's sight at exchange late");
    scene.bound("late", "q", -3.0);
    assert_eq!(scene.judge().headline, "UNKNOWN: left Flowtap's sight at queue q");
}

#[test]
fn what_was_purged_or_deleted_with_its_queue_is_not_waited_for() {
    for (outcome, how) in [(Outcome::Purged, "purged"), (Outcome::Deleted, "deleted")] {
        let mut scene = Scene::new();
        scene.publish("shop", "OrderPlaced-1", 0.0);
        scene.changed(outcome, "queue", "factory.orders", -1.0);
        if outcome == Outcome::Deleted {
            scene.changed(Outcome::Declared, "queue", "factory.orders", -0.5);
            scene.bound("orders", "factory.orders", -0.4);
        }
        assert_eq!(scene.judge().state, State::Late, "that was before");
        scene.changed(outcome, "queue", "factory.orders", 2.0);
        scene.changed(Outcome::Declared, "queue", "factory.orders", 3.0);
        let verdict = scene.judge();
        assert_eq!(verdict.state, State::Healthy);
        assert_eq!(
            verdict.notes,
            [format!("queue factory.orders was {how} at 12:00:02.000, with what it held")]
        );
    }
}

#[test]
fn of_queues_that_went_with_their_connections_only_the_newest_are_kept_and_all_are_known_to_be_gone()
 {
    let mut scene = Scene::new();
    let count = 30_000;
    for number in 0..count {
        scene.learn(Kind::Topology, Outcome::Declared, |row| {
            row.connection = Some(number + 10);
            row.subscription = Some(format!("amq.gen-{number}"));
            row.details = json!({"what": "queue", "exclusive": true, "arguments": {}});
        });
        scene.learn(Kind::Session, Outcome::Closed, |row| {
            row.connection = Some(number + 10);
            row.at = at(number as f64);
            row.details = json!({"what": "connection"});
        });
    }
    let broker = broker(&mut scene);
    let queue = |number: i64| Name::new(&broker, &format!("amq.gen-{number}"));
    assert!(!scene.world.is_declared(&queue(7)), "it was forgotten");
    assert!(scene.world.is_declared(&queue(count - 1)));
    for number in [7, count - 1] {
        let went = number as f64;
        assert!(scene.world.is_gone(&queue(number), at(went)));
        assert!(!scene.world.is_gone(&queue(number), at(went - 1.0)));
    }
    let durable = Name::new(&broker, "factory.orders");
    assert!(scene.world.is_declared(&durable) && !scene.world.is_gone(&durable, at(1e6)));
}
