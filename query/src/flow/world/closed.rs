//! When connections ended. A service that opens one for each message leaves thousands an hour
//! behind: of those that nothing hangs on only the newest are kept.

use std::collections::{HashMap, HashSet};

use flowtap_record::Micros;

/// Ends that are kept whatever hung on them: what did may be learned after its end.
const NEWEST: usize = 20_000;

/// A connection: the start of its agent, and its number there.
pub(super) type Connection = (String, i64);

/// Ends of connections.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    ends: HashMap<Connection, Micros>,
    /// From so many on it is looked for what nobody needs.
    full: usize,
}

impl Default for Closed {
    fn default() -> Self {
        Self { ends: HashMap::new(), full: 2 * NEWEST }
    }
}

impl Closed {
    /// When a connection ended, if it did.
    pub(super) fn end_of(&self, connection: &Connection) -> Option<Micros> {
        self.ends.get(connection).copied()
    }

    /// A connection ended. True: there are many, and some should be forgotten.
    pub(super) fn note(&mut self, connection: Connection, at: Micros) -> bool {
        self.ends.insert(connection, at);
        self.ends.len() >= self.full
    }

    /// Forgets all but the newest, and those that something hangs on.
    pub(super) fn forget(&mut self, needed: &HashSet<Connection>) {
        let mut times: Vec<Micros> = self.ends.values().copied().collect();
        let Some(older) = times.len().checked_sub(NEWEST) else { return };
        let (_, &mut since, _) = times.select_nth_unstable(older);
        self.ends.retain(|connection, at| *at >= since || needed.contains(connection));
        // Looked through again only when as many have come.
        self.full = self.ends.len() + NEWEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_connections_those_are_kept_that_something_hangs_on_and_the_newest() {
        let connection = |number: i64| ("boot".to_owned(), number);
        let needed = [connection(7)].into();
        let mut closed = Closed::default();
        for number in 0..200_000 {
            if closed.note(connection(number), Micros(number)) {
                closed.forget(&needed);
            }
            assert!(closed.ends.len() <= 2 * NEWEST + 1);
        }
        assert_eq!(closed.end_of(&connection(7)), Some(Micros(7)));
        assert_eq!(closed.end_of(&connection(199_999)), Some(Micros(199_999)));
        assert_eq!(closed.end_of(&connection(8)), None);
    }
}
