//! The writer thread: takes rows out of the recorder's buffer, puts them as frames at the end of
//! the open segment, and says how far it has come. It alone writes segments; syncing and sealing
//! is left to the keeper (`keeper.rs`), so that a slow sync does not hold up the next write.
//!
//! An idle writer sleeps until a row comes. Then it waits 2 ms for more of them, unless somebody
//! waits for his row to be written: rows that nobody waits for come in groups, at little cost.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SendError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem};

use flowtap_record::{Micros, Seq};

use super::frame::{MAGIC, cut_frame, push_frame, push_trailer};
use super::prepare::prepare;
use super::recorder::{Limit, State};
use super::shared::{Sealing, Shared};
use super::{EarlierBoot, SpoolError};
use crate::stats::Stats;

/// How long rows that nobody waits for may gather.
const GATHER: Duration = Duration::from_millis(2);
/// Rows of this many bytes are not gathered any longer.
const GATHERED: usize = 64 * 1024;
/// Bytes of frames that are written at once.
const PIECE: usize = 256 * 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A buffer that grew over this in a burst is given back.
const KEEP_CAPACITY: usize = 1024 * 1024;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    open: Option<OpenSegment>,
    batch: Batch,
    frames: Vec<u8>,
    backoff: Duration,
    /// Not before then is the disk tried again.
    retry_at: Option<Instant>,
}

struct OpenSegment {
    file: Arc<File>,
    path: PathBuf,
    first: i64,
    /// Number for the next row.
    next: i64,
    /// End of the last whole frame.
    len: u64,
}

/// Rows taken from the recorder.
#[derive(Default)]
struct Batch {
    rows: Vec<u8>,
    /// What of them is written.
    done: usize,
    /// Number of the first row that is not.
    first: i64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.done == self.rows.len()
    }
}

/// Takes how the first try to open the folder ended.
type FirstTry = Sender<Result<Vec<EarlierBoot>, SpoolError>>;

/// What the writer does next.
enum Turn {
    Work { seal: bool, closing: bool },
    Abandoned,
}

