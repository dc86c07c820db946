//! Keeps the directories of ids up with the table: which row groups carry which ids, a day an object.
//! They are derived from the files and name those that they cover. So writers may race or die
//! anywhere: what is not covered is searched without, and covered by a later round.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use flowtap_record::Micros;
use object_store::ObjectStoreExt as _;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt as _;
use tracing::{info, warn};

use super::{compact, sweep};
use crate::find::Collected;
use crate::store::directory::{Covered, Directories, Directory, Entry, PAGE, Pages, end, new_path};
use crate::store::{History, HistoryFile, Store, StoreError, Trouble, day_text};

/// Entries of new files that are in memory at the same time, about: eight bytes each.
const ENTRIES: usize = 8 << 20;
/// A day is written anew when a part of its rows is not covered that is this large, one in, ...
const WORTH: u64 = 10;
/// ... or when it was not for so long.
const REST_US: i64 = 3_600_000_000;
/// An object that newer ones took the place of stays for so long, for who reads it.
const KEPT_US: i64 = 24 * 3_600_000_000;
/// Pages of an old directory that are read at a time.
const READ_PAGES: u64 = 128;
/// Bytes of pages that are given to the store at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Files of one day that are to be covered, and the directory to begin with.
struct Job<'a> {
    day: i32,
    old: Option<Arc<Directory>>,
    new: Vec<&'a HistoryFile>,
}

/// Covers files that are not, of the newest day where that is worth it. Says whether it did: there
/// may be more.
pub(super) async fn cover(
    store: &Store,
    history: &History,
    known: &mut Directories,
    now: Micros,
) -> Result<bool, StoreError> {
    known.refresh(store).await?;
    for job in plan(&history.files, known, now) {
        if write(store, history, job).await?.is_some() {
            return Ok(true);
        }
    }
    remove_old(store, history, known, now).await?;
    Ok(false)
}

/// Makes those of all days anew, whatever is there. Returns how many.
pub(super) async fn rebuild(
    store: &Store,
    history: &History,
    known: &mut Directories,
) -> Result<usize, StoreError> {
    let mut count = 0;
    for (day, mut new) in by_day(&history.files) {
        let mut old: Option<Arc<Directory>> = None;
        while !new.is_empty() {
            let job = Job { day, old: old.clone(), new: new.clone() };
            let Some(path) = write(store, history, job).await? else { break };
            known.refresh(store).await?;
            old = known.newest_first().find(|it| it.meta.location == path).cloned();
            new.retain(|file| !is_covered(old.as_ref(), file));
        }
        count += usize::from(old.is_some());
    }
    Ok(count)
}

fn by_day(files: &[HistoryFile]) -> BTreeMap<i32, Vec<&HistoryFile>> {
    let mut days: BTreeMap<i32, Vec<&HistoryFile>> = BTreeMap::new();
    for file in files {
        days.entry(file.day).or_default().push(file);
    }
    days
}

fn is_covered(directory: Option<&Arc<Directory>>, file: &HistoryFile) -> bool {
    directory.is_some_and(|it| it.files.iter().any(|covered| covered.is(file)))
}

/// Days of which enough is not covered, the newest first. While a day goes on only large files are taken:
/// small ones will soon be merged, and have a place in the index of who answers.
fn plan<'a>(files: &'a [HistoryFile], known: &Directories, now: Micros) -> Vec<Job<'a>> {
    let jobs = by_day(files).into_iter().rev().filter_map(|(day, files)| {
        let old = known.newest_first().find(|it| it.day == day);
        let wanted = |file: &&HistoryFile| compact::stays(file, now) && !is_covered(old, file);
        let new: Vec<&HistoryFile> = files.iter().copied().filter(wanted).collect();
        let rows = |files: &[&HistoryFile]| files.iter().map(|file| file.rows as u64).sum::<u64>();
        let written = |old: &Arc<Directory>| Micros(old.meta.last_modified.timestamp_micros());
        let rested = old.is_none_or(|old| now.since(written(old)) >= REST_US);
        let is_worth = !new.is_empty() && (rested || rows(&new) * WORTH >= rows(&files));
        is_worth.then(|| Job { day, old: old.cloned(), new })
    });
    jobs.collect()
}

