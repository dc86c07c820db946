//! What the views show of Kafka.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, row};
use flowtap_record::{Kind, Micros, Observation, Outcome, RowRef, Seq};
use serde_json::json;

/// A row about offset `offset` of partition 0 of the topic `orders`.
fn kafka(kind: Kind, at: i64, group: Option<&'static str>, offset: i64) -> Observation<'static> {
    let mut row = row(kind, at);
    row.place.system = Some("kafka");
    row.place.vhost = None;
    row.place.destination = Some("orders");
    row.place.partition = Some(0);
    row.place.log_offset = Some(offset);
    row.place.subscription = group;
    row
}

fn concluding(mut row: Observation<'static>, seq: i64, outcome: Outcome) -> Observation<'static> {
    row.concludes = Some(RowRef { boot: None, seq: Seq(seq) });
    row.outcome = Some(outcome);
    row
}

fn died(at: i64) -> Observation<'static> {
    let mut row = row(Kind::Gap, at);
    row.reason = Some("agent_died");
    row.concludes = Some(RowRef { boot: Some(BOOT_1), seq: Seq(9) });
    row
}

const CONSUMES: &str = "SELECT coalesce(subscription, '-') || ' ' || log_offset AS what, outcome, \
    reason, settled_at FROM consumes ORDER BY what, at";

#[tokio::test]
async fn a_publish_takes_message_and_place_from_its_confirm() {
    let inbox = Inbox::new();
    let mut publish = kafka(Kind::Publish, NOON, None, 0);
    publish.place.log_offset = None;
    publish.session.broker_txn = Some("7/0/1");
    let mut confirm = concluding(kafka(Kind::Confirm, NOON + 5, None, 41), 1, Outcome::Confirmed);
    confirm.message.message = Some("c/orders/0/41");
    confirm.broker_at = Some(Micros(NOON + 3));
    let mut aborted = row(Kind::Transaction, NOON + 9);
    aborted.session.broker_txn = Some("7/0/1");
    aborted.outcome = Some(Outcome::Aborted);
    let mut refused = concluding(kafka(Kind::Confirm, NOON + 8, None, 0), 4, Outcome::Refused);
    refused.place.log_offset = None;
    refused.reason = Some("NOT_ENOUGH_REPLICAS");
    let mut second = publish.clone();
    second.at = Micros(NOON + 7);
    second.session.broker_txn = None;
    inbox.put("a", BOOT_1, 1, &[publish, confirm, aborted, second, refused]);
    let answer = inbox
        .ask(
            "SELECT message, cluster_key, partition, log_offset, outcome, reason, broker_at, \
             transaction_outcome FROM publishes ORDER BY at",
        )
        .await;
    assert_eq!(
        answer,
        json!([
            { "message": "c/orders/0/41", "cluster_key": "c/orders/0/41", "partition": 0,
              "log_offset": 41, "outcome": "confirmed", "reason": null,
              "broker_at": "2026-11-21T12:00:00.000003Z", "transaction_outcome": "aborted" },
            { "message": null, "cluster_key": null, "partition": 0, "log_offset": null,
              "outcome": "refused", "reason": "NOT_ENOUGH_REPLICAS", "broker_at": null,
              "transaction_outcome": null },
        ])
    );
}

#[tokio::test]
async fn each_group_settles_for_itself_and_no_group_settles_nothing() {
    let inbox = Inbox::new();
    let deliver = |group| kafka(Kind::Deliver, NOON, group, 7);
    let settle = |seq, at, outcome| {
        let mut row = concluding(kafka(Kind::Settle, at, Some("billing"), 7), seq, outcome);
        row.session.took_us = Some(at - NOON);
        row
    };
    inbox.put(
        "a",
        BOOT_1,
        1,
        &[
            deliver(Some("billing")),
            deliver(Some("other")),
            deliver(None),
            settle(1, NOON + SECOND, Outcome::Committed),
        ],
    );
    assert_eq!(
        inbox.ask(CONSUMES).await,
        json!([
            { "what": "- 7", "outcome": null, "reason": null, "settled_at": null },
            { "what": "billing 7", "outcome": "committed", "reason": null,
              "settled_at": "2026-11-21T12:00:01Z" },
            { "what": "other 7", "outcome": null, "reason": null, "settled_at": null },
        ])
    );
}

#[tokio::test]
async fn a_delivery_without_a_settle_is_committed_once_its_group_is_seen_past_it() {
    let inbox = Inbox::new();
    let deliver = |at, group, offset| kafka(Kind::Deliver, at, Some(group), offset);
    inbox.put(
        "a",
        BOOT_1,
        1,
        &[
            deliver(NOON, "billing", 7),
            deliver(NOON, "billing", 8),
            deliver(NOON, "other", 7),
            // It was set back and took 7 once more.
            deliver(NOON + 20 * SECOND, "billing", 7),
        ],
    );
    let position = |at, offset| kafka(Kind::Position, at, Some("billing"), offset);
    let mut elsewhere = position(NOON + SECOND, 99);
    elsewhere.place.cluster = Some("two");
    inbox.put(
        "b",
        BOOT_1,
        1,
        &[position(NOON + 2 * SECOND, 8), position(NOON + 3 * SECOND, 7), elsewhere],
    );
    let open = json!({ "outcome": null, "reason": null, "settled_at": null });
    let with = |what: &str, base: &serde_json::Value| {
        let mut row = base.clone();
        row["what"] = what.into();
        row
    };
    let committed = json!({ "outcome": "committed", "reason": null, "settled_at": null });
    assert_eq!(
        inbox.ask(CONSUMES).await,
        json!([
            with("billing 7", &committed),
            with("billing 7", &open),
            with("billing 8", &open),
            with("other 7", &open),
        ])
    );
    // What the group did not pass before the agent died is unknown.
    inbox.put("a", BOOT_2, 1, &[died(NOON + 30 * SECOND)]);
    let unknown = json!({ "outcome": "unknown", "reason": "agent_died", "settled_at": null });
    assert_eq!(
        inbox.ask(CONSUMES).await,
        json!([
            with("billing 7", &committed),
            with("billing 7", &unknown),
            with("billing 8", &unknown),
            with("other 7", &unknown),
        ])
    );
}

#[tokio::test]
async fn a_position_counts_from_the_delivery_on_but_another_agents_clock_may_be_behind() {
    let inbox = Inbox::new();
    let deliver = kafka(Kind::Deliver, NOON + 4 * SECOND, Some("billing"), 7);
    inbox.put("a", BOOT_1, 1, &[deliver, kafka(Kind::Position, NOON, Some("billing"), 8)]);
    let outcomes = "SELECT outcome FROM consumes";
    assert_eq!(inbox.ask(outcomes).await, json!([{ "outcome": null }]));
    inbox.put("b", BOOT_1, 1, &[kafka(Kind::Position, NOON, Some("billing"), 8)]);
    assert_eq!(inbox.ask(outcomes).await, json!([{ "outcome": "committed" }]));
}

#[tokio::test]
async fn positions_say_how_far_a_group_went() {
    let inbox = Inbox::new();
    let mut forward = kafka(Kind::Position, NOON, Some("billing"), 8);
    forward.details = Some(r#"{"from":3}"#);
    let mut back = kafka(Kind::Position, NOON + SECOND, Some("billing"), 1);
    back.details = Some(r#"{"from":8}"#);
    let first = kafka(Kind::Position, NOON - SECOND, Some("billing"), 3);
    inbox.put("a", BOOT_1, 1, &[forward, back, first]);
    assert_eq!(
        inbox
            .ask(
                "SELECT subscription, destination, partition, log_offset_before, log_offset, moved \
                 FROM positions ORDER BY at"
            )
            .await,
        json!([
            { "subscription": "billing", "destination": "orders", "partition": 0,
              "log_offset_before": null, "log_offset": 3, "moved": null },
            { "subscription": "billing", "destination": "orders", "partition": 0,
              "log_offset_before": 3, "log_offset": 8, "moved": 5 },
            { "subscription": "billing", "destination": "orders", "partition": 0,
              "log_offset_before": 8, "log_offset": 1, "moved": -7 },
        ])
    );
}
