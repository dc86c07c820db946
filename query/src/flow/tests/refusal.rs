//! Somebody said no.

use flowtap_record::{Kind, Outcome};
use serde_json::json;

use super::super::{Broker, State};
use super::{Scene, at};

fn broker() -> Broker {
    Broker {
        system: Some("rabbitmq".to_owned()),
        cluster: Some("one".to_owned()),
        vhost: Some("/".to_owned()),
    }
}

/// Published, delivered at 0.1 s.
fn delivered() -> (Scene, usize) {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    (scene, delivery)
}

#[test]
fn a_rejection_that_leads_nowhere_is_broken_there() {
    let (mut scene, delivery) = delivered();
    scene.settle(delivery, Outcome::Rejected, 0.135);
    scene.expect(
        State::Broken,
        "rejected",
        Some("factory"),
        "factory received OrderPlaced from queue factory.orders at 12:00:00.100 and rejected it \
         after 35 ms. The message went to factory.dead.",
    );
    let verdict = scene.judge();
    assert_eq!(verdict.headline, "BROKEN at factory");
    let proof: Vec<i64> = verdict.finding.unwrap().evidence.iter().map(|it| it.row.seq).collect();
    let rows: Vec<i64> = scene.rows.iter().map(|row| row.id.seq).collect();
    assert_eq!(proof, rows[1..], "the delivery and the rejection");
}

#[test]
fn a_rejection_is_undone_when_the_same_queue_delivers_again_and_that_is_acked() {
    let (mut scene, delivery) = delivered();
    scene.settle(delivery, Outcome::Rejected, 0.135);
    let again = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 2.0);
    scene.settle(again, Outcome::Acked, 2.1);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn another_queues_copy_undoes_no_rejection() {
    let (mut scene, delivery) = delivered();
    scene.settle(delivery, Outcome::Rejected, 0.135);
    let copy = scene.deliver("mailer", "OrderPlaced-1", "mailer.orders", 0.2);
    scene.settle(copy, Outcome::Auto, 0.2);
    assert_eq!(scene.judge().state, State::Broken);
}

#[test]
fn what_the_dead_letter_queue_delivers_and_is_acked_undoes_the_rejection() {
    let (mut scene, delivery) = delivered();
    scene.settle(delivery, Outcome::Rejected, 0.135);
    let later = scene.deliver("hospital", "OrderPlaced-1", "factory.dead", 5.0);
    assert_eq!(scene.judge().state, State::Running.max(State::Unknown), "hospital has no agent");
    scene.settle(later, Outcome::Acked, 5.1);
    assert_eq!(scene.judge().state, State::Healthy);
}

/// The queue gives up to a retry queue that gives back after ten seconds.
fn retry() -> Scene {
    let mut scene = Scene::new();
    scene.exchange("retry", "fanout");
    scene.queue("factory.orders", json!({"x-dead-letter-exchange": "retry"}));
    scene.queue(
        "factory.retry",
        json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "factory.orders",
               "x-message-ttl": 10_000}),
    );
    scene.bind("retry", "", "factory.retry");
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene
}

#[test]
fn a_rejection_that_leads_back_is_running_until_it_should_have_come() {
    let mut scene = retry();
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(delivery, Outcome::Rejected, 0.2);
    scene.now = 12.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 61.0;
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Late);
    assert_eq!(verdict.finding.unwrap().since, at(10.2));
}

#[test]
fn an_earlier_death_in_this_queue_shows_a_retry_that_no_argument_tells_of() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(first, Outcome::Rejected, 0.2);
    let second = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 1.0);
    scene.rows[second].details =
        json!({"death": {"queue": "factory.orders", "reason": "rejected", "count": 1}});
    scene.settle(second, Outcome::Rejected, 1.1);
    scene.now = 10.0;
    assert_eq!(scene.judge().state, State::Running);
}

#[test]
fn a_message_put_into_the_dead_letter_queue_after_its_last_retry_is_broken_with_the_count() {
    let mut scene = retry();
    // Rejected three times; the fourth time the service itself puts it into the dead-letter queue.
    for attempt in 0..3 {
        let start = f64::from(attempt) * 10.0;
        let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", start + 0.1);
        scene.rows[delivery].attempt = Some(attempt + 1);
        scene.settle(delivery, Outcome::Rejected, start + 0.2);
    }
    let last = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 30.1);
    scene.rows[last].attempt = Some(4);
    scene.publish_to("factory", "OrderPlaced-1", "", "factory.dead", 30.15);
    scene.settle(last, Outcome::Acked, 30.2);
    scene.expect(
        State::Broken,
        "rejected",
        Some("factory"),
        "factory gave up on OrderPlaced in attempt 4 and put it into queue factory.dead at \
         12:00:30.150, which nobody is seen to take from.",
    );
}

