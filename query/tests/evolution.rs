//! Columns may be added: files of older schemas read on, files of newer ones lose nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::reshape::{copy, reshape_table, rewrite, with, without};
use common::{
    BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, counts, everything, objects_in, row, says,
};
use flowtap_query::answer::{Answers, Filter};
use flowtap_query::find::Catalog;
use flowtap_query::ingest::{IngestError, Ingester, Keep, Options, Passed};
use flowtap_query::store::{Store, now};
use flowtap_query::tables::Limits;
use flowtap_query::verify::{Outcome, verify};
use flowtap_record::{AgentState, Kind, Micros, Observation, SCHEMA_VERSION};
use serde_json::{Value, json};

const AT_ONCE: Options = Options { grace: Duration::ZERO, keep: Keep { age: None, bytes: None } };
/// Columns that an older Flowtap may have done without.
const LATER: [&str; 4] = ["keys", "took_us", "rung", "confidence"];

fn ingester(inbox: &Inbox) -> Ingester {
    Ingester::new(Store::open(&inbox.url()).unwrap(), AT_ONCE)
}

/// Passes twice: what the first took is swept by the second.
async fn ingest(inbox: &Inbox) -> Passed {
    let mut ingester = ingester(inbox);
    let first = ingester.pass(now()).await.unwrap();
    ingester.pass(now()).await.unwrap();
    first
}

fn rows(count: i64) -> Vec<Observation<'static>> {
    let mut rows: Vec<_> = (0..count).map(|it| row(Kind::Publish, NOON + it * SECOND)).collect();
    for row in &mut rows {
        row.session.took_us = Some(7);
    }
    rows
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas")
}

/// A store of a kept version, to write to.
fn store_of(version: &Path, kind: &str) -> Inbox {
    let inbox = Inbox::new();
    copy(&version.join(kind), inbox.folder.path());
    inbox
}

/// Everything, without nulls: what an older Flowtap said of the same rows is part of it.
async fn told(inbox: &Inbox) -> Value {
    let mut rows = everything(inbox).await;
    for row in rows.as_array_mut().unwrap() {
        row.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    }
    rows
}

#[tokio::test]
#[ignore = "makes what is kept; see schemas/README.md"]
async fn files_of_this_schema_are_kept() {
    let version = kept().join(SCHEMA_VERSION);
    assert!(!version.exists(), "{} is kept already", version.display());
    let inbox = cars();
    copy(inbox.folder.path(), &version.join("inbox"));
    ingest(&inbox).await;
    std::fs::remove_dir_all(inbox.folder.path().join("inbox")).unwrap();
    copy(inbox.folder.path(), &version.join("table"));
    let rows = serde_json::to_string_pretty(&told(&inbox).await).unwrap();
    std::fs::write(version.join("rows.json"), rows + "\n").unwrap();
}

#[tokio::test]
async fn files_of_every_schema_that_ever_was_are_read() {
    let mut versions: Vec<_> =
        std::fs::read_dir(kept()).unwrap().map(|entry| entry.unwrap().path()).collect();
    versions.retain(|path| path.is_dir());
    assert!(versions.contains(&kept().join(SCHEMA_VERSION)), "this schema is not kept");
    for version in versions {
        let rows = std::fs::read_to_string(version.join("rows.json")).unwrap();
        let rows: Value = serde_json::from_str(&rows).unwrap();
        let inbox = store_of(&version, "inbox");
        assert_eq!(told(&inbox).await, rows, "{}", version.display());
        let passed = ingest(&inbox).await;
        assert_eq!((passed.quarantined, passed.newer), (0, 0), "{}", version.display());
        assert_eq!(told(&inbox).await, rows, "{}", version.display());
        let table = store_of(&version, "table");
        assert_eq!(told(&table).await, rows, "{}", version.display());
        // And is written on.
        table.put("new-e5", BOOT_1, 1, &self::rows(3));
        assert_eq!(ingest(&table).await.rows, 3);
        assert!(ingester(&table).compact(now()).await.unwrap());
        table.ask("SELECT 1 FROM history WHERE agent = 'new-e5'").await;
        let all = told(&table).await;
        let old = all.as_array().unwrap().iter().filter(|row| row["agent"] != "new-e5");
        assert_eq!(old.cloned().collect::<Value>(), rows, "{}", version.display());
    }
}

