//! A bound on memory that all connections of the agent share.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use flowtap_record::Micros;

/// A bound, in bytes, that all connections share.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    max: usize,
    /// When it was last said that it is used up.
    said: AtomicI64,
}

/// That it is used up is said at most this often, in microseconds.
const SAY_EVERY: i64 = 60_000_000;

impl Budget {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max, said: AtomicI64::new(i64::MIN) }
    }

    /// Takes `bytes` if that many are left.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.max {
            return true;
        }
        self.give_back(bytes);
        false
    }

    /// Whether it is time to say (again) that it is used up.
    pub(crate) fn is_news(&self, now: Micros) -> bool {
        let said = self.said.load(Ordering::Relaxed);
        said.saturating_add(SAY_EVERY) <= now.0
            && self.said.compare_exchange(said, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_it_is_used_up_is_said_once_a_minute() {
        let budget = Budget::new(0);
        let news: Vec<bool> = [5, 6, SAY_EVERY, SAY_EVERY + 5, SAY_EVERY + 6]
            .map(|at| budget.is_news(Micros(at)))
            .into();
        assert_eq!(news, [true, false, false, true, false]);
    }
}
