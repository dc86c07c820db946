//! The catalog over a store that misbehaves: objects that cannot be read for a while, or cannot be
//! believed, more objects than there is room for, ids on more rows than anybody reads.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::busy::look;
use common::moody::Moody;
use common::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, id, row};
use flowtap_query::answer::{Answers, Filter};
use flowtap_query::api::types::{FlowList, Found, State};
use flowtap_query::find::Catalog;
use flowtap_query::store::Store;
use flowtap_record::{Encoding, Field, Kind, Micros, Observation, Outcome, RowRef, Seq};

fn answers(store: &Arc<Moody>) -> Answers {
    Answers::new(Arc::new(Catalog::new(Store::over("moody://", store.clone()))))
}

fn states(list: &FlowList) -> Vec<(&str, State)> {
    list.flows.iter().map(|flow| (flow.flow.as_str(), flow.state)).collect()
}

fn only(state: State) -> Filter {
    Filter { states: vec![state], ..Filter::default() }
}

/// A message of a flow, or of none.
fn of(
    kind: Kind,
    at: i64,
    event: &'static str,
    flow: Option<&'static str>,
) -> Observation<'static> {
    let mut row = row(kind, at);
    row.who.service = Some("shop");
    row.place.destination = Some("orders");
    row.place.routing_key = Some("");
    row.message.ids.event_id = id(event);
    row.message.message = Some(event);
    row.message.ids.transaction_id = flow.and_then(id);
    row
}

fn ends(kind: Kind, at: i64, seq: i64, outcome: Outcome) -> Observation<'static> {
    let mut row = row(kind, at);
    row.concludes = Some(RowRef { boot: None, seq: Seq(seq) });
    row.outcome = Some(outcome);
    row
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_read_later_and_is_a_gap_until_then() {
    let inbox = cars();
    let store = Moody::over(&inbox);
    let answers = answers(&store);
    store.keep_back(Some("factory-b2/01940000-0000-7000-8000-000000000001"));
    look(&answers).await;
    assert_eq!((answers.catalog().marks().unread, answers.catalog().marks().objects), (1, 3));
    let why = answers.why("1042").await.unwrap();
    let gap = why.coverage.gaps.iter().find(|gap| gap.agent == "factory-b2").unwrap();
    assert_eq!(gap.reason.as_deref(), Some("object_unread"));
    assert_ne!(why.flow.unwrap().verdict.state, State::Broken, "who rejected it is not known yet");

    store.keep_back(None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    look(&answers).await;
    assert_eq!((answers.catalog().marks().unread, answers.catalog().marks().objects), (0, 4));
    let why = answers.why("1042").await.unwrap();
    assert_eq!(why.flow.unwrap().verdict.headline, "BROKEN at factory");
    assert!(why.coverage.gaps.iter().all(|gap| gap.reason.as_deref() == Some("agent_died")));
}

#[tokio::test]
async fn an_object_that_cannot_be_believed_stays_out_and_is_a_gap() {
    let inbox = cars();
    let name = Inbox::name("shop-a1", BOOT_2, 1, 1);
    let path = inbox.folder.path().join(name.path());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "no parquet").unwrap();
    let store = Moody::over(&inbox);
    let answers = answers(&store);
    for _ in 0..2 {
        look(&answers).await;
        assert_eq!((answers.catalog().marks().refused, answers.catalog().marks().unread), (1, 0));
    }
    let coverage = answers.agents().await.unwrap().coverage;
    let reasons: Vec<_> = coverage.gaps.iter().filter_map(|gap| gap.reason.as_deref()).collect();
    assert!(reasons.contains(&"object_refused"), "{reasons:?}");
}

#[tokio::test]
async fn what_is_gone_from_the_store_is_not_searched_any_more() {
    let inbox = cars();
    let store = Moody::over(&inbox);
    let answers = answers(&store);
    look(&answers).await;
    std::fs::remove_dir_all(inbox.folder.path().join("inbox/history/shop-a1")).unwrap();
    look(&answers).await;
    let list = answers.flows(&Filter::default()).await.unwrap();
    let flows: Vec<_> = list.flows.iter().map(|flow| flow.flow.as_str()).collect();
    assert_eq!(flows, ["order-1046", "order-1045", "order-1042"]);
    assert!(list.flows[2].truncated, "its publish is gone");
    assert_eq!(answers.why("order-1043").await.unwrap().found, Found::Nothing);
}

