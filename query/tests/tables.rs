//! What `history` and its views show of an inbox.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, row};
use flowtap_query::store::Store;
use flowtap_query::tables::{Limits, context};
use flowtap_record::{Kind, Micros, Observation, Outcome, RowRef, Seq, footer};
use serde_json::{Value, json};

type Pairs = Vec<(&'static str, String)>;

fn publishes(count: i64) -> Vec<Observation<'static>> {
    (0..count).map(|i| row(Kind::Publish, NOON + i * SECOND)).collect()
}

#[tokio::test]
async fn publishes_carry_the_brokers_answer() {
    let answer = cars()
        .ask("SELECT event_id, outcome, reason, confirm_us, returned_at, at FROM publishes ORDER BY at")
        .await;
    assert_eq!(
        answer,
        json!([
            { "event_id": "e-1", "outcome": "confirmed", "reason": null, "confirm_us": 900,
              "returned_at": null, "at": "2026-11-21T12:00:00Z" },
            { "event_id": "e-2", "outcome": "unroutable", "reason": "312 NO_ROUTE", "confirm_us": 800,
              "returned_at": "2026-11-21T12:00:01.000400Z", "at": "2026-11-21T12:00:01Z" },
            { "event_id": "e-3", "outcome": "refused", "reason": "nack", "confirm_us": 700,
              "returned_at": null, "at": "2026-11-21T12:00:02Z" },
            { "event_id": "e-4", "outcome": null, "reason": null, "confirm_us": null,
              "returned_at": null, "at": "2026-11-21T12:00:03Z" },
        ])
    );
}

#[tokio::test]
async fn consumes_carry_their_end_and_are_unknown_when_the_agent_died() {
    let answer = cars()
        .ask("SELECT event_id, boot, outcome, reason, took_us FROM consumes ORDER BY at")
        .await;
    assert_eq!(
        answer,
        json!([
            { "event_id": "e-1", "boot": BOOT_1, "outcome": "rejected", "reason": null, "took_us": 35000 },
            { "event_id": "e-4", "boot": BOOT_1, "outcome": "unknown", "reason": "agent_died", "took_us": null },
            { "event_id": "e-5", "boot": BOOT_2, "outcome": null, "reason": null, "took_us": null },
        ])
    );
}

#[tokio::test]
async fn deliveries_open_when_their_connection_turns_opaque_are_unknown() {
    let inbox = Inbox::new();
    let deliver = |seconds: i64, connection: i64, event: &'static str| {
        let mut deliver = row(Kind::Deliver, NOON + seconds * SECOND);
        deliver.who.connection = Some(connection);
        deliver.message.ids.event_id = common::id(event);
        deliver
    };
    let mut settled = row(Kind::Settle, NOON + 2 * SECOND);
    settled.concludes = Some(RowRef { boot: None, seq: Seq(1) });
    settled.outcome = Some(Outcome::Acked);
    let opaque = |to: Option<i64>| {
        let mut opaque = row(Kind::Gap, NOON + 10 * SECOND);
        opaque.who.connection = Some(3);
        opaque.gap.from = Some(Micros(NOON + 10 * SECOND));
        opaque.gap.to = to.map(Micros);
        opaque
    };
    let rows = [
        deliver(0, 3, "settled"),
        settled,
        deliver(1, 3, "open"),
        deliver(1, 4, "elsewhere"),
        opaque(None),
        opaque(Some(NOON + 20 * SECOND)),
    ];
    inbox.put("factory-b2", BOOT_1, 1, &rows);
    let answer = inbox.ask("SELECT event_id, outcome, reason FROM consumes ORDER BY seq").await;
    assert_eq!(
        answer,
        json!([
            { "event_id": "settled", "outcome": "acked", "reason": null },
            { "event_id": "open", "outcome": "unknown", "reason": "out of sight" },
            { "event_id": "elsewhere", "outcome": null, "reason": null },
        ])
    );
}

#[tokio::test]
async fn topology_says_what_and_gaps_say_when_and_why() {
    let cars = cars();
    assert_eq!(
        cars.ask("SELECT what, outcome, subscription, arguments, bound_to FROM topology").await,
        json!([{ "what": "queue", "outcome": "declared", "subscription": "factory.payments",
                 "arguments": "{\"x-max-length\":10}", "bound_to": null }])
    );
    assert_eq!(
        cars.ask(
            "SELECT agent, service, reason, gap_from, gap_to, gap_count, ref_seq, object FROM gaps"
        )
        .await,
        json!([{ "agent": "factory-b2", "service": "factory", "reason": "agent_died",
                 "gap_from": "2026-11-21T12:00:05Z", "gap_to": "2026-11-21T12:00:09Z",
                 "gap_count": null, "ref_seq": 3, "object": null }])
    );
}

