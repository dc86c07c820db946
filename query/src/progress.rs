//! How far a Kafka consumer group came in a partition, from its positions, in little memory.

use flowtap_record::Micros;

/// Clocks of two agents may differ by so much.
const SKEW_US: i64 = 5_000_000;

/// A committed offset, and who was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Micros,
    /// What comes next: everything before it is done.
    pub offset: i64,
    /// The agent that saw it.
    pub agent: String,
}

impl Mark {
    /// Whether this mark is beyond whatever `other` is beyond, whoever asks. One agent's clock is one;
    /// another's has to be ahead by more than clocks may differ, because only an agent's own marks
    /// are taken at their word.
    fn says(&self, other: &Self) -> bool {
        let skew = if self.agent == other.agent { 0 } else { SKEW_US };
        self.offset >= other.offset && self.at >= other.at.plus(skew)
    }
}

/// How far a group came in one partition. Only what a later and higher position does not say as
/// well is kept: of a group that never goes back, one mark.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The first position of all.
    pub first: Option<Micros>,
    /// The last position of all.
    pub last: Micros,
    /// By time; one agent's offsets fall.
    marks: Vec<Mark>,
}

impl Progress {
    /// Learns a position. They may come in any order.
    pub fn learn(&mut self, mark: Mark) {
        self.first = Some(self.first.map_or(mark.at, |first| first.min(mark.at)));
        self.last = self.last.max(mark.at);
        if self.marks.iter().any(|known| known.says(&mark)) {
            return;
        }
        self.marks.retain(|known| !mark.says(known));
        let index = self.marks.partition_point(|known| known.at <= mark.at);
        self.marks.insert(index, mark);
    }

    /// Adds what was learned elsewhere.
    pub fn merge(&mut self, other: Self) {
        let first = [self.first, other.first].into_iter().flatten().min();
        let last = self.last.max(other.last);
        for mark in other.marks {
            self.learn(mark);
        }
        (self.first, self.last) = (first, last);
    }

    /// What is kept.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// A position beyond `offset` since `since`, which `agent` saw; another's clock may differ.
    pub fn beyond(&self, offset: i64, since: Micros, agent: &str) -> Option<&Mark> {
        beyond(self.marks.iter().rev(), offset, since, agent)
    }
}

/// The first of some marks that is beyond `offset` since `since`, which `agent` saw.
pub fn beyond<'a>(
    marks: impl IntoIterator<Item = &'a Mark>,
    offset: i64,
    since: Micros,
    agent: &str,
) -> Option<&'a Mark> {
    marks.into_iter().find(|mark| {
        let skew = if mark.agent == agent { 0 } else { SKEW_US };
        mark.offset > offset && mark.at.plus(skew) >= since
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: i64, offset: i64, agent: &str) -> Mark {
        Mark { at: Micros(at), offset, agent: agent.to_owned() }
    }

    #[test]
    fn a_group_that_only_goes_on_leaves_one_mark_and_one_that_went_back_the_height_before() {
        let mut progress = Progress::default();
        for (at, offset) in [(1, 10), (3, 30), (2, 20)] {
            progress.learn(mark(at, offset, "a"));
        }
        assert_eq!(progress.marks, [mark(3, 30, "a")]);
        progress.learn(mark(4, 5, "a"));
        progress.learn(mark(5, 7, "a"));
        assert_eq!(progress.marks, [mark(3, 30, "a"), mark(5, 7, "a")]);
        assert!(progress.beyond(20, Micros(2), "a").is_some());
        assert!(progress.beyond(20, Micros(4), "a").is_none(), "that was before it went back");
        progress.learn(mark(6, 31, "a"));
        assert_eq!(progress.marks, [mark(6, 31, "a")]);
    }

    #[test]
    fn one_agents_mark_does_not_hide_anothers_that_counts_for_longer() {
        for agents in [["a", "b"], ["b", "a"]] {
            let mut progress = Progress::default();
            for agent in agents {
                progress.learn(mark(0, 8, agent));
            }
            assert!(progress.beyond(7, Micros(SKEW_US), "a").is_some());
            assert!(progress.beyond(7, Micros(SKEW_US), "b").is_some());
            progress.learn(mark(SKEW_US, 8, "a"));
            assert_eq!(progress.marks, [mark(SKEW_US, 8, "a")]);
        }
    }

    #[test]
    fn the_clock_of_another_agent_may_differ() {
        let mut progress = Progress::default();
        progress.learn(mark(0, 10, "a"));
        assert!(progress.beyond(9, Micros(SKEW_US), "b").is_some());
        assert!(progress.beyond(9, Micros(SKEW_US), "a").is_none());
        assert!(progress.beyond(10, Micros(0), "a").is_none());
    }
}
