//! An inbox with flows of many kinds, and everything that a user sees of a store.

use std::collections::BTreeMap;
use std::time::Duration;

use flowtap_query::answer::{Answers, Filter};
use flowtap_query::api::types::State;
use flowtap_record::path::{self, HISTORY};
use flowtap_record::{
    AgentState, AgentStatus, Encoding, Field, Kind, Micros, Observation, Outcome, RowRef, Seq,
    SpoolStatus, TableStatus,
};
use serde_json::{Value, json};

use super::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, id, row};

pub(crate) const MINUTE: i64 = 60 * SECOND;

/// What a user sees, by what was asked.
pub(crate) type Picture = BTreeMap<String, Value>;

pub(crate) async fn look(answers: &Answers) {
    answers.catalog().refresh(Duration::ZERO, flowtap_query::answer::now()).await.unwrap();
}

/// A message of a flow, or of none.
pub(crate) fn of(
    kind: Kind,
    at: i64,
    event: &'static str,
    flow: Option<&'static str>,
) -> Observation<'static> {
    let mut row = row(kind, at);
    row.who.service = Some("shop");
    row.place.destination = Some("orders");
    row.place.routing_key = Some("");
    row.message.ids.event_id = id(event);
    row.message.ids.event_type = id("Ordered");
    row.message.message = Some(event);
    row.message.ids.transaction_id = flow.and_then(id);
    row
}

pub(crate) fn delivered(
    at: i64,
    event: &'static str,
    flow: Option<&'static str>,
) -> Observation<'static> {
    let mut row = of(Kind::Deliver, at, event, flow);
    row.place.subscription = Some("shop.orders");
    row.session.redelivered = Some(false);
    row
}

/// A row without any id that concludes another.
pub(crate) fn ends(kind: Kind, at: i64, seq: i64, outcome: Outcome) -> Observation<'static> {
    let mut row = row(kind, at);
    row.who.service = Some("shop");
    row.place.subscription = (kind == Kind::Settle).then_some("shop.orders");
    row.concludes = Some(RowRef { boot: None, seq: Seq(seq) });
    row.outcome = Some(outcome);
    row
}

pub(crate) fn text(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

pub(crate) fn says(inbox: &Inbox, agent: &str, boot: &str, service: &str) {
    let tables = [(HISTORY.to_owned(), TableStatus { last_seq: 9, uploaded_seq: 9 })];
    let status = AgentStatus {
        version: "1".into(),
        schema: "1".into(),
        agent: agent.into(),
        boot: boot.into(),
        service: service.into(),
        instance: "i".into(),
        state: AgentState::Running,
        started_at: Micros(NOON - MINUTE),
        at: Micros(NOON + MINUTE),
        period_s: 60,
        watermark: Micros(NOON),
        tables: tables.into(),
        taps: Vec::new(),
        spool: SpoolStatus::default(),
        clock: None,
    };
    let file = inbox.folder.path().join(path::status(agent, boot));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, serde_json::to_vec(&status).unwrap()).unwrap();
}

/// What the catalog can be asked for: flows of many kinds, over two days.
pub(crate) fn busy() -> Inbox {
    let inbox = cars();
    // Messages without a transaction id that hang together, in two boots.
    let mut second = of(Kind::Publish, NOON + 3 * MINUTE + 5, "l-2", None);
    second.message.ids.causation_id = id("l-1");
    inbox.put("loose-a1", BOOT_1, 1, &[of(Kind::Publish, NOON + 3 * MINUTE, "l-1", None), second]);
    let mut third = of(Kind::Publish, NOON + 3 * MINUTE + 30, "l-3", None);
    third.message.ids.causation_id = id("l-2");
    inbox.put("loose-b1", BOOT_2, 1, &[delivered(NOON + 3 * MINUTE + 20, "l-2", None), third]);
    // Rejections without ids: in the object of the delivery, and in the next one.
    inbox.put(
        "bare-a1",
        BOOT_1,
        1,
        &[
            delivered(NOON + 4 * MINUTE, "b-1", Some("same")),
            ends(Kind::Settle, NOON + 4 * MINUTE + 9, 1, Outcome::Rejected),
            delivered(NOON + 4 * MINUTE + 20, "b-2", Some("next")),
        ],
    );
    inbox.put(
        "bare-a1",
        BOOT_1,
        4,
        &[ends(Kind::Settle, NOON + 4 * MINUTE + 30, 3, Outcome::Rejected)],
    );
    // A broker transaction that is rolled back in the next object.
    let mut published = of(Kind::Publish, NOON + 5 * MINUTE, "t-1", Some("rolled-back"));
    published.session.broker_txn = Some("1/1/1");
    inbox.put("txn-a1", BOOT_1, 1, &[published]);
    let mut aborted = row(Kind::Transaction, NOON + 5 * MINUTE + 50);
    aborted.session.broker_txn = Some("1/1/1");
    aborted.outcome = Some(Outcome::Aborted);
    inbox.put("txn-a1", BOOT_1, 2, &[aborted]);
    habits(&inbox);
    kafka(&inbox);
    for (agent, service) in [("shop-a1", "shop"), ("factory-b2", "factory"), ("many-a1", "shop")] {
        says(&inbox, agent, BOOT_1, service);
    }
    inbox
}

