//! Sealed segments to Parquet objects in the store, and the status object. Input: segments from
//! [`SpoolHandle`], one after the other, the oldest boot first. Output: `inbox/` and `agents/`.
//!
//! A segment's range was fixed when it was sealed, and it goes only after its put succeeded. A
//! crash in between repeats the same name with the same rows, which is harmless. While older
//! segments wait (the store is away) the open one is left to grow: fewer, larger objects later.
//!
//! Whatever waits, the taps come first: one object is made and put at a time, in threads that give
//! way (`thread.rs`), and making it rests between batches of rows.

mod encode;
mod status;
mod store;
mod thread;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flowtap_record::path::{self, HISTORY, InboxName};
use flowtap_record::{AgentState, AgentStatus, ClockSample};
use rand::Rng as _;

pub use encode::{EncodeError, Encoded, Lost, encode_segment, segment_at};
pub use status::StatusBoard;
pub use store::{Store, StoreCheck, StoreError, check_store};
pub use thread::UploadThread;

use crate::spool::{FinishedBoot, Segment, SpoolHandle};
use crate::stats::Stats;

const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How often a segment that can't be encoded is tried before its rows are given up.
const ENCODE_TRIES: u32 = 3;
/// How long until an earlier boot's status that could not be put is tried again.
const FINISH_AGAIN: Duration = Duration::from_secs(30);
/// Segments are sized so that objects come out as wanted, within these bounds.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4 * 1024 * 1024..=64 * 1024 * 1024;

/// How uploads are to be.
#[derive(Clone, Debug)]
pub struct UploadOptions {
    /// Where to.
    pub store: Store,
    /// How long a row waits at most before its segment is sealed.
    pub age: Duration,
    /// About how large an object shall be, when rows come fast enough.
    pub object_bytes: u64,
    /// Time between two status objects.
    pub status_period: Duration,
    /// The service that the agent stands beside.
    pub service: String,
    /// Host or pod.
    pub instance: String,
}

impl UploadOptions {
    /// The defaults: on a folder an age of 2 s and a status every 5 s; else 10 s and 60 s, because
    /// puts cost money there.
    pub fn new(store: Store, service: impl Into<String>, instance: impl Into<String>) -> Self {
        let (age, status_period) = if store.is_folder() { (2, 5) } else { (10, 60) };
        Self {
            store,
            age: Duration::from_secs(age),
            object_bytes: 8 * 1024 * 1024,
            status_period: Duration::from_secs(status_period),
            service: service.into(),
            instance: instance.into(),
        }
    }
}

/// What [`Uploader::drain`] left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Rows that the disk did not take: they are gone with the process, those refused before
    /// included whose `gap` row is among them.
    pub lost: u64,
    /// Every row was written and the boot marked as ended; else the next boot reports a death.
    pub clean: bool,
    /// Segments that the next boot has to upload.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Carries the spool to the store.
#[derive(Debug)]
pub struct Uploader {
    options: UploadOptions,
    spool: SpoolHandle,
    board: StatusBoard,
    store_away: AtomicBool,
    /// Lost rows that are recorded already: a cut-off upload is done again.
    reported: Mutex<HashSet<(String, i64)>>,
    /// From the status object put last.
    clock: Mutex<Option<ClockSample>>,
    /// The agent ends: what is not encoded soon is left behind.
    ending: Arc<AtomicBool>,
}

/// How long an encoder rests after a batch of rows, as a multiple of what the batch took, and at
/// most. Giving way to other threads is not enough: where a container may take half a core, an
/// encoder that runs through uses up what the taps need, and then all of them stand still.
const REST: u32 = 3;
const REST_MAX: Duration = Duration::from_millis(10);

/// Runs work that takes a core for long in a thread of its own that gives way to those that
/// forward: the agent may have one core only, and a service's bytes go first.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("upload-encoder".to_owned()).spawn(move || {
        thread::give_way();
        // Nobody waits any more when the agent ends.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| std::io::Error::other("the encoder panicked"))
}

/// Why an upload was left for later.
enum Left {
    /// Lost rows can't be recorded any more: the next boot does it.
    Unreported,
}

impl Uploader {
    /// An uploader; nothing is done before [`Self::run`].
    pub fn new(options: UploadOptions, spool: SpoolHandle, board: StatusBoard) -> Self {
        Self {
            options,
            spool,
            board,
            store_away: AtomicBool::new(false),
            reported: Mutex::default(),
            clock: Mutex::default(),
            ending: Arc::default(),
        }
    }

