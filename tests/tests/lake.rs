//! The history is an open table: what Flowtap reads, others read too, also while small files are
//! merged.

use std::process::Command;

use flowtap_tests::process::{Folder, Process, run};
use flowtap_tests::rabbitmq::{RabbitMq, Version};
use flowtap_tests::sidecar::{Options, Sidecar};
use flowtap_tests::sql::Store;
use flowtap_tests::{available, cache_dir, package_dir, program, wait_until};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};

/// Commits to a table before its files are merged: eight or more of one size are worth it.
const COMMITS: usize = 9;

fn flowtap(command: &str, store: &Folder) -> String {
    let mut flowtap = Command::new(program("flowtap"));
    flowtap.args([command, "--store", &store.url()]);
    if command == "ingest" {
        flowtap.args(["--once", "--grace", "1ms"]);
    }
    run(&mut flowtap)
}

async fn publish(channel: &Channel, from: usize, count: usize) {
    for number in from..from + count {
        let id = format!("m-{number}");
        let properties = BasicProperties::default()
            .with_message_id(id.as_str().into())
            .with_correlation_id(format!("flow-{}", number % 50).into());
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), "q".into(), options, id.as_bytes(), properties);
        sent.await.expect("sent").await.expect("confirmed");
    }
}

/// What the readers said so far, a line each.
fn said(reader: &Process) -> Vec<Value> {
    let text = reader.output();
    let lines = text.lines().map(|line| {
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{error} in what they say: {text}"))
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn others_read_the_same_rows_also_while_files_are_merged() {
    let Some(broker) = RabbitMq::shared(Version::V3_10) else { return };
    let python = cache_dir().join("venv-lake/bin/python");
    if !available(python.exists(), "deltalake, Polars and DuckDB for Python") {
        return;
    }
    let store = Folder::new("lake");
    let vhost = broker.vhost();
    let mut options = Options::new("shop", broker.port(), store.url());
    options.tables.push("[upload]\nage = \"200ms\"".to_owned());
    let mut shop = Sidecar::start(&options);
    let url = vhost.url(shop.port());
    let connection = Connection::connect(&url, ConnectionProperties::default()).await;
    let connection = connection.expect("the broker accepts");
    let channel = connection.create_channel().await.expect("a channel opens");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
    let declare = QueueDeclareOptions::default();
    channel.queue_declare("q".into(), declare, FieldTable::default()).await.expect("declared");
    let rows = Store::new(store.url());
    for number in 0..COMMITS {
        let until = 100 * (number + 1);
        publish(&channel, 100 * number, 100).await;
        let settled = format!("SELECT count(*) FROM history WHERE event_id = 'm-{}'", until - 1);
        // Its publish and its confirm: then all before them are in the store.
        wait_until("what was published is uploaded", || rows.number(&settled) == 2);
        flowtap("ingest", &store);
    }
    connection.close(200, "done".into()).await.expect("closed");
    shop.terminate();
    flowtap("ingest", &store);

    let history = store.path().join("history");
    let script = package_dir().join("clients/python/read_history.py");
    let log = store.path().join("readers.log");
    let mut command = Command::new(python);
    command.arg(script).arg(&history);
    let reader = Process::start("readers", &mut command, &log);
    wait_until("all have read once", || !said(&reader).is_empty());
    let merged = flowtap("compact", &store);
    assert!(merged.contains("made of small ones"), "{merged}");
    let before = said(&reader).len();
    wait_until("all have read twice more", || said(&reader).len() >= before + 2);

    let sums = rows.sql(
        "SELECT count(*) AS n, sum(seq) AS seq, sum(size) AS size, \
         count(DISTINCT event_id) AS events FROM history",
    );
    let [ours] = &sums[..] else { panic!("one row of {sums:?}") };
    assert_eq!(ours["events"], 100 * COMMITS);
    for said in said(&reader) {
        for who in ["deltalake", "polars", "duckdb"] {
            assert_eq!(said[who], *ours, "{who} in {said}");
        }
        assert_eq!(said["protocol"], json!([1, 2]));
    }
    rows.assert_no_hole();
}
