//! Which rows of which sources carry a hash. Sorted runs that are merged as they come, so that a
//! question looks into a few of them, however many sources there are.

/// Longer runs than this are not made: merging one must not hold up an answer.
const MAX_RUN: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    hash: u64,
    place: u32,
    row: u32,
}

/// Bytes that one hash of one row takes.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

/// All runs, the longest first.
#[derive(Default)]
pub(super) struct Lookup {
    runs: Vec<Run>,
}

/// What one source carries, or several, sorted.
#[derive(Default)]
pub(super) struct Run {
    entries: Vec<Entry>,
    /// Sources that it holds entries of, with how many; rising.
    places: Vec<(u32, u32)>,
    /// Entries of sources that are gone.
    dead: usize,
}

impl Lookup {
    /// Adds what a source carries.
    pub(super) fn add(&mut self, run: Run) {
        if run.entries.is_empty() {
            return;
        }
        self.runs.push(run);
        while let [.., before, last] = self.runs.as_slice() {
            let together = before.entries.len() + last.entries.len();
            if before.entries.len() > 2 * last.entries.len() || together > MAX_RUN {
                break;
            }
            let (last, before) = (self.runs.pop(), self.runs.pop());
            self.runs.extend(last.zip(before).map(|(last, before)| before.merge(&last)));
        }
    }

    /// Forgets a source.
    pub(super) fn remove(&mut self, place: u32) {
        for run in &mut self.runs {
            let Ok(index) = run.places.binary_search_by_key(&place, |(place, _)| *place) else {
                continue;
            };
            let (_, count) = run.places.remove(index);
            run.dead += count as usize;
            if run.places.is_empty() {
                run.entries = Vec::new();
            } else if run.dead * 4 > run.entries.len() {
                let places = std::mem::take(&mut run.places);
                let is_there = |place| places.binary_search_by_key(&place, |it| it.0).is_ok();
                run.entries.retain(|entry| is_there(entry.place));
                run.entries.shrink_to_fit();
                run.places = places;
                run.dead = 0;
            }
        }
        self.runs.retain(|run| !run.entries.is_empty());
    }

    /// Sources and rows that carry `hash`, in no order.
    pub(super) fn rows_of(&self, hash: u64) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.runs.iter().flat_map(move |run| {
            let from = run.entries.partition_point(|entry| entry.hash < hash);
            let found = run.entries[from..].iter().take_while(move |entry| entry.hash == hash);
            found
                .filter(|entry| run.dead == 0 || run.holds(entry.place))
                .map(|entry| (entry.place, entry.row))
        })
    }

    /// Whether anything carries `hash`.
    pub(super) fn has(&self, hash: u64) -> bool {
        self.rows_of(hash).next().is_some()
    }
}

impl Run {
    /// What a source carries: hashes with rows. Made before anybody has to wait for it.
    pub(super) fn new(place: u32, pairs: Vec<(u64, u32)>) -> Self {
        let mut entries: Vec<Entry> =
            pairs.into_iter().map(|(hash, row)| Entry { hash, place, row }).collect();
        entries.sort_unstable();
        entries.dedup();
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        Self { entries, places: vec![(place, count)], dead: 0 }
    }

    fn holds(&self, place: u32) -> bool {
        self.places.binary_search_by_key(&place, |(place, _)| *place).is_ok()
    }

    /// One run of two; what is gone is left out.
    fn merge(&self, other: &Self) -> Self {
        let mut entries = Vec::with_capacity(self.entries.len() + other.entries.len());
        let live = |run: &Self, entry: &Entry| run.dead == 0 || run.holds(entry.place);
        let mut a = self.entries.iter().filter(|entry| live(self, entry)).peekable();
        let mut b = other.entries.iter().filter(|entry| live(other, entry)).peekable();
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            let first = if x <= y { a.next() } else { b.next() };
            entries.extend(first);
        }
        entries.extend(a);
        entries.extend(b);
        let mut places = [&self.places[..], &other.places[..]].concat();
        places.sort_unstable();
        Self { entries, places, dead: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lookup: &Lookup, hash: u64) -> Vec<(u32, u32)> {
        let mut found: Vec<_> = lookup.rows_of(hash).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn rows_are_found_in_whatever_run_they_came_to_lie() {
        let mut lookup = Lookup::default();
        for place in 0..1000_u32 {
            lookup.add(Run::new(place, vec![(7, 1), (u64::from(place) + 100, 2), (7, 3)]));
        }
        assert!(lookup.runs.len() <= 12, "{} runs", lookup.runs.len());
        assert_eq!(found(&lookup, 7).len(), 2000);
        assert_eq!(found(&lookup, 100 + 640), [(640, 2)]);
        assert_eq!(found(&lookup, 6), []);
    }

    #[test]
    fn what_is_removed_is_not_found_and_its_memory_is_given_back() {
        let mut lookup = Lookup::default();
        for place in 0..64 {
            lookup.add(Run::new(place, vec![(7, 0), (8, 1)]));
        }
        for place in (0..64).filter(|place| place % 3 != 0) {
            lookup.remove(place);
            assert!(!found(&lookup, 7).contains(&(place, 0)));
        }
        let left: Vec<u32> = found(&lookup, 8).into_iter().map(|(place, _)| place).collect();
        assert_eq!(left, (0..64).step_by(3).collect::<Vec<_>>());
        let entries: usize = lookup.runs.iter().map(|run| run.entries.len()).sum();
        assert!(entries < 64, "{entries} entries of 44 that live");
        lookup.add(Run::new(64, vec![(7, 0)]));
        assert_eq!(found(&lookup, 7).len(), 23);
    }
}
