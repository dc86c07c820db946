//! What `flowtap verify` proves, and what it finds.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{BOOT_1, BOOT_2, Inbox, NOON, SECOND, cars, row, says};
use flowtap_query::ingest::{Ingester, Keep, Options};
use flowtap_query::store::Store;
use flowtap_query::tables::Limits;
use flowtap_query::verify::{Outcome, Report, What, verify};
use flowtap_record::{AgentState, Gap, Kind, Micros, Observation, RowRef, Seq};

async fn report(inbox: &Inbox) -> Report {
    let store = Store::open(&inbox.url()).unwrap();
    let now = Micros(jiff::Timestamp::now().as_microsecond());
    verify(&store, &Limits::default(), now).await.unwrap()
}

fn found(report: &Report) -> Vec<(What, &str, i64, i64)> {
    let problems = report.problems.iter();
    problems.map(|one| (one.what, one.agent.as_str(), one.first, one.last)).collect()
}

fn publishes(count: usize) -> Vec<Observation<'static>> {
    (0..count).map(|i| row(Kind::Publish, NOON + i as i64)).collect()
}

#[tokio::test]
async fn a_whole_history_is_clean() {
    let inbox = cars();
    says(&inbox, "shop-a1", BOOT_1, AgentState::Ended, 9, 9);
    says(&inbox, "factory-b2", BOOT_1, AgentState::Died, 3, 3);
    says(&inbox, "factory-b2", BOOT_2, AgentState::Ended, 2, 2);
    let report = report(&inbox).await;
    assert_eq!(report.outcome(), Outcome::Clean, "{report:#?}");
    assert_eq!((report.agents, report.boots, report.rows, report.gaps), (2, 3, 14, 1));
}

