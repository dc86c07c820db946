//! How many messages went over each edge of the map, by minute; what is older by the hour and then
//! by the day, so that a year takes no more than it must.

use std::collections::{BTreeMap, HashMap};

use super::object::MapKey;

const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;
/// Minutes are kept for so long behind the newest, hours for so long.
const MINUTES_FOR: i64 = 2 * DAY;
const HOURS_FOR: i64 = 60 * DAY;
/// Edges kept: beyond, those that were used last the longest ago are forgotten.
const MAX_EDGES: usize = 20_000;

/// Counts by edge and minute.
#[derive(Default)]
pub(super) struct Counts {
    edges: HashMap<MapKey, BTreeMap<i64, u64>>,
    newest: i64,
    /// Everything before is by the hour already.
    folded: i64,
}

impl Counts {
    pub(super) fn add(&mut self, key: MapKey, minute: i64, count: u64) {
        self.newest = self.newest.max(minute);
        *self.edges.entry(key).or_default().entry(minute).or_default() += count;
    }

    /// Keeps within bounds.
    pub(super) fn bound(&mut self) {
        let minutes_from = (self.newest - MINUTES_FOR).div_euclid(HOUR) * HOUR;
        if minutes_from > self.folded {
            let hours_from = (self.newest - HOURS_FOR).div_euclid(DAY) * DAY;
            for counts in self.edges.values_mut() {
                fold(counts, minutes_from, HOUR);
                fold(counts, hours_from, DAY);
            }
            self.folded = minutes_from;
        }
        if self.edges.len() > MAX_EDGES {
            let last = |counts: &BTreeMap<i64, u64>| counts.last_key_value().map(|(at, _)| *at);
            let mut ages: Vec<_> = self.edges.values().map(last).collect();
            // A tenth at once: sorting each time that one comes would cost more.
            ages.sort_unstable();
            let oldest = ages[ages.len() - MAX_EDGES + MAX_EDGES / 10];
            self.edges.retain(|_, counts| last(counts) > oldest);
        }
    }

    /// Sums from minute to minute, each with its last minute.
    pub(super) fn sums(&self, from: i64, to: i64) -> BTreeMap<MapKey, (u64, i64)> {
        let mut sums = BTreeMap::new();
        if from >= to {
            return sums;
        }
        for (key, counts) in &self.edges {
            let within = counts.range(from..to);
            let sum =
                within.fold((0, i64::MIN), |(sum, _), (minute, count)| (sum + count, *minute));
            if sum.0 > 0 {
                sums.insert(key.clone(), sum);
            }
        }
        sums
    }
}

/// Puts all counts before `to` into buckets of `width` minutes.
fn fold(counts: &mut BTreeMap<i64, u64>, to: i64, width: i64) {
    let rest = counts.split_off(&to);
    let fine = std::mem::replace(counts, rest);
    for (minute, count) in fine {
        *counts.entry(minute.div_euclid(width) * width).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Broker;

    fn key(service: usize) -> MapKey {
        MapKey {
            publish: true,
            broker: Broker::default(),
            service: service.to_string(),
            destination: String::new(),
            subscription: None,
        }
    }

    #[test]
    fn old_minutes_become_hours_and_days_and_nothing_is_lost() {
        let mut counts = Counts::default();
        let end = 100 * DAY;
        for minute in 0..end {
            counts.add(key(1), minute, 1);
        }
        counts.bound();
        let kept = counts.edges[&key(1)].len() as i64;
        assert!(kept <= MINUTES_FOR + HOUR + HOURS_FOR / HOUR + 24 + 40, "{kept} counts kept");
        assert_eq!(counts.sums(i64::MIN, i64::MAX)[&key(1)], (end as u64, end - 1));
        assert_eq!(counts.sums(end - 10, end)[&key(1)].0, 10, "the newest are by the minute");
    }

    #[test]
    fn edges_that_nobody_uses_any_more_make_room() {
        let mut counts = Counts::default();
        for service in 0..MAX_EDGES + 5 {
            counts.add(key(service), service as i64, 1);
        }
        counts.bound();
        let left = counts.sums(i64::MIN, i64::MAX);
        assert!(left.len() <= MAX_EDGES && left.len() > MAX_EDGES / 2);
        assert!(left.contains_key(&key(MAX_EDGES + 4)) && !left.contains_key(&key(0)));
    }
}
