//! Rows move from the inbox into the Delta table, each exactly once, whatever dies on the way.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::moody::{Dies, Moody};
use common::{
    BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, counts, everything, objects_in, row, says,
};
use flowtap_query::ingest::{IngestError, Ingester, Keep, Options, Passed};
use flowtap_query::store::{Store, now};
use flowtap_record::{AgentState, Kind, Micros};
use futures::StreamExt as _;
use object_store::ObjectStore as _;
use object_store::path::Path;
use serde_json::{Value, json};

const AT_ONCE: Options = Options { grace: Duration::ZERO, keep: Keep { age: None, bytes: None } };

fn ingester(inbox: &Inbox, options: Options) -> Ingester {
    Ingester::new(Store::open(&inbox.url()).unwrap(), options)
}

/// Passes until nothing is to be done any more.
async fn ingest(inbox: &Inbox) -> Passed {
    let mut ingester = ingester(inbox, AT_ONCE);
    let first = ingester.pass(now()).await.unwrap();
    // What a pass took is swept by the next one.
    ingester.pass(now()).await.unwrap();
    first
}

/// So many rows, a second apart.
fn rows(count: i64) -> Vec<flowtap_record::Observation<'static>> {
    (0..count).map(|number| row(Kind::Publish, NOON + number * SECOND)).collect()
}

#[tokio::test]
async fn rows_are_the_same_in_the_table_as_in_the_inbox() {
    let inbox = cars();
    let before = everything(&inbox).await;
    let passed = ingester(&inbox, Options::default()).pass(now()).await.unwrap();
    assert_eq!((passed.objects, passed.rows, passed.quarantined), (4, 14, 0));
    // Covered, and still in the inbox.
    assert_eq!(objects_in(&inbox.folder.path().join("inbox")), 4);
    assert_eq!(everything(&inbox).await, before);
    // And when they are gone from there.
    let mut ingester = ingester(&inbox, AT_ONCE);
    let swept = ingester.pass(now()).await.unwrap();
    assert_eq!((swept.objects, swept.swept), (0, 4));
    assert_eq!(objects_in(&inbox.folder.path().join("inbox")), 0);
    assert_eq!(everything(&inbox).await, before);
    // A row comes once, however often its object is put.
    inbox.put("shop-a1", BOOT_1, 1, &rows(3));
    assert_eq!(everything(&inbox).await, before);
    assert_eq!(ingest(&inbox).await.rows, 0);
    assert_eq!(everything(&inbox).await, before);
}

#[tokio::test]
async fn a_boot_is_partly_in_the_table_and_partly_in_the_inbox() {
    let inbox = Inbox::new();
    inbox.put("shop-a1", BOOT_1, 1, &rows(10));
    ingest(&inbox).await;
    // It overlaps: an agent that lost the answer may put a longer one.
    inbox.put("shop-a1", BOOT_1, 6, &rows(10));
    assert_eq!(counts(&inbox).await, json!([{"rows": 15, "twice": 0}]));
    assert_eq!(ingest(&inbox).await.rows, 5);
    assert_eq!(counts(&inbox).await, json!([{"rows": 15, "twice": 0}]));
}

#[tokio::test]
async fn a_boot_waits_behind_a_missing_object() {
    let inbox = Inbox::new();
    inbox.put("shop-a1", BOOT_1, 11, &rows(10));
    inbox.put("shop-a1", BOOT_2, 1, &rows(1));
    let passed = ingest(&inbox).await;
    assert_eq!((passed.objects, passed.waiting), (1, 1));
    // Readers see them all the same.
    assert_eq!(counts(&inbox).await, json!([{"rows": 11, "twice": 0}]));
    inbox.put("shop-a1", BOOT_1, 1, &rows(10));
    let passed = ingest(&inbox).await;
    assert_eq!((passed.objects, passed.waiting), (2, 0));
    assert_eq!(counts(&inbox).await, json!([{"rows": 21, "twice": 0}]));
}

#[tokio::test]
async fn rows_that_never_came_are_given_up_after_a_day_and_told_of() {
    let inbox = Inbox::new();
    inbox.put("shop-a1", BOOT_1, 11, &rows(10));
    let tomorrow = now().plus(25 * 3600 * SECOND);
    let passed = ingester(&inbox, AT_ONCE).pass(tomorrow).await.unwrap();
    assert_eq!((passed.objects, passed.waiting), (1, 0));
    let gaps = "SELECT agent, reason, gap_count, object FROM gaps";
    assert_eq!(
        inbox.ask(gaps).await,
        json!([{"agent": "shop-a1", "reason": "rows_lost", "gap_count": 10, "object": null}])
    );
    // Should they come after all, they are not taken: their range counts as taken.
    inbox.put("shop-a1", BOOT_1, 1, &rows(10));
    assert_eq!(ingest(&inbox).await.rows, 0);
    assert_eq!(counts(&inbox).await, json!([{"rows": 10, "twice": 0}]));
}

