//! What the threads of one spool share: the buffer of rows, the list of segments, and how each
//! wakes the others.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use flowtap_record::{Micros, Seq};
use tokio::sync::{Notify, watch};

use super::disk::Disk;
use super::folder::Layout;
use super::mark::{MarkFile, Uploaded};
use super::recorder::State;
use super::recover::Earlier;
use crate::clock::Clock;
use crate::stats::Stats;

pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) stats: Arc<Stats>,
    pub(crate) boot: String,
    pub(crate) service: String,
    pub(crate) started_at: Micros,
    /// The configured name, or the one to be taken if the folder has none.
    pub(crate) configured_agent: Option<String>,
    pub(crate) fresh_agent: String,
    /// Set when the folder could be opened.
    pub(crate) agent: OnceLock<String>,
    pub(crate) memory_bytes: usize,
    pub(crate) max_bytes: u64,
    pub(crate) segment_bytes: AtomicU64,
    pub(crate) margin_us: i64,

    pub(crate) state: Mutex<State>,
    /// Wakes the writer.
    pub(crate) wake: Condvar,
    pub(crate) written_seq: AtomicI64,
    pub(crate) written: watch::Sender<i64>,
    pub(crate) synced: watch::Sender<i64>,
    /// Since when the open segment has a row.
    pub(crate) open_since: watch::Sender<Option<Instant>>,
    /// The boot is written to its end and marked so.
    pub(crate) ended: watch::Sender<bool>,

    pub(crate) keeper: Mutex<KeeperState>,
    /// Wakes the keeper.
    pub(crate) keeper_wake: Condvar,

    pub(crate) registry: Mutex<Registry>,
    /// A segment was sealed, or an earlier boot became known.
    pub(crate) registry_changed: Notify,

    pub(crate) files: Mutex<Option<Files>>,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Files held open while the spool's folder is ours.
pub(crate) struct Files {
    /// Dropped = unlocked.
    pub(crate) _lock: File,
    pub(crate) mark: MarkFile,
}

/// Work for the keeper.
#[derive(Default)]
pub(crate) struct KeeperState {
    /// The open segment has rows up to this one that are not synced.
    pub(crate) dirty: Option<(Arc<File>, i64)>,
    pub(crate) seals: VecDeque<Sealing>,
    /// The writer is done: end in order after what there is.
    pub(crate) finish: bool,
    pub(crate) stop: bool,
}

/// A segment that gets no more rows.
pub(crate) struct Sealing {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) bytes: u64,
}

/// Rows `first` to `last` of a boot, on disk, never to change again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The boot that wrote it.
    pub boot: String,
    /// That boot's agent name.
    pub agent: String,
    /// Its first row.
    pub first: Seq,
    /// Its last row.
    pub last: Seq,
    /// Its file.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
}

/// A `gap` row of this boot tells of the death of another.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) boot: String,
    pub(crate) seq: i64,
}

#[derive(Default)]
pub(crate) struct Registry {
    /// By boot and first row: the order in which they are uploaded.
    pub(crate) sealed: BTreeMap<(String, i64), Segment>,
    /// Uploaded, but their files could not be removed yet.
    pub(crate) doomed: Vec<Segment>,
    pub(crate) earlier: BTreeMap<String, Earlier>,
    /// Deaths whose `reported` marker is not written yet.
    pub(crate) reports: Vec<Report>,
    /// How far this boot is uploaded.
    pub(crate) uploaded: Uploaded,
}

impl Shared {
    pub(crate) fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_keeper(&self) -> MutexGuard<'_, KeeperState> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_files(&self) -> MutexGuard<'_, Option<Files>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_sealed(&self, segment: Segment) {
        let key = (segment.boot.clone(), segment.first.0);
        self.lock_registry().sealed.insert(key, segment);
        self.registry_changed.notify_one();
    }

    /// Up to when nothing that was seen can be missing from what is written.
    pub(crate) fn complete_until(&self) -> Micros {
        let now = self.clock.now();
        self.lock_state().complete_until(now, self.margin_us).max(self.started_at)
    }

    /// Writes `reported` into the folder of each boot whose death is told in a synced row. The
    /// lock is not held meanwhile: a slow disk must not hold up who only asks.
    pub(crate) fn settle_reports(&self) {
        let synced = *self.synced.borrow();
        let reports = self.lock_registry().reports.clone();
        for report in reports.iter().filter(|report| report.seq <= synced) {
            let marker = self.layout.reported(&report.boot);
            if let Err(error) = self.disk.replace(&marker, self.boot.as_bytes()) {
                tracing::debug!(boot = report.boot, %error, "a dead boot can't be marked yet");
                continue;
            }
            let mut registry = self.lock_registry();
            registry.reports.retain(|other| other.boot != report.boot);
            if let Some(earlier) = registry.earlier.get_mut(&report.boot) {
                earlier.reported = true;
            }
            drop(registry);
            self.registry_changed.notify_one();
        }
    }

    /// Removes the files of uploaded segments. A segment that tells of a death stays until that
    /// boot is marked: else a crash in between would tell of it twice. No lock is held meanwhile.
    pub(crate) fn remove_doomed(&self) {
        let (doomed, held) = {
            let mut registry = self.lock_registry();
            let held = registry.reports.iter().map(|report| report.seq).min().unwrap_or(i64::MAX);
            (std::mem::take(&mut registry.doomed), held)
        };
        let mut kept = Vec::new();
        for segment in doomed {
            let hold = segment.boot == self.boot && segment.last.0 >= held;
            if hold || self.disk.remove(&segment.path).is_err() {
                kept.push(segment);
            } else {
                Stats::sub(&self.stats.spool_bytes, segment.bytes);
                Stats::sub(&self.stats.segments, 1);
            }
        }
        if !kept.is_empty() {
            self.lock_registry().doomed.extend(kept);
        }
        let mut state = self.lock_state();
        if state.trouble.is_some() {
            state.retry_now = true;
            drop(state);
            self.wake.notify_one();
        }
    }
}
