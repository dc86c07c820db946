//! The rows that a service's sidecar made, held against what clients say and what brokers have.

use std::collections::{BTreeMap, BTreeSet};

use flowtap_tests::sql::Store;
use serde_json::Value;

use crate::support::Place;

/// Rows of one service, in their order.
pub(crate) struct Rows(Vec<Value>);

impl Rows {
    /// All rows of a service in a store.
    pub(crate) fn of(store: &Store, service: &str) -> Self {
        Self(store.sql(&format!(
            "SELECT boot, seq, ref_boot, ref_seq, kind, outcome, reason, destination, partition, \
             log_offset, subscription, connection, consumer, delivery_tag, client, principal, routing_key, message, \
             CAST(broker_at AS BIGINT) AS broker_at, \
             broker_txn, redelivered, confirm_expected, headers, keys, size, details, \
             CAST(gap_from AS BIGINT) AS gap_from, CAST(gap_to AS BIGINT) AS gap_to \
             FROM history WHERE service = '{service}' ORDER BY boot, seq"
        )))
    }

    /// Rows of a kind that are about a topic.
    pub(crate) fn all<'a>(
        &'a self,
        kind: &'a str,
        topic: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        self.kind(kind).filter(move |row| row["destination"] == topic)
    }

    /// Rows of a kind.
    pub(crate) fn kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |row| row["kind"] == kind)
    }

    /// How many rows of a kind are about a topic.
    pub(crate) fn count(&self, kind: &str, topic: &str) -> i64 {
        self.all(kind, topic).count() as i64
    }

    /// The places that rows of a kind name.
    pub(crate) fn places(&self, kind: &str, topic: &str) -> Vec<Place> {
        self.all(kind, topic).map(place).collect()
    }

    /// Everything was seen.
    pub(crate) fn assert_no_gap(&self) {
        let gaps: Vec<_> = self.kind("gap").collect();
        assert!(gaps.is_empty(), "{gaps:#?}");
    }

    /// Each record is published once, and confirmed once, where it lies.
    pub(crate) fn assert_published(&self, topic: &str, expected: &BTreeSet<Place>) {
        assert_eq!(self.count("publish", topic), expected.len() as i64, "publishes to {topic}");
        assert!(self.all("publish", topic).all(|row| row["confirm_expected"] == true));
        let confirmed = self.places("confirm", topic);
        let places: BTreeSet<_> = confirmed.iter().cloned().collect();
        assert_eq!(&places, expected, "confirms of {topic}");
        assert_eq!(confirmed.len(), places.len(), "each is confirmed once");
        let published: BTreeSet<_> = self.all("publish", topic).map(own_number).collect();
        let concluded: BTreeSet<_> = self.all("confirm", topic).map(other_number).collect();
        assert_eq!(published, concluded, "each publish has its confirm");
        assert!(self.all("confirm", topic).all(|row| row["outcome"] == "confirmed"));
    }

    /// By which answers the deliveries came.
    pub(crate) fn tags(&self) -> impl Iterator<Item = i64> {
        self.kind("deliver").filter_map(|row| row["delivery_tag"].as_i64())
    }

    /// What a group was given of a topic, in order: each delivery's place.
    pub(crate) fn delivered(&self, topic: &str, group: Option<&str>) -> Vec<Place> {
        self.deliveries(topic, group).map(place).collect()
    }

    /// The deliveries of a topic to a group, or to nobody's.
    pub(crate) fn deliveries<'a>(
        &'a self,
        topic: &'a str,
        group: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Value> {
        self.all("deliver", topic).filter(move |row| row["subscription"].as_str() == group)
    }

    /// The settles of deliveries to a group, by outcome.
    pub(crate) fn settles(&self, topic: &str, group: &str) -> BTreeMap<String, i64> {
        let mut all = BTreeMap::new();
        for row in self.all("settle", topic).filter(|row| row["subscription"] == group) {
            *all.entry(row["outcome"].as_str().unwrap_or("null").to_owned()).or_default() += 1;
        }
        all
    }

    /// No delivery is settled twice, and every settle names its delivery.
    pub(crate) fn assert_settled_at_most_once(&self) {
        let mut ended: BTreeMap<_, u64> = BTreeMap::new();
        for row in self.kind("settle") {
            *ended.entry(other_number(row)).or_default() += 1;
        }
        let twice: Vec<_> = ended.iter().filter(|&(_, &count)| count > 1).collect();
        assert!(twice.is_empty(), "settled more than once: {twice:?}");
        let delivered: BTreeSet<_> = self.kind("deliver").map(own_number).collect();
        let strange: Vec<_> = ended.keys().filter(|it| !delivered.contains(it)).collect();
        assert!(strange.is_empty(), "settles of no delivery: {strange:?}");
    }

    /// Each delivery to a group is settled exactly once: its members have all left.
    pub(crate) fn assert_settled_exactly_once(&self) {
        self.assert_settled_at_most_once();
        let ended: BTreeSet<_> = self.kind("settle").map(other_number).collect();
        let grouped = self.kind("deliver").filter(|row| row["subscription"].is_string());
        let open: Vec<_> = grouped.filter(|row| !ended.contains(&own_number(row))).collect();
        assert!(open.is_empty(), "{} deliveries are open, as {:#?}", open.len(), open[0]);
    }

    /// What is settled as committed is what lies below the group's offsets, as the brokers have
    /// them, and `position` says the same.
    pub(crate) fn assert_committed(&self, group: &str, offsets: &BTreeMap<(String, i32), i64>) {
        let committed: BTreeSet<Place> = self
            .kind("settle")
            .filter(|row| row["subscription"] == group && row["outcome"] == "committed")
            .map(place)
            .collect();
        let below: BTreeSet<Place> = self
            .kind("deliver")
            .filter(|row| row["subscription"] == group)
            .map(place)
            .filter(|(topic, partition, offset)| {
                offsets.get(&(topic.clone(), *partition)).is_some_and(|end| offset < end)
            })
            .collect();
        let differ: Vec<_> = committed.symmetric_difference(&below).collect();
        assert!(differ.is_empty(), "committed in rows or at the broker only: {differ:?}");
        let positions: BTreeMap<_, _> = self
            .kind("position")
            .filter(|row| row["subscription"] == group)
            .map(place)
            .map(|(topic, partition, offset)| ((topic, partition), offset))
            .collect();
        // A member commits where it stands, also where it has read nothing.
        let moved: BTreeMap<_, _> =
            positions.into_iter().filter(|(at, _)| offsets.get(at) != Some(&0)).collect();
        let offsets: BTreeMap<_, _> = offsets
            .iter()
            .filter(|(_, end)| **end > 0)
            .map(|(at, end)| (at.clone(), *end))
            .collect();
        assert_eq!(moved, offsets, "positions of {group}");
    }
}

/// Where a row's record lies.
pub(crate) fn place(row: &Value) -> Place {
    let topic = row["destination"].as_str().unwrap_or_else(|| panic!("no topic in {row}"));
    let number = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("no {name} in {row}"));
    (topic.to_owned(), number("partition") as i32, number("log_offset"))
}

type Number = (String, i64);

fn own_number(row: &Value) -> Number {
    (row["boot"].as_str().expect("a boot").to_owned(), row["seq"].as_i64().expect("a number"))
}

fn other_number(row: &Value) -> Number {
    let boot = row["ref_boot"].as_str().unwrap_or_else(|| panic!("{row} concludes nothing"));
    (boot.to_owned(), row["ref_seq"].as_i64().expect("a number"))
}
