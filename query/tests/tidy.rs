//! Small files become large ones, old days go: readers see each row that is kept exactly once.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::moody::{Dies, Moody};
use common::{BOOT_1, Inbox, NOON, SECOND, cars, counts, everything, objects_in, row};
use flowtap_query::ingest::{Day, Ingester, Keep, Options};
use flowtap_query::store::{Store, now};
use flowtap_record::{Kind, Micros};
use serde_json::{Value, json};

const DAY: i64 = 86_400 * SECOND;
const AT_ONCE: Options = Options { grace: Duration::ZERO, keep: Keep { age: None, bytes: None } };

fn ingester(inbox: &Inbox) -> Ingester {
    Ingester::new(Store::open(&inbox.url()).unwrap(), AT_ONCE)
}

/// A table of as many files as commits: each object is one.
async fn many_files(commits: i64) -> Inbox {
    let inbox = cars();
    let mut ingester = ingester(&inbox);
    ingester.pass(now()).await.unwrap();
    for number in 0..commits {
        let mut rows = vec![row(Kind::Publish, NOON + number * SECOND); 20];
        let ids = ["order-1042", "order-1043", "order-0001", "zulu"];
        for (row, id) in rows.iter_mut().zip(ids) {
            row.message.ids.transaction_id = common::id(id);
        }
        inbox.put("many-d4", BOOT_1, number * 20 + 1, &rows);
        ingester.pass(now()).await.unwrap();
    }
    ingester.pass(now()).await.unwrap();
    inbox
}

async fn files(inbox: &Inbox) -> usize {
    let store = Store::open(&inbox.url()).unwrap();
    store.history().await.unwrap().unwrap().files.len()
}

/// The actions of all commits, in order.
fn log(inbox: &Inbox) -> Vec<Value> {
    let folder = inbox.folder.path().join("history/_delta_log");
    let mut commits: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    commits.sort();
    let texts = commits.iter().map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect()
}

#[tokio::test]
async fn compaction_keeps_each_row_and_their_order() {
    let inbox = many_files(12).await;
    let before = everything(&inbox).await;
    assert_eq!(files(&inbox).await, 13);
    let mut ingester = ingester(&inbox);
    assert!(ingester.compact(now()).await.unwrap());
    assert!(!ingester.compact(now()).await.unwrap(), "there is one file only");
    assert_eq!(files(&inbox).await, 1);
    assert_eq!(everything(&inbox).await, before);

    // In the file a flow lies together, and rows without a key are the last.
    let order = inbox.ask("SELECT cluster_key, CAST(at AS BIGINT) AS at FROM history").await;
    let order: Vec<(bool, String, i64)> = order
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let key = row["cluster_key"].as_str();
            (key.is_none(), key.unwrap_or_default().to_owned(), row["at"].as_i64().unwrap())
        })
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    let store = Store::open(&inbox.url()).unwrap();
    let file = store.history().await.unwrap().unwrap().files[0].clone();
    let (least, greatest) = file.cluster.unwrap();
    assert_eq!((least.as_str(), greatest.as_str()), ("order-0001", "zulu"));
    assert_eq!(file.rows, 14 + 240);
}

#[tokio::test]
async fn who_reads_the_table_as_a_stream_sees_each_row_once() {
    let inbox = many_files(12).await;
    while ingester(&inbox).compact(now()).await.unwrap() {}
    let mut streamed = 0;
    let mut protocol = Value::Null;
    for action in log(&inbox) {
        if let Some(add) = action.get("add").filter(|add| add["dataChange"] == true) {
            let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            streamed += stats["numRecords"].as_i64().unwrap();
        }
        if let Some(found) = action.get("protocol") {
            protocol = found.clone();
        }
    }
    assert_eq!(streamed, 14 + 240);
    assert_eq!(protocol, json!({"minReaderVersion": 1, "minWriterVersion": 2}));
}

