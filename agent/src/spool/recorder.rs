//! Where rows enter the spool. [`Recorder::record`] encodes a row at once, under a short lock,
//! into a bounded buffer; it never waits and touches no file. The writer thread (`writer.rs`)
//! takes the buffer from here. What does not fit is counted, and the next row that fits has one
//! `gap` row before it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use flowtap_record::{Gap, Kind, Micros, Observation, Seq};
use tokio::sync::watch;

use super::frame::push_row;
use super::shared::Shared;
use crate::stats::Stats;
use crate::tap::Sink;

/// Which limit made the spool refuse rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Rows came faster than they could be written.
    Memory,
    /// The spool holds as many bytes as it may.
    Disk,
    /// The disk does not take what is written.
    DiskError,
}

impl Limit {
    const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::DiskError];

    /// The word in `details` of the `gap` row.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::DiskError => "disk_error",
        }
    }
}

/// Rows that were refused since the last one that was taken.
#[derive(Clone, Debug)]
pub(crate) struct Shed {
    /// When the first was refused, by the agent's clock.
    since: Micros,
    from: Micros,
    to: Micros,
    count: [i64; Limit::ALL.len()],
}

impl Shed {
    pub(crate) fn rows(&self) -> u64 {
        self.count.iter().sum::<i64>().unsigned_abs()
    }

    fn details(&self) -> String {
        let limits = Limit::ALL.iter().zip(self.count).filter(|(_, count)| *count > 0);
        let limits: Vec<String> =
            limits.map(|(limit, count)| format!("\"{}\":{count}", limit.as_str())).collect();
        format!("{{\"limits\":{{{}}}}}", limits.join(","))
    }
}

/// Rows that wait for the writer, and how the threads of the spool talk to each other.
#[derive(Debug)]
pub(crate) struct State {
    /// Rows as `frame::push_row` lays them.
    pub(crate) buf: Vec<u8>,
    /// Number of the first row in `buf`.
    pub(crate) buf_first: i64,
    /// Number for the next row.
    pub(crate) next: i64,
    /// When the oldest row in `buf` was taken in.
    pub(crate) buf_since: Option<Micros>,
    /// Bytes that the writer has taken and not yet written.
    pub(crate) taken: usize,
    /// When the oldest of those rows was taken in.
    pub(crate) taken_since: Option<Micros>,
    pub(crate) shed: Option<Shed>,
    /// What holds the writer up, if anything does.
    pub(crate) trouble: Option<Limit>,
    /// How long the slowest recent row was on its way from the socket to here.
    pub(crate) lag_us: i64,
    /// For each tap that decodes later than it reads: `at` of the oldest bytes that wait for it, in
    /// microseconds since 1970, `i64::MAX` for none.
    pub(crate) undecoded: Vec<Arc<AtomicI64>>,
    /// The newest watermark told to anybody.
    pub(crate) promised: Micros,
    /// The writer waits for a row.
    pub(crate) writer_idle: bool,
    /// Somebody waits until his row is written.
    pub(crate) urgent: bool,
    /// The open segment shall be sealed.
    pub(crate) seal: bool,
    /// Space became free: a writer that waits to try again need not wait on.
    pub(crate) retry_now: bool,
    /// No more rows; write what there is, then end in order.
    pub(crate) closing: bool,
    /// When that began.
    pub(crate) closed_at: Micros,
    /// End now, as if killed.
    pub(crate) abandoned: bool,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            buf: Vec::new(),
            buf_first: 1,
            next: 1,
            buf_since: None,
            taken: 0,
            taken_since: None,
            shed: None,
            trouble: None,
            lag_us: 0,
            undecoded: Vec::new(),
            promised: Micros(0),
            writer_idle: false,
            urgent: false,
            seal: false,
            retry_now: false,
            closing: false,
            closed_at: Micros(0),
            abandoned: false,
        }
    }

    /// Takes a row of the spool itself, which is never refused.
    pub(crate) fn push_own(&mut self, row: &Observation<'_>, now: Micros) -> Option<Seq> {
        self.push(row, now, usize::MAX)
    }

    fn push(&mut self, row: &Observation<'_>, now: Micros, limit: usize) -> Option<Seq> {
        if !push_row(&mut self.buf, row, limit) {
            return None;
        }
        self.buf_since.get_or_insert(now);
        let seq = Seq(self.next);
        self.next += 1;
        Some(seq)
    }

    /// Up to when nothing that was seen can be missing from what is written; see
    /// [`Recorder::record`] on `margin`.
    pub(crate) fn complete_until(&self, now: Micros, margin: i64) -> Micros {
        let pending = [self.buf_since, self.taken_since, self.shed.as_ref().map(|shed| shed.since)];
        let until = pending.into_iter().flatten().min().unwrap_or(now).min(now);
        let undecoded = self.undecoded.iter().map(|since| since.load(Ordering::Acquire)).min();
        let until = until.min(Micros(undecoded.unwrap_or(i64::MAX)));
        until.plus(-margin - self.lag_us)
    }

    /// Puts the `gap` row that is owed for refused rows. `true` if none is owed any more.
    pub(crate) fn settle_shed(&mut self, service: &str, now: Micros, limit: usize) -> bool {
        let Some(shed) = self.shed.take() else { return true };
        let details = shed.details();
        // Another thread may have been refused since `now` was taken: a gap is said after its end.
        let mut row = Observation::new(Kind::Gap, now.max(shed.to));
        row.reason = Some("shed");
        row.details = Some(&details);
        row.who.service = Some(service);
        let count = shed.count.iter().sum();
        row.gap = Gap { from: Some(shed.from), to: Some(shed.to), count: Some(count) };
        if self.push(&row, shed.since, limit).is_some() {
            // The gap stands for rows since `shed.since`: until it is written, nothing after that
            // time is complete.
            self.buf_since = self.buf_since.min(Some(shed.since));
            return true;
        }
        self.shed = Some(shed);
        false
    }

    fn refuse(&mut self, row: &Observation<'_>, now: Micros) {
        let limit = self.trouble.unwrap_or(Limit::Memory);
        let shed = self.shed.get_or_insert(Shed {
            since: now,
            from: row.at,
            to: row.at,
            count: [0; Limit::ALL.len()],
        });
        shed.from = shed.from.min(row.at);
        shed.to = shed.to.max(row.at);
        shed.count[limit as usize] += 1;
    }
}

