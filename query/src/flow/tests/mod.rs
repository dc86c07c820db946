//! The rules, each by a few rows made by hand.
#![allow(clippy::unwrap_used, reason = "tests")]

mod absence;
mod again;
mod brokers;
mod kafka;
mod kafka_groups;
mod refusal;
mod shape;
mod sight;

use std::collections::{BTreeMap, HashMap};

use flowtap_record::{AgentState, AgentStatus, Kind, Micros, Outcome, SpoolStatus};
use serde_json::{Value, json};

use super::{Coverage, Flow, Gap, Habits, Known, Row, RowId, Said, State, Verdict, World, judge};

/// 2026-11-21T12:00:00Z.
const NOON: i64 = 1_795_262_400_000_000;
const SECOND: i64 = 1_000_000;

/// A small system and what was seen of one flow in it. Times are seconds after noon.
struct Scene {
    rows: Vec<Row>,
    world: World,
    agents: Vec<Said>,
    gaps: Vec<Gap>,
    habits: Habits,
    seq: i64,
    now: f64,
    truncated: bool,
}

fn at(seconds: f64) -> Micros {
    Micros(NOON + (seconds * SECOND as f64) as i64)
}

impl Scene {
    /// Shop publishes to the fanout exchange `orders`, factory takes from the queue
    /// `factory.orders`, which gives up to `factory.dead`. All agents report up to one minute.
    fn new() -> Self {
        let mut scene = Self {
            rows: Vec::new(),
            world: World::default(),
            agents: Vec::new(),
            gaps: Vec::new(),
            habits: Habits::default(),
            seq: 0,
            now: 61.0,
            truncated: false,
        };
        scene.agent("shop", 60.0);
        scene.agent("factory", 60.0);
        scene.exchange("orders", "fanout");
        scene.exchange("dead", "fanout");
        scene.queue("factory.orders", json!({"x-dead-letter-exchange": "dead"}));
        scene.queue("factory.dead", json!({}));
        scene.bind("orders", "", "factory.orders");
        scene.bind("dead", "", "factory.dead");
        scene.consumer("factory", "factory.orders");
        scene
    }

    fn row(&mut self, kind: Kind, service: &str, seconds: f64) -> Row {
        self.seq += 1;
        let mut row = Row::new(kind, at(seconds));
        row.agent = format!("agent-{service}");
        let (agent, boot) = (row.agent.clone(), format!("boot-{service}"));
        row.id = RowId { agent, boot, seq: self.seq };
        row.service = Some(service.to_owned());
        row.system = Some("rabbitmq".to_owned());
        row.cluster = Some("one".to_owned());
        row.vhost = Some("/".to_owned());
        row
    }

    fn agent(&mut self, service: &str, watermark: f64) -> &mut Said {
        let status = AgentStatus {
            version: String::new(),
            schema: String::new(),
            agent: format!("agent-{service}"),
            boot: format!("boot-{service}"),
            service: service.to_owned(),
            instance: service.to_owned(),
            state: AgentState::Running,
            started_at: at(-600.0),
            at: at(watermark),
            period_s: 5,
            watermark: at(watermark),
            tables: BTreeMap::new(),
            taps: Vec::new(),
            spool: SpoolStatus::default(),
            clock: None,
        };
        self.agents.push(Said { status, put_at: None, watermark: None });
        self.agents.last_mut().unwrap()
    }

    fn of(&mut self, service: &str) -> &mut AgentStatus {
        &mut self.agents.iter_mut().find(|it| it.status.service == service).unwrap().status
    }

    fn learn(&mut self, kind: Kind, outcome: Outcome, fill: impl FnOnce(&mut Row)) {
        let mut row = self.row(kind, "factory", -60.0);
        row.connection = Some(1);
        row.outcome = Some(outcome);
        fill(&mut row);
        self.world.learn(&row);
    }

    fn exchange(&mut self, name: &str, kind: &str) {
        self.learn(Kind::Topology, Outcome::Declared, |row| {
            row.destination = Some(name.to_owned());
            row.details = json!({"what": "exchange", "type": kind, "arguments": {}});
        });
    }

    fn queue(&mut self, name: &str, arguments: impl Into<Value>) {
        let arguments: Value = arguments.into();
        self.learn(Kind::Topology, Outcome::Declared, |row| {
            row.subscription = Some(name.to_owned());
            row.details = json!({"what": "queue", "arguments": arguments});
        });
    }