#[tokio::test]
async fn a_hole_is_missing_unless_a_gap_names_it() {
    let inbox = Inbox::new();
    inbox.put("a", BOOT_1, 3, &publishes(2));
    inbox.put("a", BOOT_1, 8, &publishes(1));
    says(&inbox, "a", BOOT_1, AgentState::Ended, 10, 10);
    assert_eq!(
        found(&report(&inbox).await),
        [(What::Missing, "a", 1, 2), (What::Missing, "a", 5, 7), (What::Missing, "a", 9, 10)]
    );
    let mut lost = Observation::new(Kind::Gap, Micros(NOON));
    lost.reason = Some("spool_corrupt");
    let details = format!(r#"{{"boot":"{BOOT_1}","first_seq":5,"last_seq":6}}"#);
    lost.details = Some(&details);
    lost.gap = Gap { count: Some(2), ..Gap::default() };
    inbox.put("a", BOOT_2, 1, &[lost]);
    says(&inbox, "a", BOOT_2, AgentState::Ended, 1, 1);
    let report = report(&inbox).await;
    assert_eq!(
        found(&report),
        [(What::Missing, "a", 1, 2), (What::Missing, "a", 7, 7), (What::Missing, "a", 9, 10)]
    );
    assert_eq!((report.named[0].first, report.named[0].last), (5, 6));
}

#[tokio::test]
async fn rows_of_an_object_that_was_left_out_are_named_not_missing() {
    let inbox = Inbox::new();
    inbox.put("a", BOOT_1, 1, &publishes(2));
    let path = inbox.put("a", BOOT_1, 3, &publishes(2));
    inbox.put("a", BOOT_1, 5, &publishes(1));
    std::fs::write(path, "no Parquet").unwrap();
    says(&inbox, "a", BOOT_1, AgentState::Ended, 5, 5);
    let report = report(&inbox).await;
    assert_eq!(report.outcome(), Outcome::Clean, "{report:#?}");
    assert_eq!(report.named[0].reason, "object_refused");
}

#[tokio::test]
async fn a_row_that_is_there_twice_is_doubled() {
    let inbox = Inbox::new();
    let name = Inbox::name("a", BOOT_1, 1, 3);
    let publish = row(Kind::Publish, NOON);
    let rows = [(1, &publish), (1, &publish), (3, &publish)];
    inbox.put_numbered(&name, &Inbox::footer(&name), "a", BOOT_1, &rows);
    says(&inbox, "a", BOOT_1, AgentState::Ended, 3, 3);
    assert_eq!(
        found(&report(&inbox).await),
        [(What::Doubled, "a", 1, 1), (What::Missing, "a", 2, 2)]
    );
}

#[tokio::test]
async fn objects_that_overlap_are_no_doubles() {
    let inbox = Inbox::new();
    inbox.put("a", BOOT_1, 1, &publishes(1));
    inbox.put("a", BOOT_1, 1, &publishes(2));
    says(&inbox, "a", BOOT_1, AgentState::Ended, 2, 2);
    assert_eq!(report(&inbox).await.outcome(), Outcome::Clean);
}

#[tokio::test]
async fn what_concludes_a_row_that_is_not_there_is_found() {
    let inbox = Inbox::new();
    let mut confirm = row(Kind::Confirm, NOON + 1);
    confirm.concludes = Some(RowRef { boot: None, seq: Seq(7) });
    inbox.put("a", BOOT_1, 1, &[row(Kind::Publish, NOON), confirm]);
    says(&inbox, "a", BOOT_1, AgentState::Ended, 2, 2);
    assert_eq!(found(&report(&inbox).await), [(What::RefMissing, "a", 2, 2)]);
}

#[tokio::test]
async fn a_publish_is_unconfirmed_only_while_its_channel_went_on_in_sight() {
    let publish = |at: i64, channel| {
        let mut publish = row(Kind::Publish, at);
        publish.session.confirm_expected = Some(true);
        publish.who.connection = Some(1);
        publish.who.channel = Some(channel);
        publish
    };
    let mut confirm = publish(NOON + 100 * SECOND, 1);
    confirm.kind = Kind::Confirm;
    confirm.session.confirm_expected = None;
    confirm.concludes = Some(RowRef { boot: None, seq: Seq(2) });
    let rows = [
        publish(NOON, 1),
        publish(NOON + 99 * SECOND, 1),
        confirm,
        // Its channel says nothing more.
        publish(NOON, 2),
    ];
    let inbox = Inbox::new();
    inbox.put("a", BOOT_1, 1, &rows);
    says(&inbox, "a", BOOT_1, AgentState::Ended, 4, 4);
    assert_eq!(found(&report(&inbox).await), [(What::Unconfirmed, "a", 1, 1)]);
    let mut gap = Observation::new(Kind::Gap, Micros(NOON + 200 * SECOND));
    gap.gap =
        Gap { from: Some(Micros(NOON + SECOND)), to: Some(Micros(NOON + 2 * SECOND)), count: None };
    inbox.put("a", BOOT_1, 5, &[gap]);
    says(&inbox, "a", BOOT_1, AgentState::Ended, 5, 5);
    assert_eq!(report(&inbox).await.outcome(), Outcome::Clean);
}

#[tokio::test]
async fn a_silent_agent_and_a_rest_in_a_spool_prove_nothing() {
    let inbox = Inbox::new();
    inbox.put("a", BOOT_1, 1, &publishes(2));
    says(&inbox, "a", BOOT_1, AgentState::Ended, 5, 2);
    inbox.put("b", BOOT_1, 1, &publishes(1));
    let report = report(&inbox).await;
    assert_eq!(report.outcome(), Outcome::Unproven);
    let why: Vec<_> = report.unproven.iter().map(|one| one.why.as_str()).collect();
    assert_eq!(
        why,
        ["rows 3 to 5 are still in its spool", "no status object tells how far it should go"]
    );
}

#[tokio::test]
async fn rows_of_days_that_went_by_retention_are_not_missed_and_others_are() {
    const DAY: i64 = 24 * 3600 * SECOND;
    let inbox = Inbox::new();
    let mut rows = publishes(4);
    rows.extend((0..3).map(|i| {
        let mut confirm = row(Kind::Confirm, NOON + 3 * DAY + i);
        confirm.concludes = Some(RowRef { boot: None, seq: Seq(i + 2) });
        confirm
    }));
    inbox.put("a", BOOT_1, 1, &rows);
    // One of whom nothing is left.
    inbox.put("b", BOOT_1, 1, &publishes(3));
    says(&inbox, "a", BOOT_1, AgentState::Ended, 9, 9);
    says(&inbox, "b", BOOT_1, AgentState::Ended, 3, 3);
    let keep = Keep { age: Some(Duration::from_hours(48)), bytes: None };
    let options = Options { grace: Duration::ZERO, keep };
    let mut ingester = Ingester::new(Store::open(&inbox.url()).unwrap(), options);
    let now = Micros(NOON + 3 * DAY);
    while ingester.pass(now).await.unwrap().more {}
    assert_eq!(found(&report(&inbox).await), [(What::Missing, "a", 8, 9)]);
    assert_eq!(ingester.retain(now).await.unwrap().len(), 1);
    let kept = report(&inbox).await;
    assert_eq!(found(&kept), [(What::Missing, "a", 8, 9)], "what was to be kept is missed");
    assert_eq!(kept.kept_from, Some(Micros(NOON + DAY / 2)));
    inbox.put("a", BOOT_1, 9, &[row(Kind::Publish, NOON + 3 * DAY + 9)]);
    assert_eq!(found(&report(&inbox).await), [(What::Missing, "a", 8, 8)]);
    inbox.put("a", BOOT_1, 8, &[row(Kind::Publish, NOON + 3 * DAY + 8)]);
    let report = report(&inbox).await;
    assert_eq!(report.outcome(), Outcome::Clean, "{report:#?}");
    assert_eq!(report.rows, 5);
}
