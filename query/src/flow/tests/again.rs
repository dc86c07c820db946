//! What undoes a bad end, and what only looks like one: copies, retries, clocks that disagree.

use flowtap_record::{Kind, Outcome};
use serde_json::json;

use super::super::{Name, State};
use super::{Scene, at};

fn queue(scene: &mut Scene, name: &str) -> Name {
    let row = scene.row(Kind::Publish, "shop", 0.0);
    Name::new(&row.broker(), name)
}

/// Delivered to another instance of factory, whose agent stands on another machine.
fn elsewhere(scene: &mut Scene, seconds: f64) -> usize {
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", seconds);
    scene.rows[delivery].agent = "agent-other".to_owned();
    scene.rows[delivery].id.agent = "agent-other".to_owned();
    delivery
}

#[test]
fn a_good_end_on_a_machine_whose_clock_is_behind_undoes_what_was_handed_back() {
    for outcome in [Outcome::Requeued, Outcome::Rejected, Outcome::Abandoned] {
        let mut scene = Scene::new();
        scene.publish("shop", "OrderPlaced-1", 0.0);
        let good = elsewhere(&mut scene, 0.995);
        scene.settle(good, Outcome::Acked, 0.999);
        let bad = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.998);
        scene.settle(bad, outcome, 1.0);
        let verdict = scene.judge();
        assert_eq!(verdict.state, State::Healthy, "{outcome:?}: {verdict:#?}");
        assert_eq!(verdict.notes, [] as [&str; 0]);
    }
}

#[test]
fn a_second_copy_that_is_rejected_after_the_first_was_acknowledged_is_a_note() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(first, Outcome::Acked, 0.2);
    scene.publish("shop", "OrderPlaced-1", 10.0);
    let second = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 10.1);
    scene.settle(second, Outcome::Rejected, 10.2);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Healthy);
    assert_eq!(
        verdict.notes,
        ["OrderPlaced was acknowledged by factory at 12:00:00.200; of what queue factory.orders \
          delivered again at 12:00:10.100 that is not known"]
    );
    // Without an id it may be another message that looks the same.
    for row in &mut scene.rows {
        row.event_id = None;
    }
    assert_eq!(scene.judge().state, State::Broken);
}

#[test]
fn an_attempt_that_was_acknowledged_and_published_again_by_its_service_is_no_success() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.publish("factory", "OrderPlaced-1", 0.15);
    scene.settle(first, Outcome::Acked, 0.2);
    let second = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.3);
    scene.settle(second, Outcome::Rejected, 0.4);
    let verdict = scene.judge();
    assert_eq!((verdict.state, verdict.finding.unwrap().reason), (State::Broken, "rejected"));
}

#[test]
fn a_queue_that_gave_a_message_back_before_may_do_so_again() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(first, Outcome::Rejected, 0.2);
    let second = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 10.0);
    // All that is kept of its deaths is the newest.
    scene.rows[second].details = json!({"death": {"queue": "factory.retry", "reason": "expired"}});
    scene.settle(second, Outcome::Rejected, 10.1);
    scene.now = 20.0;
    assert_eq!(scene.judge().state, State::Running, "rejected here, later delivered here");

    let mut counted = Scene::new();
    counted.publish("shop", "OrderPlaced-1", 0.0);
    let only = counted.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    counted.settle(only, Outcome::Rejected, 0.2);
    counted.now = 10.0;
    counted.rows[only].attempt = Some(2);
    counted.rows[only].redelivered = Some(true);
    assert_eq!(counted.judge().state, State::Broken, "it was only handed back before");
    counted.rows[only].redelivered = Some(false);
    assert_eq!(counted.judge().state, State::Running, "the broker counts a death here");
}

#[test]
fn a_first_rejection_may_come_back_where_others_did() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(first, Outcome::Rejected, 0.2);
    scene.now = 10.0;
    assert_eq!(scene.judge().state, State::Broken);
    let orders = queue(&mut scene, "factory.orders");
    scene.world.learn_return(orders);
    assert_eq!(scene.judge().state, State::Running);
}

#[test]
fn what_is_given_up_to_an_exchange_without_known_queues_may_come_back_and_is_not_known_then() {
    for (exchange, bound) in [("nowhere", None), ("again", Some("factory.retry"))] {
        let mut scene = Scene::new();
        scene.exchange(exchange, "fanout");
        scene.queue("factory.orders", json!({"x-dead-letter-exchange": exchange}));
        if let Some(queue) = bound {
            scene.queue(queue, json!({}));
            scene.bind(exchange, "", queue);
        }
        scene.publish("shop", "OrderPlaced-1", 0.0);
        let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
        scene.settle(first, Outcome::Rejected, 0.2);
        scene.now = 30.0;
        assert_eq!(scene.judge().state, State::Running);
        scene.now = 70.0;
        let verdict = scene.judge();
        assert_eq!(verdict.state, State::Unknown);
        assert_eq!(verdict.finding.unwrap().service, None);
        assert_eq!(
            verdict.headline,
            format!("UNKNOWN: left Flowtap's sight at exchange {exchange}")
        );
    }
}

#[test]
fn attempts_that_the_broker_does_not_count_are_not_held_against_the_limit() {
    let mut scene = Scene::new();
    scene.queue("factory.orders", json!({"x-dead-letter-exchange": "dead", "x-delivery-limit": 2}));
    scene.publish("shop", "OrderPlaced-1", 0.0);
    for attempt in 1..=4 {
        let start = f64::from(attempt);
        let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", start);
        scene.rows[delivery].attempt = Some(attempt);
        scene.rows[delivery].details = json!({"delivery_count": 0});
        scene.settle(delivery, Outcome::Requeued, start + 0.1);
    }
    assert_eq!(scene.judge().state, State::Late, "it waits there");
}

