//! Something did not come.

use flowtap_record::{AgentState, Kind, Outcome};
use serde_json::json;

use super::super::{Gap, State};
use super::{Scene, at};

#[test]
fn a_message_that_nobody_took_is_late_in_its_queue_when_everybody_looked() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.expect(
        State::Late,
        "waiting",
        Some("factory"),
        "OrderPlaced waits in queue factory.orders since 12:00:00.000. factory, which takes from it, \
         has not settled it.",
    );
    assert_eq!(scene.judge().headline, "LATE in queue factory.orders");
}

#[test]
fn before_its_time_or_before_the_agents_report_it_is_running() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.now = 4.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 61.0;
    scene.publish("shop", "OrderPlaced-2", 0.0);
    scene.of("factory").watermark = at(3.0);
    assert_eq!(scene.judge().state, State::Running);
}

#[test]
fn where_nobody_looked_it_left_our_sight() {
    for (state, silent) in [(AgentState::Ended, false), (AgentState::Running, true)] {
        let mut scene = Scene::new();
        scene.publish("shop", "OrderPlaced-1", 0.0);
        scene.of("factory").state = state;
        if silent {
            scene.of("factory").at = at(30.0);
        }
        let verdict = scene.judge();
        assert_eq!(verdict.state, State::Unknown);
        assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at queue factory.orders");
        assert_eq!(
            verdict.finding.unwrap().service,
            None,
            "a service without a sidecar is no culprit"
        );
    }
}

#[test]
fn a_gap_at_the_consumer_is_blindness() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.gaps.push(Gap {
        agent: "agent-factory".to_owned(),
        boot: "boot-factory".to_owned(),
        connection: None,
        service: Some("factory".to_owned()),
        from: Some(at(1.0)),
        to: Some(at(2.0)),
        count: None,
        reason: None,
    });
    assert_eq!(scene.judge().state, State::Unknown);
    scene.gaps[0].from = Some(at(-20.0));
    scene.gaps[0].to = Some(at(-10.0));
    assert_eq!(scene.judge().state, State::Late);
}

#[test]
fn one_of_two_consumers_without_sight_is_enough_not_to_know() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.consumer("painter", "factory.orders");
    assert_eq!(scene.judge().state, State::Unknown);
    scene.agent("painter", 60.0);
    scene.expect(
        State::Late,
        "waiting",
        None,
        "OrderPlaced waits in queue factory.orders since 12:00:00.000.",
    );
}

#[test]
fn with_the_publishers_sidecar_alone_it_leaves_our_sight_at_the_exchange() {
    let mut scene = Scene::new();
    scene.world = super::World::default();
    let publish = scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.conclude(publish, Kind::Confirm, Outcome::Confirmed, 0.01);
    let verdict = scene.judge();
    assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at exchange orders");
    assert_eq!(verdict.sentences[1], "The broker says that some queue took it.");
    assert_eq!(verdict.finding.unwrap().service, None);
}

#[test]
fn a_delivery_that_stays_open_is_late_at_the_service() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.expect(
        State::Late,
        "waiting",
        Some("factory"),
        "factory received OrderPlaced from queue factory.orders at 12:00:00.100 and has not settled \
         it since.",
    );
    scene.of("factory").watermark = at(3.0);
    assert_eq!(scene.judge().state, State::Running);
}

#[test]
fn an_abandoned_delivery_is_late_in_the_queue_until_it_is_delivered_again() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(first, Outcome::Abandoned, 1.0);
    let verdict = scene.judge();
    assert_eq!(
        (verdict.state, verdict.headline.as_str()),
        (State::Late, "LATE in queue factory.orders")
    );
    assert_eq!(verdict.finding.unwrap().reason, "abandoned");
    let again = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 2.0);
    scene.settle(again, Outcome::Acked, 2.1);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn a_requeued_message_is_running_and_later_late() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let first = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(first, Outcome::Requeued, 1.0);
    scene.now = 5.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 61.0;
    assert_eq!(scene.judge().state, State::Late);
}

#[test]
fn what_a_queue_took_with_it_is_not_waited_for() {
    let mut scene = Scene::new();
    scene.learn(Kind::Topology, Outcome::Declared, |row| {
        row.subscription = Some("amq.gen-1".to_owned());
        row.details = json!({"what": "queue", "exclusive": true, "arguments": {}});
    });
    scene.bind("orders", "", "amq.gen-1");
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(delivery, Outcome::Acked, 0.2);
    assert_eq!(scene.judge().state, State::Unknown, "nobody is known to take from it");
    scene.learn(Kind::Session, Outcome::Closed, |row| {
        row.at = at(0.5);
        row.details = json!({"what": "connection"});
    });
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Healthy);
    assert_eq!(verdict.notes, [] as [&str; 0]);
}

#[test]
fn a_step_after_which_something_usually_follows_is_running_and_named() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(delivery, Outcome::Acked, 0.2);
    assert_eq!(scene.judge().state, State::Healthy, "nothing is known of like ones");
    for _ in 0..20 {
        scene.habits.handled("factory", "OrderPlaced");
        scene.habits.followed("factory", "OrderPlaced");
    }
    scene.expect(
        State::Running,
        "nothing_followed",
        Some("factory"),
        "The last step is OrderPlaced: factory acknowledged it at 12:00:00.200, and nothing followed \
         yet. After 20 of 20 like ones factory published something.",
    );
    let next = scene.publish_to("factory", "CarBuilt-1", "cars", "", 0.15);
    scene.rows[next].causation_id = Some("OrderPlaced-1".to_owned());
    let verdict = scene.judge();
    assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at exchange cars");
}

#[test]
fn a_flow_is_running_until_a_quiet_time_is_seen_by_all() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(delivery, Outcome::Acked, 58.0);
    let verdict = scene.judge();
    assert_eq!(
        (verdict.state, verdict.headline.as_str()),
        (State::Running, "RUNNING last step OrderPlaced")
    );
}
