//! Rows of files that have no place in memory are found by their ids all the same: by the directory
//! of their day, and without where it is missing, broken or old; with few requests where it is there.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use common::busy::{MINUTE, busy, delivered, look, of, text};
use common::counting::Counting;
use common::table::Table;
use common::{BOOT_1, BOOT_2, Inbox, NOON, id};
use flowtap_query::answer::{Answers, Filter};
use flowtap_query::api::types::{Found, Why};
use flowtap_query::find::{Catalog, FlowId, Wanted};
use flowtap_query::ingest::{Ingester, Options};
use flowtap_query::store::{Store, now};
use flowtap_record::{Encoding, Field, Kind, Micros};

const DAY: i64 = 24 * 60 * MINUTE;

fn with_room(store: Store, room: usize) -> Answers {
    Answers::new(Arc::new(Catalog::new(store).with_room(room)))
}

fn answers(inbox: &Inbox, room: usize) -> Answers {
    with_room(Store::open(&inbox.url()).unwrap(), room)
}

async fn rebuild(inbox: &Inbox) -> usize {
    let store = Store::open(&inbox.url()).unwrap();
    Ingester::new(store, Options::default()).rebuild_directories().await.unwrap()
}

/// Directories on disk.
fn directories(inbox: &Inbox) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![inbox.folder.path().join("derived")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Rows of all kinds of ids, over several days.
fn rows() -> Inbox {
    let inbox = busy();
    let key = || vec![Field { name: "vehicle", value: "V-7", encoding: Encoding::Text }];
    let mut traced = of(Kind::Publish, NOON - 3 * DAY, "x-1", Some("flow-x"));
    traced.message.ids.trace_id = id("trace-1");
    traced.message.ids.command_id = id("command-1");
    traced.message.keys = key();
    let mut late = delivered(NOON + 3 * DAY, "x-2", Some("flow-x"));
    late.message.ids.causation_id = id("x-1");
    // What it causes in another flow, and in none.
    let mut other = of(Kind::Publish, NOON - 2 * DAY, "y-1", Some("flow-y"));
    other.message.ids.causation_id = id("x-1");
    let mut loose = of(Kind::Publish, NOON - DAY, "z-1", None);
    loose.message.ids.causation_id = id("x-2");
    inbox.put("far-a1", BOOT_1, 1, &[traced, other, loose, late]);
    // A message without any id but its fingerprint, and one of no flow with a key.
    let mut nameless = of(Kind::Publish, NOON - 4 * DAY, "n-1", None);
    nameless.message.ids.event_id = None;
    nameless.message.keys = vec![Field { name: "vehicle", value: "V-8", encoding: Encoding::Text }];
    let mut again = delivered(NOON - 4 * DAY + MINUTE, "n-1", None);
    again.message.ids.event_id = None;
    inbox.put("far-b1", BOOT_2, 1, &[nameless, again]);
    inbox
}

const IDS: [&str; 17] = [
    "flow-x",
    "x-1",
    "x-2",
    "command-1",
    "trace-1",
    "V-7",
    "V-8",
    "z-1",
    "y-1",
    "1042",
    "42",
    "l-1",
    "l-3",
    "b-2",
    "rolled-back",
    "h-7",
    "nobody",
];

/// What an id leads to: what it matched, and all records, whatever is known beyond them.
fn found(why: Why) -> String {
    let Why { found, matched, flow, records, truncated, .. } = why;
    let flow = flow.map(|flow| (flow.summary.flow, flow.records, flow.related, flow.truncated));
    serde_json::to_string(&(found, matched, flow, records, truncated)).unwrap()
}

async fn all_found(answers: &Answers) -> BTreeMap<&'static str, String> {
    look(answers).await;
    let mut all = BTreeMap::new();
    for id in IDS {
        all.insert(id, found(answers.why(id).await.unwrap()));
    }
    all
}

