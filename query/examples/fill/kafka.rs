//! The part on Kafka: while a car is built, factory writes each of its states to the topic
//! `car-events`. showroom keeps a picture of all cars (group `showroom`), delivery-desk takes the last
//! state (group `delivery-desk`) and has the customer told over RabbitMQ. Most go well; of the newest
//! hundred orders some do not, each in another way.

use std::error::Error;

use flowtap_record::{Encoding, Field, Id, Kind, Micros, Observation, Outcome, RowRef, Seq};

use super::{Agent, Order};

/// Rows of one order that goes well.
pub(super) const ROWS: i64 = STATES.len() as i64 * 8 + 6;

const STATES: [&str; 4] = ["BodyWelded", "Painted", "BatteryFitted", "Finished"];
const FACTORY: usize = 3;
const NOTIFICATIONS: usize = 5;
const SHOWROOM: usize = 6;
const DESK: usize = 7;
const TOPIC: &str = "car-events";
const PARTITIONS: usize = 3;
const MEMBER: &str = "rdkafka-7f9d2a11-0001";

/// Next offset of each partition.
#[derive(Default)]
pub(super) struct Log {
    next: [i64; PARTITIONS],
}

/// What is wrong with an order.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// showroom never commits past the second state, nor takes what is behind it in the partition.
    Open,
    /// Behind such a one.
    Behind,
    /// The second state is rolled back.
    Aborted,
    /// The broker refuses the second state.
    Refused,
    /// showroom loses the partition, another member takes over.
    Rebalanced,
    /// showroom fails on the second state again and again.
    Loop,
    /// showroom puts the second state into a topic for what failed.
    Dead,
}

/// Of an order with `left` orders behind it.
fn fault(left: i64) -> Fault {
    match left {
        0 => Fault::Behind,
        2 => Fault::Loop,
        3 => Fault::Open,
        11 => Fault::Aborted,
        22 => Fault::Refused,
        33 => Fault::Rebalanced,
        44 => Fault::Dead,
        _ => Fault::None,
    }
}

fn on_kafka(kind: Kind, at: i64) -> Observation<'static> {
    let mut row = Observation::new(kind, Micros(at));
    row.place.system = Some("kafka");
    row.place.cluster = Some("edison-cars");
    row
}

