//! Rows of files that have no place in the index. The directory of their day tells which row groups
//! may carry an id; where there is none, or it is broken, all row groups are looked through. So what
//! is missing costs reading, and never a row.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tracing::warn;

use super::catalog::Catalog;
use super::gather::MAX_RECORDS;
use super::inner::Inner;
use super::known::Source;
use super::object::hash;
use super::read::{ReadError, Wanted};
use super::reading::{Keep, cut_rows};
use crate::flow::Row;
use crate::store::HistoryFile;
use crate::store::directory::{Directory, slots};

/// Pages of directories that are read at the same time.
const PAGES: usize = 32;
/// Files that are read at the same time.
const FILES: usize = 16;
/// Row groups of each that are.
const GROUPS: usize = 2;
/// A row group of no more bytes is read whole, with one request: who wants some of its columns now
/// wants the others next.
const WHOLE: i64 = 4 << 20;

/// What is to be looked through, as it was at one moment.
#[derive(Default)]
pub(super) struct Far {
    asks: Vec<Ask>,
    /// Files that no directory covers.
    bare: Vec<HistoryFile>,
}

/// A directory and those of its files that are wanted, by their places in it.
struct Ask {
    directory: Arc<Directory>,
    files: HashMap<usize, HistoryFile>,
}

/// A file, and row groups of it that may hold what is looked for.
struct Candidate {
    file: HistoryFile,
    /// None: any.
    groups: Option<BTreeSet<u32>>,
}

impl Inner {
    /// All files that have no place in the index, each with the newest directory that covers it.
    pub(super) fn far(&self) -> Far {
        let files = self.far.iter().map(|(path, file)| (path.as_ref(), file));
        let mut left: HashMap<&str, &HistoryFile> = files.collect();
        let mut asks = Vec::new();
        for directory in &self.directories {
            if left.is_empty() {
                break;
            }
            let own = directory.files.iter().enumerate().filter_map(|(place, covered)| {
                let path = covered.path.as_str();
                left.get(path).filter(|file| covered.is(file))?;
                Some((place, left.remove(path)?.clone()))
            });
            let files: HashMap<usize, HistoryFile> = own.collect();
            if !files.is_empty() {
                asks.push(Ask { directory: directory.clone(), files });
            }
        }
        Far { asks, bare: left.into_values().cloned().collect() }
    }

    /// A file that cannot be decoded is missing from now on, and said to be with the next look.
    fn give_up(&mut self, file: &HistoryFile, why: &str) {
        if self.far.remove(&file.meta.location).is_some() {
            self.unreadable.push((file.clone(), why.to_owned()));
        }
    }

    /// Whether files have neither a place in the index nor in a directory.
    pub(super) fn has_uncovered(&self) -> bool {
        !self.far().bare.is_empty()
    }
}

impl Catalog {
    /// Rows that carry any of `hashes`, but not more than anybody reads. True: some are left out.
    pub(super) async fn read_far(
        &self,
        far: Far,
        hashes: &[u64],
        keep: Keep,
        wanted: Wanted,
    ) -> Result<(Vec<Row>, bool), ReadError> {
        let mut candidates = self.candidates(far, hashes).await;
        candidates.sort_by_key(|it| match keep {
            Keep::Oldest => i64::from(it.file.day),
            Keep::Newest => -i64::from(it.file.day),
        });
        let mut read = stream::iter(candidates)
            .map(|candidate| async move {
                let file = candidate.file.clone();
                let rows = self.rows_of_candidate(candidate, hashes, keep, wanted).await;
                if let Err(ReadError::Broken(why)) = &rows {
                    self.write().give_up(&file, why);
                }
                rows.map(|(rows, is_cut)| (file.day, rows, is_cut))
            })
            .buffered(FILES);
        let (mut all, mut any_cut, mut last_day) = (Vec::new(), false, None);
        while let Some((day, rows, is_cut)) = read.try_next().await? {
            if rows.is_empty() {
                continue;
            }
            // All rows of other days are older, or newer.
            if all.len() >= MAX_RECORDS && last_day.is_some_and(|last| last != day) {
                any_cut = true;
                break;
            }
            last_day = Some(day);
            all.extend(rows);
            any_cut |= cut_rows(&mut all, keep) | is_cut;
        }
        Ok((all, any_cut))
    }