#[test]
fn a_death_by_the_delivery_limit_proves_that_the_queue_gave_up() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 1.0);
    scene.settle(first, Outcome::Requeued, 1.1);
    let dead = scene.deliver("shop", "OrderPlaced-1", "factory.dead", 2.0);
    scene.rows[dead].details =
        json!({"death": {"queue": "factory.orders", "reason": "delivery_limit"}});
    scene.settle(dead, Outcome::Rejected, 2.1);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Broken);
    assert!(verdict.sentences[0].contains("more often than the queue allows"), "{verdict:#?}");
    scene.rows.truncate(4);
    scene.settle(dead, Outcome::Acked, 2.1);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn a_queue_for_dead_letters_by_arguments_alone_accuses_nobody() {
    let mut scene = Scene::new();
    scene.exchange("later", "fanout");
    scene.queue("factory.orders", json!({"x-dead-letter-exchange": "later"}));
    scene.queue("factory.parked", json!({}));
    scene.bind("later", "", "factory.parked");
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let last = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.rows[last].attempt = Some(4);
    scene.publish_to("factory", "OrderPlaced-1", "", "factory.parked", 0.15);
    scene.settle(last, Outcome::Acked, 0.2);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Unknown);
    assert_eq!(verdict.finding.unwrap().service, None);
    assert_eq!(verdict.sentences[1], "Nobody is seen to take from queue factory.parked.");
}

#[test]
fn a_refused_publish_is_running_while_its_client_may_send_it_again() {
    let mut scene = Scene::new();
    let publish = scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.conclude(publish, Kind::Confirm, Outcome::Refused, 0.01);
    scene.now = 4.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 61.0;
    assert_eq!(scene.judge().state, State::Broken);
}

#[test]
fn a_refused_or_aborted_publish_is_undone_by_one_like_it_with_a_new_id() {
    for outcome in [Outcome::Refused, Outcome::Aborted] {
        let mut scene = Scene::new();
        let publish = scene.publish("shop", "OrderPlaced-1", 0.0);
        if outcome == Outcome::Refused {
            scene.conclude(publish, Kind::Confirm, outcome, 0.1);
        } else {
            scene.rows[publish].broker_txn = Some("1/1/1".to_owned());
            let mut end = scene.row(Kind::Transaction, "shop", 0.1);
            (end.broker_txn, end.outcome) = (Some("1/1/1".to_owned()), Some(outcome));
            scene.rows.push(end);
        }
        // Another one that was on its way at the same time undoes nothing.
        let other = scene.publish("shop", "OrderPlaced-2", 0.05);
        let handled = scene.deliver("factory", "OrderPlaced-2", "factory.orders", 0.2);
        scene.settle(handled, Outcome::Acked, 0.3);
        assert_eq!(scene.judge().state, State::Broken, "{outcome:?}");
        scene.rows[other].at = at(0.15);
        let verdict = scene.judge();
        assert_eq!(verdict.state, State::Healthy, "{outcome:?}: {verdict:#?}");
        assert_eq!(
            verdict.notes,
            ["the broker did not take OrderPlaced of 12:00:00.000; one like it was published to \
              exchange orders afterwards"]
        );
        scene.rows[other].event_type = Some("OrderPaid".to_owned());
        for row in scene.rows.iter_mut().filter(|it| it.event_id == Some("OrderPlaced-2".into())) {
            row.event_type = Some("OrderPaid".to_owned());
        }
        assert_eq!(scene.judge().state, State::Broken, "{outcome:?}: that is another thing");
    }
}

#[test]
fn a_transaction_that_never_ends_is_late_and_unknown_once_its_agent_is_gone() {
    let mut scene = Scene::new();
    let publish = scene.publish("shop", "OrderPlaced-1", -10.0);
    scene.rows[publish].broker_txn = Some("1/1/1".to_owned());
    scene.now = 30.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 61.0;
    assert_eq!(scene.judge().state, State::Late);
    scene.of("shop").state = flowtap_record::AgentState::Died;
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Unknown);
    assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at exchange orders");
}

#[test]
fn a_commit_without_an_answer_is_not_taken_for_an_abort() {
    let mut scene = Scene::new();
    let publish = scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.rows[publish].broker_txn = Some("1/1/1".to_owned());
    let mut end = scene.row(Kind::Transaction, "shop", 0.1);
    end.broker_txn = Some("1/1/1".to_owned());
    scene.rows.push(end);
    scene.expect(
        State::Unknown,
        "in_transaction",
        None,
        "shop published OrderPlaced to exchange orders at 12:00:00.000 in a transaction that ended \
         at 12:00:00.100 without the broker's word on how.",
    );
}

#[test]
fn what_the_broker_did_not_confirm_is_not_said_to_wait_in_a_queue() {
    let mut scene = Scene::new();
    let publish = scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.rows[publish].confirm_expected = Some(true);
    scene.expect(
        State::Late,
        "unanswered",
        None,
        "shop published OrderPlaced to exchange orders at 12:00:00.000, and the broker has not taken \
         it since.",
    );
    scene.conclude(publish, Kind::Confirm, Outcome::Confirmed, 0.01);
    assert_eq!(scene.judge().headline, "LATE in queue factory.orders");
}