    /// Uploads until `shutdown` is done. Then call [`Self::drain`].
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.upload_loop() => {}
            () = self.status_loop() => {}
        }
    }

    async fn upload_loop(&self) {
        let mut finish_at = Instant::now();
        loop {
            if let Some(segment) = self.spool.next_sealed() {
                // A segment that is left for later stays first; only a closed spool leaves one.
                if let Err(Left::Unreported) = self.upload(&segment).await {
                    return std::future::pending().await;
                }
                continue;
            }
            let mut wait = None;
            for boot in self.spool.finished_boots() {
                if Instant::now() >= finish_at && !self.finish(&boot).await {
                    finish_at = Instant::now() + FINISH_AGAIN;
                }
                wait = Some(finish_at.saturating_duration_since(Instant::now()));
            }
            let wait = wait.map_or(Duration::MAX, |wait| wait.max(BACKOFF_MIN));
            tokio::select! {
                () = self.spool.changed() => {}
                () = tokio::time::sleep(wait) => {}
                () = self.spool.seal_when_older_than(self.options.age) => {
                    // Asked for again if the disk holds the writer up.
                    let _ = tokio::time::timeout(Duration::from_millis(100), self.spool.changed()).await;
                }
            }
        }
    }

    /// Uploads one segment, however long the store is away.
    #[tracing::instrument(
        skip_all,
        fields(boot = segment.boot, first = segment.first.0, last = segment.last.0, bytes)
    )]
    async fn upload(&self, segment: &Segment) -> Result<(), Left> {
        let stats = self.spool.stats();
        let encoded = self.encode(segment).await;
        if !encoded.lost.is_empty() {
            self.report(segment, &encoded).await?;
        }
        let name = InboxName {
            table: HISTORY.to_owned(),
            agent: segment.agent.clone(),
            boot: segment.boot.clone(),
            first: segment.first,
            last: segment.last,
        };
        if segment.boot == self.spool.boot() {
            self.spool.promise(encoded.watermark);
        }
        let (path, bytes) = (name.path(), Bytes::from(encoded.bytes));
        tracing::Span::current().record("bytes", bytes.len());
        let mut backoff = BACKOFF_MIN;
        while let Err(error) = self.options.store.put(&path, bytes.clone()).await {
            self.failed(&error);
            tokio::time::sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.reached();
        Stats::add(&stats.uploads, 1);
        Stats::add(&stats.upload_bytes, bytes.len() as u64);
        Stats::add(&stats.upload_rows, encoded.rows);
        stats.last_upload_at.store(self.spool.now().0, Ordering::Relaxed);
        self.size_segments(segment.bytes, bytes.len() as u64);
        let (spool, segment) = (self.spool.clone(), segment.clone());
        let (last_at, watermark) = (encoded.last_at.unwrap_or_default(), encoded.watermark);
        // A panic there would leave the segment in the list: it is put again.
        let _ =
            tokio::task::spawn_blocking(move || spool.uploaded(&segment, last_at, watermark)).await;
        Ok(())
    }

    async fn encode(&self, segment: &Segment) -> Encoded {
        let mut tries = 0;
        loop {
            let (task, uploaded_at) = (segment.clone(), self.spool.now());
            let give_up = tries >= ENCODE_TRIES;
            let (spool, ending) = (self.spool.clone(), Arc::clone(&self.ending));
            let rest = move |took: Duration| {
                // Rows that find no place any more are worse than a tap that is a little slower.
                if !ending.load(Ordering::Relaxed) && !spool.is_half_full() {
                    std::thread::sleep((took * REST).min(REST_MAX));
                }
            };
            let encoded = in_background(move || {
                if give_up {
                    encode::encode_lost(&task, uploaded_at)
                } else {
                    encode::encode_at_ease(&task, uploaded_at, rest)
                }
            });
            match encoded.await {
                Ok(Ok(encoded)) => return encoded,
                Ok(Err(error)) => self.encode_failed(segment, &error),
                Err(gone) => self.encode_failed(segment, &gone),
            }
            tries += 1;
            tokio::time::sleep(jitter(BACKOFF_MIN * 4)).await;
        }
    }

    fn encode_failed(&self, segment: &Segment, error: &dyn std::error::Error) {
        Stats::add(&self.spool.stats().spool_errors, 1);
        tracing::warn!(path = %segment.path.display(), %error, "a segment can't be encoded");
    }

    /// Has lost rows recorded before the segment goes.
    async fn report(&self, segment: &Segment, encoded: &Encoded) -> Result<(), Left> {
        let reported = || self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        for lost in &encoded.lost {
            let key = (segment.boot.clone(), lost.first.0);
            if reported().contains(&key) {
                continue;
            }
            let (rows, span) = ((lost.first, lost.last), (lost.from, lost.to));
            if !self.spool.report_lost(&segment.boot, rows, span).await {
                return Err(Left::Unreported);
            }
            reported().insert(key);
        }
        Ok(())
    }

    /// The next segments get as large as makes objects of the wanted size.
    fn size_segments(&self, segment: u64, object: u64) {
        if segment >= *SEGMENT_BYTES.start() && object > 0 {
            let wanted = self.options.object_bytes.saturating_mul(segment) / object;
            self.spool
                .set_segment_bytes(wanted.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()));
        }
    }

    async fn status_loop(&self) {
        loop {
            let state = self.board.state();
            let period = self.options.status_period;
            let wait = match self.spool.agent() {
                // The name may become known at any time: then the first status goes soon.
                None => Duration::from_secs(1).min(period),
                Some(agent) => {
                    self.put_status(agent).await;
                    period
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.board.leaves(state) => {}
            }
        }
    }

    /// Puts this boot's status object; one try, the next one comes soon anyway.
    async fn put_status(&self, agent: &str) -> bool {
        let sample = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let status = status::status_now(&self.spool, &self.options, &self.board, agent, sample);
        let name = path::status(agent, self.spool.boot());
        let before = self.spool.now();
        if !self.put_json(&name, &status).await {
            return false;
        }
        let after = self.spool.now();
        Stats::add(&self.spool.stats().status_puts, 1);
        // The last status has no next one that could carry the sample: no request for it.
        if status.state != AgentState::Ended
            && let Ok(last_modified) = self.options.store.last_modified(&name).await
        {
            let sample = ClockSample { before, after, last_modified };
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(sample);
        }
        true
    }

    async fn put_json(&self, name: &str, status: &AgentStatus) -> bool {
        let json = match serde_json::to_vec_pretty(status) {
            Ok(json) => json,
            Err(error) => {
                tracing::error!(%error, "a status can't be written as JSON");
                return false;
            }
        };
        match self.options.store.put(name, json.into()).await {
            Ok(()) => {
                self.reached();
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// Puts the last status object of an earlier boot and forgets it.
    async fn finish(&self, boot: &FinishedBoot) -> bool {
        let name = path::status(&boot.agent, &boot.boot);
        let said = match self.options.store.get(&name).await {
            Ok(said) => said.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            // An agent that may only put knows enough from its spool.
            Err(StoreError::Forbidden(_)) => None,
            Err(error) => {
                self.failed(&error);
                return false;
            }
        };
        let status = status::status_of_finished(boot, said, &self.spool, &self.options);
        if !self.put_json(&name, &status).await {
            return false;
        }
        let (spool, boot) = (self.spool.clone(), boot.boot.clone());
        tokio::task::spawn_blocking(move || spool.forget(&boot)).await.is_ok()
    }

    fn failed(&self, error: &StoreError) {
        Stats::add(&self.spool.stats().upload_failures, 1);
        if self.store_away.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "the store still takes nothing");
        } else {
            tracing::warn!(%error, "the store takes nothing, rows wait in the spool");
        }
    }

    fn reached(&self) {
        if self.store_away.swap(false, Ordering::Relaxed) {
            tracing::warn!(store = self.options.store.url(), "the store takes again");
        }
    }

    /// Ends in order: takes no more rows, uploads what there is, and says so in the status object.
    /// What is not done within `deadline` is left for the next boot.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.ending.store(true, Ordering::Relaxed);
        // A little is kept for the last status object.
        let until = tokio::time::Instant::now() + deadline.mul_f32(0.9);
        let clean = self.spool.close(deadline.mul_f32(0.5)).await;
        let uploads = async {
            while let Some(segment) = self.spool.next_sealed() {
                if self.upload(&segment).await.is_err() {
                    return;
                }
            }
            for boot in self.spool.finished_boots() {
                self.finish(&boot).await;
            }
        };
        let _ = tokio::time::timeout_at(until, uploads).await;
        if clean {
            self.board.set_state(AgentState::Ended);
        }
        let mut told = false;
        if let Some(agent) = self.spool.agent() {
            let last = deadline.mul_f32(0.1).max(Duration::from_millis(500));
            told = tokio::time::timeout(last, self.put_status(agent)).await.unwrap_or(false);
        }
        let stats = self.spool.stats();
        let drained = Drained {
            lost: if clean { 0 } else { self.spool.unwritten() },
            clean,
            segments: Stats::get(&stats.segments),
            bytes: Stats::get(&stats.spool_bytes),
        };
        if told && clean {
            let spool = self.spool.clone();
            // A folder that stays is found to be finished by the next boot.
            let _ = tokio::task::spawn_blocking(move || spool.forget_this_boot()).await;
        }
        drained
    }
}

/// Full jitter: many agents that lost the same store do not come back as one.
fn jitter(backoff: Duration) -> Duration {
    backoff.mul_f64(rand::rng().random_range(0.0..=1.0))
}
