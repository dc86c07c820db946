//! The page in a real browser: an order's number typed in, its flow opened, the verdict read.

use std::path::PathBuf;
use std::process::Command;

use flowtap_tests::process::run;
use flowtap_tests::{available, package_dir};
use serde_json::Value;

use crate::edison;

#[test]
fn somebody_types_an_order_number_and_reads_who_broke_it() {
    let browser = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].map(PathBuf::from);
    let browser = browser.into_iter().find(|path| path.exists());
    let packages = package_dir().join("../ui/node_modules/playwright-core");
    if !available(browser.is_some() && packages.exists(), "Chromium and playwright-core") {
        return;
    }
    let Some(edison) = edison() else { return };
    let order = edison.ticket();
    edison.await_verdict(order, "broken", |verdict| verdict["state"] == "broken");
    let mut visit = Command::new("node");
    visit
        .arg(package_dir().join("clients/browser/visit.mjs"))
        .env("BROWSER", browser.expect("it is there"))
        .env("PAGE", format!("http://127.0.0.1:{}", edison.page()))
        .env("ORDER", order)
        .env("SHOTS", std::env::var("FLOWTAP_SHOTS").unwrap_or_default());
    let seen: Value = serde_json::from_str(&run(&mut visit)).expect("it prints what it saw");
    eprintln!("{seen:#}");
    assert!(seen["verdict"].as_str().is_some_and(|said| said.contains("at factory")), "{seen:#}");
    assert!(seen["path"].as_str().is_some_and(|path| path.starts_with("/flows/")), "{seen:#}");
    assert_eq!(seen["problems"], serde_json::json!([]), "errors in the console, or axe's findings");
    assert!(seen["listed"].as_i64().is_some_and(|rows| rows > 10), "flows are listed: {seen:#}");
}
