//! Kafka: what a producer hands to a topic, and flows that go from RabbitMQ to Kafka and back.

use flowtap_record::{AgentState, Kind, Outcome};
use serde_json::{Value, json};

use super::super::{Row, State};
use super::{Scene, at};

/// Topic `cars` with two partitions, read by service and group `showroom`.
pub(super) fn cars() -> Scene {
    let mut scene = Scene::new();
    scene.agent("showroom", 60.0);
    scene.topic("cars", "delete");
    scene.assigned("showroom", "showroom", "m-1", &json!({"cars": [0, 1]}), -60.0);
    scene
}

impl Scene {
    fn on_kafka(&mut self, kind: Kind, service: &str, seconds: f64) -> Row {
        let mut row = self.row(kind, service, seconds);
        row.system = Some("kafka".to_owned());
        row.vhost = None;
        row
    }

    pub(super) fn topic(&mut self, topic: &str, cleanup: &str) {
        let mut row = self.on_kafka(Kind::Topology, "factory", -60.0);
        row.outcome = Some(Outcome::Declared);
        row.destination = Some(topic.to_owned());
        row.details = json!({"what": "topic", "arguments": {"cleanup.policy": cleanup}});
        self.world.learn(&row);
    }

    pub(super) fn assigned(
        &mut self,
        service: &str,
        group: &str,
        member: &str,
        to: &Value,
        seconds: f64,
    ) {
        for what in ["member", "assignment"] {
            let mut row = self.on_kafka(Kind::Session, service, seconds);
            row.outcome = Some(Outcome::Opened);
            row.subscription = Some(group.to_owned());
            row.consumer = Some(member.to_owned());
            row.details = json!({"what": what, "generation": 1});
            if what == "assignment" {
                row.details["assignment"] = to.clone();
            }
            self.world.learn(&row);
        }
    }

    pub(super) fn left(&mut self, service: &str, group: &str, member: &str, seconds: f64) {
        let mut row = self.on_kafka(Kind::Session, service, seconds);
        row.outcome = Some(Outcome::Closed);
        row.subscription = Some(group.to_owned());
        row.consumer = Some(member.to_owned());
        row.details = json!({"what": "member"});
        self.world.learn(&row);
    }

    /// The group stands at `offset` of partition 1 of `cars`.
    pub(super) fn position(&mut self, service: &str, group: &str, offset: i64, seconds: f64) {
        let mut row = self.on_kafka(Kind::Position, service, seconds);
        row.destination = Some("cars".to_owned());
        row.subscription = Some(group.to_owned());
        row.partition = Some(1);
        row.log_offset = Some(offset);
        self.world.learn(&row);
    }

    /// Handed to partition 1 of a topic; no answer yet.
    pub(super) fn produce_to(
        &mut self,
        service: &str,
        event: &str,
        topic: &str,
        seconds: f64,
    ) -> usize {
        let mut row = self.on_kafka(Kind::Publish, service, seconds);
        row.destination = Some(topic.to_owned());
        row.partition = Some(1);
        row.confirm_expected = Some(true);
        let index = self.message(row, event);
        self.rows[index].message = None;
        index
    }

    pub(super) fn confirm(&mut self, publish: usize, offset: i64, seconds: f64) {
        let confirm = self.conclude(publish, Kind::Confirm, Outcome::Confirmed, seconds);
        let row = &mut self.rows[confirm];
        row.log_offset = Some(offset);
        row.message = Some(format!("one/{}/1/{offset}", row.destination.as_ref().unwrap()));
    }

    /// Published to partition 1 of `cars` and confirmed at `offset`.
    pub(super) fn produce(
        &mut self,
        service: &str,
        event: &str,
        offset: i64,
        seconds: f64,
    ) -> usize {
        let publish = self.produce_to(service, event, "cars", seconds);
        self.confirm(publish, offset, seconds + 0.01);
        publish
    }

