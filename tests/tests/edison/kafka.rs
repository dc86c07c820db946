//! The demo's part on Kafka: flows that go there and back, and its faults.

use std::collections::BTreeSet;

use flowtap_tests::edison::Edison;
use flowtap_tests::wait_until;
use serde_json::{Value, json};

use crate::edison;

fn is(verdict: &Value, state: &str) -> bool {
    verdict["state"] == state
}

fn sentence(verdict: &Value) -> &str {
    verdict["sentences"][0].as_str().unwrap_or_default()
}

#[test]
fn one_flow_goes_from_rabbitmq_to_kafka_and_back() {
    let Some(edison) = edison() else { return };
    let order = edison.next_order();
    edison.await_verdict(&order, "healthy", |verdict| is(verdict, "healthy"));
    let (_, answer) = edison.why(&order);
    let messages = answer["flow"]["messages"].as_array().cloned().unwrap_or_default();
    let of_type = |name: &str| {
        let found = messages.iter().find(|message| message["event_type"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {messages:#?}"))
    };
    assert_eq!(answer["flow"]["summary"]["systems"], json!(["rabbitmq", "kafka"]));
    let finished = of_type("Finished");
    assert_eq!(finished["destination"], "car-events");
    assert!(finished["log_offset"].is_number(), "{finished:#}");
    let mut groups: Vec<_> = finished["handlings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|handling| json!([handling["subscription"], handling["outcome"]]))
        .collect();
    groups.sort_by_key(Value::to_string);
    assert_eq!(groups, [json!(["delivery-desk", "committed"]), json!(["showroom", "committed"])]);
    let offered = of_type("DeliveryOffered");
    assert_eq!(
        (&offered["publisher"], &offered["system"]),
        (&json!("delivery-desk"), &json!("rabbitmq"))
    );
    let caused = json!({"from": finished["index"], "to": offered["index"],
                        "how": "causation", "by": "delivery-desk"});
    assert!(answer["flow"]["edges"].as_array().is_some_and(|edges| edges.contains(&caused)));
    // One id on either system, and not because Flowtap put them together.
    let flows = |system: &str| -> BTreeSet<Option<&str>> {
        let of_system = messages.iter().filter(|message| message["system"] == system);
        of_system.map(|message| message["transaction_id"].as_str()).collect()
    };
    let of_rabbitmq = flows("rabbitmq");
    assert!(of_rabbitmq.len() == 1 && !of_rabbitmq.contains(&None), "{of_rabbitmq:?}");
    assert_eq!(flows("kafka"), of_rabbitmq);
}

/// What becomes of a car: the showroom's answer, as soon as it is as awaited.
fn await_car(edison: &Edison, car: &str, state: &str) -> Value {
    let mut last = None;
    wait_until(&format!("the showroom says that {car} is {state}"), || {
        last = edison.car(car);
        last.as_ref().is_some_and(|(status, seen)| *status == 200 && seen["state"] == state)
    });
    last.expect("it was awaited").1
}

#[test]
fn the_showroom_has_one_entry_for_a_car_with_its_newest_state() {
    let Some(edison) = edison() else { return };
    let order = edison.next_order();
    let car = order.replace("order", "car");
    assert_eq!(edison.car(&car).map(|(status, _)| status), Some(404), "it is not built yet");
    edison.await_verdict(&order, "healthy", |verdict| is(verdict, "healthy"));
    let seen = await_car(&edison, &car, "OnTheRoad");
    assert_eq!(seen["car_id"], car.as_str());
    assert!(seen["model"].is_string(), "{seen}");
    let (_, answer) = edison.why(&order);
    let messages = answer["flow"]["messages"].as_array().cloned().unwrap_or_default();
    let told = messages.iter().filter(|message| message["destination"] == "car-events").count();
    assert_eq!(told, 6, "all of them went into the one entry");
}

#[test]
fn a_record_that_the_showroom_reads_again_changes_nothing_but_what_it_says() {
    let Some(edison) = edison() else { return };
    let order = edison.strike_at("poison", "showroom");
    let car = order.replace("order", "car");
    edison.await_verdict(&order, "late", |verdict| is(verdict, "late"));
    let status = edison.car(&car).map(|(status, _)| status);
    assert_eq!(status, Some(404), "what it could not read it does not show");
    edison.fault(&["off"]);
    edison.await_verdict(&order, "healthy", |verdict| is(verdict, "healthy"));
    await_car(&edison, &car, "OnTheRoad");
}

#[test]
fn a_transaction_that_is_rolled_back_is_broken_at_its_producer() {
    let Some(edison) = edison() else { return };
    let order = edison.strike("aborts");
    let verdict = edison.await_verdict(&order, "broken", |verdict| is(verdict, "broken"));
    assert_eq!((&verdict["service"], &verdict["reason"]), (&json!("shipping"), &json!("aborted")));
    assert!(sentence(&verdict).contains("topic car-events, partition"), "{verdict:#}");
}

#[test]
fn a_reader_that_puts_a_record_aside_is_named() {
    let Some(edison) = edison() else { return };
    let order = edison.strike_at("rejects", "showroom");
    let verdict = edison.await_verdict(&order, "broken", |verdict| is(verdict, "broken"));
    assert_eq!((&verdict["service"], &verdict["reason"]), (&json!("showroom"), &json!("rejected")));
    assert!(sentence(&verdict).contains("put it into topic car-events.DLT"), "{verdict:#}");
}

#[test]
fn a_record_that_is_read_again_and_again_is_late_and_done_once_it_goes_well() {
    let Some(edison) = edison() else { return };
    let order = edison.strike_at("poison", "showroom");
    let verdict = edison.await_verdict(&order, "late", |verdict| is(verdict, "late"));
    assert_eq!(verdict["service"], "showroom");
    assert!(sentence(&verdict).contains(" times since "), "{verdict:#}");
    assert_eq!(verdict["place"]["subscription"], "showroom");
    edison.fault(&["off"]);
    edison.await_verdict(&order, "healthy", |verdict| is(verdict, "healthy"));
}

#[test]
fn a_reader_that_dies_leaves_its_records_to_its_group() {
    let Some(edison) = edison() else { return };
    let order = edison.strike_at("dies", "delivery-desk");
    edison.await_verdict(&order, "late", |verdict| {
        assert_ne!(verdict["state"], "broken", "{verdict:#}");
        is(verdict, "late")
    });
    edison.fault(&["off"]);
    edison.await_verdict(&order, "healthy", |verdict| is(verdict, "healthy"));
}