#[tokio::test]
async fn day_and_cluster_key_follow_the_rule_of_the_contract() {
    let inbox = Inbox::new();
    let mut by_trace = row(Kind::Publish, 0);
    by_trace.message.ids.trace_id = common::id("t");
    by_trace.message.message = Some("m");
    let mut by_message = row(Kind::Publish, NOON + 12 * 3600 * SECOND);
    by_message.message.message = Some("m");
    let mut by_transaction = by_trace.clone();
    by_transaction.at.0 = i64::MAX / 4;
    by_transaction.message.ids.transaction_id = common::id("x");
    inbox.put("a", BOOT_1, 1, &[by_trace, by_message, by_transaction, row(Kind::Publish, NOON)]);
    // Clamped to seven days before and one day after the upload at noon.
    assert_eq!(
        inbox.ask("SELECT seq, day, cluster_key FROM history ORDER BY seq").await,
        json!([
            { "seq": 1, "day": "2026-11-14", "cluster_key": "t" },
            { "seq": 2, "day": "2026-11-22", "cluster_key": "m" },
            { "seq": 3, "day": "2026-11-22", "cluster_key": "x" },
            { "seq": 4, "day": "2026-11-21", "cluster_key": null },
        ])
    );
    assert_eq!(
        inbox.ask("SELECT count(*) AS n FROM history WHERE day = '2026-11-22'").await,
        json!([{ "n": 2 }])
    );
}

#[tokio::test]
async fn rows_of_overlapping_objects_are_seen_once_and_the_earlier_range_keeps_them() {
    let inbox = Inbox::new();
    inbox.put("a", BOOT_1, 1, &publishes(10));
    inbox.put("a", BOOT_1, 8, &publishes(5));
    inbox.put("a", BOOT_1, 3, &publishes(2));
    inbox.put("a", BOOT_2, 1, &publishes(3));
    inbox.put("b", BOOT_1, 1, &publishes(3));
    assert_eq!(
        inbox
            .ask(
                "SELECT agent, boot, count(*) AS n, count(DISTINCT seq) AS seqs, max(seq) AS last \
                  FROM history GROUP BY agent, boot ORDER BY agent, boot"
            )
            .await,
        json!([
            { "agent": "a", "boot": BOOT_1, "n": 12, "seqs": 12, "last": 12 },
            { "agent": "a", "boot": BOOT_2, "n": 3, "seqs": 3, "last": 3 },
            { "agent": "b", "boot": BOOT_1, "n": 3, "seqs": 3, "last": 3 },
        ])
    );
}