    /// Where rows may lie that carry any of `hashes`.
    async fn candidates(&self, far: Far, hashes: &[u64]) -> Vec<Candidate> {
        let asked = stream::iter(far.asks)
            .map(|Ask { directory, files }| async move {
                match self.slots(&directory, hashes).await {
                    Ok(slots) => named(&directory, files, slots),
                    Err(error) => {
                        self.distrust(&directory, error);
                        files.into_values().map(|file| Candidate { file, groups: None }).collect()
                    }
                }
            })
            .buffer_unordered(PAGES);
        let mut candidates: Vec<Candidate> = asked.concat().await;
        candidates.extend(far.bare.into_iter().map(|file| Candidate { file, groups: None }));
        candidates
    }

    /// Slots of a directory that may carry any of `hashes`.
    async fn slots(
        &self,
        directory: &Directory,
        hashes: &[u64],
    ) -> Result<BTreeSet<u32>, ReadError> {
        let pages = directory.homes(hashes, hash::is_tie);
        let found = stream::iter(pages)
            .map(|mut number| async move {
                let mut found = BTreeSet::new();
                loop {
                    let page = self.cache.page(&self.store, directory, number).await?;
                    found.extend(slots(&page, hashes));
                    if !page.goes_on {
                        return Ok(found);
                    }
                    number += 1;
                }
            })
            .buffer_unordered(PAGES);
        let found: Vec<BTreeSet<u32>> = found.try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// A directory that cannot be used is as good as missing: for this time where the store does not
    /// give it, for ever where it is broken.
    fn distrust(&self, directory: &Directory, error: ReadError) {
        let path = &directory.meta.location;
        let is_broken = matches!(error, ReadError::Broken(_));
        let mut inner = self.write();
        if !is_broken || inner.distrusted.insert(path.clone()) {
            let why = error.why();
            warn!(directory = %path, why, "directory left out: rows are found without");
        }
        if is_broken {
            inner.directories.retain(|known| known.meta.location != *path);
        }
    }

    async fn rows_of_candidate(
        &self,
        Candidate { file, groups }: Candidate,
        hashes: &[u64],
        keep: Keep,
        wanted: Wanted,
    ) -> Result<(Vec<Row>, bool), ReadError> {
        let footer = self.cache.footer(&self.store, &file.meta).await?;
        let is_named = groups.is_some();
        let all = footer.metadata().num_row_groups();
        let groups: Vec<usize> = match groups {
            Some(groups) => {
                groups.into_iter().map(|it| it as usize).filter(|it| *it < all).collect()
            }
            None => (0..all).collect(),
        };
        let file = &file;
        let mut read = stream::iter(groups)
            .map(|group| {
                let bytes = footer.metadata().row_group(group).compressed_size();
                let held = if bytes <= WHOLE { Wanted::All } else { wanted };
                self.rows_of_group(file, group, is_named, held, hashes, wanted)
            })
            .buffered(GROUPS);
        let (mut rows, mut is_cut) = (Vec::new(), false);
        while let Some(found) = read.try_next().await? {
            rows.extend(found);
            is_cut |= cut_rows(&mut rows, keep);
        }
        Ok((rows, is_cut))
    }

    /// A row group that was named is read at once, where its columns have all that is to be known; of
    /// others the ids first.
    async fn rows_of_group(
        &self,
        file: &HistoryFile,
        group: usize,
        is_named: bool,
        held: Wanted,
        hashes: &[u64],
        wanted: Wanted,
    ) -> Result<Vec<Row>, ReadError> {
        let (store, meta) = (&self.store, &file.meta);
        let opened = if is_named && held == Wanted::All {
            Some(self.cache.group(store, meta, group, held).await?)
        } else {
            None
        };
        let ids = self.cache.ids(store, meta, group, opened).await?;
        let rows = ids.rows_of(hashes);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let opened = self.cache.group(store, meta, group, held).await?;
        let source = Source::File(file.clone());
        let task = tokio::task::spawn_blocking(move || opened.rows(&source, &rows, wanted));
        let made = task.await.map_err(|error| ReadError::Broken(error.to_string()))?;
        made.map_err(ReadError::Broken)
    }
}

/// Files of these slots, each with its row groups.
fn named(
    directory: &Directory,
    mut files: HashMap<usize, HistoryFile>,
    slots: BTreeSet<u32>,
) -> Vec<Candidate> {
    let mut groups: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for (place, group) in slots.into_iter().filter_map(|slot| directory.file_of(slot)) {
        groups.entry(place).or_default().insert(group);
    }
    let found = groups.into_iter();
    let found = found.filter_map(|(place, groups)| Some((files.remove(&place)?, groups)));
    found.map(|(file, groups)| Candidate { file, groups: Some(groups) }).collect()
}