/// Why a piece of work could not be done.
enum Stuck {
    /// The spool holds as many bytes as it may.
    Full,
    Io(io::Error),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            open: None,
            batch: Batch::default(),
            frames: Vec::new(),
            backoff: BACKOFF_MIN,
            retry_at: None,
        }
    }

    /// Opens the folder, says whether that went well, and writes until the end.
    pub(crate) fn run(mut self, opened: &FirstTry) {
        self.open_folder(opened);
        loop {
            let (seal, closing) = match self.next_turn() {
                Turn::Work { seal, closing } => (seal, closing),
                Turn::Abandoned => return,
            };
            let done = self.work(seal);
            self.settle(&done);
            if closing && done.is_ok() {
                // Rows refused before the end may still be owed their gap row.
                let now = self.shared.clock.now();
                let mut state = self.shared.lock_state();
                state.settle_shed(&self.shared.service, now, usize::MAX);
                if !state.buf.is_empty() {
                    continue;
                }
                drop(state);
                self.hand_over();
                self.shared.lock_keeper().finish = true;
                self.shared.keeper_wake.notify_one();
                return;
            }
        }
    }

    fn open_folder(&mut self, opened: &FirstTry) {
        let tried = prepare(&self.shared);
        if tried.is_err() {
            // Tried before anything came.
            self.retry_at = Some(Instant::now() + self.backoff);
            self.shared.lock_state().trouble = Some(Limit::DiskError);
        }
        // The disk took too long: nobody listens any more.
        match opened.send(tried) {
            Ok(()) => {}
            Err(SendError(Ok(earlier))) => {
                self.shared.lock_state().trouble = None;
                tracing::warn!(earlier_boots = earlier.len(), "the spool's disk answers at last");
            }
            Err(SendError(Err(error))) => tracing::warn!(%error, "the spool can't be used yet"),
        }
    }

    /// Waits until there is something to do, and takes the rows that wait.
    fn next_turn(&mut self) -> Turn {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock_state();
        let mut gathered = false;
        loop {
            if state.abandoned {
                return Turn::Abandoned;
            }
            let now = Instant::now();
            let waits = self.retry_at.map(|at| at.saturating_duration_since(now));
            let held_up = waits.is_some_and(|wait| !wait.is_zero()) && !state.retry_now;
            let has_rows = !state.buf.is_empty() || !self.batch.is_empty();
            let wants = has_rows || state.seal || state.closing || waits.is_some();
            if wants && !held_up {
                let hurry = state.urgent
                    || state.seal
                    || state.closing
                    || gathered
                    || state.buf.len() >= GATHERED
                    || waits.is_some();
                if hurry {
                    break;
                }
                gathered = true;
                state = wait(&shared, state, Some(GATHER));
            } else {
                state.writer_idle = !held_up;
                state = wait(&shared, state, waits.filter(|_| held_up));
                state.writer_idle = false;
            }
        }
        state.urgent = false;
        state.retry_now = false;
        if self.batch.is_empty() {
            self.take(&mut state);
        }
        Turn::Work { seal: mem::take(&mut state.seal), closing: state.closing }
    }

    fn take(&mut self, state: &mut State) {
        self.batch.rows.clear();
        if self.batch.rows.capacity() > KEEP_CAPACITY {
            self.batch.rows = Vec::new();
        }
        mem::swap(&mut self.batch.rows, &mut state.buf);
        self.batch.done = 0;
        self.batch.first = mem::replace(&mut state.buf_first, state.next);
        state.taken = self.batch.rows.len();
        state.taken_since = state.buf_since.take();
    }

    fn work(&mut self, seal: bool) -> Result<(), Stuck> {
        if self.shared.agent.get().is_none() {
            match prepare(&self.shared) {
                Ok(_) => {}
                Err(SpoolError::Folder { source, .. }) => return Err(Stuck::Io(source)),
                Err(error) => return Err(Stuck::Io(io::Error::other(error))),
            }
        }
        let written = self.write_batch();
        // Also with the disk full: only what is sealed can be uploaded and make room.
        let full = self
            .open
            .as_ref()
            .is_some_and(|open| open.len >= self.shared.segment_bytes.load(Ordering::Relaxed));
        if seal || full {
            self.hand_over();
        }
        written
    }

    fn write_batch(&mut self) -> Result<(), Stuck> {
        while !self.batch.is_empty() {
            let (mut next, mut end) = (self.batch.first, self.batch.done);
            self.frames.clear();
            while end < self.batch.rows.len() && self.frames.len() < PIECE {
                let (count, len) = cut_frame(&self.batch.rows[end..]);
                push_frame(&mut self.frames, next, count, &self.batch.rows[end..end + len]);
                next += i64::from(count);
                end += len;
            }
            self.append(next)?;
            self.batch.done = end;
            self.batch.first = next;
            self.publish(next - 1);
        }
        if self.frames.capacity() > 2 * PIECE {
            self.frames = Vec::new();
        }
        Ok(())
    }

    /// Puts `self.frames` at the end of the open segment, whole or not at all.
    fn append(&mut self, next: i64) -> Result<(), Stuck> {
        let shared = &self.shared;
        let on_disk = shared.stats.spool_bytes.load(Ordering::Relaxed);
        if on_disk > 0 && on_disk + self.frames.len() as u64 > shared.max_bytes {
            return Err(Stuck::Full);
        }
        if self.open.is_none() {
            self.open = Some(self.begin_segment().map_err(Stuck::Io)?);
        }
        let open = self.open.as_mut().expect("just opened");
        let had_rows = open.next > open.first;
        if let Err(error) = shared.disk.append(&open.file, &self.frames) {
            // Cut what was written of it. If even that fails, the segment ends here: readers stop
            // at its last row, and the next try begins another one.
            if shared.disk.truncate(&open.file, open.len).is_err() {
                self.abandon_segment();
            }
            return Err(Stuck::Io(error));
        }
        open.len += self.frames.len() as u64;
        open.next = next;
        Stats::add(&shared.stats.spool_bytes, self.frames.len() as u64);
        Stats::add(&shared.stats.written_bytes, self.frames.len() as u64);
        let file = Arc::clone(&open.file);
        if !had_rows {
            shared.open_since.send_replace(Some(Instant::now()));
        }
        let mut keeper = shared.lock_keeper();
        let wake = keeper.dirty.replace((file, next - 1)).is_none();
        drop(keeper);
        if wake {
            shared.keeper_wake.notify_one();
        }
        Ok(())
    }

    fn begin_segment(&self) -> io::Result<OpenSegment> {
        let shared = &self.shared;
        let first = self.batch.first;
        let path = shared.layout.open_segment(&shared.boot, Seq(first));
        let file = shared.disk.create_segment(&path)?;
        shared.disk.append(&file, &MAGIC)?;
        let len = MAGIC.len() as u64;
        Stats::add(&shared.stats.spool_bytes, len);
        Stats::add(&shared.stats.segments, 1);
        Ok(OpenSegment { file: Arc::new(file), path, first, next: first, len })
    }

    /// Says that rows up to `last` are written.
    fn publish(&mut self, last: i64) {
        self.shared.written_seq.store(last, Ordering::Release);
        self.shared.written.send_replace(last);
        // Only now may a time mark count these rows as done.
        let mut state = self.shared.lock_state();
        state.taken = self.batch.rows.len() - self.batch.done;
        if self.batch.is_empty() {
            state.taken_since = None;
        }
    }

    /// Gives the open segment to the keeper, to be synced and sealed.
    fn hand_over(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.next == open.first {
            return;
        }
        // Everything seen up to then is in this segment or one before it.
        let watermark: Micros = self.shared.complete_until();
        let mut trailer = Vec::new();
        push_trailer(&mut trailer, open.next, watermark);
        // Without its trailer a segment is as good; its watermark is only older.
        if self.shared.disk.append(&open.file, &trailer).is_ok() {
            open.len += trailer.len() as u64;
            Stats::add(&self.shared.stats.spool_bytes, trailer.len() as u64);
        } else {
            let _ = self.shared.disk.truncate(&open.file, open.len);
        }
        self.abandon_segment();
    }

    /// The open segment gets no more rows.
    fn abandon_segment(&mut self) {
        let Some(open) = self.open.take() else { return };
        if open.next == open.first {
            let _ = self.shared.disk.remove(&open.path);
            Stats::sub(&self.shared.stats.spool_bytes, open.len);
            Stats::sub(&self.shared.stats.segments, 1);
            return;
        }
        self.shared.open_since.send_replace(None);
        self.shared.lock_keeper().seals.push_back(Sealing {
            file: open.file,
            path: open.path,
            first: Seq(open.first),
            last: Seq(open.next - 1),
            bytes: open.len,
        });
        self.shared.keeper_wake.notify_one();
    }

    /// Backs off after a failure, and says so once; says once when it is cured.
    fn settle(&mut self, done: &Result<(), Stuck>) {
        let limit = match done {
            Ok(()) => None,
            Err(Stuck::Full) => Some(Limit::Disk),
            Err(Stuck::Io(_)) => Some(Limit::DiskError),
        };
        let before = mem::replace(&mut self.shared.lock_state().trouble, limit);
        match (done, before) {
            (Ok(()), None) | (Err(Stuck::Full), Some(Limit::Disk)) => {}
            (Ok(()), Some(_)) => tracing::warn!("the spool is written again"),
            (Err(Stuck::Full), _) => tracing::warn!(
                max_bytes = self.shared.max_bytes,
                "the spool is full, rows wait in memory and are then refused"
            ),
            (Err(Stuck::Io(error)), before) => {
                Stats::add(&self.shared.stats.spool_errors, 1);
                if before != Some(Limit::DiskError) {
                    tracing::warn!(
                        path = %self.shared.layout.root().display(), %error,
                        "the spool can't be written, rows wait in memory and are then refused"
                    );
                }
            }
        }
        if done.is_ok() {
            self.backoff = BACKOFF_MIN;
            self.retry_at = None;
        } else {
            self.retry_at = Some(Instant::now() + self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
    }
}

fn wait<'a>(
    shared: &'a Shared,
    state: std::sync::MutexGuard<'a, State>,
    timeout: Option<Duration>,
) -> std::sync::MutexGuard<'a, State> {
    match timeout {
        None => shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
        Some(timeout) => {
            let waited = shared.wake.wait_timeout(state, timeout);
            waited.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}
