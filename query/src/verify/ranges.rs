//! Ranges of row numbers, and what is left of one without others.

/// From `first` to `last`, both within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first number.
    pub first: i64,
    /// The last one.
    pub last: i64,
}

/// Some ranges, which may overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(Vec<Range>);

impl Ranges {
    pub(super) fn add(&mut self, first: i64, last: i64) {
        let at = self.0.partition_point(|range| range.first <= first);
        self.0.insert(at, Range { first, last });
    }

    pub(super) fn has(&self, number: i64) -> bool {
        self.0.iter().any(|range| (range.first..=range.last).contains(&number))
    }

    pub(super) fn last(&self) -> Option<i64> {
        self.0.iter().map(|range| range.last).max()
    }

    /// What is left of `whole`.
    pub(super) fn without(&self, whole: Range) -> Vec<Range> {
        let mut left = Vec::new();
        let mut next = whole.first;
        for range in self.0.iter().filter(|range| range.last >= whole.first) {
            if range.first > whole.last {
                break;
            }
            if range.first > next {
                left.push(Range { first: next, last: range.first - 1 });
            }
            next = next.max(range.last.saturating_add(1));
        }
        if next <= whole.last {
            left.push(Range { first: next, last: whole.last });
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranges_cover_is_taken_out() {
        let mut ranges = Ranges::default();
        for (first, last) in [(20, 30), (5, 7), (6, 10), (40, 50)] {
            ranges.add(first, last);
        }
        let left = |first, last| {
            let left = ranges.without(Range { first, last });
            left.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>()
        };
        assert_eq!(left(1, 60), [(1, 4), (11, 19), (31, 39), (51, 60)]);
        assert_eq!(left(6, 9), []);
        assert_eq!(left(10, 20), [(11, 19)]);
        assert_eq!(left(51, 51), [(51, 51)]);
        assert_eq!(ranges.last(), Some(50));
        assert!(ranges.has(7) && !ranges.has(11));
    }
}
