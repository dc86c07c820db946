//! The directory of a day: which row groups of the table's files carry the hash of an id. Derived:
//! made from the files ([`crate::ingest`]), never trusted over them. Each names the files that it
//! covers; a file that none covers is searched without.
//!
//! ```text
//! derived/directory/day=2026-11-21/<uuid>.dir
//! [pages][ties][files, as JSON][tail]
//! ```
//!
//! Entries are sorted by hash, in [`page`]s whose place is computed. What is read once and kept is
//! behind them: the files, and the ties.

mod known;
mod page;

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) use known::Directories;
pub(crate) use page::{Entry, MAX_SLOTS, PAGE, Page, Pages};
use page::{Sums, home, key};

use super::{HistoryFile, day_text};

/// Where directories lie.
pub(crate) const FOLDER: &str = "derived/directory";
/// What an object ends with, the version of the format last.
const MAGIC: [u8; 8] = *b"FLOWDIR1";
/// Numbers of eight bytes: pages, pages stored, entries, ties, bytes of the files, checksum; magic.
const TAIL: usize = 7 * 8;
/// More ties than these are not kept apart.
const MAX_TIES: usize = 8192;
/// Instead of a number of ties.
const TOO_MANY: u64 = u64::MAX;

/// A file that a directory covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Covered {
    /// Its place in the store.
    pub(crate) path: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Its rows.
    pub(crate) rows: u64,
    /// Its row groups: each has a slot, one after the other, file after file.
    pub(crate) groups: u32,
    /// Entries that lead to it.
    pub(crate) entries: u64,
}

impl Covered {
    pub(crate) fn is(&self, file: &HistoryFile) -> bool {
        self.path == file.meta.location.as_ref() && self.size == file.meta.size
    }
}

#[derive(Serialize, Deserialize)]
struct Files {
    day: i32,
    files: Vec<Covered>,
}

/// A directory, but for its pages.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// Its own place.
    pub(crate) meta: ObjectMeta,
    /// Days since 1970-01-01.
    pub(crate) day: i32,
    /// Files that it covers.
    pub(crate) files: Vec<Covered>,
    /// Entries of ids that tie a row to another, sorted, where they are few: with them most
    /// questions for such ids are answered without a page. They are in pages all the same.
    pub(crate) ties: Option<Vec<Entry>>,
    sums: Sums,
}

impl Directory {
    /// Bytes of an object's end that hold all but the pages, told by its last bytes.
    fn end(tail: &[u8]) -> Option<u64> {
        let [.., ties, files, _] = numbers(tail)?;
        let ties = if ties == TOO_MANY { 0 } else { ties };
        ties.checked_mul(8)?.checked_add(files)?.checked_add(TAIL as u64)
    }

    /// Reads the end of an object; nothing if it is none of ours, or not whole.
    fn read(meta: ObjectMeta, end: &[u8]) -> Option<Self> {
        let (rest, tail) = end.split_last_chunk::<TAIL>()?;
        let [pages, stored, entries, ties, files, sum] = numbers(tail)?;
        if sum != xxh3_64(&end[..end.len() - 16]) || Self::end(tail)? != end.len() as u64 {
            return None;
        }
        let whole = stored.checked_mul(PAGE as u64)?.checked_add(end.len() as u64)?;
        if whole != meta.size || pages == 0 || pages > stored {
            return None;
        }
        let (packed, files) = rest.split_at_checked(rest.len().checked_sub(files as usize)?)?;
        let Files { day, files } = serde_json::from_slice(files).ok()?;
        let entry = |bytes: &[u8; 8]| Entry(u64::from_le_bytes(*bytes));
        let packed = packed.as_chunks().0.iter().map(entry).collect();
        let ties = (ties != TOO_MANY).then_some(packed);
        Some(Self { meta, day, files, ties, sums: Sums { pages, stored, entries } })
    }

    /// The file of a slot, by its place among the files, and the row group there.
    pub(crate) fn file_of(&self, slot: u32) -> Option<(usize, u32)> {
        let mut first = 0;
        self.files.iter().enumerate().find_map(|(place, file)| {
            let group = slot.checked_sub(first)?;
            first += file.groups;
            (group < file.groups).then_some((place, group))
        })
    }

    /// Pages that may tell of these hashes, of which `tie` says whether they tie a row to another.
    pub(crate) fn homes(&self, hashes: &[u64], tie: impl Fn(u64) -> bool) -> BTreeSet<u64> {
        let asked = hashes.iter().filter(|hash| !tie(**hash) || self.may_tie(**hash));
        asked.map(|hash| home(key(*hash), self.sums.pages)).collect()
    }

    fn may_tie(&self, hash: u64) -> bool {
        let Some(ties) = &self.ties else { return true };
        let from = ties.partition_point(|entry| entry.key() < key(hash));
        ties.get(from).is_some_and(|entry| entry.key() == key(hash))
    }

    /// How many pages there are.
    pub(crate) fn stored(&self) -> u64 {
        self.sums.stored
    }

    /// Where a page lies.
    pub(crate) fn place(page: u64) -> Range<u64> {
        page * PAGE as u64..(page + 1) * PAGE as u64
    }

    /// Reads a page; nothing if it is not as it was written.
    pub(crate) fn page(&self, bytes: &[u8], number: u64) -> Option<Page> {
        let page = Page::read(bytes, number)?;
        // The last one cannot go on.
        (!page.goes_on || number + 1 < self.sums.stored).then_some(page)
    }
}

/// Slots in a page of any of these hashes.
pub(crate) fn slots(page: &Page, hashes: &[u64]) -> BTreeSet<u32> {
    hashes.iter().flat_map(|hash| page.slots(key(*hash))).collect()
}

/// Ends an object: what comes behind its pages. Ties in any order.
pub(crate) fn end(
    pages: Pages,
    day: i32,
    files: Vec<Covered>,
    ties: Option<Vec<Entry>>,
) -> Result<Bytes, String> {
    let (mut out, Sums { pages, stored, entries }) = pages.finish();
    let from = out.len();
    let ties = ties.filter(|ties| ties.len() <= MAX_TIES);
    let count = ties.as_ref().map_or(TOO_MANY, |ties| ties.len() as u64);
    let mut ties = ties.unwrap_or_default();
    ties.sort_unstable();
    out.extend(ties.iter().flat_map(|entry| entry.0.to_le_bytes()));
    let files = serde_json::to_vec(&Files { day, files }).map_err(|error| error.to_string())?;
    out.extend(&files);
    for number in [pages, stored, entries, count, files.len() as u64] {
        out.extend(number.to_le_bytes());
    }
    let sum = xxh3_64(&out[from..]);
    out.extend(sum.to_le_bytes());
    out.extend(MAGIC);
    Ok(out.into())
}

/// A new name for a directory of a day. Later ones sort behind.
pub(crate) fn new_path(day: i32) -> Path {
    Path::from(format!("{FOLDER}/day={}/{}.dir", day_text(day), uuid::Uuid::now_v7()))
}

/// The numbers at the end of an object; nothing if it does not end as one of ours.
fn numbers(tail: &[u8]) -> Option<[u64; 6]> {
    let (numbers, magic) = tail.last_chunk::<TAIL>()?.split_last_chunk::<8>()?;
    let numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    (*magic == MAGIC).then(|| numbers.collect::<Vec<_>>().try_into().ok()).flatten()
}

#[cfg(test)]
mod tests;
