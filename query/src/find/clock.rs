//! The store's clock against that of this machine, from when objects came to be seen. Whether an
//! agent lives is told from when it put its status, which only the store's clock says; without this
//! a machine that is a minute ahead would call every agent silent.

use flowtap_record::Micros;

/// Bounds for how far the store's clock is ahead, microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreClock {
    at_least: Option<i64>,
    at_most: Option<i64>,
}

impl StoreClock {
    /// An object that was put at `put_at` by the store's clock was seen at `now`, and, where that is
    /// known, was not there yet at `since`.
    pub(super) fn saw(&mut self, put_at: Micros, since: Option<Micros>, now: Micros) {
        let at_least = put_at.0.saturating_sub(now.0);
        let at_most = since.map(|since| put_at.0.saturating_sub(since.0));
        // A clock that was set makes what was seen before void.
        if self.at_most.is_some_and(|most| at_least > most) {
            self.at_most = None;
        }
        if at_most.is_some_and(|most| self.at_least.is_some_and(|least| least > most)) {
            self.at_least = None;
        }
        self.at_least = self.at_least.max(Some(at_least));
        self.at_most = match (self.at_most, at_most) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
    }

    /// A time of the store by the clock of this machine: corrected by no more than is sure.
    pub(super) fn here(self, at: Micros) -> Micros {
        let mut ahead = 0_i64;
        if let Some(most) = self.at_most {
            ahead = ahead.min(most);
        }
        if let Some(least) = self.at_least {
            ahead = ahead.max(least);
        }
        at.plus(-ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    #[test]
    fn clocks_that_agree_are_left_alone() {
        let mut clock = StoreClock::default();
        clock.saw(Micros(10), None, Micros(30));
        clock.saw(Micros(40), Some(Micros(35)), Micros(45));
        assert_eq!(clock.here(Micros(41)), Micros(41));
    }

    #[test]
    fn a_store_that_is_ahead_is_seen_at_once_and_one_that_is_behind_at_the_next_status() {
        let mut ahead = StoreClock::default();
        ahead.saw(Micros(MINUTE), None, Micros(10));
        assert_eq!(ahead.here(Micros(MINUTE)), Micros(10));
        let mut behind = StoreClock::default();
        behind.saw(Micros(-MINUTE), None, Micros(0));
        assert_eq!(behind.here(Micros(-MINUTE)), Micros(-MINUTE), "it may be old");
        behind.saw(Micros(10 - MINUTE), Some(Micros(0)), Micros(20));
        assert_eq!(behind.here(Micros(10 - MINUTE)), Micros(0));
    }

    #[test]
    fn a_clock_that_was_set_is_learned_anew() {
        let mut clock = StoreClock::default();
        clock.saw(Micros(10), Some(Micros(5)), Micros(15));
        clock.saw(Micros(MINUTE), Some(Micros(20)), Micros(30));
        assert_eq!(clock.here(Micros(MINUTE)), Micros(30));
        clock.saw(Micros(45), Some(Micros(40)), Micros(50));
        assert_eq!(clock.here(Micros(45)), Micros(45));
    }
}
