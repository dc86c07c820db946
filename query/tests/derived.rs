//! Flow summaries say what `history` says, at every moment, whatever happens to who keeps them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::busy::{MINUTE, busy, delivered, of, text};
use common::moody::{Dies, Moody};
use common::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, objects_in, row, says};
use flowtap_query::ingest::{Ingester, Keep, Options};
use flowtap_query::sql;
use flowtap_query::store::{Store, now};
use flowtap_query::tables::{Limits, context};
use flowtap_record::{AgentState, Kind, Micros};
use serde_json::{Value, json};

const DAY: i64 = 86_400 * SECOND;
const AT_ONCE: Options = Options { grace: Duration::ZERO, keep: Keep { age: None, bytes: None } };

fn ingester(inbox: &Inbox) -> Ingester {
    Ingester::new(Store::open(&inbox.url()).unwrap(), AT_ONCE)
}

async fn ingest(inbox: &Inbox) {
    ingester(inbox).pass(now()).await.unwrap();
}

async fn derive(inbox: &Inbox) -> bool {
    ingester(inbox).derive().await.unwrap()
}

/// The columns of a summary, made of rows of `history` directly.
const OF_ROWS: &str = "min(at) AS first_at, max(at) AS last_at, count(*) AS rows,
    count(*) FILTER (WHERE kind = 'publish') AS publishes,
    count(*) FILTER (WHERE kind = 'deliver') AS delivers,
    count(*) FILTER (WHERE kind = 'settle' AND outcome IN ('acked', 'committed', 'auto')) AS settled,
    count(*) FILTER (WHERE kind = 'settle' AND outcome = 'rejected') AS rejected,
    count(*) FILTER (WHERE kind = 'settle' AND outcome = 'requeued') AS requeued,
    count(*) FILTER (WHERE kind = 'settle' AND outcome = 'abandoned') AS abandoned,
    count(*) FILTER (WHERE kind = 'publish' AND confirm_expected) AS confirms_expected,
    count(*) FILTER (WHERE kind = 'confirm' AND outcome = 'confirmed') AS confirmed,
    count(*) FILTER (WHERE kind = 'confirm' AND outcome = 'refused') AS refused,
    count(*) FILTER (WHERE kind = 'return') AS unroutable,
    min(command) AS command,
    array_sort(array_agg(DISTINCT service) FILTER (WHERE service IS NOT NULL)) AS services,
    array_sort(array_agg(DISTINCT event_type) FILTER (WHERE event_type IS NOT NULL)) AS types,
    array_sort(array_agg(DISTINCT system) FILTER (WHERE system IS NOT NULL)) AS systems,
    min(field_get(keys, 'customer')) AS customer";
const OF_PARTS: &str = "first_at, last_at, rows, publishes, delivers, settled, rejected, requeued,
    abandoned, confirms_expected, confirmed, refused, unroutable, command, services, types, systems,
    field_get(keys, 'customer') AS customer";

/// Summaries are what rows say. Returns how many rows they have.
async fn check(inbox: &Inbox, state: &str) -> i64 {
    check_by(inbox, "flow_days", "flow, day", state).await;
    check_by(inbox, "flows", "flow", state).await
}

async fn check_by(inbox: &Inbox, table: &str, by: &str, state: &str) -> i64 {
    let want = format!(
        "SELECT {by}, {OF_ROWS} FROM (SELECT *, transaction_id AS flow FROM history) \
         WHERE flow IS NOT NULL GROUP BY {by} ORDER BY {by}"
    );
    let got = format!("SELECT {by}, {OF_PARTS} FROM {table} ORDER BY {by}");
    let (want, got) = (inbox.ask(&want).await, inbox.ask(&got).await);
    let (want, got) = (want.as_array().unwrap(), got.as_array().unwrap());
    for (want, got) in want.iter().zip(got) {
        assert_eq!(want, got, "{state}: {table}");
    }
    assert_eq!(want.len(), got.len(), "{state}: {table}");
    got.iter().map(|flow| flow["rows"].as_i64().unwrap()).sum()
}

fn table(inbox: &Inbox) -> PathBuf {
    inbox.folder.path().join("derived/flows/v1/table")
}