/// The entrance of the spool: cheap to clone, one for each tap and connection.
#[derive(Clone)]
pub struct Recorder {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("boot", &self.shared.boot).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Takes a row and gives it its number; `None` when it had to be refused. Then it is counted,
    /// and the next row that is taken has a `gap` row before it. Never waits.
    ///
    /// A row's `at` may be a little older than this call: the tap reads bytes, decodes, and then
    /// records. Watermarks stay behind by a fixed margin ([`super::SpoolOptions::margin`]) and by the
    /// longest such delay seen lately, which decays over about a minute. A row that comes later still is taken all the same and counted in
    /// [`Stats::late`].
    pub fn record(&self, row: &Observation<'_>) -> Option<Seq> {
        let shared = &*self.shared;
        let now = shared.clock.now();
        let mut state = shared.lock_state();
        if state.closing || state.abandoned {
            Stats::add(&shared.stats.shed, 1);
            return None;
        }
        state.lag_us = state.lag_us.max(now.since(row.at).min(MAX_LAG_US));
        if row.at <= state.promised {
            Stats::add(&shared.stats.late, 1);
        }
        let limit = shared.memory_bytes.saturating_sub(state.taken);
        let before = (state.buf.len(), state.next, state.buf_since);
        let owed = state.shed.clone();
        let taken = if state.settle_shed(&shared.service, now, limit) {
            state.push(row, now, limit)
        } else {
            None
        };
        let Some(seq) = taken else {
            // A gap row without the row behind it would be followed by the next one at once.
            state.buf.truncate(before.0);
            (state.next, state.buf_since) = (before.1, before.2);
            state.shed = owed;
            state.refuse(row, now);
            Stats::add(&shared.stats.shed, 1);
            return None;
        };
        Stats::add(&shared.stats.rows, (state.next - before.1) as u64);
        let wake = std::mem::take(&mut state.writer_idle);
        drop(state);
        if wake {
            shared.wake.notify_one();
        }
        Some(seq)
    }

    /// Watermarks stay before the time that stands there from now on: microseconds since 1970 of
    /// the oldest bytes that a tap has read and not decoded, `i64::MAX` for none.
    pub fn stay_before(&self, undecoded: Arc<AtomicI64>) {
        self.shared.lock_state().undecoded.push(undecoded);
    }

    /// Whether a row is written to the spool: then it survives a kill of the agent. If not, the
    /// writer is told to hurry.
    pub fn is_written(&self, seq: Seq) -> bool {
        let written = self.shared.written_seq.load(Ordering::Acquire) >= seq.0;
        if !written {
            let mut state = self.shared.lock_state();
            if !std::mem::replace(&mut state.urgent, true) {
                drop(state);
                self.shared.wake.notify_one();
            }
        }
        written
    }

    /// Waits until a row is written to the spool, for ever if the disk never takes it: the caller
    /// decides how long he can wait.
    pub async fn written(&self, seq: Seq) {
        if !self.is_written(seq) {
            wait_for(&self.shared.written, seq).await;
        }
    }

    /// Waits until a row is synced: then it survives a power cut.
    pub async fn synced(&self, seq: Seq) {
        if *self.shared.synced.borrow() < seq.0 {
            wait_for(&self.shared.synced, seq).await;
        }
    }

    /// This process start: a UUID of version 7.
    pub fn boot(&self) -> &str {
        &self.shared.boot
    }

    /// The agent's name; `None` until the spool's folder could be opened.
    pub fn agent(&self) -> Option<&str> {
        self.shared.agent.get().map(String::as_str)
    }

    /// Number of the last row taken, 0 before the first.
    pub fn last_seq(&self) -> i64 {
        self.shared.lock_state().next - 1
    }

    /// Number of the last row written to disk, 0 before the first.
    pub fn written_seq(&self) -> i64 {
        self.shared.written_seq.load(Ordering::Acquire)
    }

    /// The counters of spool and upload.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }
}

/// A row whose bytes were read longer ago than this does not hold watermarks back for its like.
const MAX_LAG_US: i64 = 60_000_000;

async fn wait_for(published: &watch::Sender<i64>, seq: Seq) {
    // The sender lives in what the caller holds, so this ends only with the row.
    let _ = published.subscribe().wait_for(|last| *last >= seq.0).await;
}

impl Sink for Recorder {
    fn record(&mut self, row: &Observation<'_>) -> Option<Seq> {
        Self::record(self, row)
    }

    fn is_written(&self, seq: Seq) -> bool {
        Self::is_written(self, seq)
    }
}

impl crate::tap::Recorder for Recorder {
    fn written(&self, seq: Seq) -> impl Future<Output = ()> + Send {
        Self::written(self, seq)
    }

    fn now(&self) -> Micros {
        self.shared.clock.now()
    }

    fn stay_before(&self, undecoded: Arc<AtomicI64>) {
        Self::stay_before(self, undecoded);
    }
}
