//! Rows move from the inbox into the table, and there from file to file, and nobody who asks sees it:
//! the same answers before, while and after, from a catalog that looked on and from one that begins.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::busy::{
    MINUTE, Picture, assert_same, busy, delivered, ends, look, of, picture, text, without_time,
};
use common::moody::Moody;
use common::table::Table;
use common::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, id};
use flowtap_query::answer::{Answers, Filter};
use flowtap_query::api::types::{Found, State};
use flowtap_query::find::{Catalog, FlowId, Wanted};
use flowtap_query::store::{Lost, Quarantined, Store};
use flowtap_record::{Encoding, Field, Kind, Micros, Outcome};

/// A third start of an agent.
const BOOT_3: &str = "01940000-0000-7000-8000-000000000003";

fn fresh(inbox: &Inbox) -> Answers {
    Answers::new(Arc::new(Catalog::new(Store::open(&inbox.url()).unwrap())))
}

fn moody(store: &Arc<Moody>) -> Answers {
    Answers::new(Arc::new(Catalog::new(Store::over("moody://", store.clone()))))
}

/// Compares what is seen by those who looked on, and by one that begins.
async fn check(inbox: &Inbox, lookers: &[Answers], want: &Picture, state: &str) {
    for answers in lookers {
        assert_same(want, &picture(answers).await, &format!("{state}, looking on"));
        assert_same(want, &picture(answers).await, &format!("{state}, looking on again"));
    }
    assert_same(want, &picture(&fresh(inbox)).await, &format!("{state}, from the beginning"));
}

#[tokio::test]
async fn nothing_that_is_seen_changes_while_rows_move() {
    let inbox = busy();
    let mut lookers = vec![fresh(&inbox)];
    let want = picture(&lookers[0]).await;
    let broken: Vec<&str> = want["Broken"]["flows"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|flow| flow["flow"].as_str())
        .collect();
    assert!(broken.contains(&"rolled-back") && broken.contains(&"next"), "{broken:?}");
    assert!(want["flows"]["flows"].as_array().unwrap().len() > 35);

    let mut table = Table::new(&inbox);
    // Some boots in part, of some objects a part.
    table.ingest(|name| if name.agent == "many-a1" { 50 } else { 2 });
    check(&inbox, &lookers, &want, "a part is in the table").await;
    table.clear_inbox();
    check(&inbox, &lookers, &want, "and gone from the inbox").await;
    lookers.push(fresh(&inbox));
    table.ingest(|name| if name.agent == "many-a1" { 70 } else { 4 });
    table.ingest_all();
    check(&inbox, &lookers, &want, "all is in the table").await;
    lookers.push(fresh(&inbox));
    table.clear_inbox();
    assert!(table.inbox().is_empty());
    check(&inbox, &lookers, &want, "the inbox is empty").await;
    table.compact(3);
    check(&inbox, &lookers, &want, "the table is compacted").await;
    table.vacuum();
    check(&inbox, &lookers, &want, "old files are gone").await;
    table.compact(1);
    table.vacuum();
    check(&inbox, &lookers, &want, "the table is compacted again").await;
    table.compact(2);
    check(&inbox, &lookers[..1], &want, "and again").await;
}

#[tokio::test]
async fn what_comes_later_goes_on_where_the_table_ends() {
    let inbox = busy();
    let answers = fresh(&inbox);
    look(&answers).await;
    let mut table = Table::new(&inbox);
    table.ingest_all();
    table.clear_inbox();
    look(&answers).await;
    // A rejection without an id, of a delivery in the table, and a second part of a flow.
    inbox.put("bare-a1", BOOT_1, 5, &[delivered(NOON + 7 * MINUTE, "b-5", Some("later"))]);
    look(&answers).await;
    table.ingest_all();
    table.clear_inbox();
    inbox.put(
        "bare-a1",
        BOOT_1,
        6,
        &[
            ends(Kind::Settle, NOON + 7 * MINUTE + 9, 5, Outcome::Rejected),
            delivered(NOON + 7 * MINUTE + 20, "b-7", Some("same")),
        ],
    );
    look(&answers).await;
    let seen = picture(&answers).await;
    let later = answers.flow("later").await.unwrap().unwrap();
    assert_eq!(later.verdict.state, State::Broken);
    assert_eq!(later.records.len(), 2);
    assert_eq!(answers.flow("same").await.unwrap().unwrap().records.len(), 3);
    check(&inbox, &[answers], &seen, "rows after the table").await;
}