/// Writes the directory of a day: what the old one says of files that are still there, and what is
/// read from new ones, as many as fit into memory. Returns its place; none: no file could be read.
async fn write(store: &Store, history: &History, job: Job<'_>) -> Result<Option<Path>, StoreError> {
    let made = match attempt(store, history, &job).await {
        Err(Trouble::Unbelievable(why)) if job.old.is_some() => {
            let day = day_text(job.day);
            warn!(day, why, "the directory is broken, and made from the files");
            let new = by_day(&history.files).remove(&job.day).unwrap_or_default();
            attempt(store, history, &Job { old: None, new, ..job }).await
        }
        made => made,
    };
    made.map_err(|(Trouble::Read(why) | Trouble::Unbelievable(why))| store.away(why))
}

async fn attempt(store: &Store, history: &History, job: &Job<'_>) -> Result<Option<Path>, Trouble> {
    let mut old = Old::of(job.old.clone(), &history.files);
    let mut new = Collected::after(old.slots);
    for file in &job.new {
        if new.entries.len() >= ENTRIES {
            break;
        }
        // The others are covered all the same.
        if let Err(Trouble::Read(why) | Trouble::Unbelievable(why)) = new.file(store, file).await {
            warn!(file = %file.meta.location, why, "file is in no directory");
        }
    }
    if new.files.is_empty() {
        return Ok(None);
    }
    let own = new.ties();
    let ties = old.ties.take().map(|ties| [ties, own].concat());
    let files = [std::mem::take(&mut old.files), new.files].concat();
    let count = files.len();
    let mut entries = new.entries;
    let entries = tokio::task::spawn_blocking(move || {
        entries.sort_unstable();
        entries
    });
    let entries = entries.await.map_err(|error| Trouble::Read(error.to_string()))?;
    let (path, bytes) = put(store, job.day, old, &entries, files, ties).await?;
    info!(
        day = day_text(job.day),
        files = count,
        entries = entries.len(),
        bytes,
        "directory written"
    );
    Ok(Some(path))
}

/// Merges old entries and new ones, page by page, so that a large day takes no memory.
async fn put(
    store: &Store,
    day: i32,
    mut old: Old,
    mut new: &[Entry],
    files: Vec<Covered>,
    ties: Option<Vec<Entry>>,
) -> Result<(Path, usize), Trouble> {
    let failed = |error: &dyn std::fmt::Display| Trouble::Read(error.to_string());
    let path = new_path(day);
    let mut writer = BufWriter::new(Arc::clone(store.objects()), path.clone());
    let entries = files.iter().map(|file| file.entries).sum();
    let slots = files.iter().map(|file| file.groups).sum();
    let mut pages = Pages::new(entries, slots);
    let mut bytes = 0;
    while let Some(chunk) = old.next(store).await? {
        for entry in chunk {
            let before = new.partition_point(|it| it.is_before(entry));
            let (first, rest) = new.split_at(before);
            for entry in first {
                pages.push(*entry);
            }
            pages.push(entry);
            new = rest;
        }
        if pages.done() >= WRITE_BYTES {
            let done = pages.take();
            bytes += done.len();
            writer.put(done.into()).await.map_err(|error| failed(&error))?;
        }
    }
    for chunk in new.chunks(WRITE_BYTES / size_of::<Entry>()) {
        for entry in chunk {
            pages.push(*entry);
        }
        let done = pages.take();
        bytes += done.len();
        writer.put(done.into()).await.map_err(|error| failed(&error))?;
    }
    let end = end(pages, day, files, ties).map_err(Trouble::Read)?;
    bytes += end.len();
    writer.put(end).await.map_err(|error| failed(&error))?;
    writer.shutdown().await.map_err(|error| failed(&error))?;
    Ok((path, bytes))
}

/// An old directory, as far as its files are still there.
struct Old {
    directory: Option<Arc<Directory>>,
    /// What each of its slots is in the new one.
    slot_of: Vec<Option<u32>>,
    slots: u32,
    files: Vec<Covered>,
    /// None: too many to be known apart.
    ties: Option<Vec<Entry>>,
    next: u64,
}