#[tokio::test]
async fn a_column_that_an_older_agent_does_not_have_is_null() {
    let inbox = cars();
    let mut paths = vec![inbox.folder.path().join("inbox")];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            rewrite(&path, "1", |rows| without(&rows, &LATER));
        }
    }
    let nulls = "SELECT count(*) AS rows, count(keys) AS keys, count(took_us) AS took, \
                 count(event_id) AS ids FROM history";
    let want = json!([{"rows": 14, "keys": 0, "took": 0, "ids": 7}]);
    assert_eq!(inbox.ask(nulls).await, want);
    let answers = Answers::new(Arc::new(Catalog::new(Store::open(&inbox.url()).unwrap())));
    common::busy::look(&answers).await;
    assert_eq!(answers.flows(&Filter::default()).await.unwrap().flows.len(), 5);
    let passed = ingest(&inbox).await;
    assert_eq!((passed.rows, passed.quarantined), (14, 0));
    assert_eq!(inbox.ask(nulls).await, want);
    assert_eq!(inbox.ask("SELECT 1 FROM gaps WHERE reason = 'object_refused'").await, json!([]));
}

/// A table as a Flowtap without [`LATER`] made it.
async fn older_table() -> Inbox {
    let inbox = cars();
    ingest(&inbox).await;
    let later = |field: &Value| LATER.contains(&field["name"].as_str().unwrap());
    reshape_table(
        inbox.folder.path(),
        |columns| columns.retain(|field| !later(field)),
        |rows| without(&rows, &LATER),
    );
    inbox
}

#[tokio::test]
async fn a_table_of_an_older_flowtap_gets_the_new_columns_and_keeps_its_files() {
    let inbox = older_table().await;
    let before = everything(&inbox).await;
    let files = Store::open(&inbox.url()).unwrap().history().await.unwrap().unwrap().files.clone();
    let old = inbox.folder.path().join(files[0].meta.location.as_ref());
    let bytes = std::fs::read(&old).unwrap();

    inbox.put("new-e5", BOOT_1, 1, &rows(3));
    // Two at a time: one of them adds the columns.
    let (mut one, mut other) = (ingester(&inbox), ingester(&inbox));
    let (one, other) = tokio::join!(one.pass(now()), other.pass(now()));
    assert_eq!(one.unwrap().rows + other.unwrap().rows, 3);
    let log = log(&inbox);
    let grown = log.iter().filter(|action| action.get("metaData").is_some());
    let grown: Vec<_> = grown.map(|it| it["metaData"]["schemaString"].as_str().unwrap()).collect();
    assert_eq!(grown.len(), 2, "made, and grown once");
    assert!(LATER.iter().all(|name| grown[1].contains(name) && !grown[0].contains(name)));
    assert_eq!(std::fs::read(&old).unwrap(), bytes);
    let took = "SELECT count(*) AS rows, count(took_us) AS took, sum(took_us) AS us FROM history";
    let want = json!([{"rows": 17, "took": 3, "us": 21}]);
    assert_eq!(inbox.ask(took).await, want);

    // Old and new files become one.
    assert!(ingester(&inbox).compact(now()).await.unwrap());
    assert_eq!(inbox.ask(took).await, want);
    let old = inbox.ask("SELECT * FROM history WHERE agent <> 'new-e5' ORDER BY agent, boot, seq");
    assert_eq!(old.await, before);
    for (agent, boot, last) in [
        ("shop-a1", BOOT_1, 9),
        ("factory-b2", BOOT_1, 3),
        ("factory-b2", BOOT_2, 2),
        ("new-e5", BOOT_1, 3),
    ] {
        says(&inbox, agent, boot, AgentState::Ended, last, last);
    }
    let store = Store::open(&inbox.url()).unwrap();
    let report = verify(&store, &Limits::default(), now()).await.unwrap();
    assert_eq!(report.outcome(), Outcome::Clean, "{report:#?}");
    let gone = Options { keep: Keep { age: Some(Duration::ZERO), bytes: None }, ..AT_ONCE };
    assert_eq!(Ingester::new(store, gone).retain(now()).await.unwrap()[0].rows, 17);
}

