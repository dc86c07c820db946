//! Objects that are in the store and not in the index: those that could not be read yet, which are
//! tried again, and those that cannot be believed. What they hold was seen by an agent and is not
//! known here, so their time is a gap of that agent.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use flowtap_record::Micros;
use flowtap_record::path::InboxName;
use tracing::{info, warn};

use crate::flow::{Gap, Row};
use crate::store::Trouble;

/// Clocks of two machines may differ by so much.
pub(super) const SKEW_US: i64 = 5_000_000;
/// What comes so long after the last row of a flow may still be part of what happened then.
const AFTER_US: i64 = 60_000_000;
/// An object that cannot be read is tried again at least so often.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

struct Unread {
    trouble: Trouble,
    /// What it holds lies between.
    from: Micros,
    to: Micros,
    again: Option<(Instant, Duration)>,
}

/// A time of which an agent's rows are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The agent; none: any, as a file of the table holds rows of many.
    pub agent: Option<String>,
    /// From when.
    pub from: Micros,
    /// To when.
    pub to: Micros,
}

impl Missing {
    /// Whether rows of this flow may be among what is missing.
    pub fn touches(&self, rows: &[Row]) -> bool {
        let times = || rows.iter().map(|row| row.at.0);
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return false };
        self.from.0 <= last.saturating_add(AFTER_US)
            && self.to.0 >= first
            && rows.iter().any(|row| self.agent.as_ref().is_none_or(|agent| row.agent == *agent))
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Shelf {
    unread: BTreeMap<InboxName, Unread>,
}

impl Shelf {
    /// Whether an object is here and not to be tried now.
    pub(super) fn rests(&self, name: &InboxName, now: Instant) -> bool {
        self.unread.get(name).is_some_and(|it| it.again.is_none_or(|(at, _)| now < at))
    }

    /// It could not be taken. `from` and `to`: what it holds lies between.
    pub(super) fn put(&mut self, name: InboxName, trouble: Trouble, from: Micros, to: Micros) {
        let again = match &trouble {
            Trouble::Unbelievable(why) => {
                warn!(object = name.path(), why, "object left out");
                None
            }
            Trouble::Read(why) => {
                let before = self.unread.get(&name).and_then(|it| it.again);
                let wait = longer(before.map(|(_, wait)| wait));
                if before.is_none() {
                    warn!(object = name.path(), why, "object cannot be read yet");
                }
                Some((Instant::now() + wait, wait))
            }
        };
        self.unread.insert(name, Unread { trouble, from, to: to.plus(SKEW_US), again });
    }

    /// It was taken.
    pub(super) fn took(&mut self, name: &InboxName) {
        if self.unread.remove(name).is_some() {
            info!(object = name.path(), "object could be read");
        }
    }

    /// Forgets what is not in the store any more.
    pub(super) fn retain(&mut self, is_there: impl Fn(&InboxName) -> bool) {
        self.unread.retain(|name, _| is_there(name));
    }

    /// How many cannot be believed, and how many could not be read yet.
    pub(super) fn counts(&self) -> (usize, usize) {
        let refused = self.unread.values().filter(|it| it.again.is_none()).count();
        (refused, self.unread.len() - refused)
    }

    /// As times that nobody knows about.
    pub(super) fn missing(&self) -> Vec<Missing> {
        let missing = self.unread.iter().map(|(name, it)| Missing {
            agent: Some(name.agent.clone()),
            from: it.from,
            to: it.to,
        });
        missing.collect()
    }

    /// As gaps of their agents.
    pub(super) fn gaps(&self, services: &HashMap<String, String>) -> Vec<Gap> {
        let gap = |(name, unread): (&InboxName, &Unread)| Gap {
            agent: name.agent.clone(),
            boot: name.boot.clone(),
            connection: None,
            service: services.get(&name.agent).cloned(),
            from: Some(unread.from),
            to: Some(unread.to),
            count: Some(name.last.0 - name.first.0 + 1),
            reason: Some(
                match unread.trouble {
                    Trouble::Read(_) => "object_unread",
                    Trouble::Unbelievable(_) => "object_refused",
                }
                .to_owned(),
            ),
        };
        self.unread.iter().map(gap).collect()
    }
}

/// How long to wait before the next try, after so long before the last.
pub(super) fn longer(before: Option<Duration>) -> Duration {
    before.map_or(Duration::from_millis(500), |wait| wait * 2).min(LONGEST_WAIT)
}

/// When a start of an agent began: a boot is a UUID of version 7, which begins with the time.
pub(crate) fn began(boot: &str) -> Micros {
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    Micros(i64::from_str_radix(&digits, 16).unwrap_or(0).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use flowtap_record::{Kind, Seq};

    use super::*;

    #[test]
    fn only_flows_of_that_agent_at_that_time_miss_rows() {
        let missing = Missing { agent: Some("a".into()), from: Micros(100), to: Micros(200) };
        let row = |agent: &str, at| Row {
            agent: agent.to_owned(),
            ..Row::new(Kind::Publish, Micros(at))
        };
        assert!(missing.touches(&[row("a", 50)]), "what is missing came soon after");
        assert!(missing.touches(&[row("a", 200), row("b", 300)]));
        assert!(!missing.touches(&[row("a", 201)]));
        assert!(!missing.touches(&[row("b", 150)]));
        assert!(!missing.touches(&[row("a", 99 - AFTER_US)]));
        let anybodys = Missing { agent: None, ..missing };
        assert!(anybodys.touches(&[row("b", 150)]) && !anybodys.touches(&[row("b", 201)]));
    }

    #[test]
    fn what_cannot_be_read_is_tried_again_and_what_cannot_be_believed_is_not() {
        let name = |first| InboxName {
            table: "history".into(),
            agent: "a".into(),
            boot: "01940000-0000-7000-8000-000000000001".into(),
            first: Seq(first),
            last: Seq(first),
        };
        let mut shelf = Shelf::default();
        let (from, to) = (began(&name(1).boot), Micros(2));
        shelf.put(name(1), Trouble::Read("timeout".into()), from, to);
        shelf.put(name(2), Trouble::Unbelievable("no footer".into()), from, to);
        let later = Instant::now() + Duration::from_hours(1);
        assert!(shelf.rests(&name(1), Instant::now()) && !shelf.rests(&name(1), later));
        assert!(shelf.rests(&name(2), later));
        assert_eq!(shelf.counts(), (1, 1));
        let reasons: Vec<_> = shelf.gaps(&HashMap::new()).into_iter().map(|it| it.reason).collect();
        assert_eq!(reasons, [Some("object_unread".into()), Some("object_refused".into())]);
        shelf.took(&name(1));
        assert_eq!(shelf.counts(), (1, 0));
    }

    #[test]
    fn a_boot_tells_when_it_began() {
        assert_eq!(began("0195a000-0000-7000-8000-000000000001"), Micros(0x0195_a000_0000 * 1000));
    }
}
