//! The exit of the spool: sealed segments for the uploader, in the order in which they go, and
//! what it says back when they are uploaded.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flowtap_record::{Gap, Kind, Micros, Observation, Seq};

use super::folder::remove_boot;
use super::mark::{MarkFile, Uploaded};
use super::recorder::{Limit, Recorder, Shed};
use super::shared::{Segment, Shared};
use crate::stats::Stats;

/// `reason` of the row that names rows lost in a corrupt segment.
pub const SPOOL_CORRUPT: &str = "spool_corrupt";

/// The spool as its uploader and its owner see it. Clones are the same spool.
#[derive(Clone)]
pub struct SpoolHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SpoolHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpoolHandle").field("boot", &self.shared.boot).finish_non_exhaustive()
    }
}

/// An earlier boot of which nothing is left to upload: what its last status object shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedBoot {
    /// The boot.
    pub boot: String,
    /// Its agent name.
    pub agent: String,
    /// Its service.
    pub service: String,
    /// When it started.
    pub started_at: Micros,
    /// Whether it died; else it ended in order.
    pub died: bool,
    /// Its last row, all of them uploaded.
    pub last: i64,
    /// Until when it saw everything.
    pub watermark: Micros,
}

impl SpoolHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The disk holds the writer up: what is refused from now on is refused for that.
    pub(crate) fn hold_up(&self) {
        if self.agent().is_none() {
            self.shared.lock_state().trouble = Some(Limit::DiskError);
        }
    }

    /// Another entrance.
    pub fn recorder(&self) -> Recorder {
        Recorder { shared: Arc::clone(&self.shared) }
    }

    /// This process start.
    pub fn boot(&self) -> &str {
        &self.shared.boot
    }

    /// The agent's name; `None` until the spool's folder could be opened.
    pub fn agent(&self) -> Option<&str> {
        self.shared.agent.get().map(String::as_str)
    }

    /// When this boot began.
    pub fn started_at(&self) -> Micros {
        self.shared.started_at
    }

    /// The time now, by the agent's clock.
    pub fn now(&self) -> Micros {
        self.shared.clock.now()
    }

    /// The counters of spool and upload.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    /// The sealed segment that goes next: the oldest boot first, each boot's in order.
    pub fn next_sealed(&self) -> Option<Segment> {
        self.shared.lock_registry().sealed.first_key_value().map(|(_, segment)| segment.clone())
    }

    /// Waits until something changed: a segment was sealed, or an earlier boot became known. A
    /// change that came before this call counts.
    pub async fn changed(&self) {
        self.shared.registry_changed.notified().await;
    }

    /// Waits until the open segment has had a row for `age`, then has it sealed. Waits for ever
    /// while no row comes.
    pub async fn seal_when_older_than(&self, age: Duration) {
        let mut open_since = self.shared.open_since.subscribe();
        let begun = loop {
            let since = *open_since.borrow_and_update();
            match since {
                Some(since) => break since,
                // The sender lives in `self`.
                None => drop(open_since.changed().await),
            }
        };
        tokio::time::sleep(age.saturating_sub(begun.elapsed())).await;
        // It may have been sealed by size meanwhile; then the next one has its own time.
        if *open_since.borrow() == Some(begun) {
            self.seal();
        }
    }

    /// Has the open segment sealed as soon as the writer comes to it; [`Self::changed`] tells when.
    pub fn seal(&self) {
        self.shared.lock_state().seal = true;
        self.shared.wake.notify_one();
    }

    /// From how many bytes on a segment is sealed by itself.
    pub fn set_segment_bytes(&self, bytes: u64) {
        let most = (self.shared.max_bytes / 4).max(1);
        self.shared.segment_bytes.store(bytes.min(most), Ordering::Relaxed);
    }

    /// Whether half of what the spool may hold on disk is taken.
    pub fn is_half_full(&self) -> bool {
        let on_disk = Stats::get(&self.shared.stats.spool_bytes);
        on_disk > self.shared.max_bytes / 2
    }

    /// Says durably that a segment is uploaded, then removes it. It is not given out again by this
    /// boot even if its file can't be removed now.
    pub fn uploaded(&self, segment: &Segment, last_at: Micros, watermark: Micros) {
        let shared = &self.shared;
        let before = {
            let registry = shared.lock_registry();
            let earlier = registry.earlier.get(&segment.boot);
            earlier.map_or(registry.uploaded, |earlier| earlier.uploaded)
        };
        // A segment of which nothing could be read says nothing of either time.
        let uploaded = Uploaded {
            last: segment.last.0,
            last_at: last_at.max(before.last_at),
            watermark: watermark.max(before.watermark),
        };
        // Without this note a later boot would know less of this one once its segments are gone.
        let noted = if segment.boot == shared.boot {
            let files = shared.lock_files();
            files.as_ref().map(|files| files.mark.write_uploaded(&shared.disk, &uploaded))
        } else {
            let mark = MarkFile::open(&shared.layout.mark(&segment.boot));
            Some(mark.and_then(|mark| mark.write_uploaded(&shared.disk, &uploaded)))
        };
        if let Some(Err(error)) = noted {
            tracing::debug!(%error, boot = segment.boot, "the spool's mark can't be written");
        }
        let mut registry = shared.lock_registry();
        registry.sealed.remove(&(segment.boot.clone(), segment.first.0));
        registry.doomed.push(segment.clone());
        if segment.boot == shared.boot {
            registry.uploaded = uploaded;
        } else if let Some(earlier) = registry.earlier.get_mut(&segment.boot) {
            earlier.uploaded = uploaded;
        }
        drop(registry);
        shared.remove_doomed();
    }

    /// Records that rows of a boot can't be read back, and waits until that is synced, so that the
    /// segment may go. `reason` is [`SPOOL_CORRUPT`]; the bounds are `at` of the rows before and
    /// behind, as far as they are known: else all that the boot can have seen there. `false` if the
    /// spool is closed and takes no row any more.
    pub async fn report_lost(
        &self,
        boot: &str,
        (first, last): (Seq, Seq),
        (from, to): (Option<Micros>, Option<Micros>),
    ) -> bool {
        let recorder = self.recorder();
        let count = last.0 - first.0 + 1;
        let details = serde_json::json!({ "boot": boot, "first_seq": first.0, "last_seq": last.0 });
        let details = details.to_string();
        let now = self.now();
        let seq = {
            let mut row = Observation::new(Kind::Gap, now);
            row.reason = Some(SPOOL_CORRUPT);
            row.details = Some(&details);
            row.who.service = Some(&self.shared.service);
            let from = from.unwrap_or_else(|| self.seen_before_segment(boot));
            // Whatever an earlier boot saw it saw before this one began.
            let newest = if boot == self.shared.boot { now } else { self.shared.started_at };
            let to = to.unwrap_or(newest).max(from);
            row.gap = Gap { from: Some(from), to: Some(to), count: Some(count) };
            let mut state = self.shared.lock_state();
            if state.closing || state.abandoned { None } else { state.push_own(&row, now) }
        };
        let Some(seq) = seq else { return false };
        tracing::warn!(boot, first = first.0, last = last.0, "rows in the spool can't be read");
        Stats::add(&self.shared.stats.lost, count as u64);
        Stats::add(&self.shared.stats.rows, 1);
        // Also wakes the writer.
        recorder.written(seq).await;
        recorder.synced(seq).await;
        true
    }

    /// `at` of the last row of a boot before its oldest segment: it is uploaded. Before the first,
    /// the boot's start.
    fn seen_before_segment(&self, boot: &str) -> Micros {
        let registry = self.shared.lock_registry();
        let (uploaded, started_at) = match registry.earlier.get(boot) {
            Some(earlier) => (earlier.uploaded, earlier.about.started_at),
            None => (registry.uploaded, self.shared.started_at),
        };
        uploaded.last_at.max(started_at)
    }

    /// How many rows are known to the process alone: taken and not written, or refused and not yet
    /// told of by a `gap` row.
    pub fn unwritten(&self) -> u64 {
        let written = self.shared.written_seq.load(Ordering::Acquire);
        let state = self.shared.lock_state();
        let waiting = u64::try_from(state.next - 1 - written).unwrap_or(0);
        waiting + state.shed.as_ref().map_or(0, Shed::rows)
    }

    /// Last row of this boot that is uploaded, 0 before the first.
    pub fn uploaded_seq(&self) -> i64 {
        self.shared.lock_registry().uploaded.last
    }

    /// Up to when everything that this boot saw is uploaded. Never goes back.
    pub fn watermark(&self) -> Micros {
        let shared = &self.shared;
        let uploaded = shared.lock_registry().uploaded;
        let now = shared.clock.now();
        let mut state = shared.lock_state();
        // Nothing waits anywhere: all that was seen is uploaded, up to what taps may still hold in
        // their hands. While a refused row has no gap row yet, `complete_until` stays before it.
        let until = if state.next - 1 != uploaded.last {
            uploaded.watermark
        } else if *shared.ended.borrow() {
            state.closed_at
        } else {
            state.complete_until(now, shared.margin_us)
        };
        state.promised = state.promised.max(until).max(shared.started_at);
        state.promised
    }

    /// The watermark that an object is about to carry: rows that come later with an older `at` are
    /// counted.
    pub fn promise(&self, watermark: Micros) {
        let mut state = self.shared.lock_state();
        state.promised = state.promised.max(watermark);
    }

    /// Earlier boots that need nothing more but their last status object.
    pub fn finished_boots(&self) -> Vec<FinishedBoot> {
        let registry = self.shared.lock_registry();
        let done = registry.earlier.iter().filter(|(boot, earlier)| {
            let waits = registry.sealed.keys().any(|(of, _)| of == *boot)
                || registry.doomed.iter().any(|segment| segment.boot == **boot);
            !waits && !earlier.owes_gap()
        });
        done.map(|(boot, earlier)| FinishedBoot {
            boot: boot.clone(),
            agent: earlier.about.agent.clone(),
            service: earlier.about.service.clone(),
            started_at: earlier.about.started_at,
            died: earlier.ended.is_none(),
            last: earlier.last,
            watermark: earlier.ended.unwrap_or(earlier.blind_from).max(earlier.uploaded.watermark),
        })
        .collect()
    }

    /// Forgets an earlier boot whose last status object is put.
    pub fn forget(&self, boot: &str) {
        self.shared.lock_registry().earlier.remove(boot);
        if let Err(error) = remove_boot(&self.shared.layout, boot) {
            tracing::debug!(boot, %error, "an earlier boot's folder can't be removed");
        }
    }

    /// Takes no more rows, writes and seals what there is, and marks the boot as ended. The taps
    /// should be closed before: what they record from now on is lost. `false` if the disk did not
    /// take everything in time; then the next boot reports this one as died.
    pub async fn close(&self, within: Duration) -> bool {
        let now = self.shared.clock.now();
        {
            let mut state = self.shared.lock_state();
            if !state.closing {
                state.closing = true;
                state.closed_at = now;
            }
        }
        self.shared.wake.notify_one();
        let mut ended = self.shared.ended.subscribe();
        tokio::time::timeout(within, ended.wait_for(|ended| *ended)).await.is_ok()
    }

    /// Whether the boot is written to its end and marked so.
    pub fn has_ended(&self) -> bool {
        *self.shared.ended.borrow()
    }

    /// After [`Self::close`]: removes this boot's folder if nothing in it is left to upload.
    /// Returns whether it did.
    pub fn forget_this_boot(&self) -> bool {
        let left = {
            let registry = self.shared.lock_registry();
            let boot = &self.shared.boot;
            registry.sealed.keys().any(|(of, _)| of == boot)
                || registry.doomed.iter().any(|segment| segment.boot == *boot)
                || !registry.reports.is_empty()
        };
        !left && self.has_ended() && remove_boot(&self.shared.layout, &self.shared.boot).is_ok()
    }

    /// Stops both threads at once and gives the lock back, as a kill would: rows in memory are
    /// lost. For tests, and for an owner that has closed the spool.
    pub fn abandon(&self) {
        self.shared.lock_state().abandoned = true;
        self.shared.wake.notify_all();
        self.shared.lock_keeper().stop = true;
        self.shared.keeper_wake.notify_all();
        let threads = std::mem::take(
            &mut *self.shared.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        for thread in threads {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
        *self.shared.lock_files() = None;
    }
}
