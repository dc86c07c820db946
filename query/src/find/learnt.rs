//! Which rows were learnt from already. A row lies in an inbox object first, then in a file of the
//! table, and after each compaction in another one: what it says beyond its flow counts once.

use std::collections::HashMap;

/// Numbers of rows of one boot: ranges that rise and neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(i64, i64)>);

impl Ranges {
    pub(super) fn add(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        let from = self.0.partition_point(|range| range.1.saturating_add(1) < first);
        let touched = self.0[from..].partition_point(|range| range.0 <= last.saturating_add(1));
        let to = from + touched;
        let (mut first, mut last) = (first, last);
        for range in &self.0[from..to] {
            first = first.min(range.0);
            last = last.max(range.1);
        }
        self.0.splice(from..to, [(first, last)]);
    }

    /// Adds numbers that rise.
    pub(super) fn add_all(&mut self, numbers: &[i64]) {
        for run in numbers.chunk_by(|a, b| a + 1 == *b) {
            self.add(run[0], run[run.len() - 1]);
        }
    }

    pub(super) fn has(&self, number: i64) -> bool {
        let after = self.0.partition_point(|range| range.0 <= number);
        after > 0 && self.0[after - 1].1 >= number
    }
}

/// By agent and boot.
#[derive(Clone, Debug, Default)]
pub(super) struct Learnt {
    agents: HashMap<String, HashMap<String, Ranges>>,
}

impl Learnt {
    pub(super) fn of(&self, agent: &str, boot: &str) -> Option<&Ranges> {
        self.agents.get(agent)?.get(boot)
    }

    pub(super) fn of_mut(&mut self, agent: &str, boot: &str) -> &mut Ranges {
        if self.of(agent, boot).is_none() {
            let boots = self.agents.entry(agent.to_owned()).or_default();
            boots.insert(boot.to_owned(), Ranges::default());
        }
        let known = self.agents.get_mut(agent).and_then(|boots| boots.get_mut(boot));
        known.expect("it was put there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (first, last) in [(20, 30), (5, 7), (8, 10), (40, 50), (3, 2)] {
            ranges.add(first, last);
        }
        assert_eq!(ranges.0, [(5, 10), (20, 30), (40, 50)]);
        assert!(ranges.has(5) && ranges.has(10) && ranges.has(30));
        assert!(!ranges.has(4) && !ranges.has(11) && !ranges.has(51));
        ranges.add(9, 41);
        assert_eq!(ranges.0, [(5, 50)]);
        ranges.add_all(&[1, 2, 4, 51, 60]);
        assert_eq!(ranges.0, [(1, 2), (4, 51), (60, 60)]);
        ranges.add(1, 100);
        assert_eq!(ranges.0, [(1, 100)]);
    }

    #[test]
    fn what_was_learnt_is_kept_by_agent_and_boot() {
        let mut learnt = Learnt::default();
        learnt.of_mut("a", "1").add(1, 5);
        learnt.of_mut("a", "1").add(6, 9);
        assert!(learnt.of("a", "1").is_some_and(|ranges| ranges.has(9)));
        assert!(learnt.of("a", "2").is_none() && learnt.of("b", "1").is_none());
    }
}
