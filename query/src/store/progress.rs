//! How far each boot is in `history`: the object `ingest/<n:020>.json`. It is created before the
//! commit of the Delta table that bears its number, never changed, and counts only once that
//! commit is there: a number whose commit never came is skipped.

use std::collections::BTreeMap;

use flowtap_record::path::InboxName;
use flowtap_record::{Micros, Seq, path};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};

/// More than a progress object ever takes.
const MAX_BYTES: u64 = 256 << 20;

/// What `history` holds as of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Its number.
    pub number: u64,
    /// The number that was committed before; 0: none.
    pub previous: u64,
    /// When it was made, by the ingester's clock.
    pub at: Micros,
    /// By agent and boot.
    pub boots: BTreeMap<String, BTreeMap<String, BootProgress>>,
    /// Objects that could not be believed. Their ranges count as taken.
    pub quarantined: Vec<Quarantined>,
    /// Ranges that were missing for so long that they are given up.
    pub lost: Vec<Lost>,
    /// What this very commit took.
    pub taken: Vec<Taken>,
}

/// How far one boot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootProgress {
    /// The last row that is taken.
    pub last: i64,
    /// The newest watermark among its objects.
    pub watermark: Micros,
    /// When the newest of its objects was made, by the agent's clock.
    pub uploaded_at: Micros,
}

/// An object that could not be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    /// Its path in the inbox.
    pub object: String,
    /// When it was put there.
    pub last_modified: Micros,
    /// Why.
    pub why: String,
}

/// Rows that never came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Whose.
    pub agent: String,
    /// Of which boot.
    pub boot: String,
    /// The first that is missing.
    pub first: i64,
    /// The last that is missing.
    pub last: i64,
    /// When what lies behind them was put into the store.
    pub since: Micros,
}

/// Rows of one boot that are not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Whose.
    pub agent: String,
    /// Of which boot.
    pub boot: String,
    /// The first of them.
    pub first: i64,
    /// The last of them.
    pub last: i64,
    /// When that was seen to be so, by the store's clock: when the object was put, or what lies behind.
    pub at: Micros,
    /// The gap's reason.
    pub reason: &'static str,
    /// The object that was to hold them, if there is one.
    pub object: Option<String>,
    /// For people.
    pub why: String,
}

impl Hole {
    /// An object that cannot be believed.
    pub(crate) fn refused(name: &InboxName, at: Micros, why: &str) -> Self {
        Self {
            agent: name.agent.clone(),
            boot: name.boot.clone(),
            first: name.first.0,
            last: name.last.0,
            at,
            reason: "object_refused",
            object: Some(name.path()),
            why: why.to_owned(),
        }
    }
}

/// An object whose rows a commit took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// Its path in the inbox.
    pub object: String,
    /// Its bytes.
    pub bytes: u64,
    /// Rows taken of it.
    pub rows: u64,
    /// When the agent made it, by its clock.
    pub uploaded_at: Micros,
    /// All that the agent saw up to then is uploaded with it.
    pub watermark: Micros,
    /// When it was put, by the store's clock.
    pub last_modified: Micros,
}

impl Progress {
    /// The last row of a boot that is in `history`; 0: none.
    pub fn last_of(&self, agent: &str, boot: &str) -> i64 {
        self.boot(agent, boot).map_or(0, |boot| boot.last)
    }

    /// How far a boot is, if anything is known of it.
    pub fn boot(&self, agent: &str, boot: &str) -> Option<&BootProgress> {
        self.boots.get(agent)?.get(boot)
    }

    /// Rows that count as taken and are not to be had.
    pub fn holes(&self) -> impl Iterator<Item = Hole> {
        let quarantined = self.quarantined.iter().filter_map(|it| {
            let name = InboxName::parse(&it.object).ok()?;
            Some(Hole::refused(&name, it.last_modified, &it.why))
        });
        let lost = self.lost.iter().map(|it| Hole {
            agent: it.agent.clone(),
            boot: it.boot.clone(),
            first: it.first,
            last: it.last,
            at: it.since,
            reason: "rows_lost",
            object: None,
            why: "what lies behind these rows is there, they never came".to_owned(),
        });
        quarantined.chain(lost)
    }

    /// Whether all rows of an inbox object are taken.
    pub fn covers(&self, name: &InboxName) -> bool {
        name.table == path::HISTORY && name.last.0 <= self.last_of(&name.agent, &name.boot)
    }

    /// The first row of an inbox object that is not taken.
    pub fn visible_from(&self, name: &InboxName) -> Seq {
        Seq(name.first.0.max(self.last_of(&name.agent, &name.boot) + 1))
    }

    /// Reads the progress of a number. Number 0 is that of an empty table.
    pub async fn read(store: &Store, number: u64) -> Result<Self, StoreError> {
        if number == 0 {
            return Ok(Self::default());
        }
        let location = Path::from(path::ingest(number));
        store.numbered(&location, MAX_BYTES, number, |progress: &Self| progress.number).await
    }

    /// Puts it under the first number above `number` that nobody has taken, and bears that number.
    pub(crate) async fn claim(mut self, store: &Store) -> Result<Self, object_store::Error> {
        self.number = self.previous;
        loop {
            self.number += 1;
            let text = serde_json::to_vec(&self).map_err(|error| object_store::Error::Generic {
                store: "progress",
                source: error.into(),
            })?;
            if store.create(&Path::from(path::ingest(self.number)), text).await? {
                return Ok(self);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first: i64, last: i64) -> InboxName {
        InboxName {
            table: path::HISTORY.to_owned(),
            agent: "shop".to_owned(),
            boot: "b".to_owned(),
            first: Seq(first),
            last: Seq(last),
        }
    }

    #[test]
    fn what_is_taken_is_covered_and_the_rest_is_visible() {
        let mut progress = Progress::default();
        let boot = BootProgress { last: 10, ..BootProgress::default() };
        progress.boots.entry("shop".to_owned()).or_default().insert("b".to_owned(), boot);
        assert!(progress.covers(&name(1, 10)));
        assert!(!progress.covers(&name(5, 11)));
        assert_eq!(progress.visible_from(&name(5, 11)), Seq(11));
        assert_eq!(progress.visible_from(&name(20, 30)), Seq(20));
        let other = InboxName { boot: "c".to_owned(), ..name(1, 10) };
        assert!(!progress.covers(&other));
    }

    #[tokio::test]
    async fn a_number_is_claimed_once() {
        let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
        let store = Store::over("memory", objects);
        let first = Progress::default().claim(&store).await.expect("claimed");
        let second = Progress::default().claim(&store).await.expect("claimed");
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(Progress::read(&store, 2).await.expect("it is there"), second);
        assert_eq!(Progress::read(&store, 0).await.expect("always"), Progress::default());
    }
}
