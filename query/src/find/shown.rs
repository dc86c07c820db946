//! What is known to be missing from the table: objects that the ingester could not believe, and rows
//! that never came. An agent saw what they hold and nobody knows it, so their time is a gap of that
//! agent, as that of an inbox object that cannot be read.

use std::collections::{BTreeMap, HashMap};

use flowtap_record::Micros;

use super::unread::{Missing, SKEW_US, began};
use crate::flow::Gap;
use crate::store::{self, Progress, Trouble};

/// Agent, boot, first and last row.
type Range = (String, String, i64, i64);

struct Hole {
    from: Micros,
    to: Micros,
    reason: &'static str,
}

/// All of them.
#[derive(Default)]
pub(super) struct Holes {
    known: BTreeMap<Range, Hole>,
}

impl Holes {
    /// Takes over what the table says. `seen_before` tells up to when an agent's rows before a row
    /// are known, `here` what a time of the store is by the clock of this machine.
    pub(super) fn follow(
        &mut self,
        progress: &Progress,
        seen_before: impl Fn(&str, &str, i64) -> Micros,
        here: impl Fn(Micros) -> Micros,
    ) {
        let mut before = std::mem::take(&mut self.known);
        for store::Hole { agent, boot, first, last, at, reason, .. } in progress.holes() {
            let range = (agent, boot, first, last);
            // What was told first was told when the most was known.
            let hole = before.remove(&range).unwrap_or_else(|| {
                let (agent, boot, first, _) = &range;
                let from = began(boot).max(seen_before(agent, boot, *first));
                Hole { from, to: here(at).plus(SKEW_US), reason }
            });
            self.known.insert(range, hole);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// As times that nobody knows about.
    pub(super) fn missing(&self) -> impl Iterator<Item = Missing> {
        self.known.iter().map(|((agent, ..), hole)| Missing {
            agent: Some(agent.clone()),
            from: hole.from,
            to: hole.to,
        })
    }

    /// As gaps of their agents.
    pub(super) fn gaps(&self, services: &HashMap<String, String>) -> impl Iterator<Item = Gap> {
        self.known.iter().map(|((agent, boot, first, last), hole)| Gap {
            agent: agent.clone(),
            boot: boot.clone(),
            connection: None,
            service: services.get(agent).cloned(),
            from: Some(hole.from),
            to: Some(hole.to),
            count: Some(last - first + 1),
            reason: Some(hole.reason.to_owned()),
        })
    }
}

/// A file of the table that is not shown as a gap of everybody: it may hold rows of any agent.
pub(super) fn gaps_of_file(
    at: Option<(Micros, Micros)>,
    trouble: &Trouble,
    progress: &Progress,
    services: &HashMap<String, String>,
) -> Vec<Gap> {
    let reason = match trouble {
        Trouble::Read(_) => "file_unread",
        Trouble::Unbelievable(_) => "file_refused",
    };
    let gap = |(agent, boots): (&String, &BTreeMap<String, _>)| {
        let (boot, _) = boots.last_key_value()?;
        Some(Gap {
            agent: agent.clone(),
            boot: boot.clone(),
            connection: None,
            service: services.get(agent).cloned(),
            from: at.map(|(from, _)| from),
            to: at.map(|(_, to)| to),
            count: None,
            reason: Some(reason.to_owned()),
        })
    };
    progress.boots.iter().filter_map(gap).collect()
}

/// The same as a time that nobody knows about.
pub(super) fn missing_file(at: Option<(Micros, Micros)>) -> Missing {
    let (from, to) = at.unwrap_or((Micros(i64::MIN), Micros(i64::MAX)));
    Missing { agent: None, from, to }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Lost, Quarantined};

    const BOOT: &str = "0195a000-0000-7000-8000-000000000001";

    #[test]
    fn what_is_missing_is_a_gap_from_what_was_seen_before_it() {
        let progress = Progress {
            quarantined: vec![Quarantined {
                object: format!("inbox/history/shop/{BOOT}/{:020}-{:020}.parquet", 11, 20),
                last_modified: Micros(2_000_000_000_000_000),
                why: "no footer".to_owned(),
            }],
            lost: vec![Lost {
                agent: "car".to_owned(),
                boot: BOOT.to_owned(),
                first: 5,
                last: 5,
                since: Micros(2_000_000_000_000_000),
            }],
            ..Progress::default()
        };
        let seen = Micros(1_900_000_000_000_000);
        let seen_before = |agent: &str, _: &str, seq: i64| {
            if (agent, seq) == ("shop", 11) { seen } else { Micros(0) }
        };
        let mut holes = Holes::default();
        holes.follow(&progress, seen_before, |at| at);
        let services = [("shop".to_owned(), "the shop".to_owned())].into();
        let gaps: Vec<Gap> = holes.gaps(&services).collect();
        let told: Vec<_> = gaps
            .iter()
            .map(|gap| (gap.agent.as_str(), gap.reason.as_deref(), gap.count, gap.from))
            .collect();
        assert_eq!(
            told,
            [
                ("car", Some("rows_lost"), Some(1), Some(began(BOOT))),
                ("shop", Some("object_refused"), Some(10), Some(seen)),
            ]
        );
        assert_eq!(gaps[1].service.as_deref(), Some("the shop"));
        // Later nothing is known any more of what lay before it: the gap does not grow.
        holes.follow(&progress, |_, _, _| Micros(0), |at| at);
        assert_eq!(holes.missing().filter(|it| it.from == seen).count(), 1);
        holes.follow(&Progress::default(), |_, _, _| Micros(0), |at| at);
        assert_eq!(holes.len(), 0);
    }
}