    /// Handed from partition 1 of `cars` to a member of a group.
    pub(super) fn read(
        &mut self,
        service: &str,
        event: &str,
        group: Option<&str>,
        offset: i64,
        seconds: f64,
    ) -> usize {
        let mut row = self.on_kafka(Kind::Deliver, service, seconds);
        row.destination = Some("cars".to_owned());
        row.subscription = group.map(str::to_owned);
        row.partition = Some(1);
        row.log_offset = Some(offset);
        row.consumer = Some("m-1".to_owned());
        let index = self.message(row, event);
        self.rows[index].message = Some(format!("one/cars/1/{offset}"));
        self.world.learn_delivery(&self.rows[index].clone());
        index
    }

    fn in_transaction(&mut self, row: usize, name: &str) {
        self.rows[row].broker_txn = Some(name.to_owned());
    }

    fn ends(&mut self, service: &str, name: &str, outcome: Outcome, seconds: f64) {
        let mut row = self.on_kafka(Kind::Transaction, service, seconds);
        row.broker_txn = Some(name.to_owned());
        row.outcome = Some(outcome);
        row.details = json!({"what": "transaction", "transactional_id": "factory-1"});
        self.rows.push(row);
    }
}

#[test]
fn a_publish_and_its_deliveries_are_one_message_by_the_place_that_the_confirm_tells() {
    let mut scene = cars();
    let publish = scene.produce("factory", "Painted-1", 57, 0.0);
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.005);
    scene.settle(read, Outcome::Committed, 1.0);
    // Not even the ids agree: the place in the log does. Another one is another message.
    for row in [publish, publish + 1] {
        scene.rows[row].event_id = None;
    }
    scene.read("showroom", "Painted-2", Some("showroom"), 58, 0.006);
    let (flow, _) = scene.flow();
    assert_eq!(flow.messages.len(), 2);
    let message = &flow.messages[0];
    assert_eq!((message.publishes.len(), message.handlings.len(), message.rows.len()), (1, 1, 4));
    let publish = flow.published(0).unwrap();
    assert_eq!((publish.partition, publish.log_offset), (Some(1), Some(57)));
    assert_eq!(publish.message.as_deref(), Some("one/cars/1/57"));
}

#[test]
fn what_a_group_committed_past_is_healthy() {
    let mut scene = cars();
    scene.produce("factory", "Painted-1", 57, 0.0);
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    scene.settle(read, Outcome::Committed, 5.0);
    assert_eq!(scene.judge().state, State::Healthy);
}

#[test]
fn a_topic_that_nobody_reads_is_no_fault() {
    let mut scene = Scene::new();
    scene.produce("factory", "Painted-1", 57, 0.0);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Healthy, "{verdict:#?}");
    assert_eq!(verdict.notes, ["nobody is seen to read topic cars"]);
}

#[test]
fn readers_without_a_group_take_and_settle_nothing() {
    let mut scene = Scene::new();
    scene.produce("factory", "Painted-1", 57, 0.0);
    scene.read("showroom", "Painted-1", None, 57, 0.1);
    let verdict = scene.judge();
    assert_eq!((verdict.state, verdict.notes.len()), (State::Healthy, 0), "{verdict:#?}");
}

#[test]
fn a_refusal_may_be_sent_again_and_is_broken_when_it_is_not() {
    let mut scene = cars();
    let publish = scene.produce_to("factory", "Painted-1", "cars", 0.0);
    let refused = scene.conclude(publish, Kind::Confirm, Outcome::Refused, 0.2);
    scene.rows[refused].reason = Some("NOT_ENOUGH_REPLICAS".to_owned());
    scene.now = 4.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 61.0;
    scene.expect(
        State::Broken,
        "refused",
        Some("factory"),
        "factory published Painted to topic cars, partition 1 at 12:00:00.000 and the broker \
         refused it (NOT_ENOUGH_REPLICAS).",
    );
    scene.produce("factory", "Painted-1", 57, 0.5);
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.6);
    scene.settle(read, Outcome::Committed, 1.0);
    assert_eq!(scene.judge().state, State::Healthy, "sent again and taken");
}