/// Everything is found with hardly any room.
async fn check(inbox: &Inbox, want: &BTreeMap<&'static str, String>, state: &str) {
    let small = answers(inbox, 1);
    let got = all_found(&small).await;
    assert!(small.catalog().marks().objects <= 1, "{state}");
    for (id, want) in want {
        assert_eq!(want, &got[id], "{state}: {id}");
    }
}

#[tokio::test]
async fn ids_of_every_kind_are_found_whatever_the_directory_knows() {
    let inbox = rows();
    let want = all_found(&answers(&inbox, usize::MAX)).await;
    let nothing: Vec<_> = want.iter().filter(|(_, it)| it.starts_with("[\"nothing\"")).collect();
    assert_eq!(nothing.len(), 1, "{nothing:?}");
    assert!(want["flow-x"].contains("z-1"), "what hangs on it belongs to it");
    assert!(want["flow-x"].contains("flow-y"), "and what it caused elsewhere is told");

    let mut table = Table::new(&inbox);
    table.ingest(|_| 2);
    table.ingest_all();
    table.clear_inbox();
    check(&inbox, &want, "without a directory").await;
    assert_eq!(rebuild(&inbox).await, 7);
    check(&inbox, &want, "with directories").await;
    table.compact(3);
    table.vacuum();
    check(&inbox, &want, "with directories of files that are gone").await;
    rebuild(&inbox).await;
    check(&inbox, &want, "made anew").await;
    table.compact(1);
    rebuild(&inbox).await;
    check(&inbox, &want, "and again").await;

    // Of the newest ones one is cut off, in one a page is flipped, one is gone, one is empty.
    let all = directories(&inbox);
    for (n, path) in all.iter().rev().enumerate() {
        let bytes = std::fs::read(path).unwrap();
        match n % 5 {
            0 => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            1 => {
                let mut bytes = bytes;
                bytes[100] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }
            2 => std::fs::remove_file(path).unwrap(),
            3 => std::fs::write(path, []).unwrap(),
            _ => {}
        }
    }
    check(&inbox, &want, "with broken directories").await;
    for path in directories(&inbox) {
        std::fs::remove_file(path).unwrap();
    }
    check(&inbox, &want, "with none again").await;
}