pub(super) fn declare(agents: &mut [Agent], at: i64) -> Result<(), Box<dyn Error>> {
    let mut topic = on_kafka(Kind::Topology, at);
    topic.outcome = Some(Outcome::Declared);
    topic.place.destination = Some(TOPIC);
    topic.details =
        Some(r#"{"what":"topic","partitions":3,"arguments":{"cleanup.policy":"delete"}}"#);
    agents[FACTORY].write(topic)?;
    for (taker, group) in [(SHOWROOM, "showroom"), (DESK, "delivery-desk")] {
        let mut row = on_kafka(Kind::Session, at);
        row.outcome = Some(Outcome::Opened);
        row.place.subscription = Some(group);
        row.who.consumer = Some(MEMBER);
        row.details = Some(r#"{"what":"member"}"#);
        agents[taker].write(row.clone())?;
        row.details = Some(
            r#"{"what":"assignment","generation":1,"protocol":"range","assignment":{"car-events":[0,1,2]}}"#,
        );
        agents[taker].write(row)?;
    }
    let mut row = Observation::new(Kind::Topology, Micros(at));
    row.outcome = Some(Outcome::Declared);
    row.place.destination = Some("calls");
    row.details = Some(r#"{"what":"exchange","type":"fanout","arguments":{}}"#);
    agents[NOTIFICATIONS].write(row.clone())?;
    row.place.destination = None;
    row.place.subscription = Some("notifications.calls");
    row.details = Some(r#"{"what":"queue","arguments":{}}"#);
    agents[NOTIFICATIONS].write(row.clone())?;
    row.outcome = Some(Outcome::Bound);
    row.place.destination = Some("calls");
    row.place.routing_key = Some("");
    row.details = Some(r#"{"what":"binding","arguments":{}}"#);
    agents[NOTIFICATIONS].write(row.clone())?;
    row.kind = Kind::Session;
    row.outcome = Some(Outcome::Opened);
    row.place.destination = None;
    row.who.consumer = Some("c");
    row.details = Some(r#"{"what":"consumer"}"#);
    agents[NOTIFICATIONS].write(row)?;
    Ok(())
}

/// A state of a car as rows carry it.
struct State<'a> {
    order: &'a Order,
    step: usize,
    partition: usize,
    offset: i64,
    message: String,
}

impl<'a> State<'a> {
    fn new(order: &'a Order, step: usize, partition: usize, offset: i64) -> Self {
        let message = format!("edison-cars/{TOPIC}/{partition}/{offset}");
        Self { order, step, partition, offset, message }
    }

    /// A row that knows where the record lies.
    fn row(&self, kind: Kind, at: i64, group: Option<&'static str>) -> Observation<'_> {
        let id = |value| Some(Id { value, from: "header:ce_id" });
        let mut row = on_kafka(kind, at);
        row.place.destination = Some(TOPIC);
        row.place.subscription = group;
        row.place.partition = i32::try_from(self.partition).ok();
        row.place.log_offset = Some(self.offset);
        row.place.routing_key = Some(&self.order.car);
        row.message.message = Some(&self.message);
        row.message.ids.event_id = id(&self.order.states[self.step]);
        row.message.ids.event_type = id(STATES[self.step]);
        row.message.ids.transaction_id = id(&self.order.transaction);
        let cause = self.step.checked_sub(1).map(|cause| &self.order.states[cause]);
        row.message.ids.causation_id = id(cause.unwrap_or(&self.order.events[2]));
        row.message.ids.command = id("PlaceOrder");
        if matches!(kind, Kind::Publish | Kind::Deliver) {
            let key = |name, value| Field { name, value, encoding: Encoding::Text };
            row.message.keys =
                vec![key("order_id", &self.order.number), key("car_id", &self.order.car)];
            row.message.size = Some(96);
        }
        if group.is_some() {
            row.who.consumer = Some(MEMBER);
            row.session.redelivered = Some(false);
        }
        row
    }

    fn publish(&self, at: i64) -> Observation<'_> {
        let mut row = self.row(Kind::Publish, at, None);
        row.place.log_offset = None;
        row.message.message = None;
        row.session.confirm_expected = Some(true);
        row
    }
}

fn concluding<'a>(
    mut row: Observation<'a>,
    seq: i64,
    outcome: Outcome,
    reason: Option<&'a str>,
) -> Observation<'a> {
    row.concludes = Some(RowRef { boot: None, seq: Seq(seq) });
    row.outcome = Some(outcome);
    row.reason = reason;
    row
}

pub(super) fn order(
    agents: &mut [Agent],
    log: &mut Log,
    order: &Order,
    left: i64,
    start: i64,
) -> Result<(), Box<dyn Error>> {
    let partition = usize::try_from(left)? % PARTITIONS;
    for step in 0..STATES.len() {
        let fault = match (fault(left), step) {
            (Fault::Behind, _) | (Fault::Open | Fault::Loop, 2..) => Fault::Behind,
            (fault, 1) => fault,
            _ => Fault::None,
        };
        let at = start + 2_000 * i64::try_from(step)?;
        let state = State::new(order, step, partition, log.next[partition]);
        let mut publish = state.publish(at);
        if fault == Fault::Aborted {
            publish.session.broker_txn = Some("4001/0/7");
            publish.details = Some(r#"{"transactional_id":"factory-1"}"#);
        }
        let published = agents[FACTORY].write(publish)?;
        let mut confirm = state.row(Kind::Confirm, at + 900, None);
        if fault == Fault::Refused {
            confirm.place.log_offset = None;
            confirm.message.message = None;
            let why = Some("NOT_ENOUGH_REPLICAS");
            agents[FACTORY].write(concluding(confirm, published, Outcome::Refused, why))?;
            return Ok(());
        }
        agents[FACTORY].write(concluding(confirm, published, Outcome::Confirmed, None))?;
        log.next[partition] += 1;
        if fault == Fault::Aborted {
            let mut end = on_kafka(Kind::Transaction, at + 1_500);
            end.session.broker_txn = Some("4001/0/7");
            end.outcome = Some(Outcome::Aborted);
            end.details = Some(r#"{"transactional_id":"factory-1"}"#);
            agents[FACTORY].write(end)?;
            log.next[partition] += 1;
            return Ok(());
        }
        showroom(agents, &state, at, fault)?;
        if fault == Fault::Dead {
            return Ok(());
        }
        handled(&mut agents[DESK], &state, "delivery-desk", at + 1_200, at + 40_000)?;
    }
    call(agents, order, start + 12_000)
}

/// Delivered and committed.
fn handled(
    agent: &mut Agent,
    state: &State<'_>,
    group: &'static str,
    from: i64,
    to: i64,
) -> Result<(), Box<dyn Error>> {
    let delivered = agent.write(state.row(Kind::Deliver, from, Some(group)))?;
    let mut settle = state.row(Kind::Settle, to, Some(group));
    settle.session.took_us = Some(to - from);
    agent.write(concluding(settle, delivered, Outcome::Committed, None))?;
    Ok(())
}

fn showroom(
    agents: &mut [Agent],
    state: &State<'_>,
    at: i64,
    fault: Fault,
) -> Result<(), Box<dyn Error>> {
    let group = "showroom";
    match fault {
        Fault::Behind => {}
        Fault::Open => {
            agents[SHOWROOM].write(state.row(Kind::Deliver, at + 1_100, Some(group)))?;
        }
        Fault::Loop => {
            for time in 0..14 {
                let mut row = state.row(Kind::Deliver, at + 1_100 + time * 400_000, Some(group));
                row.session.redelivered = Some(time > 0);
                agents[SHOWROOM].write(row)?;
            }
        }
        Fault::Rebalanced => {
            let deliver = state.row(Kind::Deliver, at + 1_100, Some(group));
            let delivered = agents[SHOWROOM].write(deliver)?;
            let settle = state.row(Kind::Settle, at + 9_000, Some(group));
            let why = Some("partition revoked");
            agents[SHOWROOM].write(concluding(settle, delivered, Outcome::Abandoned, why))?;
            handled(&mut agents[SHOWROOM], state, group, at + 15_000, at + 30_000)?;
        }
        Fault::Dead => {
            let deliver = state.row(Kind::Deliver, at + 1_100, Some(group));
            let delivered = agents[SHOWROOM].write(deliver)?;
            let mut dead = state.publish(at + 3_000);
            dead.place.destination = Some("car-events.DLT");
            let published = agents[SHOWROOM].write(dead)?;
            let mut confirm = state.row(Kind::Confirm, at + 3_900, None);
            confirm.place.destination = Some("car-events.DLT");
            confirm.place.log_offset = Some(0);
            confirm.message.message = Some("edison-cars/car-events.DLT/0/0");
            agents[SHOWROOM].write(concluding(confirm, published, Outcome::Confirmed, None))?;
            let settle = state.row(Kind::Settle, at + 5_000, Some(group));
            agents[SHOWROOM].write(concluding(settle, delivered, Outcome::Committed, None))?;
        }
        Fault::None | Fault::Aborted | Fault::Refused => {
            handled(&mut agents[SHOWROOM], state, group, at + 1_100, at + 35_000)?;
        }
    }
    let mut position = on_kafka(Kind::Position, at + 35_100);
    position.place.destination = Some(TOPIC);
    position.place.subscription = Some(group);
    position.place.partition = i32::try_from(state.partition).ok();
    if !matches!(fault, Fault::Open | Fault::Loop | Fault::Behind) {
        position.place.log_offset = Some(state.offset + 1);
        agents[SHOWROOM].write(position)?;
    }
    Ok(())
}

/// The desk has the customer told, over RabbitMQ.
fn call(agents: &mut [Agent], order: &Order, at: i64) -> Result<(), Box<dyn Error>> {
    let id = |value| Some(Id { value, from: "header:cloudEvents:id" });
    let row = |kind, at| {
        let mut row = Observation::new(kind, Micros(at));
        row.place.destination = Some("calls");
        row.place.routing_key = Some("");
        row.message.message = Some(&order.states[7]);
        row.message.ids.event_id = id(&order.states[7]);
        row.message.ids.event_type = id("DeliveryOffered");
        row.message.ids.transaction_id = id(&order.transaction);
        row.message.ids.causation_id = id(&order.states[3]);
        row.message.ids.command = id("PlaceOrder");
        row
    };
    let published = agents[DESK].write(row(Kind::Publish, at))?;
    let confirm = concluding(row(Kind::Confirm, at + 600), published, Outcome::Confirmed, None);
    agents[DESK].write(confirm)?;
    let mut deliver = row(Kind::Deliver, at + 900);
    deliver.place.subscription = Some("notifications.calls");
    let delivered = agents[NOTIFICATIONS].write(deliver)?;
    let mut settle = row(Kind::Settle, at + 4_000);
    settle.place.subscription = Some("notifications.calls");
    settle.session.took_us = Some(3_100);
    agents[NOTIFICATIONS].write(concluding(settle, delivered, Outcome::Acked, None))?;
    Ok(())
}