#[tokio::test]
async fn an_object_that_lies_or_cannot_be_read_is_left_out_and_is_a_gap() {
    let inbox = Inbox::new();
    inbox.put("honest", BOOT_1, 1, &publishes(2));
    let lie = |agent: &str, change: &dyn Fn(&mut Pairs)| {
        let name = Inbox::name(agent, BOOT_1, 1, 2);
        let mut pairs = Inbox::footer(&name);
        change(&mut pairs);
        inbox.put_as(&name, &pairs, agent, BOOT_1, 1, &publishes(2));
    };
    let set = |key: &'static str, value: &'static str| {
        move |pairs: &mut Pairs| {
            pairs.retain(|(found, _)| *found != key);
            pairs.push((key, value.to_owned()));
        }
    };
    lie("l1-agent", &set(footer::AGENT, "honest"));
    lie("l2-boot", &set(footer::BOOT, BOOT_2));
    lie("l3-range", &set(footer::LAST, "3"));
    lie("l4-schema", &set(footer::SCHEMA, "99"));
    lie("l5-uploaded", &|pairs| pairs.retain(|(key, _)| *key != footer::UPLOADED_AT));
    let name = Inbox::name("m1-rows", BOOT_1, 1, 2);
    inbox.put_as(&name, &Inbox::footer(&name), "honest", BOOT_1, 1, &publishes(2));
    let name = Inbox::name("m2-seqs", BOOT_1, 1, 2);
    inbox.put_as(&name, &Inbox::footer(&name), "m2-seqs", BOOT_1, 2, &publishes(2));
    let torn = inbox.put("n1-torn", BOOT_1, 1, &publishes(2));
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let empty = inbox.put("n2-empty", BOOT_1, 1, &publishes(2));
    std::fs::write(&empty, b"").unwrap();
    let unnamed = inbox.folder.path().join("inbox/history/honest/notes.txt");
    std::fs::write(unnamed, b"hello").unwrap();

    assert_eq!(
        inbox.ask("SELECT agent, count(*) AS n FROM history GROUP BY agent").await,
        json!([{ "agent": "honest", "n": 2 }])
    );
    let gaps = inbox
        .ask("SELECT agent, reason, gap_count, details, object FROM gaps ORDER BY agent")
        .await;
    let told: Vec<String> = gaps
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| {
            assert_eq!((&gap["reason"], &gap["gap_count"]), (&json!("object_refused"), &json!(2)));
            assert!(gap["object"].as_str().unwrap().starts_with("inbox/history/"));
            format!("{}: {}", gap["agent"].as_str().unwrap(), gap["details"].as_str().unwrap())
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    l1-agent: its footer says flowtap.agent = "honest", expected "l1-agent"
    l2-boot: its footer says flowtap.boot = "01940000-0000-7000-8000-000000000002", expected "01940000-0000-7000-8000-000000000001"
    l3-range: its footer says flowtap.last = "3", expected "2"
    l4-schema: its schema is 99.0, this Flowtap reads 1.x only
    l5-uploaded: its footer has no flowtap.uploaded_at
    m1-rows: it holds rows of agent "honest"
    m2-seqs: it holds rows 2 to 3, outside the range of its name
    n1-torn: not readable as Parquet: Parquet error: Parquet error: Invalid Parquet file. Corrupt footer
    n2-empty: not readable as Parquet: Parquet error: Parquet error: Parquet files are at least 8 bytes long, but file length is 0
    "#);
}

#[tokio::test]
async fn an_agent_with_a_long_name_is_believed() {
    let inbox = Inbox::new();
    let agent = "a".repeat(80);
    inbox.put(&agent, BOOT_1, 1, &publishes(2));
    assert_eq!(inbox.ask("SELECT DISTINCT agent FROM history").await, json!([{ "agent": agent }]));
}

#[tokio::test]
async fn objects_put_later_are_seen_by_the_next_context_of_the_same_store() {
    let inbox = Inbox::new();
    let store = Store::open(&inbox.url()).unwrap();
    let count = async |store: &Store| {
        let context = context(store, &Limits::default()).await.unwrap();
        let rows = context.sql("SELECT * FROM history").await.unwrap();
        rows.count().await.unwrap()
    };
    assert_eq!(count(&store).await, 0);
    inbox.put("a", BOOT_1, 1, &publishes(2));
    assert_eq!(count(&store).await, 2);
    inbox.put("a", BOOT_1, 3, &publishes(2));
    assert_eq!(count(&store).await, 4);
}

#[tokio::test]
async fn an_empty_store_has_empty_tables() {
    let inbox = Inbox::new();
    for table in ["history", "publishes", "consumes", "topology", "gaps"] {
        assert_eq!(inbox.ask(&format!("SELECT * FROM {table}")).await, json!([]), "{table}");
    }
}

#[tokio::test]
async fn files_and_row_groups_outside_the_filter_are_not_read() {
    let inbox = Inbox::new();
    inbox.put("a", BOOT_1, 1, &publishes(5000));
    inbox.put("b", BOOT_1, 1, &publishes(10));
    let mut late = publishes(10);
    for row in &mut late {
        row.at.0 += 86_400 * SECOND;
        row.who.service = Some("late");
    }
    inbox.put("c", BOOT_1, 1, &late);
    let text = inbox
        .write(
            "EXPLAIN ANALYZE SELECT count(*) FROM history \
             WHERE at >= TIMESTAMP '2026-11-21T12:00:00Z' AND at < TIMESTAMP '2026-11-21T12:01:00Z' AND service IS NULL",
            flowtap_query::sql::output::Format::Csv,
        )
        .await
        .unwrap();
    let metric = |name: &str| {
        let rest =
            text.split(&format!("{name}=")).nth(1).unwrap_or_else(|| panic!("{name}\n{text}"));
        rest.split([',', ']']).next().unwrap().to_owned()
    };
    // Object c by its `at`; four of the five row groups of a by theirs.
    assert_eq!(metric("files_ranges_pruned_statistics"), "3 total → 2 matched", "{text}");
    assert_eq!(metric("row_groups_pruned_statistics"), "6 total → 2 matched", "{text}");
}

#[tokio::test]
async fn json_get_reads_a_pointer_and_field_get_the_first_field_of_a_name() {
    let cars = cars();
    assert_eq!(
        cars.ask(
            r#"SELECT json_get('{"a":{"b":[1,"x",null]}}', '/a/b/1') AS text,
                      json_get('{"a":{"b":[1,"x",null]}}', '/a/b') AS list,
                      json_get('{"a":{"b":[1,"x",null]}}', '/a/b/2') AS nothing,
                      json_get('{"a":1}', '/z') AS absent,
                      json_get('no json', '/a') AS broken"#
        )
        .await,
        json!([{ "text": "x", "list": "[1,\"x\",null]", "nothing": null, "absent": null, "broken": null }])
    );
    assert_eq!(
        cars.ask(
            "SELECT event_id, field_get(headers, 'x-retry') AS retry FROM publishes \
             WHERE field_get(keys, 'order_id') = '1042'"
        )
        .await,
        json!([{ "event_id": "e-1", "retry": "3" }])
    );
}

#[tokio::test]
async fn the_tables_describe_themselves() {
    let cars = cars();
    let tables = cars.ask("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1").await;
    let names: Vec<&str> = tables
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["table_name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["consumes", "flow_days", "flows", "gaps", "history", "positions", "publishes", "topology"]
    );
    let columns = cars.ask("DESCRIBE history").await;
    let columns: Vec<&Value> =
        columns.as_array().unwrap().iter().map(|column| &column["column_name"]).collect();
    let mut want: Vec<String> = flowtap_record::history_schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    want.extend(["day".to_owned(), "cluster_key".to_owned()]);
    assert_eq!(json!(columns), json!(want));
    cars.ask("SHOW TABLES").await;
    cars.ask("SHOW COLUMNS FROM gaps").await;
    cars.ask("EXPLAIN SELECT * FROM consumes").await;
}
