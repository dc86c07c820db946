//! The keeper thread: syncs what the writer wrote (in groups, at most every 20 ms), seals segments
//! (sync, then rename: from then on their range is fixed for ever), and writes the time mark once
//! a second. What may be slow on a bad disk is here, away from the writer.

use std::fs::{self, File};
use std::io::{self, Seek as _};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::disk::sync_parent;
use super::mark::Mark;
use super::shared::{KeeperState, Sealing, Segment, Shared};
use crate::stats::Stats;

const SYNC_EVERY: Duration = Duration::from_millis(20);
const MARK_EVERY: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    next_mark: Instant,
    seen_shed: u64,
    shedding: bool,
    mark_failed: bool,
    /// How long to wait before a sync that failed is tried again; `None` while they work.
    sync_again: Option<Duration>,
    /// The segment whose name in its folder is known to be durable.
    named: Option<Arc<File>>,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let next_mark = Instant::now() + MARK_EVERY;
        Self {
            shared,
            next_mark,
            seen_shed: 0,
            shedding: false,
            mark_failed: false,
            sync_again: None,
            named: None,
        }
    }

    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let begun = Instant::now();
            let Some((seals, dirty)) = self.next_work() else { return };
            for sealing in seals {
                if !self.seal(&sealing) {
                    return;
                }
            }
            if let Some((file, last)) = dirty {
                match self.sync(&file) {
                    Ok(()) => {
                        if self.sync_again.take().is_some() {
                            tracing::warn!("the spool is synced again");
                        }
                        self.synced(last);
                    }
                    Err(error) => self.sync_failed(&error, file, last),
                }
            }
            if Instant::now() >= self.next_mark {
                self.next_mark = Instant::now() + MARK_EVERY;
                self.tick();
            }
            // What is written meanwhile is synced together.
            let every = self.sync_again.unwrap_or(SYNC_EVERY);
            let rest = every.saturating_sub(begun.elapsed());
            let keeper = shared.lock_keeper();
            if !rest.is_zero() && keeper.seals.is_empty() && !keeper.finish && !keeper.stop {
                let rest = rest.min(self.next_mark.saturating_duration_since(Instant::now()));
                drop(shared.keeper_wake.wait_timeout(keeper, rest));
            }
        }
    }

    /// Waits for work; `None` when the boot is over.
    #[expect(clippy::type_complexity, reason = "the two parts of KeeperState, taken at once")]
    fn next_work(&mut self) -> Option<(Vec<Sealing>, Option<(Arc<File>, i64)>)> {
        let shared = Arc::clone(&self.shared);
        let mut backoff = Duration::from_millis(20);
        let mut keeper = shared.lock_keeper();
        loop {
            if keeper.stop {
                return None;
            }
            if keeper.dirty.is_some() || !keeper.seals.is_empty() {
                let KeeperState { dirty, seals, .. } = &mut *keeper;
                return Some((seals.drain(..).collect(), dirty.take()));
            }
            let now = Instant::now();
            if now >= self.next_mark {
                return Some((Vec::new(), None));
            }
            let mut timeout = self.next_mark - now;
            if keeper.finish {
                drop(keeper);
                match self.finish() {
                    Ok(()) => return None,
                    Err(error) => tracing::debug!(%error, "the end of the boot can't be marked"),
                }
                timeout = timeout.min(backoff);
                backoff = (backoff * 2).min(BACKOFF_MAX);
                keeper = shared.lock_keeper();
            }
            let waited = shared.keeper_wake.wait_timeout(keeper, timeout);
            keeper = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Syncs the open segment, and the first time also its name.
    fn sync(&mut self, file: &Arc<File>) -> io::Result<()> {
        let shared = &self.shared;
        shared.disk.sync(file)?;
        if !self.named.as_ref().is_some_and(|named| Arc::ptr_eq(named, file)) {
            File::open(shared.layout.boot(&shared.boot))?.sync_all()?;
            self.named = Some(Arc::clone(file));
        }
        Ok(())
    }

    /// Rows that are not synced wait for the next try. Until it works they are lost in a power cut,
    /// not in a kill: the kernel keeps them for readers.
    fn sync_failed(&mut self, error: &io::Error, file: Arc<File>, last: i64) {
        let shared = &self.shared;
        Stats::add(&shared.stats.spool_errors, 1);
        if self.sync_again.is_none() {
            tracing::warn!(%error, "the spool can't be synced: a power cut would lose rows");
        }
        let wait = self.sync_again.map_or(BACKOFF_MIN, |wait| (wait * 2).min(BACKOFF_MAX));
        self.sync_again = Some(wait);
        // What the writer added meanwhile comes later in the same file, or the file is being sealed.
        shared.lock_keeper().dirty.get_or_insert((file, last));
    }

    /// Syncs and renames a segment. Tried until it works; `false` if the spool is abandoned.
    fn seal(&self, sealing: &Sealing) -> bool {
        let shared = &self.shared;
        let sealed = shared.layout.sealed_segment(&shared.boot, sealing.first, sealing.last);
        let mut backoff = BACKOFF_MIN;
        let mut warned = false;
        loop {
            let renamed = shared.disk.sync(&sealing.file).and_then(|()| {
                match shared.disk.rename(&sealing.path, &sealed) {
                    // Renamed by the try before, whose sync of the folder failed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && sealed.exists() => {
                        sync_parent(&sealed)
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.save_deleted(sealing, &sealed)
                    }
                    other => other,
                }
            });
            let Err(error) = renamed else { break };
            Stats::add(&shared.stats.spool_errors, 1);
            if !warned {
                tracing::warn!(path = %sealing.path.display(), %error, "a segment can't be sealed");
                warned = true;
            }
            let keeper = shared.lock_keeper();
            if keeper.stop {
                return false;
            }
            drop(shared.keeper_wake.wait_timeout(keeper, backoff));
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.synced(sealing.last.0);
        shared.add_sealed(Segment {
            boot: shared.boot.clone(),
            agent: shared.agent.get().cloned().unwrap_or_default(),
            first: sealing.first,
            last: sealing.last,
            path: sealed,
            bytes: sealing.bytes,
        });
        true
    }

    /// Somebody deleted the folder under us: the rows are still in the open file.
    fn save_deleted(&self, sealing: &Sealing, sealed: &std::path::Path) -> io::Result<()> {
        tracing::warn!(path = %sealing.path.display(), "the spool's folder was deleted");
        self.shared.disk.create_dir(&self.shared.layout.boot(&self.shared.boot))?;
        let staged = sealed.with_extension("tmp");
        let mut from = sealing.file.try_clone()?;
        from.rewind()?;
        let mut to = File::create(&staged)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()?;
        fs::rename(&staged, sealed)
    }

    fn synced(&self, last: i64) {
        self.shared.synced.send_if_modified(|synced| {
            let newer = last > *synced;
            *synced = last.max(*synced);
            newer
        });
        self.shared.settle_reports();
    }

    /// Once a second: the time mark, and what was left over.
    fn tick(&mut self) {
        let shared = &self.shared;
        shared.clock.catch_up();
        let at = shared.complete_until();
        // After `at`: the mark may know of more rows than it vouches for, never of fewer.
        let last = *shared.written.borrow();
        if let Some(files) = &*shared.lock_files() {
            let failed = files.mark.write_mark(&shared.disk, &Mark { at, last }).err();
            if let Some(error) = failed.as_ref().filter(|_| !self.mark_failed) {
                tracing::warn!(%error, "the spool's time mark can't be written");
            }
            self.mark_failed = failed.is_some();
        }
        {
            let mut state = shared.lock_state();
            state.lag_us -= state.lag_us / 16;
        }
        shared.settle_reports();
        shared.remove_doomed();
        self.tell_of_shedding();
    }

    /// The recorder itself must not write logs: a log may block.
    fn tell_of_shedding(&mut self) {
        let shed = Stats::get(&self.shared.stats.shed);
        let now_shedding = shed > self.seen_shed;
        if now_shedding != self.shedding {
            if now_shedding {
                tracing::warn!(rows = shed - self.seen_shed, "rows are refused, a gap will say so");
            } else {
                tracing::warn!(rows_since_start = shed, "rows are taken again");
            }
        }
        self.shedding = now_shedding;
        self.seen_shed = shed;
    }

    /// Marks the boot as ended in order, with the time up to which it saw everything.
    fn finish(&self) -> io::Result<()> {
        let shared = &self.shared;
        let at = shared.lock_state().closed_at;
        shared.disk.replace(&shared.layout.ended(&shared.boot), at.0.to_string().as_bytes())?;
        shared.settle_reports();
        shared.remove_doomed();
        shared.ended.send_replace(true);
        Ok(())
    }
}
