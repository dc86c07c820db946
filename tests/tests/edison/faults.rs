//! Every fault of the demo: state, service and reason of the order that it hit, and no accusation of
//! anybody else.

use std::process::Command;

use flowtap_tests::process::run;
use flowtap_tests::{package_dir, program};
use serde_json::{Value, json};

use crate::edison;

fn is(verdict: &Value, state: &str) -> bool {
    verdict["state"] == state
}

fn text(verdict: &Value) -> String {
    let sentences = verdict["sentences"].as_array().into_iter().flatten();
    let sentences: Vec<_> = sentences.filter_map(Value::as_str).collect();
    format!("{} {}", verdict["headline"].as_str().unwrap_or_default(), sentences.join(" "))
}

/// What is printed, whatever the times, ids and line breaks.
fn shape(printed: &str) -> String {
    let word = |word| match word {
        "us." | "ms." | "s." => "unit.",
        word if word.contains(|c: char| c.is_ascii_digit()) => "number",
        word => word,
    };
    printed.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_ticket_of_the_first_screen_is_answered_by_one_command() {
    let Some(edison) = edison() else { return };
    let order = edison.ticket();
    edison.await_verdict(order, "broken", |verdict| is(verdict, "broken"));
    let server = format!("http://127.0.0.1:{}", edison.page());
    let mut why = Command::new(program("flowtap"));
    let output = why.args(["why", order, "--server", &server]).output().expect("flowtap is there");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert_eq!(output.status.code(), Some(3), "broken");
    for part in [
        "BROKEN at factory",
        "(PlaceOrder -> ... -> PaymentTaken)",
        "factory received PaymentTaken from queue factory.payments",
        "and rejected it",
        "The message went to factory.dead.",
        "for 8 of 8 sidecars",
    ] {
        assert!(said.replace('\n', " ").contains(part), "{part} is not in {said}");
    }
    let readme = std::fs::read_to_string(package_dir().join("../README.md")).expect("the README");
    let shown = readme.split("$ flowtap why order-1042\n").nth(1).expect("the README shows it");
    let shown = shown.split("\n\n").next().expect("a block ends");
    assert_eq!(shape(shown), shape(&said), "the README shows what is printed");
    // The demo tells the customer's words, the command and the link.
    let printed = edison.output();
    assert!(printed.contains(&format!("paid for {order}. Where is ")), "{printed}");
    assert!(printed.contains(&format!("flowtap why {order}")), "{printed}");
    let (_, answer) = edison.why(order);
    let flow = answer["flow"]["summary"]["flow"].as_str().expect("it is a flow");
    let link = format!("http://127.0.0.1:{}/flows/{flow}", edison.page());
    assert!(printed.contains(&link), "{link} is not in {printed}");
    let mut flows = Command::new(program("flowtap"));
    let flows = run(flows.args(["flows", "--state", "broken", "--json", "--server", &server]));
    let flows: Value = serde_json::from_str(&flows).expect("JSON");
    assert!(flows["flows"].as_array().is_some_and(|flows| flows.iter().any(|flow| {
        flow["keys"].as_array().is_some_and(|keys| keys.iter().any(|key| key["value"] == order))
    })));
}

#[test]
fn a_consumer_that_rejects_is_named() {
    let Some(edison) = edison() else { return };
    let order = edison.strike("rejects");
    let verdict = edison.await_verdict(&order, "broken", |verdict| is(verdict, "broken"));
    assert_eq!((&verdict["service"], &verdict["reason"]), (&json!("factory"), &json!("rejected")));
    assert_eq!(verdict["place"]["subscription"], "factory.payments");
}

#[test]
fn a_poison_message_is_broken_after_its_last_attempt_with_their_count() {
    let Some(edison) = edison() else { return };
    let order = edison.strike("poison");
    let verdict = edison.await_verdict(&order, "broken", |verdict| is(verdict, "broken"));
    assert_eq!((&verdict["service"], &verdict["reason"]), (&json!("shipping"), &json!("rejected")));
    let text = text(&verdict);
    assert!(text.contains("3 attempts") || text.contains("attempt 3"), "{text}");
}

#[test]
fn an_exchange_that_lost_its_queue_is_named_and_no_service() {
    let Some(edison) = edison() else { return };
    edison.fault(&["no-queue", "on"]);
    let order = edison.next_order();
    let verdict = edison.await_verdict(&order, "broken", |verdict| is(verdict, "broken"));
    assert_eq!((&verdict["service"], &verdict["reason"]), (&Value::Null, &json!("unroutable")));
    assert_eq!(verdict["place"]["destination"], "payments");
}

#[test]
fn a_message_that_hangs_in_a_service_is_late_there_and_arrives_afterwards() {
    let Some(edison) = edison() else { return };
    let order = edison.strike("hangs");
    let verdict = edison.await_verdict(&order, "late", |verdict| is(verdict, "late"));
    assert_eq!((&verdict["service"], &verdict["reason"]), (&json!("shipping"), &json!("waiting")));
    assert!(text(&verdict).contains("shipping"), "{verdict:#}");
    assert!(verdict["since"].is_string(), "{verdict:#}");
    edison.fault(&["off"]);
    edison.await_verdict(&order, "healthy", |verdict| is(verdict, "healthy"));
}

#[test]
fn what_waits_behind_a_slow_consumer_is_late_in_its_queue() {
    let Some(edison) = edison() else { return };
    edison.fault(&["slow", "on"]);
    let order = edison.next_order();
    let verdict = edison.await_verdict(&order, "late", |verdict| is(verdict, "late"));
    assert_eq!(verdict["place"]["subscription"], "factory.payments", "{verdict:#}");
}

#[test]
fn a_consumer_that_dies_has_abandoned_and_its_queue_keeps_the_message() {
    let Some(edison) = edison() else { return };
    let order = edison.strike("dies");
    let kinds = |answer: &Value| -> Vec<Value> {
        let records = answer["flow"]["records"].as_array().into_iter().flatten();
        let of_billing = records.filter(|record| record["service"] == "billing");
        of_billing.map(|record| json!([record["outcome"], record["redelivered"]])).collect()
    };
    flowtap_tests::wait_until("it was abandoned and delivered again, or is late", || {
        let (_, answer) = edison.why(&order);
        let verdict = &answer["flow"]["verdict"];
        assert_ne!(verdict["state"], "broken", "{verdict:#}");
        let abandoned = kinds(&answer).iter().any(|kind| kind[0] == "abandoned");
        let again = kinds(&answer).iter().any(|kind| kind[1] == true);
        abandoned && (again || is(verdict, "late"))
    });
    edison.fault(&["off"]);
    edison.await_verdict(&order, "healthy", |verdict| is(verdict, "healthy"));
}

#[test]
fn a_service_that_acks_and_forgets_leaves_the_flow_running_with_its_last_step() {
    let Some(edison) = edison() else { return };
    let order = edison.strike("forgets");
    let verdict = edison.await_verdict(&order, "running for want of a successor", |verdict| {
        is(verdict, "running") && verdict["reason"] == "nothing_followed"
    });
    assert!(text(&verdict).contains("OrderPlaced"), "{verdict:#}");
}

#[test]
fn a_queue_bound_too_late_is_a_note_and_nobodys_fault() {
    let Some(edison) = edison() else { return };
    edison.fault(&["late-queue", "on"]);
    let order = edison.next_order();
    let verdict = edison.await_verdict(&order, "noted", |verdict| {
        assert_ne!(verdict["state"], "broken", "{verdict:#}");
        let mut notes = verdict["notes"].as_array().into_iter().flatten();
        is(verdict, "healthy")
            && notes.any(|note| note.as_str().is_some_and(|note| note.contains("nobody listens")))
    });
    assert_eq!(verdict["service"], Value::Null, "{verdict:#}");
}