#[test]
fn an_aborted_transaction_is_broken_unless_it_ran_again() {
    let mut scene = cars();
    let publish = scene.produce("factory", "Painted-1", 57, 0.0);
    scene.in_transaction(publish, "7/0/1");
    scene.ends("factory", "7/0/1", Outcome::Aborted, 0.3);
    scene.expect(
        State::Broken,
        "aborted",
        Some("factory"),
        "factory published Painted to topic cars, partition 1, offset 57 at 12:00:00.000 in a \
         transaction (factory-1) that was aborted, and not again.",
    );
    let proof = scene.judge().finding.unwrap().evidence;
    assert_eq!(proof.last().unwrap().text, "12:00:00.300 the transaction was aborted");
    // It ran again: another message of the same type, cause and key.
    let again = scene.produce("factory", "Painted-2", 59, 1.0);
    scene.in_transaction(again, "7/0/2");
    scene.ends("factory", "7/0/2", Outcome::Committed, 1.3);
    let read = scene.read("showroom", "Painted-2", Some("showroom"), 59, 1.4);
    scene.settle(read, Outcome::Committed, 2.0);
    assert_eq!(scene.judge().state, State::Healthy);
    // Of another cause it is something else.
    scene.rows[again].causation_id = Some("Built-1".to_owned());
    assert_eq!(scene.judge().state, State::Broken);
}

#[test]
fn what_readers_of_uncommitted_data_took_breaks_nothing() {
    let mut scene = cars();
    let publish = scene.produce("factory", "Painted-1", 57, 0.0);
    scene.in_transaction(publish, "7/0/1");
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    scene.settle(read, Outcome::Committed, 1.0);
    scene.ends("factory", "7/0/1", Outcome::Aborted, 0.3);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Healthy, "{verdict:#?}");
    assert!(verdict.notes[0].starts_with("the transaction of Painted was aborted"));
}

#[test]
fn a_transaction_that_does_not_end_is_running_and_late_after_a_minute() {
    let mut scene = cars();
    let publish = scene.produce("factory", "Painted-1", 57, 0.0);
    scene.in_transaction(publish, "7/0/1");
    scene.now = 59.0;
    assert_eq!(scene.judge().state, State::Running);
    scene.now = 70.0;
    for service in ["shop", "factory", "showroom"] {
        scene.of(service).watermark = at(70.0);
        scene.of(service).at = at(70.0);
    }
    scene.expect(
        State::Late,
        "in_transaction",
        Some("factory"),
        "factory published Painted to topic cars, partition 1, offset 57 at 12:00:00.000 in a \
         transaction that has not ended since.",
    );
    scene.ends("factory", "7/0/1", Outcome::Committed, 65.0);
    // From then on readers should get it.
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Late);
    assert_eq!(verdict.finding.unwrap().since, at(65.0));
}

#[test]
fn a_transaction_that_was_open_while_its_sidecar_started_again_is_unknown() {
    let mut scene = cars();
    let publish = scene.produce("factory", "Painted-1", 57, 0.0);
    scene.in_transaction(publish, "7/0/1");
    scene.now = 70.0;
    for service in ["shop", "factory", "showroom"] {
        scene.of(service).watermark = at(70.0);
        scene.of(service).at = at(70.0);
    }
    assert_eq!(scene.judge().state, State::Late);
    // The start that saw the publish ended in order; the next one sees everything.
    let mut before = scene.agents.iter().find(|it| it.status.service == "factory").unwrap().clone();
    before.status.state = AgentState::Ended;
    before.status.watermark = at(30.0);
    before.status.started_at = at(-600.0);
    scene.of("factory").boot = "next".to_owned();
    scene.of("factory").started_at = at(30.0);
    scene.agents.push(before);
    scene.expect(
        State::Unknown,
        "in_transaction",
        None,
        "factory published Painted to topic cars, partition 1, offset 57 at 12:00:00.000 in a \
         transaction; its end was not seen. The sidecar of factory was started again since.",
    );
}