/// The actions of all commits, in order.
fn log(inbox: &Inbox) -> Vec<Value> {
    let folder = inbox.folder.path().join("history/_delta_log");
    let commits = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut commits: Vec<_> =
        commits.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    commits.sort();
    let texts = commits.iter().map(|path| std::fs::read_to_string(path).unwrap());
    let lines: Vec<String> =
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn objects_of_a_newer_agent_are_read_and_wait_for_a_newer_flowtap() {
    let inbox = Inbox::new();
    inbox.put("new-e5", BOOT_1, 1, &rows(3));
    let newer = inbox.put("new-e5", BOOT_1, 4, &rows(3));
    let as_it_was = std::fs::read(&newer).unwrap();
    rewrite(&newer, "1.7", |rows| with(&rows, "colour"));
    inbox.put("new-e5", BOOT_1, 7, &rows(3));
    inbox.put("new-e5", BOOT_2, 1, &rows(1));
    let all = json!([{"rows": 10, "twice": 0}]);
    let gaps = "SELECT agent, reason, gap_count, object, details FROM gaps";
    let mut ingester = ingester(&inbox);
    // A day later it is not lost, either.
    for (at, taken) in [(now(), 2), (now(), 0), (now().plus(25 * 3600 * SECOND), 0)] {
        let passed = ingester.pass(at).await.unwrap();
        assert_eq!((passed.objects, passed.newer, passed.quarantined), (taken, 2, 0));
        assert_eq!(ingester.counts().newer.get(), 2);
        assert_eq!(counts(&inbox).await, all);
        let told = inbox.ask(gaps).await;
        assert_eq!((told.as_array().unwrap().len(), &told[0]["gap_count"]), (1, &Value::Null));
        assert_eq!(
            (&told[0]["agent"], &told[0]["reason"]),
            (&json!("new-e5"), &json!("newer_schema"))
        );
        assert!(told[0]["details"].as_str().unwrap().contains("1.7"), "{told}");
    }
    assert_eq!(objects_in(&inbox.folder.path().join("inbox")), 2);
    // What is known of its columns may be taken.
    std::fs::write(&newer, as_it_was).unwrap();
    let passed = ingester.pass(now()).await.unwrap();
    assert_eq!((passed.objects, passed.newer, passed.rows), (2, 0, 6));
    assert_eq!(counts(&inbox).await, all);
    assert_eq!(inbox.ask(gaps).await, json!([]));
}

#[tokio::test]
async fn what_no_version_of_this_schema_allows_goes_to_quarantine() {
    let inbox = Inbox::new();
    let put = |agent| inbox.put(agent, BOOT_1, 1, &rows(2));
    rewrite(&put("a"), "2.0", |rows| rows);
    rewrite(&put("b"), "1.7", |rows| with(&rows, "took_us"));
    rewrite(&put("c"), SCHEMA_VERSION, |rows| with(&rows, "colour"));
    rewrite(&put("d"), SCHEMA_VERSION, |rows| without(&rows, &["kind"]));
    rewrite(&put("e"), "newest", |rows| rows);
    let before = inbox.ask("SELECT details FROM gaps ORDER BY agent").await;
    assert_eq!(ingest(&inbox).await.quarantined, 5);
    let told = inbox.ask("SELECT details FROM gaps ORDER BY agent").await;
    assert_eq!(told, before);
    let why: Vec<_> =
        told.as_array().unwrap().iter().map(|row| row["details"].as_str().unwrap()).collect();
    assert_eq!(
        why,
        [
            "its schema is 2.0, this Flowtap reads 1.x only",
            "its column took_us is Utf8, expected Int64",
            "it has a column colour, which schema 1.0 does not have",
            "it has no column kind",
            "flowtap.schema: \"newest\" is no schema version, such as \"1.0\"",
        ]
    );
}

#[tokio::test]
async fn a_table_of_a_newer_flowtap_is_read_and_not_written() {
    let inbox = cars();
    let rows_before = everything(&inbox).await;
    ingest(&inbox).await;
    inbox.put("new-e5", BOOT_1, 1, &rows(2));
    ingest(&inbox).await;
    let colour = json!({"name": "colour", "type": "string", "nullable": true, "metadata": {}});
    reshape_table(
        inbox.folder.path(),
        |columns| columns.push(colour.clone()),
        |rows| with(&rows, "colour"),
    );
    let log_before = log(&inbox).len();
    assert_eq!(counts(&inbox).await, json!([{"rows": 16, "twice": 0}]));
    let old = inbox.ask("SELECT * FROM history WHERE agent <> 'new-e5' ORDER BY agent, boot, seq");
    assert_eq!(old.await, rows_before);

    inbox.put("new-e5", BOOT_1, 3, &rows(2));
    let mut ingester = ingester(&inbox);
    for error in [
        ingester.pass(now()).await.map(|_| ()).unwrap_err(),
        ingester.compact(now()).await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, IngestError::Newer { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("(colour)") && text.contains("Upgrade flowtap"), "{text}");
    }
    assert_eq!(log(&inbox).len(), log_before);
    assert_eq!(counts(&inbox).await, json!([{"rows": 18, "twice": 0}]));
    // Whole days may go: that needs no columns.
    let gone = Options { keep: Keep { age: Some(Duration::ZERO), bytes: None }, ..AT_ONCE };
    let store = Store::open(&inbox.url()).unwrap();
    assert_eq!(
        Ingester::new(store, gone).retain(Micros(NOON + 30 * 86_400 * SECOND)).await.unwrap().len(),
        1
    );
}
