//! Queues that went with the connections that they belonged to, when there are too many of them to
//! be kept: of those that are given up it is only known when they went.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use flowtap_record::Micros;

use super::Name;

/// Queues that are kept whole though they are gone.
const NEWEST: usize = 10_000;

/// When queues went, by the hash of their names.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    since: HashMap<u64, Micros>,
    hasher: RandomState,
    /// With so many queues it is looked for some to give up.
    full: usize,
}

impl Default for Gone {
    fn default() -> Self {
        Self { since: HashMap::new(), hasher: RandomState::new(), full: 2 * NEWEST }
    }
}

impl Gone {
    /// Since when a queue that is not kept is gone.
    pub(super) fn since(&self, queue: &Name) -> Option<Micros> {
        self.since.get(&self.hasher.hash_one(queue)).copied()
    }

    /// Whether there are so many queues that some should be given up.
    pub(super) fn is_time(&self, queues: usize) -> bool {
        queues >= self.full
    }

    /// Of `queues` queues some have `ended`: keeps when the older ones did, which are given up.
    pub(super) fn choose(
        &mut self,
        mut ended: Vec<(Micros, Name)>,
        queues: usize,
    ) -> Vec<(Micros, Name)> {
        ended.sort_unstable();
        ended.truncate(ended.len().saturating_sub(NEWEST));
        for (at, queue) in &ended {
            self.since.insert(self.hasher.hash_one(queue), *at);
        }
        self.full = queues - ended.len() + NEWEST;
        ended
    }
}