/// Enough like handlings to tell what usually follows, over midnight.
fn habits(inbox: &Inbox) {
    let mut rows = Vec::new();
    for n in 0..30_i64 {
        let (event, follow) = (text(format!("h-{n}")), text(format!("f-{n}")));
        let flow = Some(text(format!("many-{n}")));
        let at = NOON + 12 * 60 * MINUTE - 15 * MINUTE + n * MINUTE;
        let mut received = delivered(at, event, flow);
        received.message.keys =
            vec![Field { name: "customer", value: "42", encoding: Encoding::Text }];
        let mut followed = of(Kind::Publish, at + 20, follow, flow);
        followed.message.ids.causation_id = id(event);
        let mut acked = ends(Kind::Settle, at + 30, 3 * n + 1, Outcome::Acked);
        acked.message.ids.event_id = id(event);
        acked.message.ids.transaction_id = flow.and_then(id);
        rows.extend([received, followed, acked]);
    }
    for (n, rows) in (0_i64..).zip(rows.chunks(20)) {
        inbox.put("many-a1", BOOT_1, n * 20 + 1, rows);
    }
}

/// A group that reads a topic, and how far it came.
fn kafka(inbox: &Inbox) {
    let on_kafka = |mut row: Observation<'static>| {
        row.place.system = Some("kafka");
        row.place.cluster = Some("k");
        row.place.vhost = None;
        row.place.destination = Some("paid");
        row.place.partition = Some(0);
        row
    };
    let in_group = |mut row: Observation<'static>, offset| {
        row.place.subscription = Some("billing");
        row.who.service = Some("billing");
        row.who.consumer = Some("m-1");
        row.place.log_offset = Some(offset);
        row
    };
    let at = NOON + 6 * MINUTE;
    let mut joined = in_group(on_kafka(row(Kind::Session, at)), 0);
    joined.outcome = Some(Outcome::Opened);
    joined.details = Some(r#"{"what":"member"}"#);
    let mut rows = vec![joined];
    for n in 0..6_i64 {
        let (event, flow) = (text(format!("k-{n}")), Some(text(format!("kafka-{}", n % 3))));
        let at = at + n * SECOND;
        let mut published = on_kafka(of(Kind::Publish, at, event, flow));
        published.place.log_offset = Some(n);
        rows.push(published);
        rows.push(in_group(on_kafka(of(Kind::Deliver, at + 100, event, flow)), n));
        rows.push(in_group(on_kafka(row(Kind::Position, at + 200)), n + 1));
    }
    for (n, rows) in (0_i64..).zip(rows.chunks(5)) {
        inbox.put("kafka-a1", BOOT_1, n * 5 + 1, rows);
    }
}

/// Everything that a user sees, but for the time of looking.
pub(crate) async fn picture(answers: &Answers) -> Picture {
    look(answers).await;
    let mut seen = BTreeMap::new();
    let mut see = |what: String, value: Value| {
        seen.insert(what, without_time(value));
    };
    let filter = Filter { limit: Some(200), ..Filter::default() };
    let list = answers.flows(&filter).await.unwrap();
    let ids: Vec<String> = list.flows.iter().map(|flow| flow.flow.clone()).collect();
    see("flows".to_owned(), serde_json::to_value(&list).unwrap());
    for state in [State::Broken, State::Suspect, State::Unknown] {
        let filter = Filter { states: vec![state], ..filter.clone() };
        let list = answers.flows(&filter).await.unwrap();
        see(format!("{state:?}"), serde_json::to_value(&list).unwrap());
    }
    for id in &ids {
        let flow = answers.flow(id).await.unwrap();
        see(format!("flow {id}"), serde_json::to_value(&flow).unwrap());
    }
    for id in ["1042", "42", "e-1", "l-3", "b-2", "order-1044", "h-7", "nobody"] {
        see(format!("why {id}"), serde_json::to_value(answers.why(id).await.unwrap()).unwrap());
    }
    see("agents".to_owned(), serde_json::to_value(answers.agents().await.unwrap()).unwrap());
    let map = answers.catalog().map(i64::MIN, i64::MAX);
    let map: Vec<String> = map.into_iter().map(|(key, sum)| format!("{key:?} {sum:?}")).collect();
    see("map".to_owned(), json!(map));
    let mut gaps = answers.catalog().snapshot().coverage.gaps.clone();
    gaps.sort_by_key(|gap| format!("{gap:?}"));
    see("gaps".to_owned(), json!(format!("{gaps:?}")));
    see("missing".to_owned(), json!(format!("{:?}", answers.catalog().snapshot().missing)));
    see("rows".to_owned(), json!(answers.catalog().marks().rows));
    seen
}

pub(crate) fn without_time(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| name != "read_at" && name != "last_seen")
            .map(|(name, value)| (name, without_time(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_time).collect(),
        other => other,
    }
}

pub(crate) fn assert_same(want: &Picture, got: &Picture, state: &str) {
    for (what, want) in want {
        let got = got.get(what).unwrap_or(&Value::Null);
        assert_eq!(want, got, "{state}: {what}");
    }
    assert_eq!(want.len(), got.len(), "{state}");
}