#[tokio::test]
async fn an_answer_that_finds_its_rows_gone_looks_again() {
    let inbox = busy();
    let answers = fresh(&inbox);
    look(&answers).await;
    let mut table = Table::new(&inbox);
    table.ingest_all();
    table.clear_inbox();
    // Nobody looked since: the index leads to objects that are not there any more.
    let flow = FlowId::Transaction("order-1042".to_owned());
    let gathered = answers.catalog().gather(&flow, Wanted::All).await.unwrap();
    assert_eq!(gathered.rows.len(), 4, "a publish, its confirm, a delivery, its end");
    // The same from file to file.
    table.compact(2);
    table.vacuum();
    let list = answers.flows(&Filter::default()).await.unwrap();
    assert!(list.flows.iter().any(|flow| flow.flow == "order-1042"));
    table.compact(1);
    table.vacuum();
    let gathered = answers.catalog().gather(&flow, Wanted::Rules).await.unwrap();
    assert_eq!(gathered.rows.len(), 4);
}

#[tokio::test]
async fn answers_are_whole_while_files_come_and_go() {
    let inbox = busy();
    let answers = fresh(&inbox);
    let want = picture(&answers).await;
    let asking = {
        let answers = answers.clone();
        let want = want.clone();
        tokio::spawn(async move {
            for _ in 0..60 {
                for id in ["order-1042", "many-7", "same", "kafka-1"] {
                    let flow = answers.flow(id).await.unwrap();
                    let flow = without_time(serde_json::to_value(&flow).unwrap());
                    let want = &want[&format!("flow {id}")];
                    assert_eq!(flow["records"], want["records"], "{id}");
                    assert_eq!(flow["summary"], want["summary"], "{id}");
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let mut table = Table::new(&inbox);
    for last in [1, 2, 3, 30, 60, 90] {
        table.ingest(|_| last);
        table.clear_inbox();
        look(&answers).await;
        table.compact(usize::try_from(last % 4).unwrap() + 1);
        table.vacuum();
        look(&answers).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    asking.await.unwrap();
    assert_same(&want, &picture(&answers).await, "in the end");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_waited_for_and_then_a_gap() {
    let inbox = busy();
    let store = Moody::over(&inbox);
    let answers = moody(&store);
    let want = picture(&answers).await;
    let mut table = Table::new(&inbox);
    table.ingest_all();
    store.keep_back(Some("history/day=2026-11-21"));
    assert_same(&want, &picture(&answers).await, "the inbox has all of it still");
    // One that begins has nothing else.
    table.clear_inbox();
    let late = moody(&store);
    look(&late).await;
    assert!(late.catalog().snapshot().missing.iter().any(|missing| missing.agent.is_none()));
    assert_eq!(late.catalog().marks().unread, 1);
    let coverage = late.agents().await.unwrap().coverage;
    assert!(coverage.gaps.iter().any(|gap| gap.reason.as_deref() == Some("file_unread")));
    let broken = Filter { states: vec![State::Broken], ..Filter::default() };
    assert!(late.flows(&broken).await.unwrap().flows.is_empty());

    store.keep_back(None);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_same(&want, &picture(&late).await, "it could be read at last");
    assert_same(&want, &picture(&answers).await, "by who looked on, too");
}

#[tokio::test]
async fn what_the_ingester_did_not_believe_and_what_never_came_are_gaps_once() {
    let inbox = cars();
    let name = Inbox::name("shop-a1", BOOT_2, 1, 7);
    let path = inbox.folder.path().join(name.path());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "no parquet").unwrap();
    let answers = fresh(&inbox);
    look(&answers).await;
    let gaps = |answers: &Answers| {
        let coverage = &answers.catalog().snapshot().coverage;
        let gaps = coverage.gaps.iter().filter(|gap| gap.agent == "shop-a1");
        let mut gaps: Vec<_> = gaps.map(|gap| (gap.reason.clone().unwrap(), gap.count)).collect();
        gaps.sort();
        gaps
    };
    let refused = ("object_refused".to_owned(), Some(7));
    assert_eq!(gaps(&answers), std::slice::from_ref(&refused));
    let mut table = Table::new(&inbox);
    table.quarantined.push(Quarantined {
        object: name.path(),
        last_modified: Micros(NOON + MINUTE),
        why: "no Parquet".to_owned(),
    });
    table.lost.push(Lost {
        agent: "shop-a1".to_owned(),
        boot: BOOT_3.to_owned(),
        first: 1,
        last: 4,
        since: Micros(NOON + 2 * MINUTE),
    });
    table.ingest_all();
    let lost = ("rows_lost".to_owned(), Some(4));
    for step in 0..3 {
        look(&answers).await;
        let late = fresh(&inbox);
        look(&late).await;
        for answers in [&answers, &late] {
            assert_eq!(gaps(answers), [refused.clone(), lost.clone()], "{step}");
            assert_eq!(answers.catalog().snapshot().missing.len(), 2);
            assert_eq!(answers.catalog().marks().refused, 2);
        }
        table.clear_inbox();
        table.compact(1);
    }
}

#[tokio::test]
async fn a_full_index_drops_the_oldest_files() {
    let inbox = Inbox::new();
    let day = 24 * 60 * MINUTE;
    for n in 0..8_i64 {
        let flow = text(format!("order-{n}"));
        let mut rejected = ends(Kind::Settle, NOON - n * day + 9, 2 * n + 1, Outcome::Rejected);
        rejected.message.ids.transaction_id = id(flow);
        let rows = [delivered(NOON - n * day, flow, Some(flow)), rejected];
        inbox.put("shop-a1", BOOT_1, 2 * n + 1, &rows);
    }
    let mut table = Table::new(&inbox);
    table.ingest_all();
    table.clear_inbox();
    let whole = fresh(&inbox);
    look(&whole).await;
    assert_eq!(whole.catalog().marks().objects, 8);
    let room = whole.catalog().marks().index_bytes / 2;
    let small = Catalog::new(Store::open(&inbox.url()).unwrap()).with_room(room);
    let small = Answers::new(Arc::new(small));
    for _ in 0..2 {
        look(&small).await;
        let marks = small.catalog().marks();
        assert_eq!((marks.objects, marks.skipped), (4, 4));
        assert!(marks.index_bytes <= room);
        let list = small.flows(&Filter::default()).await.unwrap();
        let flows: Vec<&str> = list.flows.iter().map(|flow| flow.flow.as_str()).collect();
        assert_eq!(flows, ["order-0", "order-1", "order-2", "order-3"]);
        assert_eq!(list.coverage.searched_from.as_deref(), Some("2026-11-17T12:00:00.000009Z"));
    }
    // Days that are dropped from the table are gone.
    table.drop_all();
    look(&whole).await;
    assert_eq!(whole.catalog().marks().objects, 0);
    assert_eq!(whole.why("order-0").await.unwrap().found, Found::Nothing);
    assert!(whole.catalog().snapshot().searched_from.is_some());
}

#[tokio::test]
async fn a_key_on_too_many_rows_leads_to_its_newest_flow_in_the_table_too() {
    let inbox = Inbox::new();
    let rows: Vec<_> = (0..11_000)
        .map(|n| {
            let flow = match n {
                0 => "oldest",
                10_999 => "newest",
                _ => "between",
            };
            let mut row = of(Kind::Publish, NOON + n * SECOND, "e", Some(flow));
            row.message.keys =
                vec![Field { name: "customer", value: "42", encoding: Encoding::Text }];
            row
        })
        .collect();
    for (n, rows) in (0_i64..).zip(rows.chunks(4000)) {
        inbox.put("shop-a1", BOOT_1, n * 4000 + 1, rows);
    }
    let mut table = Table::new(&inbox);
    table.ingest(|_| 9000);
    table.clear_inbox();
    let answers = fresh(&inbox);
    let why = answers.why("42").await.unwrap();
    assert_eq!(why.flow.unwrap().summary.flow, "newest");
    assert!(why.truncated);
    assert!(why.matched.iter().all(|matched| matched.flow.as_deref() != Some("oldest")));
    let whole = answers.why("between").await.unwrap().flow.unwrap();
    assert!(whole.truncated && whole.records.len() == 10_000);
}

/// Seconds of CPU that this process took.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .map(|it| it.parse().unwrap_or(0.0))
        .collect();
    (fields[11] + fields[12]) / 100.0
}

/// How long it takes; run by hand.
#[tokio::test]
#[ignore = "takes long, and measures"]
async fn how_long_indexing_takes() {
    const OBJECTS: i64 = 30;
    const ROWS: i64 = 20_000;
    let inbox = Inbox::new();
    for object in 0..OBJECTS {
        let agent = text(format!("agent-{}", object % 5));
        let rows: Vec<_> = (0..ROWS / 2)
            .flat_map(|n| {
                let flow = Some(text(format!("flow-{:08x}", (n * 7919 + object / 5) % 60_000)));
                let event = text(format!("event-{object}-{n}"));
                let at = NOON + object * MINUTE + n * 1000;
                [delivered(at, event, flow), of(Kind::Publish, at + 200, event, flow)]
            })
            .collect();
        inbox.put(agent, BOOT_1, object / 5 * ROWS + 1, &rows);
    }
    let measure = |what: &'static str, answers: Answers| async move {
        let (started, before) = (std::time::Instant::now(), cpu());
        look(&answers).await;
        let marks = answers.catalog().marks();
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu() - before);
        println!(
            "{what}: {seconds:.2} s, {cpu:.2} s of CPU, {} rows, {} bytes of index",
            marks.rows, marks.index_bytes
        );
        for n in 0..3 {
            let started = std::time::Instant::now();
            let list = answers.flows(&Filter::default()).await.unwrap();
            let listed = started.elapsed().as_secs_f64();
            let started = std::time::Instant::now();
            let flow = answers.flow(&list.flows[n].flow).await.unwrap().unwrap();
            let one = started.elapsed().as_secs_f64();
            println!("  page {listed:.3} s, flow of {} rows {one:.3} s", flow.records.len());
        }
        answers
    };
    let first = measure("inbox", fresh(&inbox)).await;
    let mut table = Table::new(&inbox);
    table.ingest_all();
    measure("from the inbox into the table", first).await;
    table.clear_inbox();
    table.compact(4);
    measure("table", fresh(&inbox)).await;
}
