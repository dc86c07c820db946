//! Messages without a transaction id, and which of them hang together by causation ids: chains that
//! begin with a message of their own are flows, too.

use std::collections::{BTreeMap, HashMap};

use super::catalog::Order;
use super::object::Loose;

/// A circle of causes ends after as many steps as are sane.
const MAX_STEPS: usize = 1000;

#[derive(Clone, Copy, Debug)]
struct Event {
    cause: u64,
    at: i64,
    /// Its first row, and where that lies.
    id: u64,
    place: (u32, u32),
}

/// All of them, by hashes of event ids.
#[derive(Default)]
pub(super) struct Chains {
    events: HashMap<u64, Event>,
    /// What each causes.
    children: HashMap<u64, Vec<u64>>,
    /// First messages of chains, by time; with the hash of a cause that is not among these.
    starts: BTreeMap<Order, ((u32, u32), u64)>,
}

/// Bytes that one takes, about.
pub(super) const EVENT_BYTES: usize = 160;

impl Chains {
    pub(super) fn add(&mut self, place: u32, loose: &Loose) {
        let Loose { cause, at, id, row, .. } = *loose;
        let new = Event { cause, at, id, place: (place, row) };
        match self.events.get(&loose.event).copied() {
            Some(known) if (known.at, known.id) < (at, id) => return,
            Some(known) => {
                // An earlier row of the same message, or the same one where it lies now.
                let was_start = self.starts.remove(&(known.at, loose.event)).is_some();
                self.events.insert(loose.event, new);
                if was_start {
                    self.start(loose.event);
                }
                return;
            }
            None => {}
        }
        self.events.insert(loose.event, new);
        if loose.cause != 0 {
            self.children.entry(loose.cause).or_default().push(loose.event);
        }
        // What it causes was taken for the beginning.
        for child in self.children.get(&loose.event).into_iter().flatten() {
            if let Some(child_event) = self.events.get(child) {
                self.starts.remove(&(child_event.at, *child));
            }
        }
        let root = self.root(loose.event);
        if root != loose.event || self.children.contains_key(&loose.event) {
            self.start(root);
        }
    }

    /// Forgets the messages whose first row lay in an object that is gone.
    pub(super) fn remove(&mut self, place: u32, gone: &[Loose]) {
        for loose in gone {
            let Some(event) = self.events.get(&loose.event).copied() else { continue };
            if event.place.0 != place {
                continue;
            }
            self.events.remove(&loose.event);
            self.starts.remove(&(event.at, loose.event));
            if let Some(siblings) = self.children.get_mut(&event.cause) {
                siblings.retain(|sibling| *sibling != loose.event);
                if siblings.is_empty() {
                    self.children.remove(&event.cause);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether an event is one of these.
    pub(super) fn has(&self, event: u64) -> bool {
        self.events.contains_key(&event)
    }

    /// Whether an event caused one of these.
    pub(super) fn has_caused(&self, event: u64) -> bool {
        self.children.contains_key(&event)
    }

    /// Chains that began before `before`, newest first, each with the cause of its first message.
    pub(super) fn newest(&self, before: Order) -> impl Iterator<Item = (Order, u64)> + '_ {
        self.starts.range(..before).rev().map(|(order, (_, cause))| (*order, *cause))
    }

    /// Where the first row of a chain lies.
    pub(super) fn place(&self, order: Order) -> Option<(u32, u32)> {
        self.starts.get(&order).map(|(place, _)| *place)
    }

    /// The cause of a chain's first message, which is none of these.
    pub(super) fn cause_of_chain(&self, event: u64) -> Option<u64> {
        self.events.get(&self.root(event)).map(|root| root.cause).filter(|cause| *cause != 0)
    }

    fn start(&mut self, root: u64) {
        if let Some(event) = self.events.get(&root) {
            self.starts.insert((event.at, root), (event.place, event.cause));
        }
    }

    /// Up the chain, as far as it is known.
    fn root(&self, event: u64) -> u64 {
        let mut root = event;
        for _ in 0..MAX_STEPS {
            match self.events.get(&root) {
                Some(at) if self.events.contains_key(&at.cause) => root = at.cause,
                _ => break,
            }
        }
        root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(chains: &Chains) -> Vec<u64> {
        chains.newest((i64::MAX, 0)).map(|(order, _)| order.1).collect()
    }

    fn loose(event: u64, cause: u64, at: i64) -> Loose {
        Loose { event, cause, at, id: 0, row: 0 }
    }

    #[test]
    fn a_chain_begins_with_its_first_message_in_whatever_order_they_come() {
        let all = [loose(1, 0, 10), loose(2, 1, 20), loose(3, 2, 30), loose(9, 0, 40)];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 2, 0, 3]] {
            let mut chains = Chains::default();
            for index in order {
                chains.add(index as u32, &all[index]);
            }
            assert_eq!(starts(&chains), [1], "{order:?}: a message alone is no flow");
            assert_eq!(chains.place((10, 1)), Some((0, 0)));
        }
    }

    #[test]
    fn an_earlier_row_of_the_first_message_moves_the_chain() {
        let mut chains = Chains::default();
        chains.add(0, &loose(1, 0, 10));
        chains.add(0, &loose(2, 1, 20));
        chains.add(1, &loose(1, 0, 5));
        assert_eq!(chains.newest((i64::MAX, 0)).collect::<Vec<_>>(), [((5, 1), 0)]);
    }

    #[test]
    fn a_row_that_moves_is_found_at_its_new_place_and_stays_when_the_old_one_goes() {
        let mut chains = Chains::default();
        let (first, second) = (loose(1, 0, 10), loose(2, 1, 20));
        for place in [0, 1] {
            chains.add(place, &first);
            chains.add(place, &second);
        }
        chains.remove(0, &[first, second]);
        assert_eq!(starts(&chains), [1]);
        assert_eq!(chains.place((10, 1)), Some((1, 0)));
        // Another row of the first message, at the same time.
        let twin = Loose { id: 7, ..first };
        chains.add(2, &twin);
        assert_eq!(chains.place((10, 1)), Some((1, 0)));
        chains.add(2, &first);
        assert_eq!(chains.place((10, 1)), Some((2, 0)));
    }

    #[test]
    fn a_circle_ends() {
        let mut chains = Chains::default();
        chains.add(0, &loose(1, 2, 10));
        chains.add(0, &loose(2, 1, 20));
        assert!(starts(&chains).len() <= 2);
    }

    #[test]
    fn what_lay_in_an_object_that_is_gone_is_forgotten() {
        let mut chains = Chains::default();
        let (first, second) = (loose(1, 0, 10), loose(2, 1, 20));
        chains.add(0, &first);
        chains.add(1, &second);
        chains.remove(0, &[first]);
        assert!(starts(&chains).is_empty() && chains.has(2) && !chains.has(1));
        chains.remove(1, &[second]);
        assert!(chains.is_empty() && !chains.has_caused(1));
    }
}