#[tokio::test]
async fn what_cannot_be_believed_goes_to_quarantine_and_stops_nothing() {
    let inbox = Inbox::new();
    let bad = inbox.put("shop-a1", BOOT_1, 1, &rows(5));
    std::fs::write(&bad, "PAR1 and then nothing").unwrap();
    inbox.put("shop-a1", BOOT_1, 6, &rows(5));
    // Rows of another agent under this one's name.
    let name = Inbox::name("factory-b2", BOOT_1, 1, 3);
    inbox.put_as(&name, &Inbox::footer(&name), "shop-a1", BOOT_1, 1, &rows(3));
    // A row twice in one object.
    let name = Inbox::name("stock-c3", BOOT_1, 1, 3);
    let all = rows(3);
    let twice = [(1, &all[0]), (2, &all[1]), (2, &all[2])];
    inbox.put_numbered(&name, &Inbox::footer(&name), "stock-c3", BOOT_1, &twice);

    let passed = ingest(&inbox).await;
    assert_eq!((passed.objects, passed.rows, passed.quarantined), (1, 5, 3));
    assert_eq!(counts(&inbox).await, json!([{"rows": 5, "twice": 0}]));
    assert_eq!(objects_in(&inbox.folder.path().join("inbox")), 0);
    // The object and the reason, each.
    assert_eq!(objects_in(&inbox.folder.path().join("quarantine")), 6);
    let gaps = inbox.ask("SELECT agent, reason, gap_count, details FROM gaps ORDER BY agent").await;
    let told: Vec<_> = gaps.as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 3, "{gaps}");
    assert!(told.iter().all(|gap| gap["reason"] == "object_refused"), "{gaps}");
    assert_eq!(told[0]["agent"], "factory-b2");
    assert!(told[0]["details"].as_str().unwrap().contains("shop-a1"), "{gaps}");
    assert!(told[2]["details"].as_str().unwrap().contains("row 2"), "{gaps}");
}

#[tokio::test]
async fn objects_are_kept_in_a_table_of_uploads_before_they_are_deleted() {
    let inbox = cars();
    ingest(&inbox).await;
    let store = Store::open(&inbox.url()).unwrap();
    let log = inbox.folder.path().join("uploads/_delta_log/00000000000000000001.json");
    let text = std::fs::read_to_string(log).unwrap();
    let added: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let rows: i64 = added
        .iter()
        .filter_map(|action| action["add"]["stats"].as_str())
        .map(|stats| serde_json::from_str::<Value>(stats).unwrap()["numRecords"].as_i64().unwrap())
        .sum();
    assert_eq!(rows, 4);
    let history = store.history().await.unwrap().unwrap();
    assert_eq!(history.progress.number, 1);
    assert_eq!(history.progress.taken.len(), 4);
}

#[tokio::test]
async fn a_boot_leaves_the_list_when_it_ended_with_an_empty_spool() {
    let inbox = Inbox::new();
    inbox.put("shop-a1", BOOT_1, 1, &rows(10));
    let boots = async || {
        let store = Store::open(&inbox.url()).unwrap();
        store.history().await.unwrap().unwrap().progress.boots.len()
    };
    says(&inbox, "shop-a1", BOOT_1, AgentState::Ended, 10, 9);
    ingest(&inbox).await;
    ingest(&inbox).await;
    assert_eq!(boots().await, 1);
    says(&inbox, "shop-a1", BOOT_1, AgentState::Ended, 10, 10);
    ingest(&inbox).await;
    assert_eq!(boots().await, 0);
    assert_eq!(counts(&inbox).await, json!([{"rows": 10, "twice": 0}]));
}

/// One scene for [`each_row_is_there_once_wherever_the_ingester_dies`]: something is in the table,
/// something to be swept, something new, and something that cannot be believed.
async fn half_way() -> Inbox {
    let inbox = Inbox::new();
    inbox.put("shop-a1", BOOT_1, 1, &rows(10));
    inbox.put("factory-b2", BOOT_1, 1, &rows(5));
    ingester(&inbox, AT_ONCE).pass(now()).await.unwrap();
    inbox.put("shop-a1", BOOT_1, 11, &rows(10));
    inbox.put("shop-a1", BOOT_2, 1, &rows(3));
    let bad = inbox.put("stock-c3", BOOT_1, 1, &rows(5));
    std::fs::write(&bad, "nothing").unwrap();
    inbox
}

