//! Who saw what, and what may be said where nobody did.

use flowtap_record::{AgentState, Kind, Micros, Outcome, TapStatus};
use serde_json::json;

use super::super::{Gap, Lost, State};
use super::{Scene, at};

impl Scene {
    /// Another start of a service's agent, with a spool of its own if `agent` is another.
    fn start(&mut self, service: &str, agent: &str, boot: &str, from: f64, to: f64) {
        let said = self.agents.iter().find(|it| it.status.service == service);
        let mut said = said.unwrap().clone();
        said.status.agent = agent.to_owned();
        said.status.boot = boot.to_owned();
        said.status.state = AgentState::Running;
        said.status.started_at = at(from);
        (said.status.watermark, said.status.at) = (at(to), at(to));
        self.agents.push(said);
    }

    /// Somebody takes from a queue behind this start of an agent.
    fn takes(&mut self, agent: &str, boot: &str, queue: &str, seconds: f64, outcome: Outcome) {
        let mut row = self.row(Kind::Session, "factory", seconds);
        (row.agent, row.id.agent, row.id.boot) = (agent.to_owned(), agent.to_owned(), boot.into());
        row.outcome = Some(outcome);
        row.subscription = Some(queue.to_owned());
        row.connection = Some(7);
        row.consumer = Some("c".to_owned());
        row.details = json!({"what": "consumer"});
        self.world.learn(&row);
    }

    fn learn_ends(&mut self) {
        let (_, coverage) = self.flow();
        self.world.learn_ends(&coverage.over);
    }
}

fn gap(connection: Option<i64>, from: f64, to: Option<f64>) -> Gap {
    Gap {
        agent: "agent-factory".to_owned(),
        boot: "boot-factory".to_owned(),
        connection,
        service: Some("factory".to_owned()),
        from: Some(at(from)),
        to: to.map(at),
        count: None,
        reason: None,
    }
}

#[test]
fn between_two_orderly_starts_of_an_agent_nobody_looked() {
    let mut scene = Scene::new();
    scene.of("factory").state = AgentState::Ended;
    scene.of("factory").watermark = at(-10.0);
    scene.start("factory", "agent-factory", "boot-2", 20.0, 60.0);
    scene.takes("agent-factory", "boot-2", "factory.orders", 21.0, Outcome::Opened);
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Unknown, "it may have been taken by then: {verdict:#?}");
    assert_eq!(verdict.finding.unwrap().service, None);
    scene.rows[0].at = at(25.0);
    assert_eq!(scene.judge().state, State::Late, "since then all is seen");
}

#[test]
fn a_gap_long_after_it_was_due_may_hold_the_delivery() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.gaps.push(gap(None, 40.0, Some(41.0)));
    assert_eq!(scene.judge().state, State::Unknown);
}

#[test]
fn a_silent_agent_that_was_replaced_blinds_only_until_then() {
    let mut scene = Scene::new();
    (scene.of("factory").at, scene.of("factory").watermark) = (at(-20.0), at(-20.0));
    scene.start("factory", "agent-new", "boot-new", -10.0, 60.0);
    scene.takes("agent-new", "boot-new", "factory.orders", -9.0, Outcome::Opened);
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.expect(
        State::Late,
        "waiting",
        Some("factory"),
        "OrderPlaced waits in queue factory.orders since 12:00:00.000. factory, which takes from it, \
         has not settled it.",
    );
    scene.rows[0].at = at(-15.0);
    assert_eq!(scene.judge().state, State::Unknown, "then neither of them looked");
}

#[test]
fn the_fleeting_queue_of_a_silent_agent_is_gone_once_that_is_replaced() {
    let mut scene = Scene::new();
    scene.learn(Kind::Topology, Outcome::Declared, |row| {
        row.subscription = Some("amq.gen-1".to_owned());
        row.details = json!({"what": "queue", "exclusive": true, "arguments": {}});
    });
    scene.bind("orders", "", "amq.gen-1");
    scene.takes("agent-factory", "boot-factory", "amq.gen-1", -30.0, Outcome::Opened);
    (scene.of("factory").at, scene.of("factory").watermark) = (at(-20.0), at(-20.0));
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.rows[delivery].agent = "agent-new".to_owned();
    scene.settle(delivery, Outcome::Acked, 0.2);
    scene.learn_ends();
    assert_eq!(scene.judge().state, State::Unknown, "nobody took its place");
    scene.start("factory", "agent-new", "boot-new", -10.0, 60.0);
    scene.learn_ends();
    assert_eq!(scene.judge().state, State::Healthy);
    // It was not gone after all.
    (scene.of("factory").at, scene.of("factory").watermark) = (at(60.0), at(60.0));
    scene.learn_ends();
    assert_eq!(scene.judge().state, State::Late, "the queue is there, and nobody took from it");
}