    fn bind(&mut self, exchange: &str, key: &str, queue: &str) {
        self.learn(Kind::Topology, Outcome::Bound, |row| {
            row.destination = Some(exchange.to_owned());
            row.routing_key = Some(key.to_owned());
            row.subscription = Some(queue.to_owned());
            row.details = json!({"what": "binding", "arguments": {}});
        });
    }

    fn consumer(&mut self, service: &str, queue: &str) {
        let mut row = self.row(Kind::Session, service, -60.0);
        row.outcome = Some(Outcome::Opened);
        row.subscription = Some(queue.to_owned());
        row.consumer = Some("c".to_owned());
        row.details = json!({"what": "consumer"});
        self.world.learn(&row);
    }

    fn publish(&mut self, service: &str, event: &str, seconds: f64) -> usize {
        self.publish_to(service, event, "orders", "", seconds)
    }

    fn publish_to(
        &mut self,
        service: &str,
        event: &str,
        exchange: &str,
        key: &str,
        seconds: f64,
    ) -> usize {
        let mut row = self.row(Kind::Publish, service, seconds);
        row.destination = Some(exchange.to_owned());
        row.routing_key = Some(key.to_owned());
        row.details = json!({"mandatory": "set"});
        self.message(row, event)
    }

    fn message(&mut self, mut row: Row, event: &str) -> usize {
        row.event_id = Some(event.to_owned());
        row.event_type = Some(event.split('-').next().unwrap().to_owned());
        row.transaction_id = Some("t".to_owned());
        row.message = Some(format!("f-{event}"));
        self.rows.push(row);
        self.rows.len() - 1
    }

    /// A row that concludes another.
    fn conclude(&mut self, row: usize, kind: Kind, outcome: Outcome, seconds: f64) -> usize {
        self.seq += 1;
        let mut end = self.rows[row].clone();
        end.concludes = Some(end.id.clone());
        end.id.seq = self.seq;
        end.kind = kind;
        end.outcome = Some(outcome);
        end.at = at(seconds);
        end.details = Value::Null;
        self.rows.push(end);
        self.rows.len() - 1
    }

    fn deliver(&mut self, service: &str, event: &str, queue: &str, seconds: f64) -> usize {
        let mut row = self.row(Kind::Deliver, service, seconds);
        row.destination = Some("orders".to_owned());
        row.routing_key = Some(String::new());
        row.subscription = Some(queue.to_owned());
        self.message(row, event)
    }

    fn settle(&mut self, deliver: usize, outcome: Outcome, seconds: f64) {
        self.conclude(deliver, Kind::Settle, outcome, seconds);
    }

    fn flow(&self) -> (Flow, Coverage) {
        let mut coverage = Coverage::new(self.agents.clone(), self.gaps.clone(), at(self.now));
        coverage.learn_closed(|boot| self.world.last_closed(boot));
        let mut flow = Flow::assemble(self.rows.clone(), &coverage, &self.world.groups);
        flow.truncated = self.truncated;
        (flow, coverage)
    }

    fn judge(&self) -> Verdict {
        let (flow, coverage) = self.flow();
        judge(
            &flow,
            &Known {
                world: &self.world,
                coverage: &coverage,
                habits: &self.habits,
                now: at(self.now),
                patience_us: 5 * SECOND,
            },
        )
    }

    /// State, reason, service named, first sentence.
    fn expect(&self, state: State, reason: &str, service: Option<&str>, sentence: &str) {
        let verdict = self.judge();
        let finding = verdict.finding.as_ref();
        let got = finding.map_or("", |finding| finding.reason);
        assert_eq!((verdict.state, got), (state, reason), "{verdict:#?}");
        assert_eq!(finding.and_then(|it| it.service.as_deref()), service, "{verdict:#?}");
        assert_eq!(verdict.sentences.join(" "), sentence);
    }
}

#[test]
fn boots_that_died_leave_their_open_deliveries_unknown() {
    let mut scene = Scene::new();
    scene.publish("shop", "OrderPlaced-1", 0.0);
    scene.deliver("factory", "OrderPlaced-1", "factory.orders", 0.1);
    scene.of("factory").state = AgentState::Died;
    let verdict = scene.judge();
    assert_eq!(verdict.state, State::Unknown);
    assert_eq!(verdict.headline, "UNKNOWN: left Flowtap's sight at queue factory.orders");
    assert_eq!(scene.flow().1.died, HashMap::from([("boot-factory".to_owned(), at(60.0))]));
}
