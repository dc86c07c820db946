//! Makes indexes of the table's files, beside what is shown: only when all of them are there, files
//! and inbox objects change places. Tasks of their own, so that a look at the store that is given up
//! loses nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowtap_record::Micros;
use futures::{StreamExt, stream};
use object_store::path::Path;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::building::{Building, COLUMNS};
use super::cache::{fetch_group, footer};
use super::catalog::Catalog;
use super::known::{Known, Prepared, Source};
use super::learnt::Learnt;
use super::lookup::Run;
use super::unread::longer;
use crate::store::{History, HistoryFile, Store, Trouble, decode};

/// Files that are read at the same time.
const AT_ONCE: usize = 2;
/// Row groups of a file that are fetched ahead.
const AHEAD: usize = 2;
/// After so many tries a file that the store does not give is left out, where what was shown before
/// does not have its rows any more.
const TRIES: u32 = 3;
/// Before the second of them.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Files of the table on their way into the index.
#[derive(Default)]
pub(super) struct Table {
    /// In the index, or left out because there was no room.
    taken: HashSet<Path>,
    ready: HashMap<Path, Prepared>,
    failed: HashMap<Path, Failed>,
    started: HashSet<Path>,
    running: JoinSet<(Path, Result<Prepared, Trouble>)>,
}

/// A file that is in the table and not in the index.
struct Failed {
    trouble: Trouble,
    times: u32,
    again: Option<(Instant, Duration)>,
    at: Option<(Micros, Micros)>,
    /// What is shown is without it.
    left_out: bool,
}

impl Failed {
    /// Whether others wait for it: always, while what is shown has its rows.
    fn holds_up(&self, insists: bool) -> bool {
        self.again.is_some() && !self.left_out && (!insists || self.times < TRIES)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.again.is_some_and(|(at, _)| at <= now)
    }
}

impl Table {
    /// Whether a version of the table has files that are to be tried.
    pub(super) fn wants(&self, target: &History) -> bool {
        let now = Instant::now();
        target.files.iter().any(|file| self.is_wanted(&file.meta.location, now))
    }

    fn is_wanted(&self, path: &Path, now: Instant) -> bool {
        !self.taken.contains(path)
            && !self.ready.contains_key(path)
            && self.failed.get(path).is_none_or(|failed| failed.is_due(now))
    }

    /// Makes indexes of all files of `target` that have none, the newest first, as far as there is
    /// room, for at most `patience`. True: all are there that can be had.
    pub(super) async fn prepare(
        &mut self,
        catalog: &Catalog,
        target: &History,
        learnt: &Arc<Learnt>,
        patience: Option<Duration>,
    ) -> bool {
        let there: HashSet<&Path> = target.files.iter().map(|file| &file.meta.location).collect();
        self.ready.retain(|path, _| there.contains(path));
        self.failed.retain(|path, _| there.contains(path));
        let now = Instant::now();
        let wanted = |file: &&HistoryFile| {
            let path = &file.meta.location;
            self.is_wanted(path, now) && !self.started.contains(path)
        };
        let mut left: Vec<&HistoryFile> = target.files.iter().filter(wanted).collect();
        left.sort_by_key(|file| file.at.map(|(_, last)| last));
        let deadline = patience.map(|patience| tokio::time::Instant::now() + patience);
        let full = catalog.read().full;
        loop {
            while self.started.len() < AT_ONCE
                && self.held() <= catalog.room
                && let Some(file) = left.pop()
            {
                // What is older than what had no room has none either.
                let older = |full: Micros| file.at.is_some_and(|(_, last)| last <= full);
                if !full.is_some_and(older) {
                    self.start(catalog, file, learnt);
                }
            }
            if self.started.is_empty() {
                break;
            }
            let done = match deadline {
                Some(deadline) => {
                    match tokio::time::timeout_at(deadline, self.running.join_next()).await {
                        Ok(done) => done,
                        Err(_) => return false,
                    }
                }
                None => self.running.join_next().await,
            };
            // These tasks do not panic and are not ended, but with the runtime.
            let Some(Ok((path, made))) = done else {
                self.started.clear();
                return false;
            };
            self.done(target, path, made);
        }
        let insists = patience.is_none();
        !self.failed.values().any(|failed| failed.holds_up(insists))
    }

    /// Files that could not be read are tried at once: what was shown is not there any more.
    pub(super) fn hurry(&mut self) {
        for failed in self.failed.values_mut().filter(|failed| !failed.left_out) {
            failed.times = 0;
            failed.again = failed.again.map(|_| (Instant::now(), FIRST_WAIT));
        }
    }