#[tokio::test]
async fn a_full_index_drops_the_oldest_and_says_so() {
    let inbox = Inbox::new();
    let names: Vec<&'static str> =
        (0..20).map(|n| &*Box::leak(format!("order-{n}").into_boxed_str())).collect();
    for (n, name) in (0_i64..).zip(&names) {
        let mut rejected =
            ends(Kind::Settle, NOON + n * 60 * SECOND + 9, 2 * n + 1, Outcome::Rejected);
        rejected.message.ids.transaction_id = id(name);
        let mut delivered = of(Kind::Deliver, NOON + n * 60 * SECOND, name, Some(name));
        delivered.place.subscription = Some("factory.orders");
        inbox.put("shop-a1", BOOT_1, 2 * n + 1, &[delivered, rejected]);
    }
    let whole = Catalog::new(Store::open(&inbox.url()).unwrap());
    whole.refresh(Duration::ZERO, Micros(NOON)).await.unwrap();
    let room = whole.marks().index_bytes / 4;
    let small = Catalog::new(Store::open(&inbox.url()).unwrap()).with_room(room);
    let answers = Answers::new(Arc::new(small));
    look(&answers).await;
    let marks = answers.catalog().marks();
    assert_eq!((marks.objects, marks.skipped), (5, 15));
    assert!(marks.index_bytes <= room);
    let list = answers.flows(&Filter::default()).await.unwrap();
    assert_eq!(list.flows[0].flow, "order-19", "the newest are there");
    assert_eq!(list.flows.len(), 5);
    assert_eq!(list.coverage.searched_from.as_deref(), Some("2026-11-21T12:14:00.000009Z"));
    assert!(list.coverage.sentence.contains("searched back to"), "{}", list.coverage.sentence);
    assert!(list.flows.iter().all(|flow| !flow.truncated));
    let why = answers.why("order-3").await.unwrap();
    assert!(why.explanation.unwrap().contains("was not searched"));
    // Looking again neither reads nor counts the dropped ones again.
    look(&answers).await;
    assert_eq!(answers.catalog().marks(), marks);
}

#[tokio::test]
async fn a_key_on_too_many_rows_leads_to_its_newest_flow() {
    let inbox = Inbox::new();
    let key = || vec![Field { name: "customer", value: "42", encoding: Encoding::Text }];
    let rows: Vec<_> = (0..11_000)
        .map(|n| {
            let flow = if n == 0 {
                "oldest"
            } else if n == 10_999 {
                "newest"
            } else {
                "between"
            };
            let mut row = of(Kind::Publish, NOON + n * SECOND, "e", Some(flow));
            row.message.keys = key();
            row
        })
        .collect();
    for (n, rows) in (0_i64..).zip(rows.chunks(4000)) {
        inbox.put("shop-a1", BOOT_1, n * 4000 + 1, rows);
    }
    let answers = answers(&Moody::over(&inbox));
    let why = answers.why("42").await.unwrap();
    assert_eq!(why.flow.unwrap().summary.flow, "newest");
    assert!(why.truncated);
    assert!(why.matched.iter().all(|matched| matched.flow.as_deref() != Some("oldest")));
    let whole = answers.why("between").await.unwrap().flow.unwrap();
    assert!(whole.truncated && whole.records.len() == 10_000);
}

#[tokio::test]
async fn once_read_a_store_that_is_away_is_answered_from_memory_and_the_age_is_said() {
    let inbox = cars();
    let store = Moody::over(&inbox);
    let answers = answers(&store);
    store.away.store(true, SeqCst);
    assert!(answers.flows(&Filter::default()).await.is_err(), "nothing was ever read");
    store.away.store(false, SeqCst);
    look(&answers).await;
    store.away.store(true, SeqCst);
    assert!(answers.catalog().refresh(Duration::ZERO, Micros(NOON)).await.is_err());
    let list = answers.flows(&Filter::default()).await.unwrap();
    assert_eq!(list.flows.len(), 5);
    assert!(list.coverage.stale && list.coverage.read_at.is_some());
    assert!(list.coverage.sentence.contains("could not be read"), "{}", list.coverage.sentence);
    assert_eq!(answers.why("1042").await.unwrap().found, Found::Flow);
    store.away.store(false, SeqCst);
    look(&answers).await;
    assert!(!answers.flows(&Filter::default()).await.unwrap().coverage.stale);
}

#[tokio::test]
async fn who_asks_a_store_that_was_away_a_moment_ago_is_told_at_once() {
    let inbox = cars();
    let store = Moody::over(&inbox);
    let answers = answers(&store);
    store.away.store(true, SeqCst);
    let refresh = |age| answers.catalog().refresh(age, Micros(NOON));
    let first = refresh(Duration::from_mins(1)).await.unwrap_err().to_string();
    store.away.store(false, SeqCst);
    let second = refresh(Duration::from_mins(1)).await.unwrap_err().to_string();
    assert!(first.contains("SlowDown") && second.contains("SlowDown"), "{first}\n{second}");
    refresh(Duration::ZERO).await.unwrap();
    refresh(Duration::from_mins(1)).await.unwrap();
}