/// Files of the derived table that lie there, needed or not.
fn data(inbox: &Inbox) -> usize {
    objects_in(&table(inbox)) - objects_in(&table(inbox).join("_delta_log"))
}

/// The time of a lease that somebody died with is over.
fn let_leases_end(inbox: &Inbox) {
    let _none_is_fine = std::fs::remove_dir_all(inbox.folder.path().join("derived/flows/lease"));
}

/// So many rows of some flows, one object.
fn put_some(inbox: &Inbox, agent: &'static str, first: i64, count: i64, at: i64) {
    let rows: Vec<_> = (first..first + count)
        .map(|n| {
            let flow = text(format!("some-{}", n % 7));
            let kind = if n % 3 == 0 { Kind::Deliver } else { Kind::Publish };
            of(kind, at + n * SECOND, text(format!("{agent}-{n}")), Some(flow))
        })
        .collect();
    inbox.put(agent, BOOT_1, first, &rows);
}

/// The plan of a query, which names the files that it reads.
async fn query_reads(inbox: &Inbox, query: &str) -> String {
    inbox.ask(&format!("EXPLAIN {query}")).await.to_string()
}

#[tokio::test]
async fn summaries_are_the_same_before_while_and_after_rows_move() {
    let inbox = busy();
    let rows = check(&inbox, "in the inbox").await;
    assert!(rows > 100, "{rows}");
    ingest(&inbox).await;
    check(&inbox, "in the table").await;
    assert!(derive(&inbox).await);
    assert!(!derive(&inbox).await, "nothing is left to do");
    assert_eq!(check(&inbox, "derived").await, rows);
    let reads = query_reads(&inbox, "SELECT * FROM flows").await;
    assert!(reads.contains("derived/flows/v1/table/day="), "{reads}");
    assert!(!reads.contains("history/day="), "{reads}");

    put_some(&inbox, "some-a1", 1, 40, NOON);
    assert_eq!(check(&inbox, "new rows in the inbox").await, rows + 40);
    ingest(&inbox).await;
    assert_eq!(check(&inbox, "new rows in the table").await, rows + 40);
    // Rows that are covered and rows that are not lie in one file now.
    while ingester(&inbox).compact(now()).await.unwrap() {}
    let reads = query_reads(&inbox, "SELECT * FROM flows").await;
    assert!(reads.contains("history/day="), "{reads}");
    assert_eq!(check(&inbox, "mixed").await, rows + 40);
    assert!(derive(&inbox).await);
    assert_eq!(check(&inbox, "derived again").await, rows + 40);
    assert!(!query_reads(&inbox, "SELECT * FROM flows").await.contains("history/day="));
}

#[tokio::test]
async fn a_writer_may_die_at_any_write() {
    let mut at = 0;
    loop {
        at += 1;
        let mut died = false;
        for dies in [Dies::Before(at), Dies::After(at), Dies::Deaf(at)] {
            let inbox = cars();
            put_some(&inbox, "some-a1", 1, 20, NOON);
            ingest(&inbox).await;
            derive(&inbox).await;
            put_some(&inbox, "some-a1", 21, 20, NOON);
            ingest(&inbox).await;
            let mortal = Moody::mortal(&inbox, dies);
            let done = mortal.ingester(AT_ONCE).derive().await;
            died |= mortal.writes() >= at;
            check_by(&inbox, "flows", "flow", &format!("{dies:?}: {done:?}")).await;
            let_leases_end(&inbox);
            derive(&inbox).await;
            assert!(!derive(&inbox).await, "{dies:?}");
            check_by(&inbox, "flows", "flow", &format!("{dies:?}, made up for")).await;
        }
        if !died {
            break;
        }
    }
    assert!(at > 5, "{at} writes are too few to be all");
}

