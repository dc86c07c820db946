//! Which rows of `history` are in a derived table: the object `state/<n:020>.json` beside it. It is
//! created before the commit of the table that bears its number, never changed, and counts only once
//! that commit is there.

use std::collections::{BTreeMap, BTreeSet};

use flowtap_record::{DAY_US, Micros};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::Derived;
use crate::ingest::sweep;
use crate::store::{History, HistoryFile, Store, StoreError, day_text};

/// What does not count any more is kept for so long, for readers that began before.
const KEPT_US: i64 = DAY_US;
/// More than such an object ever takes.
const MAX_BYTES: u64 = 256 << 20;

/// What a derived table covers as of one commit: all rows of one version of `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Its number.
    pub(crate) number: u64,
    /// The number that was committed before; 0: none.
    pub(crate) previous: u64,
    /// When it was made, by the writer's clock.
    pub(crate) at: Micros,
    /// The version of `history`.
    pub(crate) history: u64,
    /// The number of its progress: no rows came to `history` while it stays.
    pub(crate) ingest: u64,
    /// How often days were taken out of it until then.
    pub(crate) retention: u64,
    /// How far each boot is in the table, by agent and boot. Not what the progress says: that forgets
    /// boots which ended, and their rows still move from file to file.
    pub(crate) boots: Boots,
    /// The files of `history` at that version, by day.
    pub(crate) files: BTreeMap<String, BTreeSet<String>>,
}

/// By agent and boot.
pub(crate) type Boots = BTreeMap<String, BTreeMap<String, Reached>>;

/// How far one boot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reached {
    /// Its last row that made a part. Rows of a boot come to `history` in order.
    pub(crate) last: i64,
    /// The newest day that has a row of it.
    pub(crate) day: i32,
}

impl State {
    /// Whether a file of `history` has no rows but covered ones.
    pub(crate) fn has_file(&self, file: &HistoryFile) -> bool {
        let day = self.files.get(&day_text(file.day));
        day.zip(file.meta.location.filename()).is_some_and(|(files, name)| files.contains(name))
    }

    /// The state that follows, when all rows of `history` are covered and boots are so far.
    pub(super) fn next(&self, history: &History, retention: u64, boots: Boots) -> Self {
        let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in &history.files {
            let name = file.meta.location.filename().unwrap_or_default().to_owned();
            files.entry(day_text(file.day)).or_default().insert(name);
        }
        let oldest = history.files.iter().map(|file| file.day).min().unwrap_or(i32::MAX);
        Self {
            number: self.number,
            previous: self.number,
            at: crate::store::now(),
            history: history.version,
            ingest: history.progress.number,
            retention,
            boots: without_days_before(boots, oldest),
            files,
        }
    }

    /// Reads the state of a number. Number 0 is that of an empty table.
    pub(super) async fn read(store: &Store, of: &Derived, number: u64) -> Result<Self, StoreError> {
        if number == 0 {
            return Ok(Self::default());
        }
        let location = location(of, number);
        store.numbered(&location, MAX_BYTES, number, |state: &Self| state.number).await
    }

    /// Puts it under the first number above the one before that nobody has taken, and bears that
    /// number.
    pub(super) async fn claim(mut self, store: &Store, of: &Derived) -> Result<Self, StoreError> {
        self.number = self.previous;
        loop {
            self.number += 1;
            let text = serde_json::to_vec(&self).map_err(|error| store.away(error.to_string()))?;
            let created = store.create(&location(of, self.number), text).await;
            if created.map_err(|error| store.unreadable(error))? {
                return Ok(self);
            }
        }
    }
}

/// Boots whose rows are all gone from `history`.
fn without_days_before(mut boots: Boots, oldest: i32) -> Boots {
    for boots in boots.values_mut() {
        boots.retain(|_, reached| reached.day >= oldest);
    }
    boots.retain(|_, boots| !boots.is_empty());
    boots
}

/// Where the states of a derived table lie.
fn folder(of: &Derived) -> Path {
    Path::from(format!("{}/state", of.folder()))
}

fn location(of: &Derived, number: u64) -> Path {
    folder(of).join(format!("{number:020}.json"))
}

/// Deletes states that nobody needs any more, and the folders of versions before this one. Returns how
/// many objects. Who still runs such a version does without, or makes its table again.
pub(super) async fn sweep(
    store: &Store,
    of: &Derived,
    counts: &State,
    now: Micros,
) -> Result<usize, StoreError> {
    let name = format!("derived/{}", of.name);
    let listed = store.list(&Path::from(name.as_str())).await?;
    let counts = location(of, counts.number);
    let states = folder(of);
    let is_past = |meta: &&ObjectMeta| {
        let path = &meta.location;
        let age = now.since(Micros(meta.last_modified.timestamp_micros()));
        let version = path.as_ref()[name.len()..].trim_start_matches('/').split('/').next();
        let version = version.and_then(|it| it.strip_prefix('v')?.parse::<u32>().ok());
        // Names of states are as long as one another: their order is that of their numbers.
        let is_old_state = path.prefix_matches(&states) && *path < counts;
        age > KEPT_US && (is_old_state || version.is_some_and(|it| it < of.version))
    };
    let past = listed.iter().filter(is_past).map(|meta| meta.location.clone());
    sweep::delete(store, past.collect()).await
}