#[tokio::test]
async fn who_looks_on_finds_everything_while_files_and_directories_change() {
    let inbox = rows();
    let want = all_found(&answers(&inbox, usize::MAX)).await;
    let mut table = Table::new(&inbox);
    table.ingest_all();
    table.clear_inbox();
    let looker = answers(&inbox, 1);
    for files in [1, 3, 2] {
        let got = all_found(&looker).await;
        assert_eq!(want, got, "{files}");
        rebuild(&inbox).await;
        table.compact(files);
        // Nobody looked since: files and what tells of them may be gone.
        table.vacuum();
        for path in directories(&inbox).iter().step_by(2) {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// A flow a day on so many days, and one that began on the first and ends on the last, all in the
/// table.
fn days(count: i64) -> (Inbox, Table) {
    let inbox = Inbox::new();
    for day in 0..count {
        let mut rows = Vec::new();
        for n in 0..40 {
            let at = NOON + day * DAY + n * MINUTE;
            let flow = Some(text(format!("flow-{day}-{n}")));
            let event = text(format!("event-{day}-{n}"));
            rows.extend([of(Kind::Publish, at, event, flow), delivered(at + 9, event, flow)]);
        }
        // The last day has a place in memory.
        if day == 0 {
            rows.push(of(Kind::Publish, NOON, "long-1", Some("long")));
        }
        if day == count - 2 {
            let mut last = delivered(NOON + day * DAY, "long-2", Some("long"));
            last.message.ids.causation_id = id("long-1");
            rows.push(last);
        }
        inbox.put("shop-a1", BOOT_1, day * 1000 + 1, &rows);
    }
    let mut table = Table::new(&inbox);
    table.ingest_all();
    table.clear_inbox();
    (inbox, table)
}

#[tokio::test]
async fn a_cold_lookup_over_seven_days_costs_few_requests_and_a_warm_one_none() {
    let (inbox, _table) = days(8);
    assert_eq!(rebuild(&inbox).await, 8);
    let store = Counting::over(&inbox);
    let answers = with_room(Store::over("counting://", store.clone()), 1);
    look(&answers).await;
    store.take();
    let catalog = answers.catalog();
    let long = FlowId::Transaction("long".to_owned());
    let ask = async || {
        let hits = catalog.hits("long").await.unwrap();
        let all = catalog.gather(&long, Wanted::All).await.unwrap();
        assert_eq!((hits.rows.len(), all.rows.len(), all.truncated), (2, 2, false));
        let (first, last) = (all.rows[0].at, all.rows[1].at);
        assert_eq!(last.since(first), 6 * DAY, "with its whole length");
    };
    ask().await;
    let (requests, rounds) = store.take();
    println!("cold: {requests} requests in {rounds} rounds");
    assert!(requests <= 12 && rounds <= 3, "{requests} requests in {rounds} rounds");
    ask().await;
    assert!(store.take().0 <= 2);
}

#[tokio::test]
async fn an_id_that_is_nowhere_in_thirty_days_costs_few_requests() {
    let (inbox, _table) = days(31);
    assert_eq!(rebuild(&inbox).await, 31);
    let store = Counting::over(&inbox);
    let answers = with_room(Store::over("counting://", store.clone()), 1);
    look(&answers).await;
    store.take();
    let hits = answers.catalog().hits("nobody").await.unwrap();
    assert!(hits.rows.is_empty());
    let (requests, rounds) = store.take();
    println!("unknown: {requests} requests in {rounds} rounds");
    assert!(requests <= 35 && rounds == 1, "{requests} requests in {rounds} rounds");
}

#[tokio::test]
async fn what_is_found_by_id_is_said_and_what_a_list_does_not_reach() {
    let (inbox, _table) = days(8);
    rebuild(&inbox).await;
    let answers = answers(&inbox, 1);
    let why = answers.why("flow-2-7").await.unwrap();
    assert!(!why.flow.unwrap().truncated);
    assert_eq!(why.coverage.searched_from, None);
    let nothing = answers.why("nobody").await.unwrap();
    assert_eq!(nothing.found, Found::Nothing);
    assert!(!nothing.explanation.unwrap().contains("was not searched"));
    let list = answers.flows(&Filter::default()).await.unwrap();
    assert_eq!(list.flows.len(), 40);
    let from = Micros(NOON + 6 * DAY + 39 * MINUTE + 9).to_string();
    assert_eq!(list.coverage.searched_from, Some(from));
    assert!(list.coverage.sentence.contains("searched back to"));
}

#[tokio::test]
async fn the_ingester_covers_days_that_are_over_once_and_takes_old_directories_away() {
    let (inbox, mut table) = days(3);
    let store = Store::open(&inbox.url()).unwrap();
    let mut ingester = Ingester::new(store, Options::default());
    let later = Micros(NOON + 30 * DAY);
    for _ in 0..3 {
        assert!(ingester.cover(later).await.unwrap());
    }
    assert!(!ingester.cover(later).await.unwrap());
    // Files became others: all of them are new.
    table.compact(2);
    for _ in 0..3 {
        assert!(ingester.cover(later).await.unwrap());
    }
    // The clock of the store is this machine's.
    for (now, left) in [(now().0, 6), (now().0 + 7 * DAY, 3)] {
        let store = Store::open(&inbox.url()).unwrap();
        let mut other = Ingester::new(store, Options::default());
        assert!(!other.cover(Micros(now)).await.unwrap());
        assert_eq!(directories(&inbox).len(), left, "who read the old ones is done a day later");
    }
    let small = answers(&inbox, 1);
    assert!(small.why("long").await.unwrap().flow.is_some());
}

#[tokio::test]
async fn a_file_that_cannot_be_decoded_is_said_to_be_missing_and_holds_up_no_other_answer() {
    let (inbox, table) = days(4);
    let oldest = inbox.folder.path().join("history").join(table.files().next().unwrap());
    let size = std::fs::metadata(&oldest).unwrap().len();
    std::fs::write(&oldest, vec![0; usize::try_from(size).unwrap()]).unwrap();
    let answers = answers(&inbox, 1);
    look(&answers).await;
    let error = answers.why("flow-1-1").await.unwrap_err().to_string();
    assert!(error.contains("not readable as Parquet"), "{error}");
    look(&answers).await;
    assert!(answers.why("flow-1-1").await.unwrap().flow.is_some());
    assert_eq!(answers.catalog().snapshot().missing.len(), 1);
    let nothing = answers.why("flow-0-1").await.unwrap();
    assert!(nothing.explanation.unwrap().contains("could not be read"));
}

#[tokio::test]
async fn what_the_inbox_had_no_room_for_is_found_as_soon_as_it_is_in_the_table() {
    let inbox = rows();
    let answers = answers(&inbox, 1);
    let before = answers.why("flow-x").await.unwrap();
    assert!(before.coverage.searched_from.is_some());
    let mut table = Table::new(&inbox);
    table.ingest_all();
    table.clear_inbox();
    look(&answers).await;
    let after = answers.why("flow-x").await.unwrap();
    assert_eq!((after.found, after.coverage.searched_from), (Found::Flow, None));
    // Days that are dropped from the table are gone.
    table.drop_all();
    look(&answers).await;
    assert!(answers.why("flow-x").await.unwrap().coverage.searched_from.is_some());
}

/// Bytes a row, and how long it takes; run by hand.
#[tokio::test]
#[ignore = "takes long, and measures"]
async fn how_large_a_directory_is() {
    const FLOWS: i64 = 30_000;
    let inbox = Inbox::new();
    let uuid = |n: i64| {
        let digits = (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        text(format!("{digits:032x}"))
    };
    // Three messages a flow, one caused by the other, each published, confirmed, delivered, acked.
    let mut rows = Vec::new();
    for flow in 0..FLOWS {
        let transaction = Some(uuid(flow * 10));
        for n in 0..3 {
            let (event, at) = (uuid(flow * 10 + n + 1), NOON + flow * 1000 + n * 100);
            let cause = (n > 0).then(|| uuid(flow * 10 + n)).and_then(id);
            for kind in [Kind::Publish, Kind::Confirm, Kind::Deliver, Kind::Settle] {
                let mut row = of(kind, at, event, transaction);
                row.message.ids.causation_id = cause;
                row.message.ids.trace_id = id(uuid(flow * 10 + 9));
                let order = text(format!("order-{flow}"));
                row.message.keys =
                    vec![Field { name: "order", value: order, encoding: Encoding::Text }];
                rows.push(row);
            }
        }
    }
    for (n, rows) in (0_i64..).zip(rows.chunks(20_000)) {
        inbox.put("shop-a1", BOOT_1, n * 20_000 + 1, rows);
    }
    let store = Store::open(&inbox.url()).unwrap();
    let mut ingester = Ingester::new(store, Options::default());
    while ingester.pass(Micros(NOON + 9 * DAY)).await.unwrap().more {}
    while ingester.compact(Micros(NOON + 9 * DAY)).await.unwrap() {}
    let started = std::time::Instant::now();
    assert_eq!(ingester.rebuild_directories().await.unwrap(), 1);
    let seconds = started.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(&directories(&inbox)[0]).unwrap().len();
    let mut files: Vec<PathBuf> = Vec::new();
    for file in std::fs::read_dir(inbox.folder.path().join("history/day=2026-11-21")).unwrap() {
        files.push(file.unwrap().path());
    }
    let largest = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).max();
    let each = |bytes: u64| bytes as f64 / rows.len() as f64;
    println!(
        "{} rows: directory {:.2} bytes a row, table {:.1}; {seconds:.2} s",
        rows.len(),
        each(bytes),
        each(largest.unwrap()),
    );
}