#[tokio::test]
async fn who_makes_it_again_may_die_at_any_write() {
    let mut at = 0;
    loop {
        at += 1;
        let mut died = false;
        for dies in [Dies::Before(at), Dies::After(at)] {
            let inbox = cars();
            put_some(&inbox, "some-a1", 1, 20, NOON);
            ingest(&inbox).await;
            derive(&inbox).await;
            let mortal = Moody::mortal(&inbox, dies);
            let done = mortal.ingester(AT_ONCE).rebuild_flows().await;
            died |= mortal.writes() >= at;
            check_by(&inbox, "flows", "flow", &format!("{dies:?}: {done:?}")).await;
            let_leases_end(&inbox);
            assert_eq!(ingester(&inbox).rebuild_flows().await.unwrap(), Some(27));
            assert_eq!(check_by(&inbox, "flows", "flow", &format!("{dies:?}, again")).await, 27);
        }
        if !died {
            break;
        }
    }
}

#[tokio::test]
async fn what_is_wrong_or_lost_is_made_again() {
    let inbox = cars();
    put_some(&inbox, "some-a1", 1, 20, NOON);
    ingest(&inbox).await;
    derive(&inbox).await;
    let state = inbox.folder.path().join("derived/flows/v1/state");
    std::fs::remove_dir_all(&state).unwrap();
    check(&inbox, "its state is lost").await;
    assert!(ingester(&inbox).derive().await.is_err(), "told, not hidden");
    ingester(&inbox).rebuild_flows().await.unwrap().unwrap();
    check(&inbox, "made again").await;
    let reads = query_reads(&inbox, "SELECT * FROM flows").await;
    assert!(reads.contains("derived/flows") && !reads.contains("history/day="), "{reads}");

    // A store without any history has nothing to be made again.
    let empty = Inbox::new();
    assert_eq!(ingester(&empty).rebuild_flows().await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_day_that_goes_takes_its_summaries_along() {
    let inbox = Inbox::new();
    // Flows that go on over midnight, and late rows of a day that is gone.
    for day in 0..5 {
        put_some(&inbox, "some-a1", day * 10 + 1, 10, NOON - (5 - day) * DAY);
    }
    ingest(&inbox).await;
    derive(&inbox).await;
    check(&inbox, "all days").await;
    let keep = Keep { age: Some(Duration::from_hours(72)), bytes: None };
    let mut old = Ingester::new(Store::open(&inbox.url()).unwrap(), Options { keep, ..AT_ONCE });
    assert_eq!(old.retain(Micros(NOON)).await.unwrap().len(), 2);
    assert_eq!(check(&inbox, "days are gone").await, 30);
    // Rows come to a day that is gone: those that were there do not come back with them.
    put_some(&inbox, "late-a1", 1, 10, NOON - 5 * DAY);
    put_some(&inbox, "late-a1", 11, 10, NOON - 2 * DAY);
    assert_eq!(check(&inbox, "late rows in the inbox").await, 50);
    ingest(&inbox).await;
    assert_eq!(check(&inbox, "late rows in the table").await, 50);
    derive(&inbox).await;
    assert_eq!(check(&inbox, "derived").await, 50);
    assert_eq!(old.retain(Micros(NOON)).await.unwrap().len(), 1);
    derive(&inbox).await;
    assert_eq!(check(&inbox, "gone again").await, 40);
    let days = inbox.ask("SELECT DISTINCT day FROM flow_days ORDER BY day").await;
    assert_eq!(days.as_array().unwrap().len(), 3, "{days}");
}

#[tokio::test]
async fn a_merged_file_does_not_bring_back_a_boot_that_ended_meanwhile() {
    // A file that stays as it is, and as many small ones as are merged at once.
    let inbox = Inbox::new();
    put_some(&inbox, "large-a1", 1, 300, NOON);
    ingest(&inbox).await;
    for n in 1..31 {
        put_some(&inbox, "small-a1", n, 1, NOON);
        ingest(&inbox).await;
    }
    derive(&inbox).await;
    // A boot comes, ends and is forgotten by the ingester before anybody derives.
    put_some(&inbox, "short-a1", 1, 20, NOON);
    ingest(&inbox).await;
    says(&inbox, "short-a1", BOOT_1, AgentState::Ended, 20, 20);
    for _ in 0..3 {
        ingest(&inbox).await;
    }
    let store = Store::open(&inbox.url()).unwrap();
    let progress = &store.history().await.unwrap().unwrap().progress;
    assert_eq!(progress.last_of("short-a1", BOOT_1), 0, "it is forgotten");
    derive(&inbox).await;
    let rows = check(&inbox, "derived").await;
    put_some(&inbox, "other-a1", 1, 20, NOON);
    ingest(&inbox).await;
    assert!(ingester(&inbox).compact(now()).await.unwrap());
    let reads = query_reads(&inbox, "SELECT * FROM flows").await;
    assert!(reads.contains("history/day=") && reads.contains("derived/flows"), "{reads}");
    assert_eq!(check(&inbox, "its rows lie with new ones").await, rows + 20);
    derive(&inbox).await;
    assert_eq!(check(&inbox, "derived again").await, rows + 20);
}

#[tokio::test]
async fn small_files_become_one_and_their_parts_one_row_a_flow() {
    let inbox = Inbox::new();
    for n in 0..9 {
        put_some(&inbox, "some-a1", n * 20 + 1, 20, NOON);
        ingest(&inbox).await;
        derive(&inbox).await;
        check(&inbox, &format!("{n}")).await;
    }
    let reads = query_reads(&inbox, "SELECT * FROM flows").await;
    assert_eq!(reads.matches("derived/flows/v1/table/day=").count(), 1, "{reads}");
    let mut ingester = ingester(&inbox);
    assert!(data(&inbox) > 5);
    assert!(ingester.vacuum(now().plus(DAY + SECOND)).await.unwrap() > 5);
    assert_eq!(data(&inbox), 1);
    assert_eq!(objects_in(&inbox.folder.path().join("derived/flows/v1/state")), 1);
    assert_eq!(check(&inbox, "old files are gone").await, 180);
}

#[tokio::test]
async fn only_one_is_at_work_until_its_time_is_over() {
    let inbox = cars();
    ingest(&inbox).await;
    let lease = inbox.folder.path().join("derived/flows/lease");
    std::fs::create_dir_all(&lease).unwrap();
    let held = |number: i64, until: Micros| {
        let word = json!({"owner": "another", "until": until}).to_string();
        std::fs::write(lease.join(format!("{number:020}.json")), word).unwrap();
    };
    held(7, now().plus(30 * SECOND));
    assert!(!derive(&inbox).await);
    assert_eq!(ingester(&inbox).rebuild_flows().await.unwrap(), None);
    assert!(!table(&inbox).exists());
    check(&inbox, "another is at work").await;
    held(8, Micros(now().0 - 1));
    assert!(derive(&inbox).await, "its time is over");
    assert_eq!(objects_in(&lease), 1, "old words are gone");

    put_some(&inbox, "some-a1", 1, 5, NOON);
    ingest(&inbox).await;
    held(100, now().plus(400 * DAY));
    assert!(derive(&inbox).await, "nobody holds it for a year");
    put_some(&inbox, "some-a1", 6, 5, NOON);
    ingest(&inbox).await;
    std::fs::write(lease.join(format!("{:020}.json", 200)), "no word").unwrap();
    assert!(derive(&inbox).await, "nobody said that");
    check(&inbox, "in the end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_know_nothing_of_one_another_do_no_harm() {
    let inbox = cars();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let mut ingester = ingester(&inbox);
            let lease = inbox.folder.path().join("derived/flows/lease");
            tokio::spawn(async move {
                for round in 0..15 {
                    // As if its time were over while the others are at work.
                    let _none_is_fine = std::fs::remove_dir_all(&lease);
                    // A lease that is taken away as it is taken is a store in trouble.
                    let _tried_again = ingester.derive().await;
                    if (round + writer) % 5 == 0 {
                        let _tried_again = ingester.rebuild_flows().await;
                    }
                    ingester.compact(now()).await.unwrap();
                }
            })
        })
        .collect();
    for n in 0..12 {
        put_some(&inbox, "some-a1", n * 10 + 1, 10, NOON);
        ingest(&inbox).await;
        check(&inbox, "while many write").await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let_leases_end(&inbox);
    derive(&inbox).await;
    let rows = check(&inbox, "in the end").await;
    assert_eq!(rows, 120 + 7, "of the cars, seven rows bear an id");
}

#[tokio::test]
async fn a_table_of_another_version_is_left_alone_and_goes_later() {
    let inbox = cars();
    ingest(&inbox).await;
    derive(&inbox).await;
    let folder = inbox.folder.path().join("derived/flows");
    std::fs::rename(folder.join("v1"), folder.join("v0")).unwrap();
    std::fs::create_dir_all(folder.join("v7")).unwrap();
    std::fs::write(folder.join("v7/table"), "of a newer one").unwrap();
    check(&inbox, "there is none of this version").await;
    assert!(derive(&inbox).await);
    check(&inbox, "made anew").await;
    let mut ingester = ingester(&inbox);
    ingester.vacuum(now()).await.unwrap();
    assert!(objects_in(&folder.join("v0")) > 0);
    ingester.vacuum(now().plus(2 * DAY)).await.unwrap();
    assert_eq!(objects_in(&folder.join("v0")), 0);
    assert_eq!(objects_in(&folder.join("v7")), 1);
    check(&inbox, "the old one is gone").await;
}

#[tokio::test]
async fn a_question_for_a_day_or_a_flow_reads_no_more_than_it_needs() {
    let inbox = Inbox::new();
    for (n, flow) in ["a", "m", "z"].into_iter().enumerate() {
        let at = NOON - n as i64 * DAY;
        let boot = if n == 0 { BOOT_1 } else { BOOT_2 };
        let agent = text(format!("agent-{flow}"));
        inbox.put(agent, boot, 1, &[delivered(at, flow, Some(flow))]);
    }
    ingest(&inbox).await;
    derive(&inbox).await;
    let moody = Moody::over(&inbox);
    let ask = async |query: &str| -> Result<usize, String> {
        let store = Store::over("moody://", moody.clone());
        let context = context(&store, &Limits::default()).await.unwrap();
        let rows = sql::query(&context, query).await.map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let json = sql::output::Format::Json;
        let written = sql::output::write(query, rows, json, 100, &mut out).await;
        written.map_err(|error| error.to_string())?;
        let rows: Value = serde_json::from_slice(&out).unwrap();
        Ok(rows.as_array().unwrap().len())
    };
    moody.keep_back(Some("table/day=2026-11-20"));
    assert_eq!(ask("SELECT * FROM flow_days WHERE day = '2026-11-21'").await, Ok(1));
    assert_eq!(ask("SELECT * FROM flows WHERE flow = 'z'").await, Ok(1));
    assert!(ask("SELECT * FROM flows WHERE flow = 'm'").await.is_err());
    // Rows that are not covered yet are found in the same way.
    moody.keep_back(Some("history/day=2026-11-20"));
    std::fs::remove_dir_all(inbox.folder.path().join("derived")).unwrap();
    assert_eq!(ask("SELECT * FROM flow_days WHERE day = '2026-11-21'").await, Ok(1));
    assert_eq!(ask("SELECT * FROM flows WHERE flow = 'z'").await, Ok(1));
    assert!(ask("SELECT * FROM flows WHERE flow = 'm'").await.is_err());
}

#[tokio::test]
async fn an_id_on_too_many_messages_is_shown_as_no_flow() {
    let inbox = Inbox::new();
    let rows: Vec<_> = (0..10_001)
        .map(|n| {
            let mut row = row(Kind::Publish, NOON + n * 1000);
            row.message.ids.transaction_id = common::id(if n < 3 { "some" } else { "ticks" });
            row
        })
        .chain((0..10_001).map(|n| of(Kind::Publish, NOON + n * MINUTE / 100, "t", Some("slow"))))
        .collect();
    for (n, rows) in (0_i64..).zip(rows.chunks(4000)) {
        inbox.put("shop-a1", BOOT_1, n * 4000 + 1, rows);
    }
    put_some(&inbox, "some-a1", 1, 3, NOON);
    let more: Vec<_> = (0..10).map(|_| of(Kind::Publish, NOON, "t", Some("ticks"))).collect();
    inbox.put("more-a1", BOOT_1, 1, &more);
    let query = "SELECT flow, publishes FROM flows WHERE no_flow ORDER BY flow";
    let want = json!([{"flow": "ticks", "publishes": 10_008}]);
    assert_eq!(inbox.ask(query).await, want);
    ingest(&inbox).await;
    derive(&inbox).await;
    assert_eq!(inbox.ask(query).await, want);
    check(&inbox, "many").await;
}