#[test]
fn an_answer_that_does_not_come_is_late_where_its_agent_looked() {
    let mut scene = cars();
    scene.produce_to("factory", "Painted-1", "cars", 0.0);
    scene.expect(
        State::Late,
        "unanswered",
        None,
        "factory published Painted to topic cars, partition 1 at 12:00:00.000, and the broker has \
         not taken it since.",
    );
    scene.of("factory").watermark = at(3.0);
    assert_eq!(scene.judge().state, State::Running);
}

#[test]
fn without_an_answer_and_an_id_nothing_is_claimed() {
    let mut scene = cars();
    let publish = scene.produce_to("factory", "Painted-1", "cars", 0.0);
    scene.rows[publish].confirm_expected = Some(false);
    assert_eq!(scene.judge().state, State::Late, "by its id it would be seen to come out");
    scene.rows[publish].event_id = None;
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Healthy);
    assert_eq!(
        verdict.notes,
        ["where Painted lies in topic cars is not known: its producer asked for no answer"]
    );
}

#[test]
fn what_its_service_puts_into_a_dead_letter_topic_is_broken() {
    let mut scene = cars();
    scene.produce("factory", "Painted-1", 57, 0.0);
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.1);
    let dead = scene.produce_to("showroom", "Painted-1", "cars.DLT", 0.2);
    scene.confirm(dead, 3, 0.21);
    scene.settle(read, Outcome::Committed, 0.3);
    scene.expect(
        State::Broken,
        "rejected",
        Some("showroom"),
        "showroom gave up on Painted from topic cars, partition 1, offset 57 in group showroom and \
         put it into topic cars.DLT at 12:00:00.200, which nobody is seen to read.",
    );
    for row in &mut scene.rows {
        if row.destination.as_deref() == Some("cars.DLT") {
            row.destination = Some("painted-cars".to_owned());
        }
    }
    assert_eq!(scene.judge().state, State::Healthy, "a topic of another name is none for the dead");
}

#[test]
fn a_flow_goes_from_rabbitmq_to_kafka_and_back() {
    let mut scene = cars();
    scene.agent("desk", 60.0);
    scene.queue("desk.calls", json!({}));
    scene.bind("calls", "", "desk.calls");
    scene.exchange("calls", "fanout");
    scene.consumer("desk", "desk.calls");
    scene.publish("shop", "OrderPlaced-1", 0.0);
    let built = scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    let painted = scene.produce("factory", "Painted-1", 57, 0.2);
    scene.rows[painted].causation_id = Some("OrderPlaced-1".to_owned());
    scene.settle(built, Outcome::Acked, 0.3);
    let read = scene.read("showroom", "Painted-1", Some("showroom"), 57, 0.4);
    let call = scene.publish_to("showroom", "CallCustomer-1", "calls", "", 0.5);
    scene.settle(read, Outcome::Committed, 5.0);
    let called = scene.deliver("desk", "CallCustomer-1", "desk.calls", 0.6);
    scene.settle(called, Outcome::Acked, 0.7);
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Healthy, "{verdict:#?}");
    let (flow, _) = scene.flow();
    assert_eq!(flow.messages.len(), 3);
    let edges: Vec<(usize, usize)> = flow.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    assert_eq!(edges, [(0, 1), (1, 2)]);
    scene.rows.truncate(call + 1);
    scene.settle(read, Outcome::Committed, 5.0);
    assert_eq!(scene.judge().headline, "LATE in queue desk.calls");
}

#[test]
fn within_one_transaction_the_offset_that_it_committed_is_the_cause() {
    let mut scene = cars();
    for (event, offset) in [("Built-1", 50), ("Built-2", 51)] {
        let read = scene.read("painter", event, Some("painter"), offset, 0.0);
        scene.settle(read, Outcome::Committed, 0.3);
        let settle = scene.rows.len() - 1;
        scene.rows[settle].broker_txn = Some(format!("7/0/{offset}"));
    }
    let painted = scene.produce("painter", "Painted-1", 57, 0.2);
    scene.in_transaction(painted, "7/0/51");
    let (flow, _) = scene.flow();
    let edges: Vec<(usize, usize)> = flow.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    assert_eq!(edges, [(1, 2)]);
}