#[tokio::test]
async fn each_row_is_there_once_wherever_the_ingester_dies() {
    let whole = json!([{"rows": 28, "twice": 0}]);
    let mut deaths = 0;
    for at in 1.. {
        let mut died = false;
        for dies in [Dies::Before(at), Dies::After(at)] {
            let inbox = half_way().await;
            let mortal = Moody::mortal(&inbox, dies);
            let first = mortal.ingester(AT_ONCE).pass(now()).await;
            died |= mortal.writes() >= at;
            deaths += usize::from(first.is_err());
            assert_eq!(counts(&inbox).await, whole, "{dies:?}, just dead: {first:?}");
            ingest(&inbox).await;
            ingest(&inbox).await;
            assert_eq!(counts(&inbox).await, whole, "{dies:?}, mended");
            assert_eq!(objects_in(&inbox.folder.path().join("inbox")), 0, "{dies:?}");
        }
        if !died {
            break;
        }
    }
    assert!(deaths > 15, "{deaths} deaths only");
}

#[tokio::test]
async fn an_answer_that_was_lost_is_no_loss() {
    // It does not die, it only does not hear: the same ingester goes on.
    for at in 1..16 {
        let inbox = half_way().await;
        let deaf = Moody::mortal(&inbox, Dies::Deaf(at));
        let mut ingester = deaf.ingester(AT_ONCE);
        let mut failed = 0;
        for _ in 0..4 {
            failed += usize::from(ingester.pass(now()).await.is_err());
        }
        assert!(failed <= 1, "write {at}: {failed} passes failed");
        assert_eq!(counts(&inbox).await, json!([{"rows": 28, "twice": 0}]), "write {at}");
        assert_eq!(objects_in(&inbox.folder.path().join("inbox")), 0, "write {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ingesters_at_once_take_each_row_once() {
    let inbox = Inbox::new();
    // Long enough for who reads meanwhile.
    let grace = Duration::from_secs(5);
    let tasks = (0..2).map(|_| {
        let mut ingester = ingester(&inbox, Options { grace, ..AT_ONCE });
        tokio::spawn(async move {
            for _ in 0..12 {
                match ingester.pass(now()).await {
                    Ok(_) | Err(IngestError::Races) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for number in 0..12 {
        inbox.put("shop-a1", BOOT_1, number * 5 + 1, &rows(5));
        inbox.put("factory-b2", BOOT_1, number * 7 + 1, &rows(7));
        let seen = counts(&inbox).await;
        assert_eq!(seen, json!([{"rows": (number + 1) * 12, "twice": 0}]));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    ingest(&inbox).await;
    assert_eq!(counts(&inbox).await, json!([{"rows": 144, "twice": 0}]));
    assert_eq!(objects_in(&inbox.folder.path().join("inbox")), 0);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused() {
    let inbox = cars();
    let careless = Moody::careless(&inbox);
    let refused = careless.ingester(AT_ONCE).pass(now()).await;
    assert!(matches!(refused, Err(IngestError::Unsafe(_))), "{refused:?}");
    assert_eq!(objects_in(&inbox.folder.path().join("history")), 0);
    let left = careless.files.list(Some(&Path::from("ingest"))).count().await;
    assert_eq!(left, 0, "the probe is taken away");
}

#[tokio::test]
async fn days_are_partitions_and_times_and_keys_leave_files_out() {
    let inbox = Inbox::new();
    let mut all = rows(2);
    all.push(row(Kind::Publish, NOON - 86_400 * SECOND));
    // A clock that is far off is held within the days around the upload.
    all.push(row(Kind::Publish, NOON - 300 * 86_400 * SECOND));
    inbox.put("shop-a1", BOOT_1, 1, &all);
    ingest(&inbox).await;
    let days = "SELECT day, count(*) AS rows FROM history GROUP BY day ORDER BY day";
    assert_eq!(
        inbox.ask(days).await,
        json!([
            {"day": "2026-11-14", "rows": 1},
            {"day": "2026-11-20", "rows": 1},
            {"day": "2026-11-21", "rows": 2},
        ])
    );
    let history = Store::open(&inbox.url()).unwrap().history().await.unwrap().unwrap();
    let mut bounds: Vec<_> =
        history.files.iter().map(|file| (file.day, file.rows, file.at)).collect();
    bounds.sort_unstable();
    let today = bounds.last().unwrap();
    assert_eq!(today.1, 2);
    let (low, high) = today.2.unwrap();
    assert_eq!(low, Micros(NOON));
    assert!(high >= Micros(NOON + SECOND) && high < Micros(NOON + SECOND + 1000));
    for filter in ["day = '2026-11-20'", "at < '2026-11-20T23:00:00Z' AND day > '2026-11-15'"] {
        let plan = inbox.ask(&format!("EXPLAIN SELECT seq FROM history WHERE {filter}")).await;
        let plan = plan.to_string();
        assert_eq!(plan.matches(".parquet").count(), 1, "{filter}: {plan}");
        assert!(plan.contains("history/day=2026-11-20/"), "{filter}: {plan}");
    }
}
