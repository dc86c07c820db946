//! `[record]` on the wire to the store: payloads and headers come only on the rows they are asked
//! for, and what is to be left out is nowhere.

use flowtap_tests::rabbitmq::BOTH;
use flowtap_tests::secrets::{contains, files_with};
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

use crate::support::{Scene, channel, scene};

const SECRETS: [&str; 4] =
    ["planted-name-5811", "planted-line-5812", "planted-header-5813", "planted-bearer-5814"];
const RECORD: &str =
    "headers = \"all\"\nredact = [\"/customer/name\", \"/lines/*/note\", \"x-tenant\"]";

fn body() -> String {
    format!(
        r#"{{"order_id": "order-7", "customer": {{"name": "{}"}}, "lines": [{{"note": "{}"}}]}}"#,
        SECRETS[0], SECRETS[1]
    )
}

/// One message acked, one rejected, one unroutable; everything that was recorded.
async fn three_messages(scene: &Scene<'_>, payload: &str) -> Vec<Value> {
    let mut options = scene.options("shop");
    options.tables.push(format!("[record]\npayload = \"{payload}\"\n{RECORD}"));
    let mut shop = flowtap_tests::sidecar::Sidecar::start(&options);
    let (connection, channel) = channel(&scene.url(&shop)).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let queue = QueueDeclareOptions::default();
    channel.queue_declare("q".into(), queue, FieldTable::default()).await.expect("declared");
    let mut headers = FieldTable::default();
    for (name, value) in
        [("x-tenant", SECRETS[2]), ("Authorization", SECRETS[3]), ("x-region", "north")]
    {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    for (id, key) in [("acked", "q"), ("rejected", "q"), ("unroutable", "nowhere")] {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id(id.into())
            .with_headers(headers.clone());
        let options = BasicPublishOptions::default();
        let sent = channel
            .basic_publish("".into(), key.into(), options, body().as_bytes(), properties)
            .await;
        sent.expect("published").await.expect("confirmed");
    }
    for id in ["acked", "rejected"] {
        let got = channel.basic_get("q".into(), BasicGetOptions::default()).await;
        let got = got.expect("got").expect("a message");
        assert_eq!(got.data, body().as_bytes(), "the service gets every byte");
        if id == "acked" {
            got.ack(BasicAckOptions::default()).await.expect("acked");
        } else {
            got.reject(BasicRejectOptions { requeue: false }).await.expect("rejected");
        }
    }
    connection.close(200, "done".into()).await.expect("closed");
    for when in ["running", "ended"] {
        for folder in [shop.folder(), scene.folder.path()] {
            let found = files_with(folder, &SECRETS);
            assert!(found.is_empty(), "{when}: {found:?}");
        }
        if when == "running" {
            shop.terminate();
        }
    }
    let rows = scene.store.sql(
        "SELECT kind, outcome, event_id, CAST(payload AS VARCHAR) AS payload, headers \
         FROM history WHERE event_id IS NOT NULL ORDER BY seq",
    );
    let dump = Value::from(rows.clone()).to_string();
    for secret in SECRETS {
        assert!(!contains(dump.as_bytes(), secret), "{secret} in rows");
    }
    for row in &rows {
        let headers = row["headers"].to_string();
        let expected = matches!(row["kind"].as_str(), Some("publish" | "deliver" | "return"));
        assert_eq!(headers.contains("north"), expected, "{row}");
        assert_eq!(headers.contains("[redacted]"), expected, "{row}");
    }
    rows
}

/// Kind, outcome and id of the rows that carry a payload.
fn with_payload(rows: &[Value]) -> Vec<Value> {
    let whole = body().replace(SECRETS[0], "[redacted]").replace(SECRETS[1], "[redacted]");
    let carriers = rows.iter().filter(|row| !row["payload"].is_null());
    carriers
        .map(|row| {
            assert_eq!(row["payload"], whole.as_str(), "whole, but for what is redacted");
            json!([row["kind"], row["outcome"], row["event_id"]])
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payload_is_on_its_publish_and_deliver_row() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let rows = three_messages(&scene, "all").await;
        let expected = [
            json!(["publish", null, "acked"]),
            json!(["publish", null, "rejected"]),
            json!(["publish", null, "unroutable"]),
            json!(["deliver", null, "acked"]),
            json!(["deliver", null, "rejected"]),
        ];
        assert_eq!(with_payload(&rows), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_failed_payloads_are_kept_and_on_the_row_that_says_so() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let rows = three_messages(&scene, "failed").await;
        let expected = [
            json!(["return", "unroutable", "unroutable"]),
            json!(["settle", "rejected", "rejected"]),
        ];
        assert_eq!(with_payload(&rows), expected);
    }
}