#[test]
fn the_delivery_limit_of_a_quorum_queue_ends_the_retries() {
    let mut scene = Scene::new();
    scene.queue("factory.orders", json!({"x-dead-letter-exchange": "dead", "x-delivery-limit": 2}));
    scene.publish("shop", "OrderPlaced-1", 0.0);
    for attempt in 1..=3 {
        let delivery =
            scene.deliver("factory", "OrderPlaced-1", "factory.orders", f64::from(attempt));
        scene.rows[delivery].attempt = Some(attempt);
        scene.rows[delivery].details = json!({"delivery_count": attempt - 1});
        scene.settle(delivery, Outcome::Requeued, f64::from(attempt) + 0.1);
    }
    scene.now = 7.0;
    assert_eq!(scene.judge().state, State::Running, "it may be delivered again");
    scene.now = 61.0;
    let verdict = scene.judge();
    assert_eq!((verdict.state, verdict.finding.unwrap().reason), (State::Broken, "rejected"));
    assert!(verdict.sentences[0].contains("in attempt 3; the queue allows 2"));
}

#[test]
fn a_refused_publish_is_broken_unless_it_was_taken_later() {
    let mut scene = Scene::new();
    let publish = scene.publish("shop", "OrderPlaced-1", 0.0);
    let answer = scene.conclude(publish, Kind::Confirm, Outcome::Refused, 0.01);
    scene.rows[answer].reason = Some("nack".to_owned());
    scene.expect(
        State::Broken,
        "refused",
        Some("shop"),
        "shop published OrderPlaced to exchange orders at 12:00:00.000 and the broker refused it (nack).",
    );
    let again = scene.publish("shop", "OrderPlaced-1", 1.0);
    scene.conclude(again, Kind::Confirm, Outcome::Confirmed, 1.01);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 1.1);
    scene.settle(delivery, Outcome::Acked, 1.2);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn a_transaction_that_was_rolled_back_is_broken_unless_it_ran_again() {
    let mut scene = Scene::new();
    let publish = scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.rows[publish].broker_txn = Some("1/1/1".to_owned());
    scene.now = 30.0;
    assert_eq!(scene.judge().state, State::Running, "its end was not seen");
    let mut end = scene.row(Kind::Transaction, "shop", 0.1);
    end.broker_txn = Some("1/1/1".to_owned());
    end.outcome = Some(Outcome::Aborted);
    scene.rows.push(end.clone());
    let verdict = scene.judge();
    assert_eq!((verdict.state, verdict.finding.unwrap().reason), (State::Broken, "aborted"));
    let again = scene.publish("shop", "OrderPlaced-1", 1.0);
    scene.rows[again].broker_txn = Some("1/1/2".to_owned());
    end.id.seq += 100;
    end.broker_txn = Some("1/1/2".to_owned());
    end.outcome = Some(Outcome::Committed);
    end.at = at(1.1);
    scene.rows.push(end);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 1.2);
    scene.settle(delivery, Outcome::Acked, 1.3);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn unroutable_is_broken_where_messages_went_through_before_and_names_nobody() {
    let mut scene = Scene::new();
    let publish = scene.publish_to("shop", "ColourChosen-1", "colours", "red", 0.0);
    scene.conclude(publish, Kind::Return, Outcome::Unroutable, 0.01);
    scene.conclude(publish, Kind::Confirm, Outcome::Confirmed, 0.02);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Healthy);
    assert_eq!(verdict.notes, ["nobody listens at exchange colours, key red"]);

    scene.world.learn_route(&broker(), "colours", "red", at(-10.0));
    scene.expect(
        State::Broken,
        "unroutable",
        None,
        "shop published ColourChosen to exchange colours, key red at 12:00:00.000, and no queue \
         took it. Before, messages went through there.",
    );
    assert_eq!(scene.judge().headline, "BROKEN at exchange colours, key red");

    // Another key went through: that says nothing of this one.
    let mut other = Scene::new();
    let publish = other.publish_to("shop", "ColourChosen-1", "colours", "blue", 0.0);
    other.conclude(publish, Kind::Return, Outcome::Unroutable, 0.01);
    other.world.learn_route(&broker(), "colours", "red", at(-10.0));
    assert_eq!(other.judge().state, State::Healthy);
}

#[test]
fn a_message_that_came_out_was_routed_whatever_the_broker_said() {
    let (mut scene, delivery) = delivered();
    scene.world.learn_route(&broker(), "orders", "", at(-10.0));
    scene.conclude(0, Kind::Return, Outcome::Unroutable, 0.01);
    scene.settle(delivery, Outcome::Acked, 0.2);
    assert_eq!(scene.judge().state, State::Healthy);
}