    fn held(&self) -> usize {
        self.ready.values().map(|prepared| prepared.known.index.bytes).sum()
    }

    fn start(&mut self, catalog: &Catalog, file: &HistoryFile, learnt: &Arc<Learnt>) {
        let path = file.meta.location.clone();
        self.started.insert(path.clone());
        let (store, file, learnt) = (catalog.store().clone(), file.clone(), learnt.clone());
        let place = catalog.next_place();
        self.running.spawn(async move {
            let made = tokio::spawn(async move { make(&store, file, place, learnt).await }).await;
            let broken = |_| Err(Trouble::Unbelievable("it broke the decoder".to_owned()));
            (path, made.unwrap_or_else(broken))
        });
    }

    fn done(&mut self, target: &History, path: Path, made: Result<Prepared, Trouble>) {
        self.started.remove(&path);
        let Some(file) = target.files.iter().find(|file| file.meta.location == path) else {
            return;
        };
        match made {
            Ok(prepared) => {
                if self.failed.remove(&path).is_some() {
                    info!(file = %path, "file could be read");
                }
                self.ready.insert(path, prepared);
            }
            Err(trouble) => {
                let before = self.failed.get(&path);
                let times = before.map_or(0, |failed| failed.times) + 1;
                let wait = longer(before.and_then(|it| it.again).map(|(_, wait)| wait));
                let again = match &trouble {
                    Trouble::Read(_) => Some((Instant::now() + wait, wait)),
                    Trouble::Unbelievable(_) => None,
                };
                let (Trouble::Read(why) | Trouble::Unbelievable(why)) = &trouble;
                if times == 1 {
                    warn!(file = %path, why, "file of the table cannot be read");
                }
                let left_out = before.is_some_and(|failed| failed.left_out);
                self.failed.insert(path, Failed { trouble, times, again, at: file.at, left_out });
            }
        }
    }

    /// All that is ready, and files that there was no room for. They count as taken from now on.
    pub(super) fn take<'a>(
        &mut self,
        target: &'a History,
    ) -> (Vec<Prepared>, Vec<&'a HistoryFile>) {
        let there: HashSet<&Path> = target.files.iter().map(|file| &file.meta.location).collect();
        self.taken.retain(|path| there.contains(path));
        let mut made = Vec::new();
        let mut left_out = Vec::new();
        for file in &target.files {
            let path = &file.meta.location;
            if let Some(prepared) = self.ready.remove(path) {
                made.push(prepared);
            } else if let Some(failed) = self.failed.get_mut(path) {
                failed.left_out = true;
                continue;
            } else if self.taken.contains(path) {
                continue;
            } else {
                left_out.push(file);
            }
            self.taken.insert(path.clone());
        }
        (made, left_out)
    }

    /// A file that was left out for want of room cannot be decoded either.
    pub(super) fn give_up(&mut self, file: &HistoryFile, why: String) {
        let path = file.meta.location.clone();
        warn!(file = %path, why, "file of the table cannot be read");
        self.taken.remove(&path);
        let trouble = Trouble::Unbelievable(why);
        let failed = Failed { trouble, times: 1, again: None, at: file.at, left_out: true };
        self.failed.insert(path, failed);
    }

    /// Whether files are missing.
    pub(super) fn misses(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Times of files that are missing from what is shown, and why they are. While others wait for
    /// a file, what was shown before has its rows.
    pub(super) fn missing(&self) -> impl Iterator<Item = (Option<(Micros, Micros)>, &Trouble)> {
        let missing = self.failed.values().filter(|failed| failed.left_out);
        missing.map(|failed| (failed.at, &failed.trouble))
    }
}

/// Reads a file row group by row group, of each only the columns that an index is made of.
async fn make(
    store: &Store,
    file: HistoryFile,
    place: u32,
    learnt: Arc<Learnt>,
) -> Result<Prepared, Trouble> {
    let meta = &file.meta;
    let footer = footer(store, meta).await?;
    let groups = footer.metadata().num_row_groups();
    let mut groups = stream::iter(0..groups)
        .map(|group| fetch_group(store, meta, &footer, group, Some(&COLUMNS)))
        .buffered(AHEAD);
    let mut building = Building::of_file(learnt);
    while let Some(group) = groups.next().await {
        let group = group?;
        building = decode(move || group.index(&mut building).map(|()| building)).await?;
    }
    drop(groups);
    decode(move || {
        let (index, pairs, beyond) = building.finish();
        let known = Known { source: Source::File(file), index };
        Ok(Prepared { place, known, run: Run::new(place, pairs), beyond })
    })
    .await
}