#[test]
fn a_service_that_no_longer_takes_through_its_live_sidecar_is_not_late() {
    let mut scene = Scene::new();
    scene.takes("agent-factory", "boot-factory", "factory.orders", -50.0, Outcome::Opened);
    let mut closed = scene.row(Kind::Session, "factory", -40.0);
    closed.outcome = Some(Outcome::Closed);
    closed.subscription = Some("factory.orders".to_owned());
    closed.consumer = Some("c".to_owned());
    closed.details = json!({"what": "consumer"});
    scene.world.learn(&closed);
    scene.takes("agent-factory", "boot-factory", "factory.orders", -5.0, Outcome::Closed);
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.now = 26.0;
    for service in ["shop", "factory"] {
        scene.of(service).watermark = at(20.0);
    }
    assert_eq!(scene.judge().state, State::Running, "it may be starting again");
    scene.now = 61.0;
    for service in ["shop", "factory"] {
        scene.of(service).watermark = at(60.0);
    }
    scene.expect(
        State::Unknown,
        "out_of_sight",
        None,
        "OrderPlaced waits in queue factory.orders since 12:00:00.000. Through its sidecar factory \
         does not take from it since 11:59:55.000: it is down, or talks to the broker directly.",
    );
    // Back, but too late to say where it was in between.
    scene.takes("agent-factory", "boot-factory", "factory.orders", 40.0, Outcome::Opened);
    assert_eq!(scene.judge().state, State::Unknown);
    scene.rows[0].at = at(45.0);
    assert_eq!(scene.judge().state, State::Late);
}

#[test]
fn a_sidecar_through_which_nothing_is_connected_any_more_is_silent_since() {
    let mut scene = Scene::new();
    let taps = |connections| {
        vec![TapStatus {
            kind: "amqp".to_owned(),
            listen: String::new(),
            broker: String::new(),
            bound: true,
            connections,
        }]
    };
    scene.of("factory").taps = taps(0);
    let silent = |scene: &Scene| -> Vec<(String, Micros)> {
        let (_, coverage) = scene.flow();
        let silent = coverage.silent();
        silent.iter().map(|it| (it.status.service.clone(), it.silent_since())).collect()
    };
    assert_eq!(silent(&scene), [], "nothing was connected yet");
    for (number, seconds) in [(1, 10.0), (2, 20.0)] {
        scene.learn(Kind::Session, Outcome::Closed, |row| {
            (row.at, row.connection) = (at(seconds), Some(number));
            row.details = json!({"what": "connection"});
        });
    }
    assert_eq!(silent(&scene), [("factory".to_owned(), at(20.0))]);
    assert_eq!(scene.flow().1.counts(), (1, 2));
    scene.of("factory").taps = taps(1);
    assert_eq!(silent(&scene), [], "it is back");
    scene.of("factory").taps = taps(0);
    scene.of("factory").at = at(49.0);
    assert_eq!(silent(&scene), [], "it may be starting again");
}

#[test]
fn a_gap_that_is_only_begun_lasts_until_its_end_is_told() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.gaps.push(gap(Some(3), -20.0, None));
    assert_eq!(scene.judge().state, State::Unknown, "who passes there may take from the queue");
    scene.gaps.push(gap(Some(4), -20.0, Some(-10.0)));
    assert_eq!(scene.judge().state, State::Unknown, "that is another connection's");
    scene.gaps.push(gap(Some(3), -20.0, Some(-10.0)));
    assert_eq!(scene.judge().state, State::Late);
}

#[test]
fn a_gap_that_is_only_begun_ends_with_the_start_of_its_agent() {
    let mut scene = Scene::new();
    scene.gaps.push(gap(Some(3), -20.0, None));
    scene.of("factory").state = AgentState::Ended;
    scene.of("factory").watermark = at(-10.0);
    scene.start("factory", "agent-factory", "boot-2", -9.0, 60.0);
    scene.takes("agent-factory", "boot-2", "factory.orders", -8.0, Outcome::Opened);
    scene.publish("shop", "OrderPlaced-1", 0.0);
    assert_eq!(scene.judge().state, State::Late);
}

#[test]
fn what_is_open_on_a_connection_that_turns_opaque_ends_out_of_sight() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.rows[delivery].connection = Some(3);
    scene.gaps.push(gap(Some(3), 0.2, None));
    scene.gaps.push(gap(Some(3), 0.2, Some(1.0)));
    scene.expect(
        State::Unknown,
        "out_of_sight",
        None,
        "factory received OrderPlaced from queue factory.orders at 12:00:00.100; its sidecar could \
         not follow the connection from then on.",
    );
    let (flow, _) = scene.flow();
    assert_eq!(flow.messages[0].handlings[0].lost.map(Lost::as_str), Some("out of sight"));
    // On another connection it can still be seen to end.
    scene.rows[delivery].connection = Some(5);
    assert_eq!(scene.judge().state, State::Late);
}

#[test]
fn a_flow_that_is_not_read_whole_is_not_judged() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let delivery = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.settle(delivery, Outcome::Rejected, 0.2);
    assert_eq!(scene.judge().state, State::Broken);
    scene.truncated = true;
    scene.expect(
        State::Unknown,
        "truncated",
        None,
        "The flow has more than the 3 records that are read of one: it is not judged.",
    );
    assert_eq!(scene.judge().messages[0].0, State::Unknown);
}