impl Old {
    fn of(directory: Option<Arc<Directory>>, files: &[HistoryFile]) -> Self {
        let mut old = Self {
            directory: None,
            slot_of: Vec::new(),
            slots: 0,
            files: Vec::new(),
            ties: Some(Vec::new()),
            next: 0,
        };
        let Some(directory) = directory else { return old };
        let there: HashMap<&str, &HistoryFile> =
            files.iter().map(|file| (file.meta.location.as_ref(), file)).collect();
        for covered in &directory.files {
            let lives = there.get(covered.path.as_str()).is_some_and(|file| covered.is(file));
            let slots = (0..covered.groups).map(|group| lives.then_some(old.slots + group));
            old.slot_of.extend(slots);
            if lives {
                old.slots += covered.groups;
                old.files.push(covered.clone());
            }
        }
        if !old.files.is_empty() {
            let ties = directory.ties.as_ref();
            old.ties = ties.map(|ties| ties.iter().filter_map(|it| old.moved(*it)).collect());
            old.directory = Some(directory);
        }
        old
    }

    /// An entry as the new directory has it.
    fn moved(&self, entry: Entry) -> Option<Entry> {
        let slot = self.slot_of.get(entry.slot() as usize).copied().flatten()?;
        Some(entry.moved(slot))
    }

    /// The next entries, whose hashes rise.
    async fn next(&mut self, store: &Store) -> Result<Option<Vec<Entry>>, Trouble> {
        let Some(directory) = self.directory.clone() else { return Ok(None) };
        let until = directory.stored().min(self.next + READ_PAGES);
        if self.next == until {
            return Ok(None);
        }
        let range = Directory::place(self.next).start..Directory::place(until).start;
        let bytes = store.objects().get_range(&directory.meta.location, range).await;
        let bytes = bytes.map_err(|error| match error {
            object_store::Error::NotFound { .. } => Trouble::Unbelievable(error.to_string()),
            error => Trouble::Read(error.to_string()),
        })?;
        let mut entries = Vec::new();
        for (number, bytes) in (self.next..until).zip(bytes.chunks(PAGE)) {
            let page = directory.page(bytes, number);
            let broken =
                || Trouble::Unbelievable(format!("page {number} is not as it was written"));
            entries.extend(
                page.ok_or_else(broken)?.entries.into_iter().filter_map(|it| self.moved(it)),
            );
        }
        self.next = until;
        Ok(Some(entries))
    }
}

/// Deletes objects that newer ones took the place of, and those of days that are gone, a day later.
async fn remove_old(
    store: &Store,
    history: &History,
    known: &Directories,
    now: Micros,
) -> Result<usize, StoreError> {
    let days: HashSet<i32> = history.files.iter().map(|file| file.day).collect();
    let mut newest: HashMap<i32, &Path> = HashMap::new();
    for directory in known.newest_first().filter(|it| days.contains(&it.day)) {
        newest.entry(directory.day).or_insert(&directory.meta.location);
    }
    let kept: HashSet<&Path> = newest.into_values().collect();
    let old = known.objects().iter().filter(|meta| {
        let age = now.since(Micros(meta.last_modified.timestamp_micros()));
        age > KEPT_US && !kept.contains(&meta.location)
    });
    sweep::delete(store, old.map(|meta| meta.location.clone()).collect()).await
}

#[cfg(test)]
mod tests {
    use flowtap_record::DAY_US;
    use object_store::ObjectMeta;

    use super::*;

    const MB: u64 = 1 << 20;

    fn file(name: &str, day: i32, size: u64) -> HistoryFile {
        HistoryFile {
            meta: ObjectMeta {
                location: Path::from(format!("history/{name}")),
                last_modified: "2026-11-21T12:00:00Z".parse().expect("a time"),
                size,
                e_tag: None,
                version: None,
            },
            day,
            rows: size as usize,
            at: None,
            cluster: None,
        }
    }

    fn planned(files: &[HistoryFile], now: Micros) -> Vec<(i32, usize)> {
        let jobs = plan(files, &Directories::default(), now).into_iter();
        jobs.map(|job| (job.day, job.new.len())).collect()
    }

    #[test]
    fn days_that_are_over_come_whole_and_of_today_large_files_only() {
        let files = [file("a", 7, MB), file("b", 8, MB), file("c", 8, 2 * MB), file("d", 9, MB)];
        let noon = Micros(9 * DAY_US + DAY_US / 2);
        assert_eq!(planned(&files, noon), [(8, 2), (7, 1)]);
        assert_eq!(planned(&files[3..], noon), [], "it will be merged");
        let large = [file("d", 9, MB), file("e", 9, 100 * MB)];
        assert_eq!(planned(&large, noon), [(9, 1)]);
    }
}
