//! What Flowtap says where it does not see everything: it accuses nobody, and says where it is blind.

use std::process::Command;

use flowtap_tests::edison::Edison;
use flowtap_tests::process::run;
use flowtap_tests::{program, wait_until};
use serde_json::Value;

fn ask(edison: &Edison, words: &[&str]) -> Value {
    let server = format!("http://127.0.0.1:{}", edison.page());
    let mut command = Command::new(program("flowtap"));
    let output = run(command.args(words).args(["--json", "--server", &server]));
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{words:?}: {error}: {output}"))
}

fn assert_nobody_is_accused(edison: &Edison) {
    let broken = ask(edison, &["flows", "--state", "broken"]);
    assert_eq!(broken["flows"], serde_json::json!([]));
}

#[test]
fn with_one_sidecar_of_eight_flows_leave_sight_and_nobody_is_accused() {
    let settings = [("DEMO_SIDECARS", "shop"), ("DEMO_TICKET", "0")];
    let Some(edison) = Edison::start(100, &settings) else { return };
    let order = edison.next_order();
    let verdict = edison.await_verdict(&order, "out of sight", |verdict| {
        assert_ne!(verdict["state"], "broken", "{verdict:#}");
        verdict["state"] == "unknown"
    });
    let headline = verdict["headline"].as_str().unwrap_or_default();
    assert!(headline.contains("left Flowtap's sight at exchange orders"), "{verdict:#}");
    assert_eq!(edison.why(&order).0, 4, "unknown has its own exit code");
    assert_nobody_is_accused(&edison);
}

#[test]
fn services_that_leave_their_sidecars_are_silent_and_not_guilty() {
    let Some(edison) = Edison::start(100, &[("DEMO_TICKET", "0")]) else { return };
    let order = edison.next_order();
    edison.await_verdict(&order, "healthy", |verdict| verdict["state"] == "healthy");
    let settings = [("DEMO_SIDECARS", "shop"), ("DEMO_TICKET", "0")];
    let Some(edison) = edison.restart(&settings) else { return };
    let order = edison.next_order();
    edison.await_verdict(&order, "out of sight", |verdict| {
        assert_ne!(verdict["state"], "broken", "{verdict:#}");
        verdict["state"] == "unknown"
    });
    assert_nobody_is_accused(&edison);
    let mut silent = Vec::new();
    wait_until("seven services are silent", || {
        let (_, answer) = edison.why(&order);
        let list = answer["coverage"]["silent"].as_array().cloned().unwrap_or_default();
        assert!(list.iter().all(|one| one["since"].is_string()), "since when: {list:?}");
        silent = list.iter().filter_map(|one| one["service"].as_str().map(str::to_owned)).collect();
        silent.len() >= 7
    });
    silent.sort();
    let others =
        ["billing", "delivery-desk", "factory", "notifications", "shipping", "showroom", "stock"];
    assert_eq!(silent, others);
}

#[test]
fn services_that_start_again_past_their_live_sidecars_are_silent_and_not_guilty() {
    let Some(edison) = Edison::start(100, &[("DEMO_TICKET", "0")]) else { return };
    let order = edison.next_order();
    edison.await_verdict(&order, "healthy", |verdict| verdict["state"] == "healthy");
    let gone = ["billing", "delivery-desk", "factory", "shipping", "stock"];
    let straight = edison.folder().join("straight");
    std::fs::write(straight, gone.join("\n") + "\n").expect("the folder of the run is ours");
    for service in gone {
        let pid = edison.folder().join(format!("{service}.pid"));
        let pid = std::fs::read_to_string(pid).expect("each service has its pid there");
        run(Command::new("kill").args(["-KILL", "--", &format!("-{}", pid.trim())]));
    }
    let mut silent = Vec::new();
    wait_until("those five are silent", || {
        let (_, answer) = edison.why(&order);
        let list = answer["coverage"]["silent"].as_array().cloned().unwrap_or_default();
        assert!(list.iter().all(|one| one["since"].is_string()), "since when: {list:?}");
        silent = list.iter().filter_map(|one| one["service"].as_str().map(str::to_owned)).collect();
        silent.len() >= gone.len()
    });
    silent.sort();
    assert_eq!(silent, gone);
    let order = edison.next_order();
    let verdict = edison.await_verdict(&order, "out of sight", |verdict| {
        let state = &verdict["state"];
        assert!(*state != "broken" && *state != "late", "{verdict:#}");
        *state == "unknown"
    });
    assert_eq!(verdict["service"], Value::Null, "{verdict:#}");
    assert_nobody_is_accused(&edison);
}

#[test]
fn without_ids_single_messages_are_listed_and_called_no_flow() {
    let settings = [("IDS", "none"), ("DEMO_TICKET", "0")];
    let Some(edison) = Edison::start(100, &settings) else { return };
    let (mut code, mut answer) = (0, Value::Null);
    wait_until("an order's messages are known", || {
        (code, answer) = edison.why("order-100001");
        answer["messages"].as_array().is_some_and(|messages| messages.len() >= 6)
    });
    assert_eq!((code, &answer["found"]), (6, &"messages".into()));
    let explanation = answer["explanation"].as_str().unwrap_or_default();
    assert!(explanation.ends_with("they are no flow."), "{explanation}");
}
