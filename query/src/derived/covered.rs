//! What a derived table holds at one moment, and what is to be added to it to be up to a version of
//! `history`.

use std::collections::{BTreeMap, BTreeSet};

use deltalake_core::DeltaTable;

use super::Derived;
use super::state::{Boots, State};
use crate::store::{History, HistoryFile, Store, StoreError};

/// The application id whose version is the number of the state that a commit made true. All who change
/// the table take turns at it.
pub(super) const APP: &str = "flowtap-derived";

/// A derived table at one version.
#[derive(Debug)]
pub(crate) struct Covered {
    pub(super) table: DeltaTable,
    pub(super) state: State,
    /// Its files, in no order.
    pub(super) files: Vec<HistoryFile>,
}

/// The rows of one version of `history`, each once.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Split {
    /// Files of the derived table that count.
    pub(crate) parts: Vec<HistoryFile>,
    /// Files of it that do not: rows that they were made of are gone.
    pub(crate) void: Vec<HistoryFile>,
    /// Files of `history` of which only what lies beyond [`Self::boots`] counts.
    pub(crate) beyond: Vec<HistoryFile>,
    /// Files of `history` of which all rows count.
    pub(crate) whole: Vec<HistoryFile>,
    /// How far each boot is in the parts.
    pub(crate) boots: Boots,
}

impl Derived {
    /// The table as it is now; none if it was never made.
    ///
    /// `history` must be loaded after it: then it is never ahead.
    pub(crate) async fn covered(&self, store: &Store) -> Result<Option<Covered>, StoreError> {
        let name = self.table();
        match store.delta(&name).await? {
            Some(table) => Ok(Some(self.covered_at(store, table).await?)),
            None => Ok(None),
        }
    }

    /// The table as it was loaded.
    pub(super) async fn covered_at(
        &self,
        store: &Store,
        table: DeltaTable,
    ) -> Result<Covered, StoreError> {
        let number = self.number(store, &table).await?;
        let state = State::read(store, self, number).await?;
        Ok(Covered { files: self.files(store, &table)?, table, state })
    }

    /// The same, but as if nothing were in it: for who makes it again, also where its state is lost.
    pub(super) async fn emptied(
        &self,
        store: &Store,
        table: DeltaTable,
    ) -> Result<Covered, StoreError> {
        let state = State { number: self.number(store, &table).await?, ..State::default() };
        Ok(Covered { files: self.files(store, &table)?, table, state })
    }

    /// The number of the state that counts.
    pub(super) async fn number(
        &self,
        store: &Store,
        table: &DeltaTable,
    ) -> Result<u64, StoreError> {
        let number = crate::ingest::table::number(table, APP).await;
        number.map_err(|error| store.table_trouble(&self.table(), error))
    }

    fn files(&self, store: &Store, table: &DeltaTable) -> Result<Vec<HistoryFile>, StoreError> {
        store.files_of(table, &self.table(), (self.sorted_by.time, self.sorted_by.key))
    }
}

impl Covered {
    /// What there is of a version of `history` in the table and beside it. `retention` says how often
    /// days were taken out of `history` until then, if that is known.
    pub(crate) fn split(&self, history: &History, retention: Option<u64>) -> Split {
        let state = &self.state;
        if state.history > history.version {
            // Somebody made `history` anew, or did not wait for it.
            return Split { void: self.files.clone(), ..Split::none(history) };
        }
        let mut split = Split { boots: state.boots.clone(), ..Split::default() };
        let mut days: BTreeMap<i32, Vec<&HistoryFile>> = BTreeMap::new();
        for file in &history.files {
            days.entry(file.day).or_default().push(file);
        }
        let grew = state.ingest != history.progress.number;
        let no_day_went = retention == Some(state.retention);
        let mut stays = BTreeSet::new();
        for (day, files) in days {
            let was_there = state.files.contains_key(&crate::store::day_text(day));
            // Retention takes all files of a day at once, and rows may come to that day again. A
            // file that stayed tells that it was not so; where none did, they may be merged.
            let is_sure = !grew || no_day_went || files.iter().any(|file| state.has_file(file));
            if was_there && is_sure {
                stays.insert(day);
                let new = files.into_iter().filter(|file| grew && !state.has_file(file));
                split.beyond.extend(new.cloned());
            } else {
                split.whole.extend(files.into_iter().cloned());
            }
        }
        let files = self.files.iter().cloned();
        (split.parts, split.void) = files.partition(|file| stays.contains(&file.day));
        split
    }
}

impl Split {
    /// All of `history`, where there is no derived table.
    pub(crate) fn none(history: &History) -> Self {
        Self { whole: history.files.clone(), ..Self::default() }
    }
}