#[tokio::test]
async fn broken_flows_are_found_also_where_the_word_no_bears_no_id_or_came_late() {
    let inbox = Inbox::new();
    // A rejection without ids, in the object of its delivery and in the next one.
    let deliver = |at, event, flow| {
        let mut row = of(Kind::Deliver, at, event, Some(flow));
        row.place.subscription = Some("q");
        row
    };
    let reject = |at, seq| {
        let mut row = ends(Kind::Settle, at, seq, Outcome::Rejected);
        row.who.service = Some("shop");
        row.place.subscription = Some("q");
        row
    };
    inbox.put(
        "shop-a1",
        BOOT_1,
        1,
        &[deliver(NOON, "e-1", "same"), reject(NOON + 9, 1), deliver(NOON + 20, "e-2", "next")],
    );
    inbox.put("shop-a1", BOOT_1, 4, &[reject(NOON + 30, 3)]);
    // A transaction that is rolled back in the next object.
    let mut published = of(Kind::Publish, NOON + 40, "e-3", Some("rolled-back"));
    published.session.broker_txn = Some("1/1/1");
    inbox.put("shop-b1", BOOT_2, 1, &[published]);
    let mut aborted = row(Kind::Transaction, NOON + 50);
    aborted.session.broker_txn = Some("1/1/1");
    aborted.outcome = Some(Outcome::Aborted);
    inbox.put("shop-b1", BOOT_2, 2, &[aborted]);
    let answers = answers(&Moody::over(&inbox));
    let list = answers.flows(&only(State::Broken)).await.unwrap();
    let want = [("rolled-back", State::Broken), ("next", State::Broken), ("same", State::Broken)];
    assert_eq!(states(&list), want);
}

#[tokio::test]
async fn a_message_handed_back_too_often_is_found_as_broken() {
    let inbox = Inbox::new();
    let mut declared = row(Kind::Topology, NOON);
    declared.outcome = Some(Outcome::Declared);
    declared.place.subscription = Some("q");
    declared.details = Some(
        r#"{"what":"queue","arguments":{"x-dead-letter-exchange":"","x-dead-letter-routing-key":"dead"}}"#,
    );
    // Nobody rejects it: it is handed back, and the broker moves it on, and there again.
    let handed_back = |at, seq, queue| {
        let mut delivered = of(Kind::Deliver, at, "e-1", Some("tired"));
        delivered.place.subscription = Some(queue);
        let mut requeued = of(Kind::Settle, at + 1, "e-1", Some("tired"));
        requeued.place.subscription = Some(queue);
        requeued.concludes = Some(RowRef { boot: None, seq: Seq(seq) });
        requeued.outcome = Some(Outcome::Requeued);
        [delivered, requeued]
    };
    let [first, back] = handed_back(NOON + 10, 2, "q");
    let [mut second, back_again] = handed_back(NOON + 20, 4, "dead");
    second.details = Some(r#"{"death":{"queue":"q","reason":"delivery_limit"}}"#);
    inbox.put("shop-a1", BOOT_1, 1, &[declared, first, back, second, back_again]);
    let answers = answers(&Moody::over(&inbox));
    let list = answers.flows(&only(State::Broken)).await.unwrap();
    assert_eq!(states(&list), [("tired", State::Broken)]);
}

#[tokio::test]
async fn a_list_learns_of_the_end_of_a_transaction_that_came_after_it_was_read() {
    let inbox = Inbox::new();
    let mut published = of(Kind::Publish, NOON, "e-1", Some("paid"));
    published.session.broker_txn = Some("1/1/1");
    inbox.put("shop-a1", BOOT_1, 1, &[published]);
    let answers = answers(&Moody::over(&inbox));
    let before = answers.flows(&Filter::default()).await.unwrap();
    assert_ne!(before.flows[0].state, State::Broken);
    let mut aborted = row(Kind::Transaction, NOON + 50);
    aborted.session.broker_txn = Some("1/1/1");
    aborted.outcome = Some(Outcome::Aborted);
    inbox.put("shop-a1", BOOT_1, 2, &[aborted]);
    look(&answers).await;
    let after = answers.flows(&Filter::default()).await.unwrap();
    assert_eq!(states(&after), [("paid", State::Broken)]);
}

#[tokio::test]
async fn rows_outside_the_range_of_an_objects_name_are_never_read_whatever_its_statistics_say() {
    let inbox = Inbox::new();
    let rows = [1, 2].map(|at| of(Kind::Publish, NOON + at, "e-1", Some("mine")));
    inbox.put("shop-a1", BOOT_1, 1, &rows);
    // Statistics of `seq` are the object's own word: the plan itself has to hold rows to the name.
    let plan = inbox.ask("EXPLAIN SELECT count(*) FROM history").await.to_string();
    assert!(plan.contains("__first") && plan.contains("__last"), "{plan}");
    assert_eq!(inbox.ask("SELECT count(*) AS n FROM history").await[0]["n"], 2);
}

#[tokio::test]
async fn a_status_that_is_none_is_counted() {
    let inbox = cars();
    let folder = inbox.folder.path().join("agents/shop-a1");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{BOOT_1}.json")), "{}").unwrap();
    let answers = answers(&Moody::over(&inbox));
    for _ in 0..2 {
        look(&answers).await;
        assert_eq!(answers.agents().await.unwrap().unreadable, 1);
        assert_eq!(answers.catalog().marks().statuses_refused, 1);
    }
}