#[tokio::test]
async fn a_compactor_may_die_anywhere() {
    let whole = json!([{"rows": 14 + 60, "twice": 0}]);
    for at in 1.. {
        let mut died = false;
        for dies in [Dies::Before(at), Dies::After(at)] {
            let inbox = many_files(3).await;
            let mortal = Moody::mortal(&inbox, dies);
            let done = mortal.ingester(AT_ONCE).compact(now()).await;
            died |= mortal.writes() >= at;
            assert_eq!(counts(&inbox).await, whole, "{dies:?}: {done:?}");
            while ingester(&inbox).compact(now()).await.unwrap() {}
            assert_eq!(counts(&inbox).await, whole, "{dies:?}");
            assert_eq!(files(&inbox).await, 1, "{dies:?}");
        }
        if !died {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactors_and_ingesters_do_not_disturb_one_another() {
    let inbox = many_files(4).await;
    let compactors: Vec<_> = (0..2)
        .map(|_| {
            let mut ingester = ingester(&inbox);
            tokio::spawn(async move {
                for _ in 0..20 {
                    ingester.compact(now()).await.unwrap();
                }
            })
        })
        .collect();
    let mut ingester = ingester(&inbox);
    for number in 4..16_i64 {
        inbox.put("many-d4", BOOT_1, number * 20 + 1, &vec![row(Kind::Publish, NOON); 20]);
        ingester.pass(now()).await.unwrap();
        let rows = 14 + (number + 1) * 20;
        assert_eq!(counts(&inbox).await, json!([{"rows": rows, "twice": 0}]));
    }
    for compactor in compactors {
        compactor.await.unwrap();
    }
    assert_eq!(counts(&inbox).await, json!([{"rows": 14 + 320, "twice": 0}]));
}

#[tokio::test]
async fn replaced_files_are_deleted_a_day_later_and_no_others() {
    let inbox = many_files(4).await;
    let folder = inbox.folder.path().join("history");
    let data = || objects_in(&folder) - objects_in(&folder.join("_delta_log"));
    let mut ingester = ingester(&inbox);
    while ingester.compact(now()).await.unwrap() {}
    assert_eq!(data(), 6);
    assert_eq!(ingester.vacuum(now()).await.unwrap(), 0);
    assert_eq!(ingester.vacuum(now().plus(DAY + SECOND)).await.unwrap(), 5);
    assert_eq!(data(), 1);
    assert_eq!(counts(&inbox).await, json!([{"rows": 14 + 80, "twice": 0}]));
}

#[tokio::test]
async fn days_past_retention_go_and_the_rest_stays() {
    let inbox = Inbox::new();
    let rows: Vec<_> = (0..6).map(|day| row(Kind::Publish, NOON - day * DAY)).collect();
    inbox.put("shop-a1", BOOT_1, 1, &rows);
    let keep = Keep { age: Some(Duration::from_hours(48)), bytes: None };
    let options = Options { keep, ..AT_ONCE };
    let mut ingester = Ingester::new(Store::open(&inbox.url()).unwrap(), options);
    ingester.pass(now()).await.unwrap();
    // Noon of the 21st, as if it were now.
    let now = Micros(NOON);
    let would: Vec<String> =
        ingester.past_retention(now).await.unwrap().iter().map(Day::date).collect();
    assert_eq!(would, ["2026-11-16", "2026-11-17", "2026-11-18"]);
    assert_eq!(counts(&inbox).await, json!([{"rows": 6, "twice": 0}]));
    assert_eq!(ingester.retain(now).await.unwrap().len(), 3);
    assert_eq!(ingester.retain(now).await.unwrap().len(), 0);
    let days = inbox.ask("SELECT day FROM history ORDER BY day").await;
    assert_eq!(days.as_array().map(Vec::len), Some(3), "{days}");
    // They do not come back with the objects that held them.
    inbox.put("shop-a1", BOOT_1, 1, &rows);
    assert_eq!(counts(&inbox).await, json!([{"rows": 3, "twice": 0}]));
}
