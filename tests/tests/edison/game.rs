//! The demo as a game, and how it ends.

use std::path::Path;
use std::process::Command;

use flowtap_tests::edison::Edison;
use flowtap_tests::net::listens;
use flowtap_tests::process::{Folder, run};
use flowtap_tests::{package_dir, wait_until};
use serde_json::Value;

use crate::edison;

#[test]
fn something_is_broken_in_secret_six_customers_complain_and_the_truth_is_told() {
    let Some(edison) = edison() else { return };
    edison.fault(&["break"]);
    let mut state = edison.state();
    assert_eq!(state["faults"], serde_json::json!({}), "nobody is told what was broken");
    wait_until("six customers complain", || {
        state = edison.state();
        state["tickets"].as_array().is_some_and(|tickets| tickets.len() == 6)
    });
    let truth = edison.fault(&["reveal"]);
    let (fault, service) = (truth["fault"].as_str(), truth["service"].as_str());
    let (fault, service) = (fault.expect("a fault"), service.expect("a service"));
    assert!(truth["truth"].as_str().is_some_and(|told| told.starts_with(service)), "{truth}");
    assert_eq!(edison.state()["faults"][fault]["service"], service);
    for ticket in state["tickets"].as_array().expect("they are there") {
        let order = ticket["order"].as_str().expect("an order");
        assert!(truth["orders"].as_array().is_some_and(|orders| orders.contains(&order.into())));
        let text = ticket["text"].as_str().expect("a text");
        assert!(text.contains(&format!("paid for {order}. Where is ")), "{text}");
        wait_until("the terminal prints the tickets", || edison.output().contains(text));
        let told = |answer: &Value| answer["found"] == "flow";
        wait_until("each order is a flow", || told(&edison.why(order).1));
    }
}

#[test]
fn ctrl_c_leaves_no_process_and_no_port() {
    let Some(edison) = Edison::start(20, &[("DEMO_TICKET", "0")]) else { return };
    let ended = edison.interrupt();
    assert_eq!(ended.code, Some(130));
    assert!(ended.pids.len() >= 19, "brokers, services, sidecars, server: {:?}", ended.pids);
    let alive: Vec<_> =
        ended.pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    assert!(alive.is_empty(), "still alive: {alive:?}");
    let open: Vec<_> = (ended.port..ended.port + ended.ports).filter(|&at| listens(at)).collect();
    assert!(open.is_empty(), "still open: {open:?}");
    assert!(ended.folder.path().join("loaded").exists(), "its orders are kept");
}

#[test]
fn demo_clean_removes_what_the_demo_keeps_and_nothing_else() {
    let clone = Folder::new("clean");
    for file in ["demo/.run/store/row", "demo/run.sh"] {
        let path = clone.path().join(file);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        std::fs::write(path, "").expect("it can be written");
    }
    let makefile = package_dir().join("../Makefile").canonicalize().expect("it is there");
    run(Command::new("make").arg("-C").arg(clone.path()).arg("-f").arg(makefile).arg("demo-clean"));
    assert!(!clone.path().join("demo/.run").exists());
    assert!(clone.path().join("demo/run.sh").exists());
}
